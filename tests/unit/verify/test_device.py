"""Coverage, parity and compression, from small contents; test_verify_report has whole wheels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fatwheel.arch import parse_arch
from fatwheel.fatbin.embedded import Images, Place
from fatwheel.verify.contents import Contents, Image, Unit
from fatwheel.verify.device import compression_findings, coverage_findings
from fatwheel.verify.evidence import Evidence, Examined
from fatwheel.wheels.recorded import read_record


def image(name: str, compression: str = "") -> Image:
    """`sm_80`, `compute_80`, or `lto_80`."""
    prefix, _, number = name.partition("_")
    kind = {"sm": "elf", "compute": "ptx", "lto": "lto"}[prefix]
    return Image(kind, parse_arch(number), 1, compression)


def evidence(*binaries: Contents) -> Evidence:
    examined = tuple(Examined(one, True, (), frozenset(), ()) for one in binaries)
    return Evidence(
        "a.whl", "a", "1", (), "a-1.dist-info", b"", b"", read_record("RECORD", b""), {},
        examined, (),
    )  # fmt: skip


def library(*units: tuple[Image, ...]) -> Contents:
    found = tuple(Unit(number, (f"k{number}",), held) for number, held in enumerate(units))
    held = tuple(one for unit in units for one in unit)
    return Contents("a.so", "elf", "x86_64", len(units), held, found)


def test_who_is_served_is_told() -> None:
    [finding] = coverage_findings(evidence(library((image("sm_86"), image("compute_90")))))
    assert finding.severity == "note"
    assert finding.what == (
        "native on 8.6, 8.9; by JIT on 9.0, 10.0, 10.3, 12.0; nothing on 7.5, 8.0"
    )


def test_units_that_lack_an_image_are_named() -> None:
    full, part = (image("sm_80"), image("sm_86")), (image("sm_80"),)
    _, finding = coverage_findings(evidence(library(full, part, full, part)))
    assert (finding.severity, finding.where) == ("warning", "a.so")
    assert finding.what == "partial coverage: sm_86 in 2 of 4 units"
    assert finding.details == (
        "not in container 1, that of kernel k1",
        "not in container 3, that of kernel k3",
    )


def test_the_same_image_twice_in_a_unit_counts_once() -> None:
    found = coverage_findings(
        evidence(library((image("sm_80"), image("sm_80")), (image("sm_90"),)))
    )
    warnings = [finding.what for finding in found if finding.severity == "warning"]
    assert warnings == [
        "partial coverage: sm_80 in 1 of 2 units",
        "partial coverage: sm_90 in 1 of 2 units",
    ]


def test_binaries_without_device_code_are_not_spoken_of() -> None:
    plain = Contents("b.so", "elf", "x86_64", 0, (), ())
    found = list(coverage_findings(evidence(plain, library((image("sm_80"),)))))
    assert [finding.where for finding in found] == ["a.so"]
    [only] = coverage_findings(evidence(plain))
    assert only.what == "there is no device code in this wheel"


def test_code_that_libraries_load_themselves_is_told() -> None:
    images = (
        Images("elf", parse_arch("80"), False, 2, 2048),
        Images("lto", parse_arch("50"), True, 1000, 5),
    )
    held = replace(library(), embedded=(Place(".data", 1001, 1, 4096, images),))
    served, finding = coverage_findings(evidence(held))
    assert served.what.startswith("not known on 7.5, 8.0")
    assert (finding.severity, finding.where) == ("note", "a.so")
    assert finding.what == (
        "1,001 containers and 1 cubin in .data (4.0 KiB), loaded by the library itself: "
        "not known for which GPUs"
    )
    assert finding.details == ("sm_80, cubin: 2 (2.0 KiB)", "compute_50, LTO-IR: 1,000 (5 B)")


def test_files_of_device_code_alone_are_told_together() -> None:
    files = [
        replace(library((image("sm_80"),)), path=f"{name}.cubin", format="cubin", machine="cuda")
        for name in "bc"
    ]
    found = list(coverage_findings(evidence(library((image("sm_90"),)), *files)))
    assert [finding.where for finding in found] == ["a.so", ""]
    assert found[1].severity == "note"
    assert found[1].what == (
        "2 files of device code (2 B), which libraries load by name: not known for which GPUs"
    )
    assert found[1].details == ("b.cubin", "c.cubin")


def test_what_is_not_read_is_told() -> None:
    found = list(coverage_findings(evidence(library((image("sm_80"), image("lto_90"))))))
    assert found[-1].severity == "note"
    assert found[-1].what == "1 image is of a kind whose kernels cannot be read"


@pytest.mark.parametrize(
    ("cuda", "severity"),
    [([], "warning"), (["12"], "warning"), (["13"], "note"), (["12", "13"], "warning")],
)
def test_zstd_needs_a_newer_driver(cuda: list[str], severity: str) -> None:
    held = (image("sm_80", "zstd"), image("sm_90", "lz4"))
    [finding] = compression_findings(evidence(library(held)), cuda)
    assert finding.severity == severity
    assert finding.what.startswith("1 image is compressed with zstd: needs a driver of CUDA 12.4")


def test_unknown_compression_is_a_warning() -> None:
    [finding] = compression_findings(evidence(library((image("sm_80", "unknown"),))), [])
    assert finding.severity == "warning"


@pytest.mark.parametrize("compression", ["", "lz4"])
def test_what_every_driver_reads_is_not_spoken_of(compression: str) -> None:
    assert list(compression_findings(evidence(library((image("sm_80", compression),))), [])) == []
