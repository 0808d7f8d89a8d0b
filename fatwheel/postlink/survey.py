"""What must be known of a wheel, library or object before its device code can change.

Raises UsageError where there is no such file, FormatError for what is malformed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import FatwheelError, FormatError
from ..fatbin.binary import HEAD, Binary, is_binary, read_binary
from ..fatbin.container import Entry
from ..mapped import map_path, readable
from ..wheels.archive import Wheel, open_wheel
from ..wheels.name import WheelName
from ..wheels.pack import name_of, tags_contradiction
from ..wheels.recorded import Watched, check_record, read_record
from .origin import FILES as ORIGIN_FILES
from .origin import Origin, read_origin

_VALID = "a wheel, a library or an object"
_ZIP = b"PK\x03\x04"
# Files of a wheel that follow from the others, or sign what is about to change.
_DERIVED = ("RECORD", "RECORD.jws", "RECORD.p7s", *ORIGIN_FILES)


@dataclass(frozen=True)
class DeviceFile:
    """A file with containers; where says what messages call it: its wheel and its name in it."""

    name: str
    where: str
    data: memoryview = field(repr=False)
    binary: Binary

    @property
    def containers(self) -> tuple[tuple[Entry, ...], ...]:
        """The images of each container that runs."""
        return tuple(container.entries for container in self.binary.containers)

    @property
    def relocatable(self) -> tuple[tuple[Entry, ...], ...]:
        """The images of each container that those were linked from."""
        return tuple(container.entries for container in self.binary.relocatable)


@dataclass(frozen=True)
class Surveyed:
    """A wheel as far as editing it goes.

    name:     the parts of its file name, which its METADATA agrees with.
    version:  METADATA's.
    files:    those with containers, by a name that does not depend on the version (`_stem`).
    others:   names of all other files that the wheel consists of, by the same.
    told:     those of its files that tell of its build, whole or not.
    origin:   what can be kept of that, or None.
    newest:   the newest time in it, seconds since 1970.
    notes:    sentences for the user: what is odd about it.
    """

    path: Path
    name: WheelName
    version: str
    dist_info: str
    files: Mapping[str, DeviceFile]
    others: Mapping[str, str]
    told: tuple[str, ...]
    origin: Origin | None
    newest: int
    notes: tuple[str, ...]


def is_wheel(path: Path) -> bool:
    """Whether a file is a zip archive, which only wheels are among the files handled here."""
    with readable(path, _VALID), path.open("rb") as stream:
        return stream.read(len(_ZIP)) == _ZIP


def survey_wheel(path: Path) -> Surveyed:
    """Read a wheel's names, and the tables of its binaries; those with containers are unpacked
    to temporary files that go with the result. Every file must be the one that RECORD lists."""
    check_readable(path)
    with open_wheel(path) as wheel:
        name = name_of(wheel)
        members = _by_stem(wheel)
        listing = f"{wheel.dist_info}/RECORD"
        listed = read_record(listing, wheel.read(listing))
        watched = {member: listed.watch(member) for member in members.values()}
        files = {
            stem: file
            for stem, member in members.items()
            if (file := _device_file(wheel, member, watched[member])) is not None
        }
        check_record(listed, watched)
        derived = {f"{wheel.dist_info}/{file}" for file in _DERIVED}
        others = {
            stem: member
            for stem, member in members.items()
            if stem not in files and member not in derived
        }
        told = tuple(
            place
            for name in ORIGIN_FILES
            if (place := f"{wheel.dist_info}/{name}") in members.values()
        )
        origin, lost = read_origin(wheel)
        return Surveyed(
            path, name, wheel.version, wheel.dist_info, files, others, told, origin, wheel.newest,
            tuple(_oddities(wheel, lost)),
        )  # fmt: skip


def _oddities(wheel: Wheel, lost: str) -> Iterator[str]:
    """lost: why not all can be kept that it tells of its build."""
    if lost:
        yield f"{wheel.path.name}: what it was built from is told no more: {lost}"
    contradiction = tags_contradiction(wheel)
    if contradiction:
        yield f"{wheel.path.name}: {contradiction.what}, as before: " + "; ".join(
            contradiction.details
        )


def survey_file(path: Path) -> DeviceFile:
    """Read the tables of a library, object or fatbin."""
    data = map_path(path, _VALID)
    with located(str(path)):
        return DeviceFile(path.name, str(path), data, read_binary(data))


def digest_of_pieces(pieces: Iterable[bytes | memoryview]) -> str:
    """The sha256 of the pieces one after the other."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


@contextmanager
def located(place: str) -> Iterator[None]:
    """Put a file's name in front of the place that an error of the block names."""
    try:
        yield
    except FatwheelError as error:
        raise error.within(place) from error


def check_readable(path: Path) -> None:
    """UsageError unless there is such a file and it can be opened."""
    with readable(path, _VALID):
        path.open("rb").close()


def _device_file(wheel: Wheel, member: str, watched: Watched) -> DeviceFile | None:
    """Read a member, and show all of it to `watched`."""
    if not is_binary(wheel.start(member, HEAD)):
        for piece in wheel.pieces(member):
            watched.update(piece)
        return None
    with wheel.mapped(member, watched.update) as data, located(member):
        binary = read_binary(data)
    if not binary.containers:
        return None
    return DeviceFile(member, f"{wheel.path}: {member}", data, binary)


def _by_stem(wheel: Wheel) -> dict[str, str]:
    """The names of all files by their stems; FormatError where two files have the same."""
    found: dict[str, str] = {}
    for member in wheel.members:
        other = found.setdefault(_stem(member.name, wheel.dist_info), member.name)
        if other != member.name:
            raise FormatError(f"it is taken for the same file as {other}", where=member.name)
    return found


def _stem(member: str, dist_info: str) -> str:
    """A file's name without the version that its folder may carry."""
    top, slash, rest = member.partition("/")
    project_version = dist_info.removesuffix(".dist-info")
    stems = {f"{project_version}.{kind}": f".{kind}" for kind in ("dist-info", "data")}
    return stems.get(top, top) + slash + rest
