"""Which GPUs a file supports, from the architectures of its units."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from fatwheel.arch import Arch
from fatwheel.fatbin.embedded import Images, Place
from fatwheel.verify.contents import Contents, Image, Unit
from fatwheel.verify.coverage import coverage_of, gpus, machines_of, units_served


def unit(*names: str) -> Unit:
    """A container with one kernel: 'sm_80' is a cubin, 'compute_80' PTX."""
    images = tuple(
        Image("elf", Arch(int(name[3:])), 1, "")
        if name.startswith("sm_")
        else Image("ptx", Arch(int(name[8:])), 1, "")
        for name in names
    )
    return Unit(0, ("kernel",), images)


def contents(*units: Unit) -> Contents:
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
def test_the_worst_container_decides(units: list[Unit], expected: str) -> None:
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
def test_linked_code_may_be_linked_anew_from_ptx(relocatable: list[Unit], expected: str) -> None:
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
    return replace(found, embedded=(Place(".data", 1, 0, 1, images),))


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
