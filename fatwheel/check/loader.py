"""What the system's loader finds in the environment that is checked, as far as files tell:
libraries that others need, and a package's libraries in the process that would load them.

Linux: ld.so(8): the RPATHs of a library, of those that loaded it and of the program, unless the
library has a RUNPATH; LD_LIBRARY_PATH; RUNPATH; /etc/ld.so.cache; the system's folders. A library
that the process has already is not looked for again, which is how extensions find torch's. Windows:
"Dynamic-link library search order" (Microsoft) with the flags that CPython uses since 3.8: the
module's folder, the program's, System32, and folders that packages add; never PATH.

torch comes first where a package uses it, as everybody imports it first: extensions find its
libraries because they are loaded already.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from ..errors import FatwheelError
from ..fatbin.binary import HEAD, Loading, exports_of, is_loadable, loading_of
from ..storage.mapped import map_path
from ..verify.libraries import is_of_torch
from .environment import CheckedPython, Packages, Torch, read_text
from .subject import CheckedPackage, Library

_T = TypeVar("_T")

_CACHE = Path("/etc/ld.so.cache")
_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_HEADER = struct.Struct("<20sII20x")  # magic, entries, bytes of names
_CACHE_ENTRY = struct.Struct("<iIIIQ")
_CACHE_ENTRIES = 200_000
_DEFAULTS = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")
_DEFAULTS_OF_MUSL = ("/lib", "/usr/local/lib", "/usr/lib")
_MOST_LOADED = 5000  # libraries of one process
_API_SETS = ("api-ms-win-", "ext-ms-")
_ORIGIN = ("$ORIGIN", "${ORIGIN}")
# Folders below site-packages where packages keep libraries that they load by path.
_KEPT = ("nvidia/*/lib", "nvidia/*/bin", "nvidia/*/bin/x86_64", "torch/lib", "*.libs", "*/lib")


@dataclass(frozen=True)
class Missing:
    """A library that the loader does not find; asked_by: the one that needs it. elsewhere: where in
    the environment one of this name lies, for whoever loads it by its path."""

    name: str
    asked_by: Path
    elsewhere: Path | None = None


@dataclass(frozen=True)
class Loaded:
    """A library and all that it brings. found: by the names that they were asked for."""

    found: dict[str, Path]
    missing: tuple[Missing, ...]


@dataclass(frozen=True)
class _Step:
    """A library that is loaded, and those that led to it, the nearest first."""

    place: Path
    loading: Loading
    above: tuple[_Step, ...] = ()


class Loader:
    """One process that loads libraries one after another, as far as files tell.

    held: libraries that are not on the disk yet, those of a wheel, by their places. added: folders
    that packages add to the search (Windows).
    """

    def __init__(
        self, target: CheckedPython, held: dict[Path, Loading], added: Iterable[Path] = ()
    ) -> None:
        self._target = target
        self._held = held
        self._added = tuple(added)
        self._windows = target.system == "Windows"
        self._known: dict[str, Path] = {}  # by name, as asked for or as it calls itself
        self._steps: dict[Path, _Step] = {}
        program = self._read(target.base)
        self._program = _Step(target.base, program) if program else None
        self._elsewhere: dict[str, Path] | None = None

    @property
    def places(self) -> tuple[Path, ...]:
        """All that is loaded, in order."""
        return tuple(self._steps)

    def loading_of(self, place: Path) -> Loading | None:
        return self._read(place)

    def place_of(self, name: str) -> Path | None:
        """Of a library that was loaded, by its name."""
        return self._known.get(self._key(name))

    def load(self, place: Path) -> Loaded:
        """Load a library with all that it needs."""
        loading = self._read(place)
        if loading is None:
            return Loaded({}, ())
        found: dict[str, Path] = {}
        missing: dict[str, Missing] = {}
        queue = [_Step(place, loading)]
        seen = {place}
        self._keep(place.name, place, queue[0])
        while queue and len(self._steps) < _MOST_LOADED:
            step = queue.pop(0)
            for name in step.loading.needed:
                there = self._known.get(self._key(name)) or self._find(name, step)
                if there is None:
                    if not self._is_of_system(name):
                        missing.setdefault(name, self._missing(name, step.place))
                    continue
                found[name] = there
                inner = self._read(there)
                if inner is None or there in seen:
                    continue
                seen.add(there)
                following = _Step(there, inner, (step, *step.above))
                self._keep(name, there, following)
                queue.append(following)
        return Loaded(found, tuple(missing.values()))

    def elsewhere(self, name: str) -> Path | None:
        """A library of this name in the environment's packages, wherever the loader looks."""
        if self._elsewhere is None:
            self._elsewhere = {}
            for site in self._target.site:
                for pattern in _KEPT:
                    for folder in sorted(site.glob(pattern)):
                        for entry in _entries(folder):
                            self._elsewhere.setdefault(self._key(entry), folder / entry)
            for place in self._held:
                self._elsewhere.setdefault(self._key(place.name), place)
        return self._elsewhere.get(self._key(name))

    def _missing(self, name: str, asked_by: Path) -> Missing:
        return Missing(name, asked_by, self.elsewhere(name))

    def _keep(self, name: str, place: Path, step: _Step) -> None:
        self._steps.setdefault(place, step)
        for known in (name, place.name, step.loading.soname):
            if known:
                self._known.setdefault(self._key(known), place)

    def _key(self, name: str) -> str:
        return name.lower() if self._windows else name

    def _is_of_system(self, name: str) -> bool:
        """Names that stand for whatever Windows has."""
        return self._windows and name.lower().startswith(_API_SETS)

    def _find(self, name: str, step: _Step) -> Path | None:
        if not self._windows and "/" in name:
            return Path(name) if self._is_fit(Path(name)) else None
        folders = self._windows_folders(step) if self._windows else self._folders(step)
        for folder in folders:
            place = folder / name
            if self._is_fit(place):
                return place
        if self._windows:
            return None
        cached = (Path(place) for place in _cached().get(name, ()))
        system = _DEFAULTS_OF_MUSL if self._target.libc[0] == "musl" else _DEFAULTS
        defaults = (Path(folder, name) for folder in system)
        return next((place for place in (*cached, *defaults) if self._is_fit(place)), None)

    def _folders(self, step: _Step) -> Iterator[Path]:
        """Where Linux looks before it looks in the system's folders."""
        if not step.loading.runpath:
            program = (self._program,) if self._program else ()
            for one in (step, *step.above, *program):
                if not one.loading.runpath:
                    yield from _expanded(one.loading.rpath, one.place)
        yield from self._target.libraries
        yield from _expanded(step.loading.runpath, step.place)

    def _windows_folders(self, step: _Step) -> Iterator[Path]:
        first = step.above[-1] if step.above else step
        yield first.place.parent
        yield self._target.base.parent
        if self._target.windows:
            yield self._target.windows.system_folder
        for prefix in dict.fromkeys((self._target.prefix, self._target.base_prefix)):
            yield prefix / "Library" / "bin"  # conda's, which its Python adds
        yield from self._added

    def _is_fit(self, place: Path) -> bool:
        """Whether a loader takes it: others for other machines are passed over."""
        loading = self._read(place)
        return loading is not None and loading.machine == self._target.machine

    def _read(self, place: Path) -> Loading | None:
        held = self._held.get(place)
        return held if held is not None else read_loading(place)


@lru_cache(8192)
def read_loading(place: Path) -> Loading | None:
    """None where there is no such library, or it cannot be read."""
    return _read_file(place, loading_of)


@lru_cache(4096)
def read_exports(place: Path) -> frozenset[str]:
    """The names that a library offers; none where it cannot be read."""
    return _read_file(place, lambda data: frozenset(exports_of(data))) or frozenset()


def _read_file(place: Path, read: Callable[[memoryview], _T]) -> _T | None:
    try:
        if not os.path.isfile(place):
            return None
        data = map_path(place, "a library")
        return read(data) if is_loadable(bytes(data[:HEAD])) else None
    except (FatwheelError, OSError, ValueError):
        return None


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _expanded(folders: Iterable[str], place: Path) -> Iterator[Path]:
    """Folders of an RPATH; those with other variables than $ORIGIN are not known here."""
    for folder in folders:
        for origin in _ORIGIN:
            folder = folder.replace(origin, str(place.parent))
        if folder and "$" not in folder:
            yield Path(os.path.normpath(folder))


@lru_cache(1)
def _cached() -> dict[str, tuple[str, ...]]:
    """/etc/ld.so.cache, by name (glibc, dl-cache.h). Nothing where there is none, as with musl."""
    found: dict[str, tuple[str, ...]] = {}
    data = read_text(_CACHE) or b""
    start = data.find(_CACHE_MAGIC)
    if start < 0 or len(data) < start + _CACHE_HEADER.size:
        return found
    _, count, _ = _CACHE_HEADER.unpack_from(data, start)
    table = start + _CACHE_HEADER.size
    for number in range(min(count, _CACHE_ENTRIES)):
        at = table + number * _CACHE_ENTRY.size
        if at + _CACHE_ENTRY.size > len(data):
            break
        _, key, value, _, _ = _CACHE_ENTRY.unpack_from(data, at)
        name, place = (_string(data, start + offset) for offset in (key, value))
        if name and place:
            found[name] = (*found.get(name, ()), place)
    return found


def _string(data: bytes, at: int) -> str:
    end = data.find(b"\0", at, at + 4096)
    return os.fsdecode(data[at:end]) if at < len(data) and end > at else ""


# -- a package in its process ----------------------------------------------------------------------


@dataclass(frozen=True)
class Linking:
    """A package in its environment, and what the loader makes of its libraries."""

    target: CheckedPython
    packages: Packages
    torch: Torch | None
    subject: CheckedPackage
    loader: Loader
    torch_loaded: tuple[Loaded, ...]
    loaded: tuple[tuple[Library, Loaded], ...]

    @property
    def in_use(self) -> frozenset[Path]:
        """The package's modules, its libraries of operators for torch, and what is loaded with
        these: all others may be for other machines."""
        modules = [(one, loaded) for one, loaded in self.loaded if one.module or uses_torch(one)]
        return frozenset(
            place for one, loaded in modules for place in (one.place, *loaded.found.values())
        )

    @property
    def uses_torch(self) -> bool:
        return any(uses_torch(library) for library, _ in self.loaded)


def uses_torch(library: Library) -> bool:
    return any(map(is_of_torch, library.loading.needed))


def link(
    target: CheckedPython, packages: Packages, torch: Torch | None, subject: CheckedPackage
) -> Linking:
    """Load everything, as far as files tell."""
    windows = target.system == "Windows"
    held = {one.place: one.loading for one in subject.libraries}
    own_folders = dict.fromkeys(one.place.parent for one in subject.libraries)
    added = [*([torch.folder / "lib"] if torch else []), *own_folders]
    loader = Loader(target, held, added if windows else ())
    if target.base:
        loader.load(target.base)
    wants_torch = subject.name == "torch" or any(map(uses_torch, subject.libraries))
    roots = torch.roots(windows) if torch and wants_torch else ()
    of_torch = tuple(loader.load(root) for root in roots)
    # Others are loaded by those that need them: until then, nobody finds them loaded already.
    ordered = sorted(subject.libraries, key=lambda one: not (one.module or uses_torch(one)))
    loaded = tuple((one, loader.load(one.place)) for one in ordered)
    return Linking(target, packages, torch, subject, loader, of_torch, loaded)
