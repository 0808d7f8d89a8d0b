"""TORCH_CUDA_ARCH_LIST: what torch's own documentation and source take."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.arch import parse_arch
from fatwheel.model import Front
from fatwheel.worker.torchlist import torch_arch_list

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
