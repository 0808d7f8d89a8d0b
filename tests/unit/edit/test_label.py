from __future__ import annotations

import pytest

from fatwheel.arch import parse_arch
from fatwheel.edit.survey import arch_labels, with_archs, without_archs


@pytest.mark.parametrize(
    ("cubins", "ptx", "labels"),
    [
        ("80 86 89", "", "sm80 sm86 sm89"),
        ("89 80", "89", "sm80 sm89.ptx"),
        ("90", "80", "ptx80 sm90"),
        ("90 90a 120f", "90a", "sm90 sm90a.ptx sm120f"),
        ("", "100", "ptx100"),
        ("", "", ""),
    ],
)
def test_labels(cubins: str, ptx: str, labels: str) -> None:
    found = arch_labels(*([parse_arch(arch) for arch in text.split()] for text in (cubins, ptx)))
    assert " ".join(found) == labels


@pytest.mark.parametrize(
    ("version", "rest"),
    [
        ("0.0.23", "0.0.23"),
        ("2.3.6+cu123torch2.1.sm80.sm86.sm89", "2.3.6+cu123torch2.1"),
        ("2.3.6+cu123torch2.1", "2.3.6+cu123torch2.1"),
        ("1.0+sm89.ptx", "1.0"),
        ("1.0+ptx80.sm90a", "1.0"),
        ("1.0+cu118.SM80.local", "1.0+cu118.local"),
        ("1.0+smart.sm8.sm8000.ptxas", "1.0+smart.sm8.sm8000.ptxas"),  # no architectures
        ("1!2.0rc1.post2.dev3+sm80", "1!2.0rc1.post2.dev3"),
    ],
)
def test_only_architectures_are_dropped_from_a_version(version: str, rest: str) -> None:
    assert without_archs(version) == rest


@pytest.mark.parametrize(
    ("version", "labels", "labelled"),
    [
        ("0.0.23", ["sm80", "sm90"], "0.0.23+sm80.sm90"),
        ("2.3.6+cu123torch2.1.sm80.sm86", ["sm89.ptx"], "2.3.6+cu123torch2.1.sm89.ptx"),
        ("1.0+sm80", [], "1.0"),
    ],
)
def test_a_version_names_what_is_in_it(version: str, labels: list[str], labelled: str) -> None:
    assert with_archs(version, labels) == labelled
