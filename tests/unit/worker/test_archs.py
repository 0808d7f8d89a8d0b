"""Lists of architectures as projects take them: what the documentation and source of torch, CMake
and NATTEN say."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.arch import Arch, parse_arch
from fatwheel.errors import UpstreamError
from fatwheel.model import Front, Unit
from fatwheel.worker.archs import (
    Rules,
    arch_variables,
    codes_of,
    filled,
    fronts_of,
    other_fronts,
    planned,
    told,
)

# As torch 2.11.0 has it; 2.1.1 has the first line and 9.0.
SUPPORTED = """
def _get_cuda_arch_flags(cflags=None):
    supported_arches = ['3.5', '7.0', '8.0', '8.6', '8.7',
                        '9.0', '9.0a', '12.0', '12.0a']
    valid_arch_strings = supported_arches + [s + "+PTX" for s in supported_arches]
"""


def fronts(*items: str) -> tuple[Front, ...]:
    """`80,sm_80,sm_86,compute_80`: a front, and the images that are made from it."""
    split = [item.split(",") for item in items]
    return tuple(Front(parse_arch(virtual), tuple(codes)) for virtual, *codes in split)


def torch_arch_list(asked: tuple[Front, ...], site: Path) -> str:
    return arch_variables(asked, site)["TORCH_CUDA_ARCH_LIST"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "torch" / "utils").mkdir(parents=True)
    (tmp_path / "torch" / "utils" / "cpp_extension.py").write_text(SUPPORTED)
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["80,sm_80"], "8.0"),
        (["80,sm_80", "86,sm_86", "90a,sm_90a"], "8.0;8.6;9.0a"),
        (["80,sm_80", "120,sm_120,compute_120"], "8.0;12.0+PTX"),
        # One front for all of a family, and a front that makes nothing but PTX.
        (["80,sm_80,sm_86", "86,compute_86"], "8.0;8.6+PTX"),
        (["90,sm_90", "90a,sm_90a,compute_90a"], "9.0;9.0a+PTX"),
    ],
)
def test_torch_is_told_what_was_asked_for(asked: list[str], expected: str, site: Path) -> None:
    assert torch_arch_list(fronts(*asked), site) == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["120f,sm_120f"], "12.0"),
        (["88,sm_88,compute_88"], "8.7+PTX"),
        (["121a,sm_121a"], "12.0"),
        (["120,sm_120", "120f,sm_120f,compute_120f"], "12.0+PTX"),
        (["30,sm_30"], "3.0"),
    ],
)
def test_what_this_torch_does_not_know_is_the_next_older_one(
    asked: list[str], expected: str, site: Path
) -> None:
    assert torch_arch_list(fronts(*asked), site) == expected


@pytest.mark.parametrize("text", [None, "", "supported_arches = [x]", "supported_arches = []"])
def test_without_a_torch_that_says_what_it_knows_nothing_is_changed(
    text: str | None, site: Path
) -> None:
    file = site / "torch" / "utils" / "cpp_extension.py"
    file.unlink() if text is None else file.write_text(text)
    assert torch_arch_list(fronts("120f,sm_120f"), site) == "12.0f"


def test_cmake_is_told_of_cubins_and_ptx_apart(site: Path) -> None:
    """https://cmake.org/cmake/help/latest/prop_tgt/CUDA_ARCHITECTURES.html"""
    asked = fronts("80,sm_80", "90a,sm_90a", "120,sm_120,compute_120")
    found = arch_variables(asked, site)
    assert found["CUDAARCHS"] == "80-real;90a-real;120"
    assert found["CMAKE_CUDA_ARCHITECTURES"] == found["CUDAARCHS"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{archs}", "80;90;90a;120"),
        ("{archs:number}", "80;90;120"),
        ("{archs:capability}", "8.0;9.0;12.0"),
        ("{archs:number:,}", "80,90,120"),
        ("{archs:sm: }", "sm_80 sm_90 sm_90a sm_120"),
        ("{archs:torch}", "8.0;9.0;9.0a;12.0+PTX"),
        ("-DA={archs:cmake} -DB=x", "-DA=80-real;90-real;90a-real;120 -DB=x"),
        ("{site}/torch/include:{cuda_home}/include", "SITE/torch/include:/cuda/include"),
        ("${archs_of} {sites} {}", "${archs_of} {sites} {}"),
    ],
)
def test_a_recipe_says_how_its_project_spells_them(value: str, expected: str, site: Path) -> None:
    asked = fronts("80,sm_80", "90,sm_90", "90a,sm_90a", "120,sm_120,compute_120")
    found = filled([("A", value)], asked, site, Path("/cuda"))
    assert found == {"A": expected.replace("SITE", str(site))}


# -- units -------------------------------------------------------------------------------------


def unit(name: str, *own: str) -> Unit:
    return Unit(name, "cuda", f"@src@/{name}.cu", (), (), own)


def plan(archs: str, *units: Unit, rules: Rules = ()) -> dict[str, str]:
    """What each unit is compiled for, separated by blanks. archs: as in --arch."""
    asked = fronts(
        *(
            f"{name},sm_{name}" + (f",compute_{name}" if plus else "")
            for name, plus, _ in (item.partition("+") for item in archs.split(","))
        )
    )
    found = planned(units, rules, asked)
    assert planned(found, rules, asked) == found, "planning twice changes it"
    return {one.name: " ".join(codes_of(one, asked)) for one in found}


OLD = ("sm_70", "sm_80")
AMPERE, HOPPER, BOTH = ("sm_80",), ("sm_90a",), ("sm_80", "sm_90a")


def test_what_all_units_of_a_project_are_for_is_its_default(site: Path) -> None:
    """As flash-attn 2.3.6, whose setup.py knows sm_80 and sm_90."""
    assert plan("89", unit("a", *OLD), unit("b", *OLD)) == {"a": "sm_89", "b": "sm_89"}
    assert plan("120", unit("a", *OLD), unit("b")) == {"a": "sm_120", "b": "sm_120"}


@pytest.mark.parametrize(
    ("archs", "ampere", "hopper"),
    [
        ("80,90a", "sm_80", "sm_90a"),
        ("80,86,89,90a", "sm_80 sm_86 sm_89", "sm_90a"),
        ("80+ptx,90a", "sm_80 compute_80", "sm_90a"),
        ("89", "sm_89", ""),
        ("90a", "", "sm_90a"),
        ("90,90a", "", "sm_90a"),
    ],
)
def test_a_unit_for_some_architectures_is_compiled_for_those_alone(
    archs: str, ampere: str, hopper: str
) -> None:
    units = unit("all", *BOTH, "sm_90"), unit("ampere", *AMPERE), unit("hopper", *HOPPER)
    found = plan(archs, *units)
    assert (found["ampere"], found["hopper"]) == (ampere, hopper)
    assert len(found["all"].split()) == archs.count(",") + 1 + archs.count("+")


def test_ptx_of_the_projects_own_is_for_all_that_is_newer() -> None:
    units = unit("a", "sm_80", "compute_80"), unit("b", "sm_80", "sm_120")
    assert plan("80,90,120", *units) == {"a": "sm_80 sm_90 sm_120", "b": "sm_80 sm_120"}


def test_a_unit_that_is_for_none_keeps_a_front_for_its_host_object() -> None:
    asked = fronts("89,sm_89")
    _, hopper = planned([unit("a", "sm_80"), unit("b", "sm_90", "sm_90a")], (), asked)
    assert codes_of(hopper, asked) == ()
    assert fronts_of(hopper, asked) == fronts("90a,sm_90a")


def test_a_unit_that_is_not_for_all_never_shares_a_front() -> None:
    asked = fronts("80,sm_80,sm_86,sm_89", "86,compute_86", "90,sm_90")
    _, older = planned([unit("a", "sm_80", "sm_90"), unit("b", "sm_80")], (), asked)
    assert fronts_of(older, asked) == fronts("80,sm_80", "86,sm_86,compute_86", "89,sm_89")


def test_a_variant_that_was_not_named_is_an_error() -> None:
    with pytest.raises(UpstreamError) as caught:
        plan("80,90", unit("a", *AMPERE), unit("b", *HOPPER))
    assert caught.value.details == ("b is for 90a, not for 90",)
    assert "--arch 90a" in (caught.value.hint or "")


def test_an_architecture_for_which_there_is_no_unit_is_an_error() -> None:
    with pytest.raises(UpstreamError) as caught:
        plan("80,120", unit("a", *AMPERE), unit("b", *HOPPER), unit("c", *HOPPER))
    assert caught.value.what == "the project compiles nothing for 120"
    assert caught.value.details == ("80: a", "90a: b, c")


def test_a_recipe_knows_better() -> None:
    units = unit("csrc/a", *AMPERE), unit("csrc/b_sm90", *AMPERE), unit("csrc/c")
    rules = [("*_sm90", ["90a"]), ("*/c", ["80+ptx"]), ("*", [])]
    assert plan("80,90a", *units, rules=rules) == {
        "csrc/a": "sm_80 sm_90a", "csrc/b_sm90": "sm_90a", "csrc/c": "sm_80 sm_90a",
    }  # fmt: skip
    assert plan("120", unit("a", *AMPERE), unit("b", *HOPPER), rules=[("*", [])]) == {
        "a": "sm_120", "b": "sm_120",
    }  # fmt: skip


def test_units_of_which_a_proof_says_nothing_have_exact_fronts() -> None:
    asked = (Front(Arch(80), ("sm_80", "sm_86", "compute_80")),)
    a, b, cpp = unit("a", *AMPERE), unit("b", *AMPERE), Unit("c", "c++", "@src@/c.cpp", (), ())
    found = planned([a, b, cpp], (), asked, ["a"])
    assert found[0] == a
    assert found[2] == cpp
    assert fronts_of(found[0], asked) == asked
    assert fronts_of(found[1], asked) == (
        Front(Arch(80), ("sm_80", "compute_80")), Front(Arch(86), ("sm_86",)),
    )  # fmt: skip
    assert sorted(codes_of(found[1], asked)) == sorted(codes_of(a, asked)), "the same images"
    assert not list(told(found, asked)), "both are for all of them"
    assert planned(found, (), asked, ["a"]) == found, "planning twice changes it"


def test_what_is_no_unit_has_exact_fronts_where_a_proof_speaks_of_some_units() -> None:
    asked = (Front(Arch(80), ("sm_80", "compute_80", "sm_86"), 4),)
    assert other_fronts(asked, []) == asked
    assert other_fronts(asked, ["a"]) == (
        Front(Arch(80), ("sm_80", "compute_80")), Front(Arch(86), ("sm_86",)),
    )  # fmt: skip


def test_a_unit_that_is_not_for_all_stays_so_whatever_a_proof_says() -> None:
    asked = fronts("80,sm_80,sm_86", "90a,sm_90a")
    units = [unit("a", *AMPERE), unit("h", *HOPPER), unit("x", *BOTH)]
    found = planned(units, (), asked, ["h", "x"])
    assert [one.images for one in found] == [("sm_80", "sm_86"), ("sm_90a",), None]


def test_the_user_is_told_of_units_that_are_not_for_all() -> None:
    units = [unit(f"u{number}", *AMPERE) for number in range(7)]
    asked = fronts("80,sm_80")
    found = planned([*units, unit("h", *HOPPER), unit("x", *BOTH)], (), asked)
    [sentence] = told(found, asked)
    assert sentence.endswith(": none: h")
    asked = fronts("80,sm_80", "90a,sm_90a")
    found = planned([*units, unit("h", *HOPPER)], (), asked)
    [sentence] = told(found, asked)
    assert sentence.endswith(": 80: u0, u1, u2, u3, u4, and 2 more; 90a: h")
    assert not list(told([unit("a"), unit("b")], asked))
