"""Containers that are processes: what `containers.running` offers, without an engine.

A process sees what is mounted where it really lies, so the paths in what it is told are replaced.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fatwheel.containers.layouts import LINUX, ContainerSpec, Ending
from fatwheel.containers.roster import Roster
from fatwheel.engines import docker

from .demoproject import Demo

ROOT = Path(__file__).parents[2]
START = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fatwheel.worker import roots
roots.VIEW_ROOT = Path(sys.argv[2])
from fatwheel.worker.inside import main
main()
"""


def describe(folder: Path, demo: Demo) -> Path:
    """The description of an image with the demo's environment in it."""
    environment = demo.tools.environment
    text: dict[str, Any] = {
        "environment": {
            "root": str(environment.root), "python": str(environment.python),
            "site": str(environment.site), "cuda_home": str(environment.cuda_home),
            "include": str(environment.include), "python_version": "3.11", "torch": "2.11.0",
        },
        "compiler": f"g++ {demo.tools.compiler.version}",
        "cxx": str(demo.tools.compiler.path),
        "host_id": demo.tools.compiler.id,
        "variables": {},
    }  # fmt: skip
    path = folder / "environment.json"
    path.write_text(json.dumps(text))
    return path


class Containers:
    """Makes containers in the place of `containers.running`, and remembers them."""

    def __init__(self, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
        self.description = describe(demo.folder, demo)
        self.view = demo.folder / "view"
        self.made: list[ProcessContainer] = []
        monkeypatch.setattr(docker, "RunningContainer", self.make)

    def make(
        self,
        engine: object,
        spec: ContainerSpec,
        roster: Roster,
        on_line: Callable[[str], None],
        log: Path,
    ) -> ProcessContainer:
        self.made.append(ProcessContainer(self, spec, roster, on_line, log))
        return self.made[-1]

    def of(self, purpose: str) -> ProcessContainer:
        [found] = [made for made in self.made if made.spec.purpose == purpose]
        return found

    @property
    def running(self) -> list[str]:
        return [made.spec.purpose for made in self.made if made.is_running]


class ProcessContainer:
    def __init__(
        self,
        all_: Containers,
        spec: ContainerSpec,
        roster: Roster,
        on_line: Callable[[str], None],
        log: Path,
    ) -> None:
        self.spec = spec
        self.labels = roster.labels
        self.out_of_memory = False
        self._all = all_
        self._on_line = on_line
        self._log = log
        self._reader = threading.Thread(target=self._read, daemon=True)

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-c", START, str(ROOT), str(self._all.view)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                start_new_session=True,
            )  # fmt: skip
        self._reader.start()

    def send(self, text: str) -> None:
        for mount in self.spec.mounts:
            text = text.replace(mount.target, mount.source)
        text = text.replace(LINUX.description, str(self._all.description))
        with suppress(OSError):
            assert self.process.stdin
            self.process.stdin.write(text)
            self.process.stdin.flush()

    @property
    def is_running(self) -> bool:
        return hasattr(self, "process") and self.process.poll() is None

    def memory(self) -> int:
        return 1 << 20 if self.is_running else 0

    def wait(self) -> Ending:
        self._reader.join()
        code = self.process.wait()
        lines = self._log.read_text().splitlines()
        return Ending(code if code >= 0 else 128 - code, self.out_of_memory, tuple(lines[-20:]))

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._on_line(line.removesuffix("\n"))
