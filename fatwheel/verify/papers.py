"""What a wheel of fatwheel's says of its own build: files of its dist-info folder and beside it,
and the slices in its binaries, by which a record of them can be held against the bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import FormatError
from ..fatbin.binary import read_binary
from ..fatbin.container import Container, Entry, container_pieces
from ..fatbin.stitch import image_name
from ..provenance.beside import LOCK, STATEMENT, beside
from ..provenance.lockfile import FILE as LOCK_FILE
from ..provenance.record import FILE as RECORD_FILE
from ..provenance.sbom import FILE as SBOM_FILE
from ..provenance.statement import FILE as STATEMENT_FILE
from ..storage.documents import MOST
from ..storage.files import digest_of
from ..storage.mapped import STEP, let_go
from ..wheels.archive import Wheel

INSIDE = (RECORD_FILE, LOCK_FILE, SBOM_FILE, STATEMENT_FILE)

# The sha256 of a container's slices, by image: `sm_80`, `compute_80`.
Slices = Mapping[str, str]


@dataclass(frozen=True)
class BinarySlices:
    """The slices of one file: of each container that runs, and of those that it was linked from."""

    path: str
    containers: tuple[Slices, ...]
    relocatable: tuple[Slices, ...]


@dataclass(frozen=True)
class Papers:
    """Nothing for wheels that others built.

    inside: files of the dist-info folder, by their names there. beside: files beside the wheel,
    by what follows its name. sha256: the wheel's, in hex, where there is anything beside it.
    """

    inside: Mapping[str, bytes] = field(default_factory=dict)
    beside: Mapping[str, bytes] = field(default_factory=dict)
    sha256: str = ""
    slices: Sequence[BinarySlices] = ()


NO_PAPERS = Papers()


def read_inside(wheel: Wheel) -> dict[str, bytes]:
    """Those files of the dist-info folder that there are. FormatError where one is too large."""
    sizes = {member.name: member.size for member in wheel.members}
    found = {}
    for name in INSIDE:
        place = f"{wheel.dist_info}/{name}"
        if place in sizes:
            _check_size(sizes[place], place)
            found[name] = wheel.read(place)
    return found


def read_beside(wheel: Path) -> dict[str, bytes]:
    """Those files beside the wheel that there are. FormatError where one is too large, OSError
    where it cannot be read."""
    found = {}
    for suffix in (STATEMENT, LOCK):
        path = beside(wheel, suffix)
        if path.is_file():
            _check_size(path.stat().st_size, path.name)
            found[suffix] = path.read_bytes()
    return found


def digest_of_wheel(wheel: Path) -> str:
    """The sha256 of the file, in hex; OSError where it cannot be read."""
    return digest_of(wheel) or ""


def slices_of_binary(path: str, data: memoryview) -> BinarySlices:
    """What the store would have put into the binary at `path`: the raw images of each container
    by what they were asked for as. FormatError where the file is damaged."""
    binary = read_binary(data)
    running, linked = (
        tuple(_slices_of(data, containers))
        for containers in (binary.containers, binary.relocatable)
    )
    return BinarySlices(path, running, linked)


def _slices_of(data: memoryview, containers: Iterable[Container]) -> Iterator[Slices]:
    read_so_far = 0
    for container in containers:
        yield _slices(container)
        read_so_far += container.size
        if read_so_far > STEP:
            let_go(data)
            read_so_far = 0


def _slices(container: Container) -> Slices:
    by_image: dict[str, list[Entry]] = {}
    for entry in container.entries:
        by_image.setdefault(image_name(entry), []).append(entry)
    return {image: _digest(entries) for image, entries in by_image.items()}


def _digest(entries: Sequence[Entry]) -> str:
    """Of these images as one container, which is how the store keeps a slice."""
    digest = hashlib.sha256()
    for piece in container_pieces(entries):
        digest.update(piece)
    return digest.hexdigest()


def _check_size(size: int, where: str) -> None:
    if size > MOST:
        raise FormatError(f"it has {size} bytes; {MOST} are the most", where=where)
