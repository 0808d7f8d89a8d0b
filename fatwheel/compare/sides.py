"""One of the two wheels being compared, opened; errors name the wheel."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import FatwheelError
from ..storage.files import readable
from ..wheels.archive import Member, Wheel
from .differences import Side

_VALID = "a wheel"
_STEP = 1 << 20


@dataclass(frozen=True)
class File:
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

    def read(self, file: File) -> bytes:
        """The whole content of a small file."""
        with _located(self.side.path):
            return self._wheel.read(file.name)

    def pieces(self, file: File) -> Iterator[bytes]:
        """The whole content of any file, a piece at a time."""
        with _located(self.side.path):
            yield from self._wheel.pieces(file.name)

    @contextmanager
    def mapped(self, file: File) -> Iterator[memoryview]:
        """The whole content of any file."""
        with _located(self.side.path), self._wheel.mapped(file.name) as data:
            yield data

    def stored(self, file: File) -> Iterator[bytes]:
        """The bytes of the archive that a file was compressed to, a piece at a time."""
        return self._wheel.stored(file.name)

    def _read_files(self) -> Mapping[str, File]:
        found: dict[str, File] = {}
        for member in self._wheel.members:
            digest = hashlib.sha256()
            for piece in self._wheel.pieces(member.name):
                digest.update(piece)
            stem = stem_of(member.name, self._wheel.dist_info)
            found[member.name if stem in found else stem] = File(member, digest.hexdigest())
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
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while piece := stream.read(_STEP):
            digest.update(piece)
            size += len(piece)
    return Side(path, size, digest.hexdigest())


@contextmanager
def _located(path: Path) -> Iterator[None]:
    try:
        yield
    except FatwheelError as error:
        raise error.within(str(path)) from error


def stem_of(name: str, dist_info: str) -> str:
    """A file's name without the version that its folder may carry."""
    top, slash, rest = name.partition("/")
    project_version = dist_info.removesuffix(".dist-info")
    stems = {f"{project_version}.{kind}": f".{kind}" for kind in ("dist-info", "data")}
    return stems.get(top, top) + slash + rest
