"""Wheels, libraries and objects with only the device code that given GPUs load: `invoke thin`.

Nothing is decompressed but what an error has to name. Raises FormatError where there is no
device code or it cannot be edited, StitchError where too little would be left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .. import text
from ..arch import Arch, coverage
from ..decoders import Kernels, kernels_of, may_have_kernels
from ..errors import FormatError, StitchError
from ..fatbin.binary import rewrite_binary
from ..fatbin.container import Entry
from ..fatbin.images import PtxOf, Selection, choose, is_readable, shorten
from ..fatbin.stitch import image_name, nvcc_order
from ..provenance.origin import edited_origin
from ..provenance.record import Plans, plans_of, slices_in, thinned
from ..storage.files import tidy
from .survey import (
    DeviceFile,
    Edited,
    EditedFile,
    Left,
    Surveyed,
    VariantLabel,
    held_images,
    is_wheel,
    located,
    survey_file,
    survey_wheel,
    write_file,
    write_wheel,
)
from .union import title_of


def thin(
    path: Path,
    selection: Selection,
    out_dir: Path,
    keep: Sequence[Path] = (),
    dry_run: bool = False,
) -> Edited:
    """Thin a wheel, library or object to what `selection` keeps.

    keep: files that the result must not replace, or UsageError is raised.
    dry_run: all is done but for writing the result, whose size is told.
    """
    if not dry_run:
        tidy(out_dir)
    make = thin_wheel if is_wheel(path) else thin_file
    made = make(path, selection, out_dir, keep, dry_run)
    return replace(made, before=path.stat().st_size)


def thin_wheel(
    path: Path,
    selection: Selection,
    out_dir: Path,
    keep: Sequence[Path] = (),
    dry_run: bool = False,
) -> Edited:
    """A wheel with less device code; its version names the architectures that are left."""
    return thin_surveyed(survey_wheel(path), selection, out_dir, keep, dry_run)


def thin_surveyed(
    wheel: Surveyed,
    selection: Selection,
    out_dir: Path,
    keep: Sequence[Path] = (),
    dry_run: bool = False,
    variant: VariantLabel | None = None,
) -> Edited:
    """The same for a wheel that was read; variant: as `write_wheel` takes it."""
    files = list(wheel.files.values())
    plans = plans_of(wheel.origin.record if wheel.origin else None)
    notes = [
        *wheel.notes,
        *_check(str(wheel.path), files, selection, wheel.left, plans),
        *wheel.left.notes(),
        *_ptx_notes(files, selection),
    ]
    changes = {stem: _thinned(file, selection) for stem, file in wheel.files.items()}
    held = held_images(list(changes.values()))
    origin = edited_origin([wheel.origin], lambda records: thinned(records[0], held))
    return write_wheel(
        wheel, changes, origin, out_dir, inputs=[wheel.path], epoch=wheel.newest, notes=notes,
        keep=keep, dry_run=dry_run, variant=variant,
    )  # fmt: skip


def thin_file(
    path: Path,
    selection: Selection,
    out_dir: Path,
    keep: Sequence[Path] = (),
    dry_run: bool = False,
) -> Edited:
    """A library, object or fatbin with less device code, under the same name in `out_dir`."""
    file = survey_file(path)
    if file.binary.format == "cubin":
        raise FormatError("a cubin is a single image: there is nothing to select", where=str(path))
    left = Left()
    with located(file.where):
        left.look(file.name, file.data, file.binary)
    notes = [
        *_check(str(path), [file], selection, left, Plans()),
        *left.notes(),
        *_ptx_notes([file], selection),
    ]
    change = _thinned(file, selection)
    return write_file(path, change, out_dir, notes, keep, left, dry_run)


def _thinned(file: DeviceFile, selection: Selection) -> EditedFile:
    contents, relocatable = (
        [choose(selection, entries) for entries in containers]
        for containers in (file.containers, file.relocatable)
    )
    with located(file.where):
        rewritten = rewrite_binary(file.data, [*contents, *relocatable], may_have_kernels)
        return EditedFile.of(file, contents, relocatable, rewritten)


@dataclass(frozen=True)
class _Container:
    """A container with cubins or PTX, and the file it is in."""

    file: DeviceFile
    entries: tuple[Entry, ...]

    def is_for_others(self, gpu: Arch, plans: Plans) -> bool:
        with located(self.file.where):
            return plans.leave_out(slices_in(self.entries), gpu)

    def kernels(self) -> Kernels:
        with located(self.file.where):
            return kernels_of(self.entries)

    def images(self) -> str:
        return ", ".join(map(image_name, nvcc_order(self.entries)))

    def title(self) -> str:
        return f"{self.file.name}: {title_of(self.kernels())}"


def _described(containers: Iterable[_Container]) -> Iterator[str]:
    """What they hold, a line for all of one file that hold the same."""
    groups: dict[tuple[str, str], list[_Container]] = {}
    for container in containers:
        groups.setdefault((container.file.name, container.images()), []).append(container)
    for (_, images), (first, *others) in groups.items():
        more = f"; so do {len(others)} more" if others else ""
        yield f"{first.title()} has {images}{more}"


def _check(
    where: str, files: Sequence[DeviceFile], selection: Selection, left: Left, plans: Plans
) -> list[str]:
    """Refuse what would leave kernels with nothing to run; notes on GPUs served in part only."""
    containers = list(_code(files))
    if left and not any(container.kernels() for container in containers):
        raise FormatError(
            "there is nothing to select: libraries load its device code themselves",
            where=where,
            details=shorten(left.lines()),
        )
    if not containers:
        raise FormatError("it has no device code", where=where)
    unserved = {gpu: _unserved(gpu, containers, plans) for gpu in selection.gpus}
    if not left:  # else nobody can tell what runs on a GPU
        _check_gpus(where, unserved, containers)
    if not selection.partial:
        _check_left_alone(where, list(unserved.values()))
    return [
        f"{len(missing)} of {text.count(len(containers), 'container')} have nothing for GPUs of "
        f"compute capability {gpu.capability}, as before: {next(_described(missing))}"
        for gpu, missing in unserved.items()
        if missing
    ]


def _code(files: Iterable[DeviceFile]) -> Iterable[_Container]:
    for file in files:
        for entries in file.containers:
            if any(map(is_readable, entries)):
                yield _Container(file, entries)


def _unserved(gpu: Arch, containers: Sequence[_Container], plans: Plans) -> list[_Container]:
    """The containers whose kernels a GPU cannot run, though it should."""
    empty = [container for container in containers if not _serves(container, gpu)]
    meant = [one for one in empty if not (plans.codes and one.is_for_others(gpu, plans))]
    return [container for container in meant if container.kernels()]


def _serves(container: _Container, gpu: Arch) -> bool:
    cubins, ptx = (
        {entry.arch for entry in container.entries if entry.kind == kind} for kind in ("elf", "ptx")
    )
    return coverage(cubins, ptx, gpu) != "none"


def _check_gpus(
    where: str, unserved: dict[Arch, list[_Container]], containers: Sequence[_Container]
) -> None:
    without = [
        gpu for gpu in unserved if not any(_serves(container, gpu) for container in containers)
    ]
    if without:
        held = nvcc_order(entry for container in containers for entry in container.entries)
        images = dict.fromkeys(map(image_name, held))
        gpus = ", ".join(gpu.capability for gpu in without)
        raise StitchError(
            f"nothing in it runs on GPUs of compute capability {gpus}",
            where=where,
            hint=f"it holds {', '.join(images)}; `invoke inspect` shows which GPUs can run them",
        )


def _check_left_alone(where: str, unserved: Sequence[Sequence[_Container]]) -> None:
    """Refuse if none of the GPUs could run the kernels of some container."""
    others = [{id(container) for container in missing} for missing in unserved[1:]]
    left = [
        container
        for container in unserved[0]
        if all(id(container) in missing for missing in others)
    ]
    if left:
        containers = text.count(len(left), "container")
        raise StitchError(
            f"{containers} would be left with nothing that runs on these GPUs",
            where=where,
            details=shorten(_described(left)),
            hint=(
                "also name GPUs that they support (`invoke inspect` shows which), or drop those "
                "kernels: --partial"
            ),
        )


def _ptx_notes(files: Sequence[DeviceFile], selection: Selection) -> Iterator[str]:
    """What became of PTX that was asked for by its architecture and is not everywhere."""
    if not isinstance(selection.also, PtxOf):
        return
    containers = list(_ptx_code(files))
    for arch in sorted(selection.also.archs):
        having = sum(_has_ptx(container.entries, arch) for container in containers)
        if not having:
            yield f"there is no PTX for {arch.compute} in it{_other_ptx(containers, selection)}"
        elif having < len(containers):
            yield (
                f"only {having} of {text.count(len(containers), 'container')} "
                f"have PTX for {arch.compute}"
            )


def _ptx_code(files: Iterable[DeviceFile]) -> Iterable[_Container]:
    """The containers that may have PTX. nvlink makes none: drivers link anew, from the PTX of what
    it has linked."""
    for file in files:
        for container in _code([file]):
            if not file.relocatable or any(entry.kind == "ptx" for entry in container.entries):
                yield container
        for entries in file.relocatable:
            if any(map(is_readable, entries)):
                yield _Container(file, entries)


def _has_ptx(entries: Iterable[Entry], arch: Arch) -> bool:
    return any(entry.kind == "ptx" and entry.arch == arch for entry in entries)


def _other_ptx(containers: Sequence[_Container], selection: Selection) -> str:
    """Which PTX there is in place of what was asked for, and whether it was kept."""
    there = _ptx_archs(container.entries for container in containers)
    kept = _ptx_archs(choose(selection, container.entries) for container in containers)
    if not there:
        return ", nor any other PTX"
    if kept:
        return f"; the PTX kept is for {_listed(kept)}"
    return f"; its PTX for {_listed(there)} was not kept (--keep-ptx keeps it)"


def _ptx_archs(containers: Iterable[Iterable[Entry]]) -> list[Arch]:
    return sorted({e.arch for entries in containers for e in entries if e.kind == "ptx"})


def _listed(archs: Iterable[Arch]) -> str:
    return ", ".join(arch.compute for arch in archs)
