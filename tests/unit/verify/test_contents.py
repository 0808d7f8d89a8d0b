"""What binaries hold, and on which GPUs that runs."""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import replace

import pytest

from fatwheel.arch import Arch
from fatwheel.errors import FormatError
from fatwheel.fatbin.binary import read_binary
from fatwheel.fatbin.embedded import Bound, EmbeddedCode, Images
from fatwheel.verify import contents as contents_module
from fatwheel.verify.contents import (
    Contents,
    Image,
    KernelContainer,
    coverage_of,
    gpus,
    layouts_of,
    machines_of,
    names_of,
    read_containers,
    read_contents,
    sum_up,
    units_served,
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


def unit(*names: str) -> KernelContainer:
    """A container with one kernel: 'sm_80' is a cubin, 'compute_80' PTX."""
    images = tuple(
        Image("elf", Arch(int(name[3:])), 1, "")
        if name.startswith("sm_")
        else Image("ptx", Arch(int(name[8:])), 1, "")
        for name in names
    )
    return KernelContainer(0, ("kernel",), images)


def contents(*units: KernelContainer) -> Contents:
    images = tuple(image for unit in units for image in unit.images)
    return Contents("a.so", "elf", "x86_64", len(units), images, units)


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ([], "none"),
        ([unit("sm_86")], "native"),
        ([unit("sm_80")], "native"),
        ([unit("sm_89")], "none"),
        ([unit("compute_75")], "jit"),
        ([unit("compute_89")], "none"),
        ([unit("sm_90", "compute_80")], "jit"),
        ([unit("sm_86"), unit("compute_80")], "jit"),
        ([unit("sm_86"), unit("compute_80"), unit("sm_90")], "part"),
    ],
)
def test_the_worst_container_decides(units: list[KernelContainer], expected: str) -> None:
    assert coverage_of([contents(*units), contents()])["8.6"].how == expected


@pytest.mark.parametrize(
    ("relocatable", "expected"),
    [
        ([unit("sm_80", "compute_80"), unit("compute_80")], "none"),  # the first is not linked anew
        ([unit("sm_90", "compute_80"), unit("compute_75")], "jit"),
        ([unit("compute_80"), unit("compute_90")], "none"),
        ([unit("compute_80"), unit()], "none"),
        ([], "none"),
    ],
)
def test_linked_code_may_be_linked_anew_from_ptx(
    relocatable: list[KernelContainer], expected: str
) -> None:
    linked = replace(unit("sm_90"), relocatable=tuple(one.archs for one in relocatable))
    assert coverage_of([contents(linked)])["8.6"].how == expected
    assert coverage_of([contents(linked, unit("sm_90"))])["8.6"].none == 1 + (expected == "none")
    assert coverage_of([contents(linked)])["9.0"].how == "native"


def test_older_gpus_are_listed_where_they_are_supported() -> None:
    assert next(iter(coverage_of([contents(unit("sm_80"))]))) == "7.5"
    assert list(coverage_of([contents(unit("sm_61"), unit("sm_80"))]))[:2] == ["6.1", "7.5"]
    found = coverage_of([contents(unit("compute_50"))])
    assert list(found)[:4] == ["5.0", "5.2", "6.0", "6.1"]
    assert {served.how for served in found.values()} == {"jit"}


def test_gpus_that_are_not_known_are_listed_by_number() -> None:
    found = coverage_of([contents(unit("sm_107"))])
    assert found["10.7"].how == "native"
    assert "10.7" not in coverage_of([contents(unit("sm_100"))])


def test_only_gpus_of_such_computers_are_listed() -> None:
    code = unit("sm_80", "sm_87", "sm_110")
    assert not {"8.7", "11.0", "12.1"} & coverage_of([contents(code)]).keys()
    arm = coverage_of([replace(contents(code), machine="aarch64")])
    assert arm["8.7"].how == arm["11.0"].how == "native"
    anywhere = [replace(contents(code), machine="cuda")]
    assert not machines_of(anywhere)
    assert coverage_of(anywhere)["8.7"].how == "native"


def test_support_in_part_is_counted() -> None:
    served = coverage_of([contents(unit("sm_90"), unit("sm_90"), unit("compute_80"))])["8.0"]
    assert (served.native, served.jit, served.none) == (0, 1, 2)
    assert (served.how, units_served(served)) == ("part", "1 of 3 units")


# -- code that libraries load themselves ---------------------------------------------------------


def holding(found: Contents, *archs: int) -> Contents:
    """The same with cubins for these among its data."""
    images = tuple(Images("elf", Arch(number), False, 1, 1) for number in archs)
    return replace(found, embedded=(EmbeddedCode(".data", 1, 0, 1, images),))


def how(found: Collection[Contents], *, in_wheel: bool = False) -> dict[str, str]:
    served = coverage_of(found, in_wheel=in_wheel)
    return {capability: one.how for capability, one in served.items()}


def test_no_gpu_is_without_code_where_libraries_load_more() -> None:
    found = how([holding(contents(), 86)])
    assert set(found.values()) == {"unknown"}
    assert set(found) == set(how([contents()]))


def test_containers_that_are_counted_say_more() -> None:
    found = how([holding(contents(unit("sm_80"), unit("sm_90", "sm_80")), 70)])
    assert [found[gpu] for gpu in ("7.0", "7.5", "8.6", "9.0", "10.0")] == [
        "unknown", "unknown", "native", "part", "unknown",
    ]  # fmt: skip


def test_older_and_unknown_gpus_are_listed_where_there_is_code_for_them() -> None:
    found = how([holding(contents(unit("sm_80")), 50, 107)])
    assert list(found)[:2] == ["5.0", "5.2"]
    assert found["10.7"] == "unknown"
    assert "6.0" not in found


@pytest.mark.parametrize("in_wheel", [False, True])
def test_files_of_a_wheel_that_are_device_code_alone_are_loaded_by_name(in_wheel: bool) -> None:
    cubin = replace(contents(unit("sm_90")), path="a.cubin", format="cubin", machine="cuda")
    found = how([contents(unit("sm_80")), cubin], in_wheel=in_wheel)
    assert (found["8.0"], found["9.0"], found["7.5"]) == (
        ("native", "unknown", "unknown") if in_wheel else ("part", "part", "none")
    )
    assert how([cubin])["9.0"] == "native", "a file by itself says what it runs on"


def test_gpus_are_named_once() -> None:
    names = [name for gpu in gpus() for name in gpu.names]
    assert len(names) == len(set(names))
    assert all(gpu.names for gpu in gpus())
