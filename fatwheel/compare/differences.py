"""The two wheels of a comparison, opened, and the differences that are found, each with its level
and place; bytes and texts compared.

A difference at one level mostly has others below it that say more: the binary, its section, the
unit, the image, the kernel. They follow it in the order in which they are found. Errors name the
wheel.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import FatwheelError
from ..storage.files import copy, readable
from ..storage.mapped import STEP, let_go
from ..wheels.archive import Member, Wheel
from ..wheels.name import stem_of

# -- the two wheels --------------------------------------------------------------------------------

_VALID = "a wheel"


@dataclass(frozen=True)
class WheelFile:
    """One file of a wheel: its member of the archive, and the sha256 of its content."""

    member: Member
    sha256: str

    @property
    def name(self) -> str:
        return self.member.name


class Opened:
    """An open wheel, all of which was read once, so that no file of it is damaged.

    files: by a name that does not depend on the project's version, in the archive's order.
    FormatErrors of its methods have the wheel's path in their place.
    """

    def __init__(self, path: Path) -> None:
        self.side = _side(path)
        self._stream = path.open("rb")
        try:
            with _located(path):
                self._wheel = Wheel(path, self._stream)
                self.files = self._read_files()
        except BaseException:
            self._stream.close()
            raise

    @property
    def dist_info(self) -> str:
        return self._wheel.dist_info

    def close(self) -> None:
        self._stream.close()

    def read(self, file: WheelFile) -> bytes:
        """The whole content of a small file."""
        with _located(self.side.path):
            return self._wheel.read(file.name)

    def pieces(self, file: WheelFile) -> Iterator[bytes]:
        """The whole content of any file, a piece at a time."""
        with _located(self.side.path):
            yield from self._wheel.pieces(file.name)

    @contextmanager
    def mapped(self, file: WheelFile) -> Iterator[memoryview]:
        """The whole content of any file."""
        with _located(self.side.path), self._wheel.mapped(file.name) as data:
            yield data

    def stored(self, file: WheelFile) -> Iterator[bytes]:
        """The bytes of the archive that a file was compressed to, a piece at a time."""
        return self._wheel.stored(file.name)

    def _read_files(self) -> Mapping[str, WheelFile]:
        found: dict[str, WheelFile] = {}
        for member in self._wheel.members:
            digest = hashlib.sha256()
            for piece in self._wheel.pieces(member.name):
                digest.update(piece)
            stem = stem_of(member.name, self._wheel.dist_info)
            found[member.name if stem in found else stem] = WheelFile(member, digest.hexdigest())
        return found


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open a wheel and read it. UsageError where there is no such file; FormatError where it is
    no wheel, or damaged."""
    with readable(path, _VALID):
        wheel = Opened(path)
    try:
        yield wheel
    finally:
        wheel.close()


def _side(path: Path) -> Side:
    with path.open("rb") as stream:
        digest, size = copy(stream, None)
    return Side(path, size, digest)


@contextmanager
def _located(path: Path) -> Iterator[None]:
    try:
        yield
    except FatwheelError as error:
        raise error.within(str(path)) from error


# -- differences -----------------------------------------------------------------------------------

# From the highest to the lowest:
# pins: what went into the wheels. files: which files there are. modes: permissions. text: lines.
# binary: a whole file. section: one of its sections. function: host code or data, by its symbol.
# unit: a container of device code. image: one of its images. kernel: what of a kernel reaches the
# GPU. debug: what of an image does not. archive: how the same files were packed.
LEVELS = (
    "pins", "files", "modes", "text", "binary", "section", "function", "unit", "image", "kernel",
    "debug", "archive",
)  # fmt: skip

# Characters of a line, or of a string in a binary, that are kept.
MOST_TEXT = 400


@dataclass(frozen=True)
class Position:
    """Where something differs; what does not apply is '' or None.

    file:      its name in the wheel.
    section:   of a binary.
    container: of device code, counted from 0 in the first wheel's binary; unit is its name where
               the wheel has a record of it.
    image:     `sm_86`, `compute_80`.
    symbol:    a kernel, or a function or variable of the host.
    """

    file: str = ""
    section: str = ""
    container: int | None = None
    unit: str = ""
    image: str = ""
    symbol: str = ""

    def at(self, **parts: Any) -> Position:
        """A place within this one."""
        return replace(self, **parts)


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    what: a sentence; one and other are what stands there in each wheel, where that can be read:
    a line, a string, a mode. None where there is nothing.
    """

    level: str
    what: str
    place: Position = Position()
    one: str | None = None
    other: str | None = None

    def to_json(self) -> dict[str, Any]:
        place = {name: None if part == "" else part for name, part in asdict(self.place).items()}
        told = {"level": self.level, "what": self.what, "one": self.one, "other": self.other}
        return {**told, **place}


@dataclass(frozen=True)
class Side:
    """One of the two wheels: its file, its size in bytes, and the sha256 of all of it."""

    path: Path
    size: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        return {"file": self.path.name, "size": self.size, "sha256": self.sha256}


@dataclass(frozen=True)
class Comparison:
    """What differs between two wheels; nothing does where their bytes are the same.

    same:       how many files are the same in both.
    follows:    files that differ only as they must, because of the other differences: RECORD.
    more:       whether there are so many differences that some were not looked for.
    diffoscope: what that tool says of the first file that differs, if it is installed; its end
                may be missing. '' where there is none.
    """

    one: Side
    other: Side
    same: int = 0
    differences: tuple[Difference, ...] = ()
    follows: tuple[str, ...] = ()
    more: bool = False
    diffoscope: str = ""

    @property
    def identical(self) -> bool:
        return self.one.sha256 == self.other.sha256

    @property
    def level(self) -> str | None:
        """The highest level at which something differs."""
        found = {difference.level for difference in self.differences}
        return next((level for level in LEVELS if level in found), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "one": self.one.to_json(),
            "other": self.other.to_json(),
            "identical": self.identical,
            "level": self.level,
            "same": self.same,
            "differences": [difference.to_json() for difference in self.differences],
            "follows": list(self.follows),
            "more": self.more,
            "diffoscope": self.diffoscope or None,
        }


# -- bytes -----------------------------------------------------------------------------------------

# They may be gigabytes of mapped files, so they are read in steps. Offsets are bytes.


_PIECE = 1 << 16
_AROUND = 200  # bytes to each side in which a string is looked for
_SHORTEST = 6  # characters: fewer are text by accident


def first_difference(one: memoryview, other: memoryview) -> int | None:
    """The first offset at which they differ, which is the shorter one's end where it is a part of
    the other; None where they are the same."""
    shorter = min(len(one), len(other))
    for start in range(0, shorter, _PIECE):
        mine, theirs = (bytes(view[start : min(start + _PIECE, shorter)]) for view in (one, other))
        if mine != theirs:
            pairs = enumerate(zip(mine, theirs, strict=True))
            return start + next(i for i, (a, b) in pairs if a != b)
        if start and start % STEP == 0:
            let_go(one)
            let_go(other)
    return None if len(one) == len(other) else shorter


def extent(one: memoryview, other: memoryview) -> str:
    """How two runs that differ do so: `12 bytes, the first that differs is 0x3`."""
    place = first_difference(one, other)
    if len(one) == len(other):
        return f"{len(one)} bytes in both; the first that differs is at {place or 0:#x}"
    return f"{len(one)} bytes became {len(other)}; the first that differs is at {place or 0:#x}"


def strings_at(one: memoryview, other: memoryview, offset: int) -> tuple[str, str] | None:
    """The strings around a byte that differs, such as a path, where both sides have text there."""
    mine, theirs = _string_at(one, offset), _string_at(other, offset)
    return None if mine is None or theirs is None or mine == theirs else (mine, theirs)


def _string_at(data: memoryview, offset: int) -> str | None:
    start = max(0, offset - _AROUND)
    window = bytes(data[start : offset + _AROUND])
    before = window[: offset - start].rpartition(b"\0")[2]
    after = window[offset - start :].partition(b"\0")[0]
    found = before + after
    readable = len(found) >= _SHORTEST and all(32 <= byte < 127 for byte in found)
    return found.decode("ascii") if readable else None


# -- lines -----------------------------------------------------------------------------------------

# Two texts compared line by line.


MOST_BYTES = 8 << 20  # a larger file is compared as bytes
# Lines between the first and the last that differ, up to which they are brought into line; that
# takes time by the square of their number.
_MOST_LINES = 400


def as_text(data: bytes) -> str | None:
    """A file's text; None where it is not text."""
    if b"\0" in data or len(data) > MOST_BYTES:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def differing_lines(
    place: Position, one: str, other: str, level: str = "text"
) -> Iterator[Difference]:
    """Every line that differs, with both versions; lines are counted from 1."""
    before, after = one.split("\n"), other.split("\n")
    if one and other and one.endswith("\n") != other.endswith("\n"):
        which = "second" if one.endswith("\n") else "first"
        yield Difference(level, f"the last line has no line end in the {which}", place)
    for text, lines in ((one, before), (other, after)):
        if text.endswith("\n") or not text:
            lines.pop()
    start = _same_from_start(before, after)
    end = _same_from_start(before[start:][::-1], after[start:][::-1])
    mine = before[start : len(before) - end]
    theirs = after[start : len(after) - end]
    if max(len(mine), len(theirs)) > _MOST_LINES:
        what = f"{len(mine)} lines from line {start + 1} on became {len(theirs)}"
        yield _difference(
            level, what, place, mine[0] if mine else None, theirs[0] if theirs else None
        )
        return
    matcher = difflib.SequenceMatcher(None, mine, theirs)
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag != "equal":
            first = (start + i + 1, start + j + 1)
            yield from _changed(level, place, first, mine[i:i_end], theirs[j:j_end])


def _changed(
    level: str, place: Position, first: tuple[int, int], mine: Sequence[str], theirs: Sequence[str]
) -> Iterator[Difference]:
    """A run of lines that stands for another run; the surplus of either is there by itself."""
    for index in range(max(len(mine), len(theirs))):
        if index >= len(mine):
            what = f"line {first[1] + index}, only in the second"
            yield _difference(level, what, place, None, theirs[index])
        elif index >= len(theirs):
            what = f"line {first[0] + index}, only in the first"
            yield _difference(level, what, place, mine[index], None)
        else:
            what = f"line {first[0] + index}"
            yield _difference(level, what, place, mine[index], theirs[index])


def _difference(
    level: str, what: str, place: Position, one: str | None, other: str | None
) -> Difference:
    start = 0
    if one is not None and other is not None:
        start = max(0, _same_from_start(one, other) - MOST_TEXT // 2)
    return Difference(level, what, place, _cut(one, start), _cut(other, start))


def _cut(line: str | None, start: int) -> str | None:
    """What is kept of a line: the part around the place where it differs."""
    if line is None or len(line) <= MOST_TEXT:
        return line
    end = start + MOST_TEXT
    return ("…" if start else "") + line[start:end] + ("…" if end < len(line) else "")


def _same_from_start(one: Sequence[str], other: Sequence[str]) -> int:
    """How many of the first items are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
