"""Containers of device code, put together here, of which one thing is another."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import zstandard

from fatwheel.compare.device import Slices, differing_units, read_units, slices_of
from fatwheel.compare.differences import Difference, Position
from fatwheel.fatbin.container import parse_containers

from ...helpers.deviceimages import compute, container, cubin, raw, sm

PLACE = Position("a.so", ".nv_fatbin")
A, B = {"a": [(0, 8)]}, {"b": [(0, 8)]}


def told(one: bytes, other: bytes, record: Any = None) -> list[Difference]:
    sides = [read_units(parse_containers(data), Slices(record)) for data in (one, other)]
    return list(differing_units(PLACE, *sides))


def places(found: list[Difference]) -> list[tuple[str, int | None, str, str]]:
    return [(each.level, each.place.container, each.place.image, each.place.symbol)
            for each in found]  # fmt: skip


def test_nothing_differs() -> None:
    data = container(sm(80, A), compute(80, A)) + container(sm(80, B))
    assert told(data, data) == []


@pytest.mark.parametrize("compression", ["", "lz4", "zstd"])
def test_one_kernel_of_one_unit_for_one_gpu(compression: str) -> None:
    both: dict[str, Any] = {**A, **B}
    images = [sm(80, both, compression=compression), sm(90, both, compression=compression)]
    image = bytearray(cubin(90, both))
    image[image.rindex(b"code")] ^= 1  # the code of the kernel that comes last
    changed = raw("elf", 90, bytes(image), compression=compression)
    found = told(
        container(sm(80)) + container(*images), container(sm(80)) + container(images[0], changed)
    )
    assert places(found) == [("kernel", 1, "sm_90", "b")]
    assert found[0].what == "SASS: 4 bytes in both; the first that differs is at 0x0"


def test_an_image_that_only_one_has() -> None:
    found = told(container(sm(80), compute(80)), container(sm(80), sm(90), compute(80)))
    assert places(found) == [("image", 0, "sm_90", "")]
    assert found[0].what == "only in the second"


def test_images_in_another_order() -> None:
    [found] = told(container(sm(80), sm(90)), container(sm(90), sm(80)))
    assert (found.level, found.one, found.other) == ("image", "sm_80, sm_90", "sm_90, sm_80")


def test_two_images_for_one_gpu_are_told_apart() -> None:
    [found] = told(container(sm(80, A), sm(80, B)), container(sm(80, A), sm(80, B, b"more")))
    assert (found.place.image, found.place.symbol) == ("sm_80 #2", "b")


def test_ptx_line_by_line() -> None:
    [found] = told(container(compute(80, ["a", "b"])), container(compute(80, ["a", "c"])))
    assert (found.level, found.place.image, found.what) == ("kernel", "compute_80", "line 6")
    assert (found.one, found.other) == (".visible .entry b()", ".visible .entry c()")


def test_the_same_image_compressed_otherwise() -> None:
    [found] = told(container(sm(80, compression="lz4")), container(sm(80, compression="zstd")))
    assert found.what == "the same image, compressed differently: lz4 became zstd"
    [found] = told(container(sm(80)), container(sm(80, compression="zstd")))
    assert found.what == "the same image, compressed differently: not at all became zstd"
    levels = []
    for level in (1, 19):
        image = cubin(80, A, bytes(range(256)) * 30)
        entry = bytearray(raw("elf", 80, image, compression="zstd")[:64])
        stored = zstandard.ZstdCompressor(level).compress(image)
        padded = stored + bytes(-len(stored) % 8)
        entry[8:16], entry[16:20] = (
            len(padded).to_bytes(8, "little"),
            len(stored).to_bytes(4, "little"),
        )
        levels.append(container(bytes(entry) + padded))
    assert levels[0] != levels[1]
    [found] = told(*levels)
    assert found.what.startswith("the same image, compressed differently: ")


def test_the_same_image_in_another_header() -> None:
    entry = bytearray(sm(80))
    entry[0x18] ^= 1
    [found] = told(container(sm(80)), container(bytes(entry)))
    assert found.what.startswith("the same image, but for its header: ")


def test_an_image_that_cannot_be_decompressed() -> None:
    entry = bytearray(sm(80, compression="zstd"))
    entry[64] ^= 0xFF  # zstd's magic number
    [found] = told(container(sm(80, compression="zstd")), container(bytes(entry)))
    assert (found.level, found.place.image) == ("image", "sm_80")
    assert found.what.startswith("in the second it cannot be decompressed (")
    assert "the first that differs is at 0x40" in found.what


def test_an_image_that_is_no_cubin() -> None:
    [found] = told(container(sm(80)), container(raw("elf", 80, b"no cubin")))
    assert found.what.startswith("it cannot be read as a cubin (not an ELF file)")


def test_units_in_another_order_are_not_compared_with_others() -> None:
    one, other = container(sm(80, A), sm(90, A)), container(sm(80, B), sm(90, B))
    [found] = told(one + other, other + one)
    assert (found.level, found.what) == ("unit", "the units are in a different order")


def test_units_with_the_same_kernels_are_told_apart_by_their_bytes() -> None:
    one, other = container(sm(80, A)), container(sm(80, A, b"more"))
    [found] = told(one + other, other + one)
    assert (found.level, found.what) == ("unit", "the units are in a different order")


def test_a_unit_more_does_not_shift_the_others() -> None:
    first, second = container(sm(80, A)), container(sm(80, B))
    changed = container(sm(80, B, b"more"))
    found = told(first + second, first + container(sm(80, {"c": []})) + changed)
    assert places(found) == [("unit", 1, "", ""), ("kernel", 1, "sm_80", "b")]
    assert found[0].what == "only in the second: sm_80"


# -- names ---------------------------------------------------------------------------------------


def slice_digest(image: bytes) -> str:
    """As the store has it: the image in a container of its own."""
    return hashlib.sha256(container(image)).hexdigest()


def record(**units: bytes) -> dict[str, Any]:
    return {
        "units": [
            {"name": name, "slices": {"sm_80": slice_digest(image)}}
            for name, image in units.items()
        ]
    }


def test_units_have_the_record_s_names() -> None:
    one, other = sm(80, A), sm(80, B)
    named = record(first=one, second=other)
    [found] = told(
        container(one) + container(other, compute(80, B)),
        container(one) + container(other, compute(80, A)),
        named,
    )
    assert (found.place.unit, found.place.container) == ("second", 1)


def test_units_with_the_same_kernels_are_told_apart_by_their_names() -> None:
    """Both moved, and both changed."""
    one, other = sm(80, A, b"1"), sm(80, A, b"2")
    new_one, new_other = sm(80, A, b"3333"), sm(80, A, b"44444444")
    sides = [
        read_units(parse_containers(container(first) + container(second)), Slices(named))
        for first, second, named in (
            (one, other, record(one=one, other=other)),
            (new_other, new_one, record(one=new_one, other=new_other)),
        )
    ]
    order, *found = differing_units(PLACE, *sides)
    assert order.what == "the units are in a different order"
    assert [(each.place.unit, each.what) for each in found] == [
        ("one", "SASS: 5 bytes became 8; the first that differs is at 0x4"),
        ("other", "SASS: 5 bytes became 12; the first that differs is at 0x4"),
    ]


def test_a_name_that_one_side_alone_knows_is_enough() -> None:
    one, changed = sm(80, A), sm(80, A, b"more")
    [found] = told(container(one), container(changed), record(first=one))
    assert found.place.unit == "first"


def test_slices_that_were_seen_are_kept() -> None:
    one = sm(80, A)
    slices = Slices(record(first=one))
    read_units(parse_containers(container(one)), slices)
    assert slices.seen == {slice_digest(one)}


@pytest.mark.parametrize(
    "record",
    [
        None, [], {"units": 1}, {"units": [1, {}, {"slices": []}]}, {"stitched": [None, 3]},
        {"stitched": {"units": []}},
    ],
)  # fmt: skip
def test_any_record_is_taken(record: Any) -> None:
    assert list(slices_of(record)) == []


def test_the_records_of_stitched_wheels() -> None:
    part = {"units": [{"name": "x", "slices": {"sm_80": "d"}}]}
    assert list(slices_of({"stitched": [part, part]})) == [("x", "sm_80", "d")] * 2
