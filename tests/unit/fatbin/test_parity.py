"""Comparing images, with device code from data/device."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from fatwheel.errors import StitchError
from fatwheel.fatbin.container import Entry, parse_containers
from fatwheel.fatbin.parity import Described, compare, disagreements, in_part, shorten
from fatwheel.fatbin.stitch import slices_of

from ...helpers.deviceimages import check_parity

DATA = Path(__file__).parents[2] / "data" / "device"


def entry(image: bytes, number: int, *, kind: int = 2, flags: int = 0x11) -> Entry:
    header = (kind, 0x101, 64, len(image), 0, 0, 0, 0, number, 0, 0, flags, 0, 0)
    raw = struct.pack("<HHIQIIHHIIIQQQ", *header) + image
    (container,) = parse_containers(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(raw)) + raw)
    return container.entries[0]


def cubin(name: str) -> bytes:
    return (DATA / f"{name}.cubin").read_bytes()


@pytest.mark.parametrize("name", ["none", "lz4", "zstd"])
def test_slices_that_agree_pass(name: str) -> None:
    check_parity("unit", slices_of((DATA / f"{name}.fatbin").read_bytes()))


def test_slices_of_different_cuda_versions_agree() -> None:
    entries = [entry(cubin("cuda11.8-sm_80"), 80), entry(cubin("cuda13.0-sm_120f"), 120)]
    check_parity("unit", entries)


def test_kernels_of_some_images_only_are_no_contradiction() -> None:
    """Sources leave kernels out for some architectures; PTX may have others, too."""
    images = [
        Described("sm_80", frozenset({"a", "b"}), {"a": "8", "b": "8"}),
        Described("sm_90", frozenset({"a", "c"}), {"a": "8", "c": "8"}),
        Described("compute_90", frozenset({"a", "c"}), None),
    ]
    compare("unit", images)
    assert in_part(images) == {"b": ("sm_80",), "c": ("sm_90", "compute_90")}
    assert in_part(images[1:]) == {}
    assert in_part([]) == {}


def test_a_kernel_is_compared_wherever_it_is_defined() -> None:
    """Also where the first image does not define it."""
    images = [
        Described("sm_70", frozenset({"a"}), {"a": "8"}),
        Described("sm_80", frozenset({"a", "b"}), {"a": "8", "b": "8"}),
        Described("sm_90", frozenset({"a", "b"}), {"a": "8", "b": "4"}),
    ]
    [found] = disagreements(images)
    assert found.what == "sm_80 and sm_90 disagree on kernel parameters"
    assert found.lines == ("b: sm_80 has 8", "b: sm_90 has 4")
    with pytest.raises(StitchError, match="sm_80 and sm_90 disagree"):
        compare("unit", images)


def test_other_layouts_are_refused_with_both() -> None:
    changed = bytearray(cubin("cuda12.4-sm_86"))
    # KPARAM_INFO of parameter 1: index 0, ordinal 1, offset 8, and in the top 14 bits size 12.
    record = changed.find(struct.pack("<BBHIHH", 4, 0x17, 12, 0, 1, 8))
    assert record > 0, "the sample must have the record"
    (value,) = struct.unpack_from("<I", changed, record + 12)
    assert value >> 18 == 12
    struct.pack_into("<I", changed, record + 12, value - (4 << 18))
    entries = [entry(cubin("cuda13.0-sm_80"), 80), entry(bytes(changed), 86)]
    with pytest.raises(StitchError, match="sm_80 and sm_86 disagree on kernel param") as caught:
        check_parity("csrc/unit", entries)
    assert caught.value.where == "csrc/unit"
    assert caught.value.details == (
        "scale: sm_80 has #0 of 8 bytes, #1 of 12 bytes, #2 of 2 bytes",
        "scale: sm_86 has #0 of 8 bytes, #1 of 8 bytes, #2 of 2 bytes",
    )


def test_long_lists_are_shortened() -> None:
    assert shorten(map(str, range(12))) == [str(number) for number in range(12)]
    assert shorten(map(str, range(100)))[11:] == ["11", "... and 88 more"]


def test_images_that_cannot_be_compared_are_left_alone() -> None:
    check_parity("unit", [entry(cubin("cuda13.0-sm_80"), 80), entry(b"IR", 80, kind=8)])
