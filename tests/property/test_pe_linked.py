"""Whatever the image and its device code: only its host's part and the new code decide."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from fatwheel.decoders import may_have_kernels
from fatwheel.fatbin.container import Entry, parse_containers
from fatwheel.fatbin.pe import Pe, read_pe
from fatwheel.fatbin.pe_linked import rewrite_linked

from ..helpers import peimages
from ..helpers.peimages import BASE, Image

images = st.tuples(
    st.sampled_from([75, 80, 86, 90, 120]),
    st.integers(0, 200).map(lambda words: b"\xa5" * 8 * words),
)
containers = st.lists(images, max_size=4).map(lambda chosen: peimages.entries(*chosen))


@st.composite
def hosts(draw: st.DrawFn) -> tuple[Image, int]:
    """An image, and how many containers it has."""
    old = draw(st.lists(containers, min_size=1, max_size=4))
    image = peimages.library(*old, last=draw(st.booleans()))
    tail = draw(st.binary(max_size=40))
    symbols = draw(st.booleans())
    changed = replace(
        image,
        room=draw(st.sampled_from([0, 16, 40, 48, 120])),
        checksum=draw(st.sampled_from([0, 1])),
        tail=peimages.TAIL + tail if symbols else tail,
        symbols=symbols,
        signature=draw(st.sampled_from([b"", b"signed" * 4])),
    )
    return peimages.with_debug_offset(changed), len(old)


@st.composite
def cases(draw: st.DrawFn) -> tuple[bytes, list[Sequence[Entry]], list[Sequence[Entry]]]:
    """An image and two contents for it."""
    image, count = draw(hosts())
    contents = st.lists(containers, min_size=count, max_size=count)
    return image.write(), draw(contents), draw(contents)


def rewritten(data: bytes, contents: Sequence[Sequence[Entry]]) -> bytes:
    return b"".join(rewrite_linked(read_pe(data), contents, may_have_kernels).pieces)


def through_wrappers(pe: Pe) -> list[bytes]:
    """The containers that the image's wrappers lead to."""
    (section,) = pe.named(".nvFatBi")
    rows = struct.iter_unpack("<IIQQ", pe.content(section))
    rest = [pe.rest(row[2] - BASE) for row in rows]
    return [bytes(found[: 16 + int.from_bytes(found[8:16], "little")]) for found in rest]


def others(pe: Pe) -> list[tuple[str, int, int, int, bytes]]:
    """All sections without device code and what changes with it."""
    rows = []
    for section in pe.sections:
        content = bytearray(pe.content(section))
        if section.name == ".rdata":
            content[24:28] = bytes(4)
        if section.name not in (".nv_fatb", ".nvFatBi"):
            row = (section.name, section.address, section.virtual_size, section.flags)
            rows.append((*row, bytes(content)))
    return rows


@given(cases())
def test_what_was_rewritten_before_leaves_no_trace(
    case: tuple[bytes, list[Sequence[Entry]], list[Sequence[Entry]]],
) -> None:
    data, one, two = case
    first = rewritten(data, one)
    assert rewritten(first, two) == rewritten(data, two)
    assert rewritten(first, one) == first


@given(cases())
def test_new_device_code_is_found_and_all_else_is_as_it_was(
    case: tuple[bytes, list[Sequence[Entry]], list[Sequence[Entry]]],
) -> None:
    data, contents, _ = case
    before, after = read_pe(data), read_pe(rewritten(data, contents))
    expected = [peimages.container(entries) for entries in contents]
    assert through_wrappers(after) == expected
    (section,) = after.named(".nv_fatb")
    content = bytes(after.content(section))
    found = parse_containers(content)
    assert [content[c.offset : c.offset + c.size] for c in found] == expected
    assert others(after) == others(before)
    assert after.checksum == (peimages.checksum(bytes(after.data)) if before.checksum else 0)
