"""Files with device code, whatever their format: what they hold, and the same with other code.

The format is told from the bytes. Raises FormatError for what is malformed or not supported.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..errors import FormatError
from ..storage.mapped import Reading
from . import coff, coff_edit, container, elf, elf_dynamic, elf_linked, pe, pe_linked
from .container import Container, Entry, parse_containers
from .linked import HasKernels, Rewritten, lay_out, only

# As much of a file as `is_binary` needs.
HEAD = 4096

_ARCHIVE = b"!<arch>\n"
# How ELF files begin: class, byte order and version. Others than those for 64 bits have no CUDA.
_ELF_KINDS = {bytes((bits, order, 1)) for bits in (1, 2) for order in (1, 2)}
_ELF_READ = bytes((2, 1, 1))
_STEP = 1 << 20


class _Sections(Protocol):
    """What the readers of all formats offer."""

    def named(self, name: str) -> tuple[Any, ...]: ...

    def content(self, section: Any) -> memoryview: ...


@dataclass(frozen=True)
class Binary:
    """A file as far as device code goes.

    format:      'elf', 'pe', 'coff', 'fatbin' or 'cubin'.
    machine:     of the host code: 'x86_64', 'aarch64' …; 'cuda' where there is only device code.
    linked:      whether it is a library or program, and not an object.
    containers:  those that run, in the file's order; () for a cubin.
    relocatable: where device code was linked (nvcc -rdc=true), the containers it was linked from:
                 drivers link them anew for GPUs that the linked code does not serve.
    """

    format: str
    machine: str
    linked: bool
    containers: tuple[Container, ...]
    relocatable: tuple[Container, ...] = ()


def is_binary(head: bytes) -> bool:
    """Whether a file that begins so may hold device code that a program loads.

    Objects of Windows (COFF) have nothing to be known by and are not looked for.
    """
    return head[:4] in (elf.MAGIC, container.MAGIC_BYTES) or pe.is_pe(head)


def read_binary(data: memoryview) -> Binary:
    """What a file holds; only its tables and the headers of its images are read.

    ELF files without section table, or not for 64 bits, are refused only if a container is in them.
    """
    match _format_of(data):
        case "other elf":
            return _other_elf(data)
        case "elf":
            return _read_elf(elf.read_elf(data))
        case "pe":
            image = pe.read_pe(data)
            return Binary("pe", image.machine, True, *_containers(image, pe.FATBIN_SECTIONS))
        case "coff":
            obj = coff.read_coff(data)
            return Binary("coff", obj.machine, False, *_containers(obj, coff.FATBIN_SECTIONS))
        case _:
            return Binary("fatbin", "cuda", False, parse_containers(data))


def imports_of(data: memoryview) -> tuple[str, ...]:
    """The libraries that a linked file asks the system for, in its order; () for others."""
    match _format_of(data):
        case "elf":
            return elf_dynamic.needed(elf.read_elf(data))
        case "pe":
            return pe.imports(pe.read_pe(data))
        case _:
            return ()


def exports_of(data: memoryview) -> tuple[str, ...]:
    """The names that a linked file offers to others, in its order; () for others."""
    match _format_of(data):
        case "elf":
            return elf_dynamic.exported(elf.read_elf(data))
        case "pe":
            return pe.exports(pe.read_pe(data))
        case _:
            return ()


def rewrite_binary(
    data: memoryview, contents: Sequence[Sequence[Entry]], has_kernels: HasKernels
) -> Rewritten:
    """The file with these images in its containers, then in its relocatable ones, each in their
    order in `Binary`.

    The result depends on the host's part of the file and on `contents` alone: rewriting what
    was rewritten before gives the same bytes as rewriting the original.
    """
    match _format_of(data):
        case "elf":
            file = elf.read_elf(data)
            if file.machine == elf.EM_CUDA:
                raise FormatError("a cubin is one image: there is nothing to choose from")
            if file.type == elf.ET_REL:
                return elf_linked.rewrite_object(file, contents, has_kernels)
            return elf_linked.rewrite_linked(file, contents, has_kernels)
        case "pe":
            return pe_linked.rewrite_linked(pe.read_pe(data), contents, has_kernels)
        case "coff":
            return coff_edit.rewrite_object(coff.read_coff(data), contents, has_kernels)
        case _:
            return _rewrite_fatbin(data, contents)


def _rewrite_fatbin(data: memoryview, contents: Sequence[Sequence[Entry]]) -> Rewritten:
    count = len(parse_containers(data))
    if len(contents) != count:
        raise ValueError(f"contents for {len(contents)} containers, of {count}")
    _, pieces = lay_out(contents)
    return Rewritten(tuple(piece for piece in pieces if len(piece)))


def _format_of(data: memoryview) -> str:
    head = bytes(data[:HEAD])
    if head[:4] == elf.MAGIC:
        kind = head[4:7]
        return "other elf" if kind in _ELF_KINDS and kind != _ELF_READ else "elf"
    if head[:4] == container.MAGIC_BYTES:
        return "fatbin"
    if pe.is_pe(head):
        return "pe"
    if coff.is_coff(head):
        return "coff"
    if head[:8] == _ARCHIVE:
        raise FormatError(
            "static libraries are not supported", hint="extract the objects first: ar x FILE"
        )
    raise FormatError(
        "not a kind of file that is known here",
        hint="valid: a wheel, an object or library of 64-bit Linux or Windows, a fatbin or a cubin",
    )


def _read_elf(file: elf.Elf) -> Binary:
    if file.machine == elf.EM_CUDA:
        return Binary("cubin", "cuda", False, ())
    linked = file.type in (elf.ET_DYN, elf.ET_EXEC)
    if not file.sections:
        _check_no_code(file.data, "it has no section table, so its device code cannot be found")
        return Binary("elf", file.machine_name, linked, ())
    containers = _containers(file, elf.FATBIN_SECTIONS)
    return Binary("elf", file.machine_name, linked, *containers)


def _other_elf(data: memoryview) -> Binary:
    order: Literal["little", "big"] = "big" if data[5] == 2 else "little"
    type_, machine = (int.from_bytes(data[at : at + 2], order) for at in (16, 18))
    why = "only 64-bit little-endian ELF files are supported"
    if machine == elf.EM_CUDA:
        raise FormatError(why)
    _check_no_code(data, why)
    linked = type_ in (elf.ET_DYN, elf.ET_EXEC)
    return Binary("elf", elf.name_of_machine(machine), linked, ())


def _check_no_code(data: memoryview, why: str) -> None:
    """Refuse a file whose sections cannot be read and that has a container somewhere."""
    reading = Reading()
    for start in range(0, len(data), _STEP):
        part = data[start : start + _STEP + len(container.HEADER_START)]
        reading.has_read(part)
        if container.HEADER_START in bytes(part):
            raise FormatError(f"device code that cannot be read is in it: {why}")


def _containers(
    file: _Sections, names: tuple[str, str]
) -> tuple[tuple[Container, ...], tuple[Container, ...]]:
    """The containers that run, and the relocatable ones that they were linked from.

    Where nothing was linked, as in objects, relocatable device code is all there is.
    NVIDIA's cuobjdump chooses in the same way.
    """
    sections = [(name, section) for name in names if (section := only(file.named(name), name))]
    parts = [(section.offset, file.content(section)) for _, section in sections]
    for (one, first), (other, second) in itertools.combinations(parts, 2):
        if one < other + len(second) and other < one + len(first):
            raise FormatError(f"sections {' and '.join(name for name, _ in sections)} overlap")
    found = [parse_containers(content) for _, content in parts]
    return (found[0] if found else ()), (found[1] if len(found) > 1 else ())
