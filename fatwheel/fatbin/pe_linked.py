"""Replaces the device code of PE images: libraries, extension modules and programs of Windows.

The containers come to lie where the linker put them, or behind all else (`pe_layout`), and the
wrappers' pointers follow. The table of base relocations, which says where those stand, stays as it
is.

GNU strip must be used before, not after: it takes out the debug sections of MinGW in front of a
new one, and Windows loads no image with a hole. Sizes and offsets are bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

from ..errors import FormatError
from .container import (
    POINTER,
    Container,
    Entry,
    HasKernels,
    Rewritten,
    Wrapper,
    lay_in_place,
    lay_out,
    only,
    parse_containers,
    read_wrappers,
    used_containers,
)
from .pe import (
    CERTIFICATES,
    FATBIN_SECTIONS,
    RELOCATION_64,
    SECTION_HEADER,
    WRAPPERS_SECTION,
    Pe,
    PeSection,
    base_relocations,
    exported_addresses,
)
from .pe_layout import home_of, plan, rewritten

_RELOCATIONS_STRIPPED, _DYNAMIC_BASE = 0x1, 0x40
_PAGE = 4096
_MAX_ALIGNMENT = 1 << 20
_MAX_BASE = 1 << 47  # processes have no more addresses
# These bound memory: far more than any linker makes.
_MAX_HEADERS, _MAX_WRAPPERS = 1 << 20, 1 << 20


def rewrite_linked(
    pe: Pe, contents: Sequence[Sequence[Entry]], has_kernels: HasKernels
) -> Rewritten:
    """The image with these entries in its containers, one sequence for each, in their order.

    The result depends on `contents` and the host's part of the image alone. Relocatable
    containers, whose contents come behind the others', stay at their places. Containers without
    kernels that no wrapper points to are left out. FormatError for what cannot be edited.
    """
    _check_supported(pe)
    old, relocatable = _device_code(pe)
    moving = parse_containers(pe.content(old))
    staying = parse_containers(pe.content(relocatable)) if relocatable else ()
    count = len(moving) + len(staying)
    if len(contents) != count:
        raise ValueError(f"contents for {len(contents)} containers, of {count}")
    new = dict(zip((pe.base + old.address + c.offset for c in moving), contents, strict=False))
    used = used_containers(
        _read_wrappers(pe),
        {at: container.entries for at, container in zip(new, moving, strict=True)},
        [_addresses(pe, relocatable)] if relocatable else [],
        has_kernels,
    )
    if not used:
        return Rewritten((pe.data,))
    owned = {pointer for pointers in used.values() for pointer in pointers}
    for section in {old, home_of(pe, old)}:
        _check_uses(pe, section, owned)
    offsets, pieces = lay_out([new[at] for at in used])
    layout = plan(pe, old, pieces)
    targets = {
        pointer: pe.base + layout.new.address + offset
        for offset, pointers in zip(offsets, used.values(), strict=True)
        for pointer in pointers
    }
    in_place = _in_place(pe, relocatable, staying, contents[len(moving) :])
    return rewritten(layout, [_pointed(pe, targets), *in_place])


def _check_supported(pe: Pe) -> None:
    if pe.machine != "x86_64" or not pe.wide:
        raise FormatError(
            f"a Windows file for {pe.machine} cannot be rewritten",
            hint="supported: x86_64, which is what CUDA programs for Windows are made for",
        )
    section, file = pe.section_alignment, pe.file_alignment
    both = (section, file)
    if any(a & (a - 1) or a > _MAX_ALIGNMENT for a in both) or not 0 < file <= section >= _PAGE:
        raise FormatError(f"alignment of PE sections {section}, in the file {file}: not supported")
    table_end = pe.table + len(pe.sections) * SECTION_HEADER.size
    if len(pe.directories) <= CERTIFICATES or not table_end <= pe.headers <= _MAX_HEADERS:
        raise FormatError("the PE header is not as linkers write it")
    if pe.base > _MAX_BASE:
        raise FormatError(f"the PE image cannot be loaded at {pe.base:#x}")
    end = pe.headers
    for part in sorted((s for s in pe.sections if s.size), key=lambda s: s.offset):
        if part.offset < end or part.offset % file or part.end > len(pe.data):
            raise FormatError(
                "its bytes are not aligned, overlap others or lie outside the file",
                where=f"PE section {part.name or part.index}",
            )
        end = part.end


def _device_code(pe: Pe) -> tuple[PeSection, PeSection | None]:
    """The section with device code that runs, and that which it was linked from, if any."""
    code, relocatable = (only(pe.named(name), name) for name in FATBIN_SECTIONS)
    if not code and relocatable:
        raise FormatError(
            "its device code is only relocatable (nvcc -rdc=true) and cannot be edited",
            where=f"PE section {FATBIN_SECTIONS[1]}",
            hint="build it without separate compilation (-rdc=true), or for the GPUs you want",
        )
    if not code:
        raise FormatError("it has no device code", where=f"PE section {FATBIN_SECTIONS[0]}")
    if code.size % pe.file_alignment:
        raise FormatError("its size is not aligned", where=f"PE section {code.name}")
    return code, relocatable


def _read_wrappers(pe: Pe) -> tuple[Wrapper, ...]:
    def address_at(pointer: int) -> int | None:
        return int.from_bytes(pe.at(pointer - pe.base, 8), "little") or None

    section = only(pe.named(WRAPPERS_SECTION), WRAPPERS_SECTION)
    if not section:
        return ()
    if section.size > _MAX_WRAPPERS:
        raise FormatError(f"it cannot be {section.size} bytes", where=f"PE section {section.name}")
    return read_wrappers(pe.content(section), pe.base + section.address, address_at)


def _addresses(pe: Pe, section: PeSection) -> range:
    """Where a section lies in memory."""
    start = pe.base + section.address
    return range(start, start + section.extent)


def _check_uses(pe: Pe, old: PeSection, owned: set[int]) -> None:
    """Refuse pointers into the device code that would not follow it, and wrappers' that may not.

    owned: the addresses in memory of the wrappers' pointers.
    """
    begin, end = old.address, old.address + max(old.extent, old.size)
    where = f"PE section {old.name}"
    missing = set(owned)
    for place, kind in base_relocations(pe):
        if begin <= place < end:
            raise FormatError("its device code is changed while it is loaded", where=where)
        pointer = pe.base + place
        missing.discard(pointer if kind == RELOCATION_64 else -1)
        if kind == RELOCATION_64 and pointer not in owned:
            target = int.from_bytes(pe.at(place, 8), "little") - pe.base
            if begin <= target < end:
                raise FormatError(
                    f"something that is no fatbin wrapper points into it, at address {pointer:#x}",
                    where=where,
                )
    if missing and pe.dll_flags & _DYNAMIC_BASE and not pe.flags & _RELOCATIONS_STRIPPED:
        raise FormatError(
            "its pointer has no base relocation, although the image is moved when it is loaded",
            where=f"fatbin wrapper at address {min(missing) - POINTER:#x}",
        )
    named = [at for index, (at, _) in enumerate(pe.directories) if index != CERTIFICATES]
    if any(begin <= address < end for address in (*named, *exported_addresses(pe))):
        raise FormatError("something in it is exported, or used by the system", where=where)


def _in_place(
    pe: Pe,
    section: PeSection | None,
    containers: Sequence[Container],
    contents: Sequence[Sequence[Entry]],
) -> Iterator[tuple[int, bytes | memoryview]]:
    """Offsets and new bytes of relocatable containers with these entries."""
    if section:
        size = len(pe.content(section))
        for offset, piece in lay_in_place(containers, size, contents):
            yield section.offset + offset, piece


def _pointed(pe: Pe, targets: Mapping[int, int]) -> tuple[int, bytes]:
    """Offset and new content of the section with the wrappers, their pointers set to targets."""
    [section] = pe.named(WRAPPERS_SECTION)  # _read_wrappers has seen that there is one
    content = bytearray(pe.content(section))
    for pointer, target in targets.items():
        struct.pack_into("<Q", content, pointer - pe.base - section.address, target)
    return section.offset, bytes(content)
