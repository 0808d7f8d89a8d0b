"""Put the slices of one unit, made by separate nvcc calls, into one host object: `.o` or `.obj`.

Raises FormatError for bytes that are not what they should be. Whether slices belong together is
for `images` to say, which `worker.assemble` asks first.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..arch import Arch
from ..errors import FormatError
from . import coff, elf
from .container import Entry, parse_containers, write_container


class _Object(Protocol):
    """What the readers of all formats offer."""

    def named(self, name: str) -> tuple[Any, ...]: ...

    def content(self, section: Any) -> memoryview: ...


@dataclass(frozen=True)
class _Format:
    """How objects of one format are read and edited, and which sections hold device code: code that
    runs, or relocatable code (nvcc -rdc=true), which is linked before."""

    code: str
    relocatable: str
    read: Callable[[bytes | memoryview], _Object]
    replace: Callable[[bytes | memoryview, Mapping[str, bytes]], bytes]


_ELF = _Format(*elf.FATBIN_SECTIONS, elf.read_elf, elf.replace_section)
_COFF = _Format(*coff.FATBIN_SECTIONS, coff.read_coff, coff.replace_section)

_KIND_ORDER = {"elf": 0, "ptx": 1, "lto": 2, "other": 3}


def slices_of(data: bytes | memoryview) -> tuple[Entry, ...]:
    """The entries of a `.fatbin` file, or of an object that `nvcc -c` made.

    FormatError if there is no container or more than one.
    """
    form = _format_of(data)
    containers = parse_containers(_fatbin(form, data)[1] if form else data)
    if len(containers) != 1:
        raise FormatError(
            f"{len(containers)} fatbin containers, not one",
            hint="one nvcc call makes exactly one container; was this linked from several?",
        )
    return containers[0].entries


def without_device_code(obj: bytes | memoryview) -> bytes:
    """The host object with an empty fatbin section, for the store."""
    return _with_fatbin(obj, b"")


def stitch_object(host: bytes | memoryview, entries: Sequence[Entry]) -> bytes:
    """The host object with one container that holds `entries` in the given order, verbatim."""
    return _with_fatbin(host, write_container(entries))


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

    It does not depend on the order in which the images come: of one kind and architecture they
    are sorted by their bytes, and identical ones are there once.
    """
    ordered = sorted(entries, key=_place)
    return tuple(
        entry for _, alike in itertools.groupby(ordered, _place) for entry in _each_once(alike)
    )


def image_name(entry: Entry) -> str:
    """As users know it: `sm_80` for a cubin, `compute_80` for PTX and LTO-IR."""
    return entry.arch.sm if entry.kind == "elf" else entry.arch.compute


def _place(entry: Entry) -> tuple[Arch, int]:
    return entry.arch, _KIND_ORDER[entry.kind]


def _each_once(entries: Iterable[Entry]) -> Iterable[Entry]:
    """Images of one kind and architecture by their bytes, which only need a look if they are
    several."""
    alike = tuple(entries)
    if len(alike) == 1:
        return alike
    by_bytes = {bytes(entry.raw): entry for entry in alike}
    return [by_bytes[raw] for raw in sorted(by_bytes)]


def _format_of(data: bytes | memoryview) -> _Format | None:
    """The format of an object, told from its bytes; None for anything else."""
    head = bytes(data[: coff.HEADER_SIZE])
    if head.startswith(elf.MAGIC):
        return _ELF
    return _COFF if coff.is_coff(head) else None


def _with_fatbin(obj: bytes | memoryview, fatbin: bytes) -> bytes:
    form = _format_of(obj)
    if form is None:
        raise FormatError("neither an object for Linux (ELF) nor one for Windows (COFF)")
    name, _ = _fatbin(form, obj)
    return form.replace(obj, {name: fatbin})


def _fatbin(form: _Format, obj: bytes | memoryview) -> tuple[str, memoryview]:
    """The section with an object's device code: its name and content."""
    sections = form.read(obj)
    if form is _COFF and sections.named(form.relocatable):
        raise FormatError(
            "relocatable device code (nvcc -rdc=true) of objects for Windows is not supported",
            where=f"section {form.relocatable}",
            hint="build the unit without separate compilation",
        )
    found = [(name, one) for name in (form.code, form.relocatable) for one in sections.named(name)]
    if len(found) != 1:
        raise FormatError(
            f"{len(found)} {form.code} sections, not one",
            hint="was this object made by nvcc -c?",
        )
    name, section = found[0]
    return name, sections.content(section)
