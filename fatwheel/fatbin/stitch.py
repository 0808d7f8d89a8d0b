"""Put the slices of one unit, made by separate nvcc calls, into one host object.

Raises FormatError for bytes that are not what they should be, StitchError for slices that do
not belong together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..errors import FormatError, StitchError
from .container import Entry, parse_containers, payload, write_container
from .cubin import Layout, kernel_names_of_ptx, kernels_of_cubin
from .elf import MAGIC as ELF_MAGIC
from .elf import read_elf, replace_section

FATBIN_SECTION = ".nv_fatbin"
RELOCATABLE_SECTION = "__nv_relfatbin"

_KIND_ORDER = {"elf": 0, "ptx": 1, "lto": 2, "other": 3}
# Enough to see what is wrong; the rest is counted.
_DETAILS_SHOWN = 12


def slices_of(data: bytes | memoryview) -> tuple[Entry, ...]:
    """The entries of a `.fatbin` file, or of an object that `nvcc -c` made.

    FormatError if there is no container or more than one, or the code is device-linked.
    """
    is_object = bytes(data[:4]) == ELF_MAGIC
    containers = parse_containers(_fatbin_of_object(data) if is_object else data)
    if len(containers) != 1:
        raise FormatError(
            f"{len(containers)} fatbin containers, not one",
            hint="one nvcc call makes exactly one container; was this linked from several?",
        )
    return containers[0].entries


def without_device_code(obj: bytes | memoryview) -> bytes:
    """The host object with an empty fatbin section, for the store."""
    _fatbin_of_object(obj)
    return replace_section(obj, {FATBIN_SECTION: b""})


def stitch_object(host: bytes | memoryview, entries: Sequence[Entry]) -> bytes:
    """The host object with one container that holds `entries` in the given order, verbatim."""
    _fatbin_of_object(host)
    return replace_section(host, {FATBIN_SECTION: write_container(entries)})


def nvcc_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The order of images that one nvcc call for all these architectures would write.

    nvcc follows its command line: fronts (`arch=compute_N`) by their first appearance, and the
    items of one `code=[...]` as given; several -gencode options with the same front are put
    before one another, the last one first. Measured with nvcc 13.0.88:

        nvcc -dryrun -c a.cu -gencode arch=compute_86,code=sm_86 \\
             -gencode arch=compute_80,code=[sm_80,compute_80] \\
             -gencode arch=compute_120,code=sm_120 -gencode arch=compute_90a,code=sm_90a

    passes to fatbinary elf 86, elf 80, ptx 80, elf 120, elf 90a. The call that fatwheel stands
    for has the architectures in ascending order, each as `code=[sm_N,compute_N]`: its cubin
    first, then its PTX.
    """
    return tuple(sorted(entries, key=lambda entry: (entry.arch, _KIND_ORDER[entry.kind])))


def check_parity(unit: str, entries: Sequence[Entry]) -> None:
    """Refuse, by the unit's name, slices that one host object could not launch alike.

    All cubins must define the same kernels with the same parameter layouts, and all PTX the same
    entries as those. Other images hold nothing that could be compared.
    """
    reference: tuple[Entry, dict[str, Layout]] | None = None
    for entry in entries:
        if entry.kind == "elf":
            layouts = kernels_of_cubin(payload(entry))
            reference = reference or (entry, layouts)
            _compare(unit, reference, (entry, layouts))
    names = (reference[0], set(reference[1])) if reference else None
    for entry in entries:
        if entry.kind == "ptx":
            found = set(kernel_names_of_ptx(payload(entry)))
            names = names or (entry, found)
            _compare_names(unit, names, (entry, found))


def image_name(entry: Entry) -> str:
    """As users know it: `sm_80` for a cubin, `compute_80` for PTX and LTO-IR."""
    return entry.arch.sm if entry.kind == "elf" else entry.arch.compute


def _fatbin_of_object(obj: bytes | memoryview) -> memoryview:
    elf = read_elf(obj)
    if elf.named(RELOCATABLE_SECTION):
        raise FormatError(
            "relocatable device code (nvcc -rdc=true, -dc or -dlto) is not supported",
            where=f"section {RELOCATABLE_SECTION}",
            hint="build the unit without separate compilation",
        )
    found = elf.named(FATBIN_SECTION)
    if len(found) != 1:
        raise FormatError(
            f"{len(found)} {FATBIN_SECTION} sections, not one",
            hint="was this object made by nvcc -c?",
        )
    return elf.content(found[0])


def _compare(
    unit: str, first: tuple[Entry, dict[str, Layout]], second: tuple[Entry, dict[str, Layout]]
) -> None:
    (one, layouts), (other, others) = first, second
    _compare_names(unit, (one, set(layouts)), (other, set(others)))
    differing = [name for name in layouts if layouts[name] != others[name]]
    if differing:
        raise StitchError(
            f"{image_name(one)} and {image_name(other)} disagree on kernel parameters",
            where=unit,
            details=_shorten(
                f"{name}: {image_name(entry)} has {table[name]}"
                for name in differing
                for entry, table in (first, second)
            ),
            hint="a host program passes the same parameters to both; the source depends on the "
            "architecture in a way that cannot work",
        )


def _compare_names(
    unit: str, first: tuple[Entry, set[str]], second: tuple[Entry, set[str]]
) -> None:
    (one, names), (other, others) = first, second
    if names != others:
        raise StitchError(
            f"{image_name(one)} and {image_name(other)} do not have the same kernels",
            where=unit,
            details=_shorten(
                [f"only in {image_name(one)}: {name}" for name in sorted(names - others)]
                + [f"only in {image_name(other)}: {name}" for name in sorted(others - names)]
            ),
            hint="were the slices made from the same source, with the same __CUDA_ARCH_LIST__ "
            "and module id?",
        )


def _shorten(lines: Iterable[str]) -> list[str]:
    shown: list[str] = []
    iterator: Iterator[str] = iter(lines)
    for line in iterator:
        if len(shown) == _DETAILS_SHOWN:
            return [*shown, f"... and {1 + sum(1 for _ in iterator)} more"]
        shown.append(line)
    return shown
