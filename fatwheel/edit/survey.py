"""Reads what must be known of a wheel, library or object before its device code is edited, and
writes the result.

The local version of a wheel says which architectures are in it (`wheels.name.version_label`):
`sm80` for cubins, `sm89.ptx` for cubins and PTX of one architecture, and here also `ptx80` for PTX
of an architecture without cubins.

Device code that libraries load themselves stays as it is: of containers and cubins among a
library's data (`fatbin.embedded`) nothing says how the library finds them, how large it takes them
to be, or which it asks for on which GPU. A cubin in a file of its own is asked for by its name.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import text
from ..arch import Arch
from ..errors import FatwheelError, FormatError, StoreError, UsageError
from ..fatbin.binary import HEAD, Binary, is_binary, read_binary
from ..fatbin.container import Entry, Rewritten
from ..fatbin.embedded import Bound, EmbeddedCode, Images, find_embedded, place_of_cubin, total_size
from ..fatbin.stitch import image_name
from ..provenance.origin import FILES as ORIGIN_FILES
from ..provenance.origin import Origin, contents_of, read_origin
from ..storage.files import digest_of, disk_error, readable, replacing
from ..storage.mapped import in_chunks, let_go, map_path
from ..wheels.archive import Unpacked, Wheel, open_wheel
from ..wheels.metadata import Digester, check_record, read_record
from ..wheels.name import (
    VARIANT,
    WheelName,
    arch_labels,
    stem_of,
    with_archs,
)
from ..wheels.pack import Content, name_of, rewrite_wheel, size_of_rewritten, tags_contradiction

# -- code that is left -----------------------------------------------------------------------------

_SHOWN = 5  # sections of one file


class Left:
    """What is left in the files of a wheel, or in a single file."""

    def __init__(self) -> None:
        self._embedded: dict[str, tuple[EmbeddedCode, ...]] = {}
        self._cubins: list[EmbeddedCode] = []
        self._bound = Bound()

    def look(self, name: str, data: memoryview, binary: Binary) -> None:
        """Look at one file; FormatError where it is malformed."""
        if binary.format == "cubin":
            self._cubins.append(place_of_cubin(data))
        elif places := find_embedded(data, binary.format, self._bound):
            self._embedded[name] = places

    def __bool__(self) -> bool:
        return bool(self._embedded or self._cubins)

    @property
    def archs(self) -> set[tuple[str, Arch]]:
        """Kind ('elf', 'ptx' …) and architecture of its images."""
        return {(images.kind, images.arch) for images in self._images()}

    def lines(self) -> Iterator[str]:
        """What libraries load themselves, and its size: a line for each, and one for all cubins."""
        for name, places in self._embedded.items():
            shown = [f"{place.title} ({text.size(place.size)})" for place in places[:_SHOWN]]
            if len(places) > _SHOWN:
                shown.append(f"in {len(places) - _SHOWN:,} more sections")
            yield f"{name}: {' and '.join(shown)}"
        if self._cubins:
            noun = "cubin file" if len(self._cubins) == 1 else "cubin files"
            size = text.size(total_size(self._cubins))
            yield f"{len(self._cubins):,} {noun} ({size})"

    def notes(self) -> Iterator[str]:
        """The same, for who had it edited."""
        for line in self.lines():
            yield f"left as it is, because libraries load it themselves: {line}"

    def _images(self) -> Iterator[Images]:
        for place in itertools.chain(*self._embedded.values(), self._cubins):
            yield from place.images


# -- survey ----------------------------------------------------------------------------------------

# Raises UsageError where there is no such file, FormatError for what is malformed.


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
    left:     device code that stays as it is, in all of its files.
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
    left: Left


def is_wheel(path: Path) -> bool:
    """Whether a file is a zip archive, which only wheels are among the files handled here."""
    with readable(path, _VALID), path.open("rb") as stream:
        return stream.read(len(_ZIP)) == _ZIP


def survey_wheel(path: Path) -> Surveyed:
    """Read a wheel's names, and the tables of its binaries; those with containers are unpacked
    to a temporary file that goes with the result. Every file must be the one that RECORD lists."""
    check_readable(path)
    with open_wheel(path) as wheel:
        name = name_of(wheel)
        members = _bystem_of(wheel)
        listing = f"{wheel.dist_info}/RECORD"
        listed = read_record(listing, wheel.read(listing))
        watched = {member: listed.watch(member) for member in members.values()}
        left = Left()
        unpacked = Unpacked(wheel)
        files = {
            stem: file
            for stem, member in members.items()
            if (file := _device_file(wheel, unpacked, member, watched[member], left)) is not None
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
            tuple(_oddities(wheel, lost)), left,
        )  # fmt: skip


def _oddities(wheel: Wheel, lost: str) -> Iterator[str]:
    """lost: why not all can be kept that it tells of its build."""
    if lost:
        yield f"{wheel.path.name}: its build records were dropped: {lost}"
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


def _device_file(
    wheel: Wheel, unpacked: Unpacked, member: str, watched: Digester, left: Left
) -> DeviceFile | None:
    """Read a member, show all of it to `watched`, and to `left` if it is a binary."""
    if not is_binary(wheel.start(member, HEAD)):
        for piece in wheel.pieces(member):
            watched.update(piece)
        return None
    data = unpacked.add(member, watched.update)
    with located(member):
        binary = read_binary(data)
        left.look(member, data, binary)
    let_go(data)
    if not binary.containers:
        unpacked.drop()
        return None
    return DeviceFile(member, f"{wheel.path}: {member}", data, binary)


def _bystem_of(wheel: Wheel) -> dict[str, str]:
    """The names of all files by their stems; FormatError where two files have the same."""
    found: dict[str, str] = {}
    for member in wheel.members:
        other = found.setdefault(stem_of(member.name, wheel.dist_info), member.name)
        if other != member.name:
            raise FormatError(f"it counts as the same file as {other}", where=member.name)
    return found


# -- results ---------------------------------------------------------------------------------------

# Edited wheels and files, brought to where the user looks for them.


Contents = Sequence[Sequence[Entry]]


@dataclass(frozen=True)
class Edited:
    """A finished file, or one that was only measured.

    size:   bytes; before: those of the file that it was made from, where that is one.
    sha256: None if it was not written.
    archs:  labels as in a version (`arch_labels`).
    notes:  sentences for the user.
    """

    path: Path
    size: int
    sha256: str | None
    archs: tuple[str, ...]
    notes: tuple[str, ...]
    before: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As `thin --json`, `stitch --json` and `codesign --json` print it (edited.schema.json)."""
        return {
            "file": str(self.path),
            "written": self.sha256 is not None,
            "size": self.size,
            "size_before": self.before,
            "sha256": self.sha256,
            "archs": list(self.archs),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class VariantLabel:
    """What makes a wheel a variant of another (PEP 825): the label at the end of its file name, and
    its variant.json."""

    label: str
    document: bytes


@dataclass(frozen=True)
class EditedFile:
    """New device code of a file: the images of each container that runs, and of those that they
    were linked from; and the whole file."""

    contents: Contents
    rewritten: Rewritten
    relocatable: Contents = ()

    @classmethod
    def of(
        cls, file: DeviceFile, contents: Contents, relocatable: Contents, rewritten: Rewritten
    ) -> EditedFile:
        """What a file was rewritten to with these images, or with its own if it did not change."""
        if rewritten.unchanged:
            return cls(file.containers, rewritten, file.relocatable)
        return cls(contents, rewritten, relocatable)

    @property
    def entries(self) -> Iterator[Entry]:
        """The images that programs, or drivers for them, use: of relocatable code the PTX, which
        drivers link anew."""
        for entries in self.contents:
            yield from entries
        for entries in self.relocatable:
            yield from (entry for entry in entries if entry.kind == "ptx")


def held_images(changes: Sequence[EditedFile]) -> frozenset[str]:
    """The images that are in these files: `sm_80`, `compute_80`."""
    return frozenset(image_name(entry) for entry in _entries(changes) if entry.kind != "other")


def labels_of(images: Iterable[Entry], left: Left | None = None) -> tuple[str, ...]:
    """The architectures of these images, as a version tells them, with those of what is left."""
    found = {(entry.kind, entry.arch) for entry in images}
    found |= left.archs if left else set()
    cubins = {arch for kind, arch in found if kind == "elf"}
    return arch_labels(cubins, {arch for kind, arch in found if kind == "ptx"})


def write_wheel(
    source: Surveyed,
    changes: Mapping[str, EditedFile],
    origin: Origin | None,
    out_dir: Path,
    *,
    inputs: Sequence[Path],
    epoch: int,
    notes: Sequence[str],
    keep: Sequence[Path] = (),
    dry_run: bool = False,
    variant: VariantLabel | None = None,
) -> Edited:
    """The wheel `source` with changed files, by their stems, under a version that says what is
    in them, and with what `origin` tells of its build. What rewriting has lost is added to the
    notes. dry_run: nothing is written, only measured. variant: that of `source` to make, whose
    version is the same.

    Raises UsageError if it would replace one of `inputs` or `keep`, StoreError if it cannot be
    written.
    """
    labels = labels_of(_entries(list(changes.values())), source.left)
    version = source.version if variant else with_archs(source.version, labels)
    name = source.name.renamed(source.name.project, version)
    changed: dict[str, Content] = {
        source.files[stem].name: change.rewritten.pieces for stem, change in changes.items()
    }
    told, closing = contents_of(origin, name)
    changed |= {f"{source.dist_info}/{file}": [data] for file, data in told.items()}
    if variant:
        name = replace(name, variant=variant.label)
        changed[f"{source.dist_info}/{VARIANT}"] = [variant.document]
    lost = [
        f"{source.files[stem].name}: {note}"
        for stem, change in changes.items()
        for note in change.rewritten.notes
    ]
    notes = [*notes, *lost]
    check_target(out_dir / name.filename, inputs, keep)
    with open_wheel(source.path) as wheel:
        if dry_run:
            size = size_of_rewritten(wheel, name, changed, epoch, closing, source.told)
            return _measured(out_dir / name.filename, size, labels, notes)
        path = rewrite_wheel(wheel, name, changed, out_dir, epoch, closing, source.told)
    return edited(path, labels, notes)


def write_file(
    source: Path,
    change: EditedFile,
    out_dir: Path,
    notes: Sequence[str],
    keep: Sequence[Path] = (),
    left: Left | None = None,
    dry_run: bool = False,
) -> Edited:
    """A single file with changed device code, under its own name in another folder.

    left: the device code in it that was not changed. dry_run: nothing is written, only measured.
    """
    path = out_dir / source.name
    check_target(path, [source], keep)
    labels, notes = labels_of(_entries([change]), left), [*notes, *change.rewritten.notes]
    if dry_run:
        return _measured(path, change.rewritten.size, labels, notes)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with replacing(path) as stream:
            stream.writelines(in_chunks(change.rewritten.pieces))
            shutil.copymode(source, stream.name)
    except OSError as error:
        raise disk_error(error, "write the file", path, "--out FOLDER") from error
    return edited(path, labels, notes)


def _entries(changes: Sequence[EditedFile]) -> list[Entry]:
    return [entry for change in changes for entry in change.entries]


def check_target(path: Path, inputs: Sequence[Path], keep: Sequence[Path] = ()) -> None:
    """Raise UsageError where a result would replace one of these files."""
    if any(_is_same(path, given) for given in inputs):
        raise UsageError(
            "the result would replace the file that it is made from",
            where=str(path),
            hint="name another folder: --out FOLDER",
        )
    if any(_is_same(path, other) for other in keep):
        raise UsageError(
            "the result would replace another of these files, or the result of one",
            where=str(path),
            hint="edit them one by one, each with its own --out FOLDER",
        )


def _is_same(one: Path, other: Path) -> bool:
    """Whether they are the same file, or will be once it is written."""
    with suppress(OSError):  # such as a name that is too long: it is not there
        return one.samefile(other)
    return one == other


def _measured(path: Path, size: int, labels: tuple[str, ...], notes: Sequence[str]) -> Edited:
    return Edited(path, size, None, labels, tuple(dict.fromkeys(notes)))


def edited(path: Path, labels: tuple[str, ...], notes: Sequence[str]) -> Edited:
    """What was written to a path."""
    digest = digest_of(path)
    if digest is None:
        raise StoreError("the file was deleted as soon as it was made", where=str(path))
    return Edited(path, path.stat().st_size, digest, labels, tuple(dict.fromkeys(notes)))
