"""Architectures; which GPU runs which image, by the rules of NVIDIA's CUDA C++ Programming Guide
("Application Compatibility", "Feature-Specific Compute Targets")."""

from __future__ import annotations

import random

import pytest

from fatwheel.arch import (
    Arch,
    ArchRequest,
    coverage,
    parse_arch,
    parse_arch_list,
    parse_capability,
    runs_by_jit,
    runs_natively,
    same_family,
)
from fatwheel.errors import UsageError

CAPABILITIES = ("7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "10.3", "11.0", "12.0", "12.1")

KNOWN = [parse_arch(name) for name in ("75", "80", "86", "89", "90", "90a", "100f", "120")]


@pytest.mark.parametrize(
    ("text", "arch"),
    [
        ("80", Arch(80)),
        ("sm_86", Arch(86)),
        ("compute_90a", Arch(90, "a")),
        ("120f", Arch(120, "f")),
        (" 89 ", Arch(89)),
    ],
)
def test_architectures_are_read_as_nvcc_writes_them(text: str, arch: Arch) -> None:
    assert parse_arch(text) == arch


@pytest.mark.parametrize(
    "text", ["", "foo", "8.0", "8", "80b", "sm80", "80A", "90af", "-80", "8000"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a GPU architecture"):
        parse_arch(text)


def test_an_architectures_names() -> None:
    arch = Arch(120, "f")
    assert (arch.name, arch.sm, arch.compute, str(arch)) == (
        "120f",
        "sm_120f",
        "compute_120f",
        "120f",
    )
    assert (arch.major, arch.minor, arch.capability) == (12, 0, "12.0")
    assert parse_capability("8.6") == Arch(86)
    assert ArchRequest(Arch(89), ptx=True).label == "sm89.ptx"
    assert str(ArchRequest(Arch(89), ptx=True)) == "89+ptx"
    assert ArchRequest(Arch(90, "a")).label == "sm90a"


def test_the_order_is_by_number_then_suffix() -> None:
    expected = ["75", "80", "86", "90", "90a", "100", "100a", "100f", "120"]
    shuffled = [parse_arch(name) for name in expected]
    random.Random(1).shuffle(shuffled)
    assert [arch.name for arch in sorted(shuffled)] == expected


# -- lists -------------------------------------------------------------------------------------


def test_a_list_is_put_in_order() -> None:
    requests = parse_arch_list("89, 80+ptx,90a", KNOWN)
    assert [str(request) for request in requests] == ["80+ptx", "89", "90a"]


@pytest.mark.parametrize("text", ["", "  ", ","])
def test_an_empty_list_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_arch_list(text, KNOWN)
    assert "75, 80, 86, 89, 90, 90a, 100f, 120" in (caught.value.hint or "")


def test_all_mistakes_of_a_list_are_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        parse_arch_list("85,foo,80,86+sass,80+ptx,,90", KNOWN)
    assert caught.value.where == "--arch 85,foo,80,86+sass,80+ptx,,90"
    assert caught.value.exit_code == 2
    assert [detail.partition(" ")[0] for detail in caught.value.details] == [
        "'85'", "'foo'", "'86+sass'", "'80+ptx'", "''",
    ]  # fmt: skip
    assert "does not know" in caught.value.details[0]
    assert "a second time" in caught.value.details[3]


# -- which GPU runs what -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "runs_on"),
    [
        ("80", "8.0 8.6 8.7 8.9"),
        ("86", "8.6 8.7 8.9"),
        ("89", "8.9"),
        ("75", "7.5"),
        ("90", "9.0"),
        ("90a", "9.0"),
        ("100", "10.0 10.3"),
        ("100a", "10.0"),
        ("100f", "10.0 10.3"),
        ("103f", "10.3"),
        ("120", "12.0 12.1"),
        ("120a", "12.0"),
        ("121f", "12.1"),
    ],
)
def test_a_cubin_runs_on(image: str, runs_on: str) -> None:
    found = [c for c in CAPABILITIES if runs_natively(parse_arch(image), parse_capability(c))]
    assert found == runs_on.split()


@pytest.mark.parametrize(
    ("image", "runs_on"),
    [
        ("75", "7.5 8.0 8.6 8.7 8.9 9.0 10.0 10.3 11.0 12.0 12.1"),
        ("90", "9.0 10.0 10.3 11.0 12.0 12.1"),
        ("90a", "9.0"),
        ("100f", "10.0 10.3"),
        ("120a", "12.0"),
        ("121", "12.1"),
    ],
)
def test_ptx_can_be_compiled_for(image: str, runs_on: str) -> None:
    found = [c for c in CAPABILITIES if runs_by_jit(parse_arch(image), parse_capability(c))]
    assert found == runs_on.split()


def test_families() -> None:
    assert same_family(Arch(100, "f"), Arch(103))
    assert not same_family(Arch(103, "f"), Arch(100))
    assert not same_family(Arch(100, "f"), Arch(110))


def test_a_cubin_goes_before_ptx_and_ptx_before_nothing() -> None:
    gpu = parse_capability("8.9")
    assert coverage([Arch(80)], [Arch(75)], gpu) == "native"
    assert coverage([Arch(90)], [Arch(75)], gpu) == "jit"
    assert coverage([Arch(90)], [Arch(90)], gpu) == "none"
    assert coverage([], [], gpu) == "none"
