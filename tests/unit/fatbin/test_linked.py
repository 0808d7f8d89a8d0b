"""Wrappers, and which containers they lead to; containers laid out anew or at their places."""

from __future__ import annotations

import struct

import pytest

from fatwheel.decoders import may_have_kernels
from fatwheel.errors import FormatError
from fatwheel.fatbin.container import parse_containers
from fatwheel.fatbin.linked import Wrapper, lay_in_place, lay_out, read_wrappers, used_containers

from ...helpers.deviceimages import ONE, TWO, compute, container, entries, raw, sm

PLAIN, LINKED = 1, 2


def wrapper(target: int, version: int = PLAIN, magic: int = 0x466243B1) -> bytes:
    """As facts about CUDA tell: magic, version, pointer, and a field for linked device code."""
    return struct.pack("<IIQQ", magic, version, target, 0)


def read(section: bytes, address: int = 0x1000) -> tuple[Wrapper, ...]:
    def address_at(place: int) -> int:
        return int.from_bytes(section[place - address : place - address + 8], "little")

    return read_wrappers(memoryview(section), address, address_at)


def test_wrappers_are_found_between_padding() -> None:
    section = wrapper(0x500) + bytes(8) + wrapper(0x600, LINKED) + bytes(16)
    assert read(section) == (Wrapper(0x1008, 1, 0x500), Wrapper(0x1028, 2, 0x600))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (wrapper(0)[:-1], "the wrapper is cut off"),
        (wrapper(0, magic=0x466243B2), "no wrapper here: magic 0x466243b2"),
        (wrapper(0, 3), "version 3 of the wrapper is not known"),
    ],
)
def test_what_is_no_wrapper_is_refused(section: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read(wrapper(0) + section)
    assert caught.value.where == "fatbin wrapper at address 0x1018"


def test_a_null_pointer_leads_nowhere() -> None:
    section = wrapper(0x500) + wrapper(0) + wrapper(0x600)
    found = read_wrappers(
        memoryview(section), 0x1000, lambda place: {0x1008: 0x500, 0x1038: 0x600}.get(place)
    )
    assert found == (Wrapper(0x1008, 1, 0x500), Wrapper(0x1038, 1, 0x600))


def test_containers_with_their_pointers() -> None:
    wrappers = [Wrapper(1, PLAIN, 0x500), Wrapper(2, LINKED, 0x600), Wrapper(3, PLAIN, 0x500)]
    held = {0x500: entries(sm(80)), 0x600: entries(sm(80, TWO))}
    assert used_containers(wrappers, held, [], may_have_kernels) == {0x500: (1, 3), 0x600: (2,)}


def test_pointers_to_relocatable_code_do_not_matter() -> None:
    wrappers = [Wrapper(1, PLAIN, 0x900), Wrapper(2, LINKED, 0x600)]
    held = {0x600: entries(sm(80))}
    assert used_containers(wrappers, held, [range(0x900, 0xA00)], may_have_kernels) == {0x600: (2,)}
    with pytest.raises(FormatError, match="no container is at address 0x900"):
        used_containers(wrappers, held, [range(0x901, 0xA00)], may_have_kernels)


def test_unused_containers_are_left_out_if_they_hold_no_kernels() -> None:
    """As linkers leave them of nvcc's stubs for linked device code."""
    nothing = {0x500: (), 0x600: entries(sm(80, {}), compute(80, []), sm(90, {}))}
    assert used_containers([], nothing, [], may_have_kernels) == {}


@pytest.mark.parametrize(
    "image",
    [sm(80, ONE), compute(80, ["one"]), raw("lto", 80, b"who knows"), raw("elf", 80, b"damaged!")],
    ids=["cubin", "PTX", "another kind", "a damaged cubin"],
)
def test_unused_containers_that_may_hold_kernels_are_refused(image: bytes) -> None:
    with pytest.raises(FormatError, match="nothing shows how the program finds") as caught:
        used_containers([], {0x500: entries(sm(80, {}), image)}, [], may_have_kernels)
    assert caught.value.where == "fatbin container at address 0x500"


def test_laid_out_one_after_the_other() -> None:
    contents = [entries(sm(80), sm(90)), (), entries(compute(80))]
    offsets, pieces = lay_out(contents)
    data = b"".join(pieces)
    found = parse_containers(data)
    assert tuple(one.offset for one in found) == offsets
    assert [one.entries for one in found] == [tuple(one) for one in contents]
    assert all(offset % 8 == 0 for offset in offsets)


SECTION = bytes(16) + container(sm(80), sm(90)) + bytes(40) + container(sm(80, TWO)) + bytes(24)


def in_place(*contents: bytes) -> bytes:
    """SECTION with these containers' images."""
    found = parse_containers(SECTION)
    wanted = [parse_containers(one)[0].entries for one in contents]
    data = bytearray(SECTION)
    for offset, piece in lay_in_place(found, len(SECTION), wanted):
        data[offset : offset + len(piece)] = piece
    return bytes(data)


def test_containers_at_their_places_leave_zeros() -> None:
    first, second = container(sm(90)), container()
    found = in_place(first, second)
    starts = [one.offset for one in parse_containers(SECTION)]
    assert len(found) == len(SECTION)
    assert found == bytes(16) + first.ljust(starts[1] - 16, b"\0") + second.ljust(
        len(SECTION) - starts[1], b"\0"
    )


def test_what_was_taken_out_fits_in_again() -> None:
    assert in_place(container(sm(80), sm(90)), container(sm(80, TWO))) == SECTION


def test_a_section_without_containers_stays_as_it_is() -> None:
    assert lay_in_place([], 64, []) == ()


def test_more_than_a_container_has_room_for_is_refused() -> None:
    too_much = container(sm(80), sm(90), sm(80))
    with pytest.raises(FormatError, match="do not fit into the ") as caught:
        in_place(too_much, container())
    assert str(len(too_much)) in caught.value.what
    assert caught.value.where == "relocatable fatbin container at offset 0x10"
