"""Lists of architectures as projects take them: what the documentation and source of torch, CMake
and NATTEN say."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.arch import parse_arch
from fatwheel.model import Front
from fatwheel.worker.archs import arch_variables, filled

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
