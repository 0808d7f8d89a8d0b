"""Edited wheels and files, brought to where the user looks for them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import StoreError, UsageError
from ..fatbin.container import Entry
from ..fatbin.linked import Rewritten
from ..fatbin.stitch import image_name
from ..files import digest_of, disk_error, replacing
from ..wheels.archive import open_wheel
from ..wheels.pack import Content, rewrite_wheel
from .label import arch_labels, with_archs
from .origin import Origin, contents_of
from .survey import Surveyed

Contents = Sequence[Sequence[Entry]]


@dataclass(frozen=True)
class Edited:
    """A finished file. size is bytes; archs are labels as in a version (`label`); notes are
    sentences for the user."""

    path: Path
    size: int
    sha256: str
    archs: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """New device code of a file: the images of each container that runs, and the whole file."""

    contents: Contents
    rewritten: Rewritten


def held_images(changes: Sequence[Change]) -> frozenset[str]:
    """The images that are in these files: `sm_80`, `compute_80`."""
    return frozenset(image_name(entry) for entry in _entries(changes) if entry.kind != "other")


def labels_of(changes: Sequence[Change]) -> tuple[str, ...]:
    """The architectures in these files, as a version tells them."""
    found = [(entry.kind, entry.arch) for entry in _entries(changes)]
    cubins = {arch for kind, arch in found if kind == "elf"}
    return arch_labels(cubins, {arch for kind, arch in found if kind == "ptx"})


def write_wheel(
    source: Surveyed,
    changes: Mapping[str, Change],
    origin: Origin | None,
    out_dir: Path,
    *,
    inputs: Sequence[Path],
    epoch: int,
    notes: Sequence[str],
) -> Edited:
    """The wheel `source` with changed files, by their stems, under a version that says what is
    in them, and with what `origin` tells of its build. What rewriting has lost is added to the
    notes.

    Raises UsageError if it would replace one of `inputs`, StoreError if it cannot be written.
    """
    labels = labels_of(list(changes.values()))
    name = source.name.renamed(source.name.project, with_archs(source.version, labels))
    _check_target(out_dir / name.filename, inputs)
    changed: dict[str, Content] = {
        source.files[stem].name: change.rewritten.pieces for stem, change in changes.items()
    }
    told, closing = contents_of(origin, name)
    changed |= {f"{source.dist_info}/{file}": [data] for file, data in told.items()}
    with open_wheel(source.path) as wheel:
        path = rewrite_wheel(wheel, name, changed, out_dir, epoch, closing, dropped=source.told)
    lost = [
        f"{source.files[stem].name}: {note}"
        for stem, change in changes.items()
        for note in change.rewritten.notes
    ]
    return _edited(path, labels, [*notes, *lost])


def write_file(source: Path, change: Change, out_dir: Path, notes: Sequence[str]) -> Edited:
    """A single file with changed device code, under its own name in another folder."""
    path = out_dir / source.name
    _check_target(path, [source])
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with replacing(path) as stream:
            stream.writelines(change.rewritten.pieces)
            shutil.copymode(source, stream.name)
    except OSError as error:
        raise disk_error(error, "write the file", path, "--out FOLDER") from error
    return _edited(path, labels_of([change]), [*notes, *change.rewritten.notes])


def _entries(changes: Sequence[Change]) -> list[Entry]:
    return [entry for change in changes for entries in change.contents for entry in entries]


def _check_target(path: Path, inputs: Sequence[Path]) -> None:
    if any(path.exists() and path.samefile(given) for given in inputs):
        raise UsageError(
            "the result would replace the file that it is made from",
            where=str(path),
            hint="name another folder: --out FOLDER",
        )


def _edited(path: Path, labels: tuple[str, ...], notes: Sequence[str]) -> Edited:
    digest = digest_of(path)
    if digest is None:
        raise StoreError("the file was deleted as soon as it was made", where=str(path))
    return Edited(path, path.stat().st_size, digest, labels, tuple(dict.fromkeys(notes)))
