"""Compares two wheels: their files, how their archives hold them, and what is in each.

Of what fatwheel does not read, diffoscope tells where it is installed. It looks into many formats
with the tools that it finds, and may take very long, so it gets a limit of time, and what it says
one of size.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import FormatError, RebuildError
from ..fatbin.binary import HEAD
from ..provenance.lock import FILE as LOCK
from ..provenance.sbom import FILE as SBOM
from ..provenance.statement import FILE as STATEMENT
from ..storage.documents import read_object
from ..wheels.zipreader import DEFLATED, STORED, ZipEntry
from .binaries import differing_binaries, may_be_binary
from .device import Slices
from .differences import (
    LEVELS,
    MOST_BYTES,
    Comparison,
    Difference,
    Opened,
    Position,
    WheelFile,
    as_text,
    differing_lines,
    extent,
    opened,
)
from .documents import (
    RECORD,
    differing_listings,
    differing_locks,
    differing_records,
    differing_statements,
)

_METHODS = {STORED: "stored", DEFLATED: "deflated"}
_NAMES_SHOWN = 3

Both = tuple[WheelFile, WheelFile]


def differing_list(one: Opened, other: Opened) -> Iterator[Difference]:
    """Files that only one of the wheels has; folders that carry another version."""
    if one.dist_info != other.dist_info:
        what = "the version in the folder's name"
        yield Difference("files", what, Position(), one.dist_info, other.dist_info)
    for stem, file in one.files.items():
        if stem not in other.files:
            what = f"only in the first: {file.member.size} bytes"
            yield Difference("files", what, Position(file.name))
    for stem, file in other.files.items():
        if stem not in one.files:
            what = f"only in the second: {file.member.size} bytes"
            yield Difference("files", what, Position(file.name))


def differing_modes(pairs: Sequence[Both]) -> Iterator[Difference]:
    """Files with other permissions."""
    for mine, theirs in pairs:
        if mine.member.mode != theirs.member.mode:
            modes = (f"{file.member.mode:o}" for file in (mine, theirs))
            yield Difference("modes", "permissions", Position(mine.name), *modes)


def differing_archive(one: Opened, other: Opened, pairs: Sequence[Both]) -> Iterator[Difference]:
    """How the archives hold the same files: order, times, compression and other fields."""
    mine = [stem for stem in one.files if stem in other.files]
    theirs = [stem for stem in other.files if stem in one.files]
    if mine != theirs:
        moved = [stem for stem, there in zip(mine, theirs, strict=True) if stem != there]
        yield _archive(
            "the files are in a different order", [one.files[stem].name for stem in moved]
        )
    yield from _times(pairs)
    fields = [(a.name, found) for a, b in pairs if (found := _other_fields(a, b))]
    for what in sorted({what for _, found in fields for what in found}):
        yield _archive(what, [name for name, found in fields if what in found])
    same = [(a, b) for a, b in pairs if a.sha256 == b.sha256]
    methods = [(a, b) for a, b in same if _method(a) != _method(b)]
    if methods:
        a, b = methods[0]
        what = f"{_method(a)} became {_method(b)}"
        yield _archive(what, [a.name for a, _ in methods])
    packed = [a.name for a, b in same if _packed_otherwise(one, other, a, b)]
    if packed:
        what = "the same content is compressed differently: another zlib, or another level"
        yield _archive(what, packed)


def _times(pairs: Sequence[Both]) -> Iterator[Difference]:
    moved = [(a, b) for a, b in pairs if a.member.entry.time != b.member.entry.time]
    if moved:
        times = (_time(file) for file in moved[0])
        what = f"the time of {_names([a.name for a, _ in moved])}"
        yield Difference("archive", what, Position(), *times)


def _time(file: WheelFile) -> str:
    year, month, day, hour, minute, second = file.member.entry.time
    return f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"


def _other_fields(mine: WheelFile, theirs: WheelFile) -> frozenset[str]:
    """What else of two headers differs, but the permissions, times and sizes."""
    a, b = mine.member.entry, theirs.member.entry
    found = {
        "the system that wrote it": a.system != b.system,
        "the version of the format": (a.made_by, a.needs) != (b.made_by, b.needs),
        "the flags": a.flags != b.flags,
        "extra fields": a.extra != b.extra,
        "attributes other than permissions": (a.internal, _kept(a)) != (b.internal, _kept(b)),
    }
    return frozenset(f"{what} differs" for what, differs in found.items() if differs)


def _kept(entry: ZipEntry) -> int:
    """The attributes without the permissions, which are compared by themselves."""
    return entry.attributes & ~(0o7777 << 16)


def _method(file: WheelFile) -> str:
    return _METHODS[file.member.entry.method]


def _packed_otherwise(one: Opened, other: Opened, mine: WheelFile, theirs: WheelFile) -> bool:
    if _method(mine) != _method(theirs):
        return False
    if mine.member.entry.stored != theirs.member.entry.stored:
        return True
    pieces = zip(one.stored(mine), other.stored(theirs), strict=True)
    return any(a != b for a, b in pieces)


def _archive(what: str, names: Sequence[str]) -> Difference:
    return Difference("archive", f"{what}: {_names(names)}")


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


# -- comparing -------------------------------------------------------------------------------------

# The result's shape is fixed by `schemas/compare.schema.json`.


_RECORD_FILE = ".dist-info/fatwheel.json"
_LOCK_FILE, _STATEMENT_FILE, _SBOM_FILE = (f".dist-info/{name}" for name in (LOCK, STATEMENT, SBOM))
_MOST = 200  # differences of one file that are looked for
_STEP = 1 << 20
_MOST_BYTES = 16 << 20  # of the files that are read whole here

# Those that are made from others, in the order in which they must be looked at.
_SPECIAL = (_RECORD_FILE, _SBOM_FILE, _STATEMENT_FILE, RECORD)

Content = Iterable[bytes | memoryview]
# A file's name, the sizes and the contents of its two versions → what can be said of them.
Ask = Callable[[str, Sequence[int], Sequence[Content]], str]


def compare_wheels(one: Path, other: Path, ask: Ask | None = None) -> Comparison:
    """Compare two wheels from any source; ask: what to run instead of diffoscope.

    UsageError where there is no such file; FormatError where one is no wheel, or its archive is
    damaged. A binary in it that cannot be read is compared byte by byte.
    """
    with opened(one) as mine, opened(other) as theirs:
        return _Comparing(mine, theirs, ask).compared()


def refusal(comparison: Comparison) -> RebuildError:
    """The error to end with if wheels differ; the report has the details."""
    return RebuildError(
        f"the wheels differ, at the highest level in {_WORDS[comparison.level or 'archive']}",
        where=f"{comparison.one.path} and {comparison.other.path}",
    )


_WORDS = {
    "pins": "what went into them",
    "files": "their lists of files",
    "modes": "permissions",
    "text": "lines of text",
    "binary": "binaries",
    "section": "sections of binaries",
    "function": "functions of the host",
    "unit": "units of device code",
    "image": "images",
    "kernel": "kernels",
    "debug": "debug information",
    "archive": "the archive alone: all files are the same",
}


class _Comparing:
    """Two open wheels, and what was found so far."""

    def __init__(self, one: Opened, other: Opened, ask: Ask | None) -> None:
        self._one, self._other, self._ask = one, other, ask or said_of
        stems = [stem for stem in one.files if stem in other.files]
        self._pairs = {stem: (one.files[stem], other.files[stem]) for stem in stems}
        self._changed = [stem for stem, (a, b) in self._pairs.items() if a.sha256 != b.sha256]
        self._explained = {*self._changed, *(one.files.keys() ^ other.files.keys())}
        self._slices = (Slices(_record_of(one)), Slices(_record_of(other)))
        self._follows: list[str] = []
        self._more = False

    def compared(self) -> Comparison:
        one, other = self._one.side, self._other.side
        if one.sha256 == other.sha256:
            return Comparison(one, other, same=len(self._pairs))
        pairs = tuple(self._pairs.values())
        found = [*differing_list(self._one, self._other), *differing_modes(pairs)]
        for stem in (*(s for s in self._changed if s not in _SPECIAL), *_SPECIAL):
            if stem in self._changed:
                found += self._differing_file(stem)
        found += differing_archive(self._one, self._other, pairs)
        if not found:
            found.append(self._differing_rest())
        differences = tuple(sorted(found, key=_group))
        return Comparison(
            one,
            other,
            same=len(self._pairs) - len(self._changed),
            differences=differences,
            follows=tuple(self._follows),
            more=self._more,
            diffoscope=self._said(differences),
        )

    def _said(self, differences: Sequence[Difference]) -> str:
        """What diffoscope says of the first file that differs; else of the archives."""
        by_name = {files[0].name: files for files in self._pairs.values()}
        for difference in differences:
            files = by_name.get(difference.place.file)
            if files and files[0].sha256 != files[1].sha256:
                contents = (self._one.pieces(files[0]), self._other.pieces(files[1]))
                return self._ask(files[0].name, [file.member.size for file in files], contents)
        sides = (self._one.side, self._other.side)
        contents = (_pieces_of(sides[0].path), _pieces_of(sides[1].path))
        return self._ask(sides[0].path.name, [side.size for side in sides], contents)

    def _differing_file(self, stem: str) -> list[Difference]:
        place = Position(self._pairs[stem][0].name)
        found = list(islice(self._differences_of(stem, place), _MOST + 1))
        if len(found) > _MOST:
            self._more = True
            return found[:_MOST]
        if not found:
            self._follows.append(place.file)
        return found

    def _differences_of(self, stem: str, place: Position) -> Iterator[Difference]:
        files = self._pairs[stem]
        folders = self._one.dist_info, self._other.dist_info
        if max(file.member.size for file in files) > _MOST_BYTES:
            return self._differing_content(place, files)
        locked = _LOCK_FILE in self._explained or _RECORD_FILE in self._explained
        if stem == _LOCK_FILE:
            return differing_locks(place, *self._read(files))
        if stem == _RECORD_FILE:
            data = self._read(files)
            return differing_records(place, data, self._slices, _LOCK_FILE in self._explained)
        if stem == _STATEMENT_FILE:
            return differing_statements(place, self._read(files), folders, self._explained, locked)
        if stem == _SBOM_FILE and locked:
            return iter(())
        if stem == RECORD:
            return differing_listings(place, self._read(files), folders, self._explained)
        return self._differing_content(place, files)

    def _read(self, files: tuple[WheelFile, WheelFile]) -> tuple[bytes, bytes]:
        return self._one.read(files[0]), self._other.read(files[1])

    def _differing_content(
        self, place: Position, files: tuple[WheelFile, WheelFile]
    ) -> Iterator[Difference]:
        with self._one.mapped(files[0]) as mine, self._other.mapped(files[1]) as theirs:
            heads = [bytes(data[:HEAD]) for data in (mine, theirs)]
            names = [file.name for file in files]
            if all(may_be_binary(*pair) for pair in zip(names, heads, strict=True)):
                yield from _readable(place, differing_binaries(place, (mine, theirs), self._slices))
                return
            if max(len(mine), len(theirs)) <= MOST_BYTES:
                texts = [as_text(bytes(data)) for data in (mine, theirs)]
                if texts[0] is not None and texts[1] is not None:
                    yield from differing_lines(place, texts[0], texts[1])
                    return
            yield Difference("binary", extent(mine, theirs), place)

    def _differing_rest(self) -> Difference:
        """Differences where all files and their archive fields are the same."""
        what = "the archives' own bytes: entries for folders, or how members are laid out"
        return Difference("archive", what)


def _readable(place: Position, found: Iterator[Difference]) -> Iterator[Difference]:
    """What can be compared of a binary up to where it is damaged."""
    try:
        yield from found
    except FormatError as error:
        yield Difference("binary", f"it cannot be read any further ({error.what})", place)


def _pieces_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(_STEP):
            yield piece


def _record_of(wheel: Opened) -> Any:
    file = wheel.files.get(_RECORD_FILE)
    if file is None or file.member.size > _MOST_BYTES:
        return None
    try:
        return read_object(wheel.read(file), _RECORD_FILE)
    except FormatError:
        return None


def _group(difference: Difference) -> int:
    """What comes first: pins, the list of files, their modes; the archive comes last. All between
    stays in the order of the files."""
    level = difference.level
    if level == "archive":
        return len(LEVELS)
    return min(LEVELS.index(level), LEVELS.index("text"))


# -- diffoscope ------------------------------------------------------------------------------------

_SECONDS = 60.0
_MOST_SAID = 256 << 10  # bytes of its words
_LARGEST = 64 << 20  # bytes of a file that it is given
_FOUND_DIFFERENT = 1  # its exit code where files differ
_PLACES = ("first", "second")


def find_diffoscope() -> str | None:
    """Its path, or None; on Windows there is none."""
    return shutil.which("diffoscope") if os.name == "posix" else None


def said_of(name: str, sizes: Sequence[int], contents: Sequence[Content]) -> str:
    """What diffoscope says of two versions of a file; '' where it is not installed, fails or takes
    too long, or where the files are too large for it."""
    program = find_diffoscope()
    if program is None or max(sizes) > _LARGEST:
        return ""
    try:
        with tempfile.TemporaryDirectory(prefix="fatwheel-compare-") as folder:
            files = [f"{place}/{name.rpartition('/')[2]}" for place in _PLACES]
            for file, content in zip(files, contents, strict=True):
                _write(Path(folder, file), content)
            return _run([program, *files], Path(folder))
    except OSError:  # a full disk: the report does without
        return ""


def _write(path: Path, content: Content) -> None:
    path.parent.mkdir()
    with path.open("wb") as stream:
        for piece in content:
            stream.write(piece)


def _run(command: list[str], folder: Path) -> str:
    words = folder / "words"
    options = ["--no-progress", "--text-color=never", f"--max-text-report-size={_MOST_SAID}"]
    running = subprocess.Popen(
        [command[0], *options, f"--text={words.name}", *command[1:]],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = running.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        return ""
    finally:
        with suppress(ProcessLookupError):  # with the tools that it started
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    if code != _FOUND_DIFFERENT or not words.is_file():
        return ""
    with words.open("rb") as stream:
        return stream.read(_MOST_SAID).decode("utf-8", "replace")
