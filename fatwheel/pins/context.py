"""What all parts are locked with: indexes, a resolver, and the parts as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from packaging.markers import Marker

from ..config.fields import Pin
from ..config.parts import Parts, release
from ..events import Emit
from ..toolchain.index import Index
from .compare import FILLED, OPEN, Finding
from .listings import Asker, Listings
from .packagefiles import PackagePins
from .remotewheel import RemoteWheels
from .resolver import Resolver

UV_CACHE = "resolver"


class Session:
    """One run of `invoke lock`: what is asked is asked once for all parts.

    write: False to look only. cache: fatwheel's own folder of caches. downloads: where files are
    kept that had to be fetched.
    """

    def __init__(
        self, index: Index, cache: Path, downloads: Path, emit: Emit, *, write: bool
    ) -> None:
        self.index = index
        self.downloads = downloads
        self.emit = emit
        self.write = write
        self.asker = Asker(index)
        self.listings = Listings(index, self.asker)
        self.wheels = RemoteWheels(index, self.asker)
        self._cache = cache / UV_CACHE

    @cached_property
    def resolver(self) -> Resolver:
        """Raises ToolchainError where uv is missing."""
        return Resolver(self.index.config, self._cache)

    @property
    def new(self) -> str:
        """The state of what was not known before."""
        return FILLED if self.write else OPEN


class Work:
    """One part that is being locked."""

    def __init__(self, session: Session, parts: Parts) -> None:
        self.session = session
        self.parts = parts
        self.pins = PackagePins(parts, session.listings, write=session.write)
        self._checked: set[tuple[str, str]] = set()

    @property
    def pythons(self) -> tuple[str, ...]:
        """Those that images of any platform have."""
        images = self.parts.all_images.values()
        found = {one for image in images for base in image.bases for one in base.pythons}
        found |= {one.python for image in images for one in image.interpreters}
        return tuple(sorted(found, key=release))

    def need(self, pins: Iterable[str], pythons: Iterable[str], platforms: Iterable[str]) -> None:
        """Pin the files of pins for some Pythons and platforms; compare those that are pinned.

        Raises RefusedError.
        """
        platforms = tuple(platforms)
        for python in pythons:
            for name, version in versions(pins, python).items():
                if (name, version) not in self._checked:
                    self._checked.add((name, version))
                    self.pins.check(name, version)
                for platform in platforms:
                    self.pins.need(name, version, python, platform)


@dataclass(frozen=True)
class Outcome:
    """A part that was looked at: its file's name below parts/, its text, or None where it stays as
    it is, and what was found out."""

    name: str
    text: str | None
    findings: tuple[Finding, ...]


# -- pins ------------------------------------------------------------------------------------------


def versions(pins: Iterable[Pin], python: str) -> dict[str, str]:
    """The versions by name that pins with markers name for a Python."""
    found = {}
    for pin in pins:
        words, _, marker = pin.partition(";")
        if not marker or Marker(marker.strip()).evaluate({"python_version": python}):
            name, _, version = words.strip().partition("==")
            found[name] = version
    return found


def with_markers(by_python: Mapping[str, Mapping[str, str]]) -> tuple[Pin, ...]:
    """Pins that name these versions for each Python, with markers where they differ."""
    pythons = sorted(by_python, key=release)
    pairs = sorted({pair for each in by_python.values() for pair in each.items()})
    return tuple(
        f"{name}=={version}" + marker
        for name, version in pairs
        for marker in _markers([by_python[one].get(name) == version for one in pythons], pythons)
    )


def _markers(holds: Sequence[bool], pythons: Sequence[str]) -> Iterator[str]:
    """A marker for each run of neighbouring Pythons for which something holds; '' for all."""
    start = None
    for place, here in enumerate([*holds, False]):
        if here and start is None:
            start = place
        elif not here and start is not None:
            bounds = [f"python_version >= '{pythons[start]}'"] if start else []
            bounds += [f"python_version < '{pythons[place]}'"] if place < len(pythons) else []
            yield "; " + " and ".join(bounds) if bounds else ""
            start = None
