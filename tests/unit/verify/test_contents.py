"""Containers, images and kernels of a binary, from fatbins that NVIDIA's fatbinary made."""

from __future__ import annotations

import struct

import pytest

from fatwheel.errors import FormatError
from fatwheel.fatbin.binary import read_binary
from fatwheel.fatbin.embedded import Bound
from fatwheel.verify import contents as contents_module
from fatwheel.verify.contents import (
    Contents,
    layouts_of,
    names_of,
    read_containers,
    read_contents,
    sum_up,
)

from ...helpers.cudawheels import LZ4, NONE, ZSTD, fatbin, images, without
from ...helpers.standins import DATA

NAMES = ("sm_80", "compute_80", "sm_90a", "sm_120f")


def contents_of(path: str, data: memoryview) -> Contents:
    return read_contents(path, data, read_binary(data), Bound())


@pytest.mark.parametrize(("data", "compression"), [(NONE, ""), (LZ4, "lz4"), (ZSTD, "zstd")])
def test_images_and_kernels(data: bytes, compression: str) -> None:
    found = contents_of("a.fatbin", memoryview(data + without(1)))
    assert (found.path, found.format, found.machine) == ("a.fatbin", "fatbin", "cuda")
    assert found.containers == 2
    first, second = found.units
    assert (first.container, second.container) == (0, 1)
    assert first.kernels == second.kernels == ("$empty", "scale")
    assert tuple(image.name for image in first.images) == NAMES
    assert {image.compression for image in first.images} == {compression}
    assert {str(arch) for arch in second.archs.cubins} == {"80", "90a", "120f"}
    assert second.archs.ptx == frozenset()
    assert found.images == first.images + second.images


def test_layouts_are_read_only_where_asked_for() -> None:
    binary = read_binary(memoryview(NONE))
    [(_, names)] = read_containers(memoryview(NONE), binary, names_of)
    [(_, layouts)] = read_containers(memoryview(NONE), binary, layouts_of)
    assert [read.kernels.layouts is None for read in names] == [True] * 4
    assert [read.kernels.layouts is None for read in layouts] == [False, True, False, False]
    for one, other in zip(names, layouts, strict=True):
        assert (one.image, one.kernels.kernels) == (other.image, other.kernels.kernels)
        assert one.kernels.title == one.image.name


def test_images_of_other_kinds_are_carried_unread() -> None:
    """The PTX is called LTO-IR, kind 8, in the first two bytes of its header."""
    first, ptx, *_ = images(NONE)
    data = fatbin([first, struct.pack("<H", 8) + ptx[2:]])
    found = contents_of("a", memoryview(data))
    assert [image.kind for image in found.images] == ["elf", "lto"]
    assert found.units[0].kernels == ("$empty", "scale")
    only = contents_of("a", memoryview(fatbin([struct.pack("<H", 8) + ptx[2:]])))
    assert (only.containers, only.units) == (1, ())


def test_a_cubin_is_a_unit_of_its_own() -> None:
    data = memoryview((DATA / "cuda12.4-sm_90a.cubin").read_bytes())
    found = contents_of("a.cubin", data)
    [unit] = found.units
    assert (found.containers, unit.container) == (0, None)
    assert unit.kernels == ("$empty", "scale")
    assert unit.images[0].size == len(data)


def test_names_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents_module, "_MAX_NAMES", 10)
    binary = read_binary(memoryview(NONE))
    with pytest.raises(FormatError, match="names are too long"):
        sum_up("a", binary, read_containers(memoryview(NONE), binary, names_of))


def test_a_damaged_image_is_named_with_its_container() -> None:
    first, *others = images(NONE)
    data = NONE + fatbin([first[:64] + bytes(len(first) - 64), *others])
    with pytest.raises(FormatError) as caught:
        contents_of("a", memoryview(data))
    assert caught.value.where == f"fatbin container at offset {len(NONE):#x}"
