"""Comparing images, with device code from data/device."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from fatwheel.errors import StitchError
from fatwheel.fatbin.container import Entry, parse_containers
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


def test_other_kernels_are_refused_with_both_sides() -> None:
    entries = [entry(cubin("cuda13.0-sm_80"), 80), entry(cubin("large"), 90)]
    with pytest.raises(StitchError, match="do not have the same kernels") as caught:
        check_parity("csrc/unit", entries)
    assert caught.value.where == "csrc/unit"
    assert caught.value.what.startswith("sm_80 and sm_90 ")
    assert caught.value.details == (
        "only in sm_80: $empty",
        "only in sm_80: scale",
        "only in sm_90: large",
    )


def test_other_ptx_entries_are_refused() -> None:
    ptx = (DATA / "scale.ptx").read_bytes().replace(b".entry scale(", b".entry other(")
    entries = [entry(cubin("cuda13.0-sm_80"), 80), entry(ptx, 80, kind=1)]
    with pytest.raises(StitchError) as caught:
        check_parity("unit", entries)
    assert caught.value.what.startswith("sm_80 and compute_80 ")
    assert caught.value.details == ("only in sm_80: scale", "only in compute_80: other")


def test_ptx_alone_is_compared_too() -> None:
    ptx = (DATA / "scale.ptx").read_bytes()
    large = (DATA / "large.ptx").read_bytes()
    check_parity("unit", [entry(ptx, 80, kind=1), entry(ptx, 90, kind=1)])
    with pytest.raises(StitchError):
        check_parity("unit", [entry(ptx, 80, kind=1), entry(large, 90, kind=1)])


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
        "scale: sm_80 has 22 bytes (#0 at 0, 8 bytes; #1 at 8, 12 bytes; #2 at 20, 2 bytes)",
        "scale: sm_86 has 22 bytes (#0 at 0, 8 bytes; #1 at 8, 8 bytes; #2 at 20, 2 bytes)",
    )


def test_long_lists_are_shortened() -> None:
    many = b"".join(b".entry k%03d() { ret; }\n" % number for number in range(100))
    with pytest.raises(StitchError) as caught:
        check_parity("unit", [entry(many, 80, kind=1), entry(b"", 90, kind=1)])
    assert len(caught.value.details) == 13
    assert caught.value.details[-1] == "... and 88 more"


def test_images_that_cannot_be_compared_are_left_alone() -> None:
    check_parity("unit", [entry(cubin("cuda13.0-sm_80"), 80), entry(b"IR", 80, kind=8)])
