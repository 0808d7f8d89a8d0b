"""Combines the device code of several wheels in one: `invoke stitch`.

The wheels must be builds of one and the same wheel for different architectures. What tells them
apart, other than that, is refused by name, with StitchError; device code that cannot be edited,
with FormatError. The host's code is taken from the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from .. import text
from ..decoders import may_have_kernels
from ..errors import FormatError, StitchError, UsageError
from ..fatbin.binary import rewrite_binary
from ..fatbin.images import only_in, shorten
from ..provenance.origin import Origin, edited_origin
from ..provenance.record import merged
from ..storage.files import tidy
from ..storage.mapped import digest_of_pieces, let_go
from ..wheels.archive import Wheel, open_wheel
from ..wheels.metadata import set_version
from ..wheels.name import canonical_project, without_archs
from .survey import (
    DeviceFile,
    Edited,
    EditedFile,
    Surveyed,
    check_readable,
    located,
    survey_wheel,
    write_wheel,
)
from .union import FileContainers, unite

# What the wheels must have in common: as messages call it, and where it is found.
_SAME: Mapping[str, Callable[[Surveyed], str]] = {
    "project": lambda wheel: canonical_project(wheel.name.project),
    "version": lambda wheel: without_archs(wheel.version).partition("+")[0],
    "version label, but for architectures": (
        lambda wheel: without_archs(wheel.version).partition("+")[2] or "none"
    ),
    "build tag": lambda wheel: wheel.name.build or "none",
    "Python tag": lambda wheel: wheel.name.python,
    "ABI tag": lambda wheel: wheel.name.abi,
    "platform tag": lambda wheel: wheel.name.platform,
}


def stitch_wheels(paths: Sequence[Path], out_dir: Path) -> Edited:
    """The first wheel with the device code of all; its version names all architectures."""
    tidy(out_dir)
    _check_different(paths)
    wheels = [survey_wheel(path) for path in paths]
    first, *others = wheels
    for other in others:
        _check_same_build(first, other)
    _check_same_files(wheels)
    if not any(entries for file in first.files.values() for entries in file.containers):
        raise FormatError("it has no device code", where=str(first.path))
    hosts = {stem: [_host_digest(wheel.files[stem]) for wheel in wheels] for stem in first.files}
    notes = [note for wheel in wheels for note in wheel.notes]
    united = {stem: _united(stem, wheels, hosts[stem]) for stem in first.files}
    changes = {stem: change for stem, (change, _) in united.items()}
    notes += [note for _, found in united.values() for note in found]
    notes += [note for stem in first.files for note in _host_notes(stem, wheels, hosts[stem])]
    notes += [
        f"the device code that libraries load themselves is that of {first.path.name}; in "
        f"{other.path.name} it is for other architectures"
        for other in others
        if other.left.archs != first.left.archs
    ]
    origin = edited_origin([wheel.origin for wheel in wheels], merged)
    notes += _origin_notes(wheels, origin)
    return write_wheel(
        first,
        changes,
        origin,
        out_dir,
        inputs=paths,
        epoch=max(wheel.newest for wheel in wheels),
        notes=notes,
    )


def _origin_notes(wheels: Sequence[Surveyed], origin: Origin | None) -> list[str]:
    """A note if records of how the wheels were built were dropped."""
    locked = any(wheel.origin and wheel.origin.lock for wheel in wheels)
    if not locked or (origin and origin.lock):
        return []
    return ["its build records were dropped: the wheels were not built from the same lock"]


def _check_different(paths: Sequence[Path]) -> None:
    if len(paths) < 2:
        raise UsageError(
            f"{text.count(len(paths), 'wheel')} given, where at least two are needed",
            hint="invoke stitch A.whl B.whl",
        )
    seen: set[tuple[int, int]] = set()
    for path in paths:
        check_readable(path)
        status = path.stat()
        if (status.st_dev, status.st_ino) in seen:
            raise UsageError("the same file is given twice", where=str(path))
        seen.add((status.st_dev, status.st_ino))


def _check_same_build(first: Surveyed, other: Surveyed) -> None:
    differing = [
        f"{what}: {of(first)} and {of(other)}"
        for what, of in _SAME.items()
        if of(first) != of(other)
    ]
    if differing:
        raise StitchError(
            f"{first.path.name} and {other.path.name} are not builds of the same wheel",
            details=differing,
            hint="only the architectures may differ",
        )


def _check_same_files(wheels: Sequence[Surveyed]) -> None:
    """Refuse wheels that differ in anything but device code and what follows from it."""
    first, *others = wheels
    digests = _digests(first)
    for other in others:
        for what, mine, theirs in (
            ("files with device code", set(first.files), set(other.files)),
            ("files", set(digests), set(other.others)),
        ):
            if mine != theirs:
                raise _differ(
                    f"do not have the same {what}",
                    first,
                    other,
                    only_in(str(first.path), mine - theirs)
                    + only_in(str(other.path), theirs - mine),
                )
        theirs_by_name = _digests(other)
        changed = [name for name in sorted(digests) if digests[name] != theirs_by_name[name]]
        if changed:
            raise _differ("differ in files without device code", first, other, changed)


def _differ(how: str, first: Surveyed, other: Surveyed, details: Sequence[str]) -> StitchError:
    return StitchError(
        f"{first.path.name} and {other.path.name} {how}",
        details=shorten(details),
        hint="only device code may differ: build the wheels from the same source in the same way",
    )


def _digests(wheel: Surveyed) -> dict[str, str]:
    """What is in the files without device code; of METADATA, all but the version."""
    with open_wheel(wheel.path) as opened:
        return {
            stem: digest_of_pieces(_content(opened, member))
            for stem, member in wheel.others.items()
        }


def _content(wheel: Wheel, member: str) -> Iterator[bytes | memoryview]:
    if member == f"{wheel.dist_info}/METADATA":
        yield set_version(wheel.read(member), "0")
        return
    with wheel.mapped(member) as data:
        yield data


def _united(
    stem: str, wheels: Sequence[Surveyed], hosts: Sequence[str]
) -> tuple[EditedFile, list[str]]:
    """The first wheel's file with the images of all, and notes. hosts: digests of each file's host
    code.

    Where that differs, kernels that not all of the wheels have may come from different sources, or
    be unknown to the first wheel's host code, which a note says.
    """
    files = [wheel.files[stem] for wheel in wheels]
    for file in files[1:]:
        _check_same_kind(files[0], file)
    names = [wheel.path.name for wheel in wheels]
    has_host = files[0].binary.format != "fatbin"
    same_host = has_host and len(set(hosts)) == 1
    with located(files[0].name):
        linked, relocatable = (
            unite(
                [FileContainers(*one) for one in zip(names, parts, strict=True)],
                same_host=same_host,
            )
            for parts in ([f.containers for f in files], [f.relocatable for f in files])
        )
    notes = []
    if linked.in_part and not same_host:
        host = names[0] if has_host else None
        notes.append(f"{files[0].name}: {_in_part(linked.in_part, host)}")
    with located(files[0].where):
        containers = [*linked.containers, *relocatable.containers]
        rewritten = rewrite_binary(files[0].data, containers, may_have_kernels)
        for file in files:
            let_go(file.data)
        return EditedFile.of(files[0], linked.containers, relocatable.containers, rewritten), notes


def _in_part(kernels: Mapping[str, Sequence[str]], host: str | None) -> str:
    """host: the wheel whose host code is used, if there is any. It registers the kernels that it
    was compiled with, and can launch no other."""
    unknown = {name: having for name, having in kernels.items() if host and host not in having}
    told = unknown or kernels
    name, having = next(iter(told.items()))
    more = f", and {len(told) - 1} more" if len(told) > 1 else ""
    sentence = (
        f"not all of the wheels have the same kernels: {name} is only in {', '.join(having)}{more}"
    )
    if not unknown:
        return sentence
    return (
        f"{sentence}. The host code, that of {host}, may be unable to launch such kernels: name "
        "the wheel that has all of them first, or build one wheel for all architectures"
    )


def _check_same_kind(one: DeviceFile, other: DeviceFile) -> None:
    kinds = [f"{file.binary.format} for {file.binary.machine}" for file in (one, other)]
    if kinds[0] != kinds[1]:
        raise StitchError(
            "the wheels hold different kinds of this file",
            where=one.name,
            details=[
                f"{file.where} is {kind}" for file, kind in zip((one, other), kinds, strict=True)
            ],
        )


def _host_notes(stem: str, wheels: Sequence[Surveyed], hosts: Sequence[str]) -> list[str]:
    """That the host's code differs between the wheels, by its digests, and whose is used."""
    differing = [
        wheel.path.name for wheel, host in zip(wheels, hosts, strict=True) if host != hosts[0]
    ]
    if not differing:
        return []
    return [
        f"{wheels[0].files[stem].name}: the host code is that of {wheels[0].path.name}; "
        f"in {', '.join(differing)} it differs slightly"
    ]


def _host_digest(file: DeviceFile) -> str:
    """Of the file without any device code; the same whatever code was in it."""
    with located(file.where):
        count = len(file.containers) + len(file.relocatable)
        rewritten = rewrite_binary(file.data, [()] * count, may_have_kernels)
        return digest_of_pieces(rewritten.pieces)
