"""What a version's label says, against what there is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fatwheel.arch import parse_arch
from fatwheel.fatbin.embedded import Images, Place
from fatwheel.verify.contents import Contents, Image
from fatwheel.verify.evidence import Evidence, Examined
from fatwheel.verify.names import label_findings
from fatwheel.wheels.recorded import read_record


def evidence(
    version: str, *images: str, needs: tuple[str, ...] = (), embedded: tuple[str, ...] = ()
) -> Evidence:
    """A wheel whose only binary has these images: `sm_80`, `compute_80`; embedded: in its data."""
    found = tuple(
        Image("elf" if name.startswith("sm") else "ptx", parse_arch(name), 1, "") for name in images
    )
    held = tuple(Images("elf", parse_arch(name), False, 1, 1) for name in embedded)
    places = (Place(".data", 1, 0, 1, held),) if embedded else ()
    contents = Contents("a.so", "elf", "x86_64", 1, found, (), places)
    return Evidence(
        "a.whl", "a", version, (), "a-1.dist-info", b"", b"", read_record("RECORD", b""), {},
        (Examined(contents, True, needs, frozenset(), ()),), (),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("version", "images"),
    [
        ("1.0+sm80", ["sm_80"]),
        ("1.0+cu130torch2.11.sm80.sm86.sm89", ["sm_80", "sm_86", "sm_89"]),
        ("1.0+sm80.ptx.sm90a", ["sm_80", "compute_80", "sm_90a"]),
        ("1.0+ptx50.sm120f", ["compute_50", "sm_120f"]),
        ("1.0+torch2.11.ptx80", ["compute_80"]),
        ("1.0+cu130", ["sm_80"]),
        ("1.0", ["sm_80", "sm_90"]),
        ("1.0+ptx", ["sm_80"]),
        ("1.0+small80.xsm90", ["sm_75"]),
    ],
)
def test_labels_that_are_right_or_name_nothing(version: str, images: list[str]) -> None:
    assert [
        one for one in label_findings(evidence(version, *images)) if one.severity != "note"
    ] == []


@pytest.mark.parametrize(
    ("version", "images", "details"),
    [
        ("1.0+sm80", ["sm_86"], ["only in the version: sm_80", "only inside: sm_86"]),
        ("1.0+sm80", [], ["only in the version: sm_80"]),
        ("1.0+sm90", ["sm_90a"], ["only in the version: sm_90", "only inside: sm_90a"]),
        ("1.0+sm89.ptx", ["sm_89"], ["only in the version: compute_89"]),
        ("1.0+ptx80", ["sm_80"], ["only in the version: compute_80", "only inside: sm_80"]),
        ("1.0+cu130.sm80", ["sm_80", "compute_80"], ["only inside: compute_80"]),
    ],
)
def test_labels_that_are_wrong(version: str, images: list[str], details: list[str]) -> None:
    [finding] = label_findings(evidence(version, *images))
    assert finding.severity == "wrong"
    assert list(finding.details) == details


def test_only_a_variant_s_label_allows_for_fewer_architectures() -> None:
    """A variant.json alone is a file that any wheel can have."""
    name = "a-1.0+sm80.sm90-py3-none-linux_x86_64.whl"
    plain = replace(evidence("1.0+sm80.sm90", "sm_80"), variant=b"{}", filename=name)
    [finding] = label_findings(plain)
    assert list(finding.details) == ["only in the version: sm_90"]
    filename = name.replace(".whl", "-cu120_sm80.whl")
    assert [one.severity for one in label_findings(replace(plain, filename=filename))] == []


@pytest.mark.parametrize(
    ("version", "wrong", "untold"),
    [
        ("1.0+sm80", [], ["sm_75", "sm_90"]),
        ("1.0+sm75.sm80.sm90", [], []),
        ("1.0+sm80.sm90", [], ["sm_75"]),
        ("1.0+sm75.sm90", ["only inside: sm_80"], []),
        ("1.0+sm80.sm86", ["only in the version: sm_86"], ["sm_75", "sm_90"]),
    ],
)
def test_a_label_may_name_what_libraries_load_themselves(
    version: str, wrong: list[str], untold: list[str]
) -> None:
    found = list(label_findings(evidence(version, "sm_80", embedded=("sm_75", "sm_90"))))
    assert [line for one in found if one.severity == "wrong" for line in one.details] == wrong
    assert [line for one in found if one.severity == "note" for line in one.details] == untold


@pytest.mark.parametrize(
    ("version", "library", "wrong"),
    [
        ("1.0+cu130", "libcudart.so.13", False),
        ("1.0+cu130torch2.11", "libcudart.so.12", True),
        ("1.0+cu12torch2.3cxx11abiFALSE", "libcudart.so.12", False),
        ("1.0+cu118", "cudart64_110.dll", False),
        ("1.0+cu118", "cudart64_12.dll", True),
        ("1.0+cu130", "libc.so.6", False),
        ("1.0+torch2.11", "libcudart.so.12", False),
    ],
)
def test_cuda_in_a_label(version: str, library: str, wrong: bool) -> None:
    found = label_findings(evidence(version, needs=(library,)))
    assert [one.severity for one in found] == (["wrong"] if wrong else []) + ["note"]
