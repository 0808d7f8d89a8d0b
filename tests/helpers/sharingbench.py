"""Builds of the demo project on several machines, each a cache of its own, that share a remote."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fatwheel.engines import process
from fatwheel.events import Event, JobFinished, Note, WheelMade
from fatwheel.pipeline import resolve
from fatwheel.pipeline.build import build
from fatwheel.pipeline.plan import BuildRequest, plan_build
from fatwheel.sharing.parcel import Trust
from fatwheel.sharing.remote import FolderPlace, Remote, RemoteError

from .demoproject import Demo
from .standins import calls


class Bench(Demo):
    """remote: what builds share; None for nothing."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.events: list[Event] = []
        self.remote: Remote | None = None
        self.trust = Trust()
        self._monkeypatch = monkeypatch
        for name in ("load_recipe", "load_toolchain"):
            monkeypatch.setattr(resolve, name, getattr(self, name))
        monkeypatch.setattr(process, "ready_tools", self.ready_tools)

    def on(self, machine: str) -> None:
        """What follows happens on this machine."""
        self._monkeypatch.setenv("FATWHEEL_CACHE", str(self.folder / machine))

    def build(self, machine: str, archs: str = "80,86", **changes: Any) -> WheelMade:
        self.on(machine)
        self.events.clear()
        request = self.request(machine, archs, **changes)
        [made] = build(plan_build(request), self.events.append)
        return made

    def request(self, machine: str, archs: str = "80,86", **changes: Any) -> BuildRequest:
        wanted: dict[str, Any] = {
            "kernel": "demo", "archs": archs, "pythons": "3.11", "torch": None,
            "toolchain": "tools", "engine": "process", "shards": None, "jobs": 2,
            "memory": 1 << 30, "front": "exact", "out": self.folder / f"dist-{machine}",
            "remote": self.remote,
        }  # fmt: skip
        return BuildRequest(**{**wanted, **changes})

    @property
    def compiled(self) -> list[str]:
        """The jobs of the last build."""
        return sorted(one.job.label for one in self.events if isinstance(one, JobFinished))

    @property
    def notes(self) -> list[str]:
        return [one.text for one in self.events if isinstance(one, Note)]

    def nvcc_calls(self) -> int:
        return len(calls(self.home))

    def shared(self, place: Any = None, *, writes: bool = True) -> Remote:
        """A new object for a remote, as each build has one."""
        place = place or FolderPlace(self.folder / "remote")
        self.remote = Remote(place, "the remote", writes=writes, trust=self.trust)
        return self.remote

    def parcels(self, kind: str = "*") -> list[Path]:
        """The files of the remote folder."""
        return sorted((self.folder / "remote").glob(f"fatwheel*/*/{kind}/*"))

    def forget(self, machine: str) -> None:
        shutil.rmtree(self.folder / machine, ignore_errors=True)


@dataclass
class FakePlace:
    """A remote in memory that behaves as a test wants.

    asked: every request. reads, writes: called before one, with its name, and may raise.
    answers: what is read instead of what was written.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    reads: Callable[[str], None] = lambda name: None
    writes: Callable[[str], None] = lambda name: None
    answers: Callable[[str, bytes], bytes] = lambda name, data: data
    sizes: Callable[[bytes], int] = len

    def read(self, name: str) -> tuple[int, Iterator[bytes]] | None:
        self.asked.append(("read", name))
        self.reads(name)
        if name not in self.files:
            return None
        data = self.answers(name, self.files[name])
        return self.sizes(data), iter([data])

    def write(self, name: str, file: Path) -> None:
        self.asked.append(("write", name))
        self.writes(name)
        self.files[name] = file.read_bytes()

    def count(self, what: str, kind: str = "") -> int:
        return sum(1 for one, name in self.asked if one == what and f"/{kind}" in name)


def failing(words: str, *, away: bool = False) -> Callable[[str], None]:
    """What a request ends with."""

    def fail(name: str) -> None:
        raise RemoteError(words, away=away)

    return fail
