"""Coverage, parity and drivers, from small contents; test_verify_report has whole wheels."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest

from fatwheel.arch import parse_arch
from fatwheel.fatbin.binary import AskedSymbol
from fatwheel.fatbin.embedded import EmbeddedCode, Images
from fatwheel.provenance.record import RecordedUnit
from fatwheel.verify.contents import Contents, Image, KernelContainer, archs_of
from fatwheel.verify.device import coverage_findings, driver_findings, in_part_notes
from fatwheel.verify.evidence import Evidence, Examined
from fatwheel.verify.papers import BinarySlices, Papers
from fatwheel.wheels.metadata import read_record


def image(name: str, compression: str = "", version: tuple[int, int] | None = None) -> Image:
    """`sm_80`, `compute_80`, or `lto_80`; version of its CUDA or PTX."""
    prefix, _, number = name.partition("_")
    kind = {"sm": "elf", "compute": "ptx", "lto": "lto"}[prefix]
    return Image(kind, parse_arch(number), 1, compression, version)


def evidence(*binaries: Contents) -> Evidence:
    examined = tuple(Examined(one, True, (), frozenset(), ()) for one in binaries)
    return Evidence(
        "a.whl", "a", "1", (), "a-1.dist-info", b"", b"", read_record("RECORD", b""), {},
        examined, (),
    )  # fmt: skip


def library(*units: tuple[Image, ...]) -> Contents:
    found = tuple(
        KernelContainer(number, (f"k{number}",), held) for number, held in enumerate(units)
    )
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
    held = replace(library(), embedded=(EmbeddedCode(".data", 1001, 1, 4096, images),))
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


def test_the_driver_is_told_once_for_all_libraries_that_need_it() -> None:
    one = library((image("sm_90", version=(12, 4)), image("compute_90", version=(8, 7))))
    found = list(driver_findings(evidence(one, replace(one, path="b.so"))))
    assert [finding.severity for finding in found] == ["note", "note"]
    assert (
        found[0].what == "driver 525.60.13 or newer (CUDA 12); on 10.0, 12.0 PTX 8.7 needs 570.26"
    )
    assert found[0].details == ("a.so", "b.so")
    assert found[1].what.startswith("all or some code for 10.0, 10.3, 12.0 is PTX alone")


@pytest.mark.parametrize(("version", "warned"), [(None, True), ((12, 8), True), ((13, 0), False)])
def test_zstd_counts_unless_the_cuda_needs_a_newer_driver(
    version: tuple[int, int] | None, warned: bool
) -> None:
    held = (image("sm_80", "zstd", version), image("sm_90", "lz4", version))
    warnings = [one for one in driver_findings(evidence(library(held))) if one.severity != "note"]
    assert [(one.severity, one.what) for one in warnings] == [
        (
            "warning",
            "1 image is compressed with zstd: older drivers than 550.54.14 cannot read it",
        )
    ] * warned


def test_unknown_compression_is_a_warning() -> None:
    [finding] = driver_findings(evidence(library((image("sm_80", "unknown"),))))
    assert finding.severity == "warning"


@pytest.mark.parametrize("compression", ["", "lz4"])
def test_what_every_driver_reads_is_not_spoken_of(compression: str) -> None:
    assert list(driver_findings(evidence(library((image("sm_80", compression),))))) == []


# -- kernels of some architectures ---------------------------------------------------------------

HERE, NEW, OLD = ("sm_80", "sm_90"), ("sm_90",), ("sm_80",)


def in_part(*containers: dict[str, tuple[str, ...]]) -> tuple[Evidence, list[RecordedUnit]]:
    """A wheel of units `u0`, `u1` … whose images differ in these kernels, and its units."""
    slices = [dict.fromkeys(HERE, str(number)) for number in range(len(containers))]
    differing = {number: kernels for number, kernels in enumerate(containers) if kernels}
    examined = Examined(library(), True, (), frozenset(), (), differing)
    papers = Papers(slices=(BinarySlices("a.so", tuple(slices), ()),))
    units = [RecordedUnit(name=f"u{number}", slices=dict(one)) for number, one in enumerate(slices)]
    return dataclasses.replace(evidence(), binaries=(examined,), papers=papers), units


def test_units_with_the_same_kernels_everywhere_are_not_spoken_of() -> None:
    assert list(in_part_notes(*in_part({}, {}), "sm_90")) == []


def test_units_with_kernels_of_some_architectures_are_named() -> None:
    found, units = in_part({}, {"new": NEW, "newer": NEW}, {}, {"other": NEW})
    [sentence] = in_part_notes(found, units, "sm_90")
    assert sentence == (
        "not all architectures have the same kernels in u1 (2 only in sm_90), u3 (1 only in "
        "sm_90). That is as the source says; invoke verify --all names them"
    )


def test_kernels_that_the_host_does_not_know_are_named() -> None:
    """It knows those of the last architecture's front."""
    found, units = in_part({"new": NEW, "old": OLD})
    first, second = in_part_notes(found, units, "sm_90")
    assert "u0 (1 only in sm_90; 1 only in sm_80)" in first
    assert "kernels that sm_90 does not have" in second
    assert second.endswith(": old of u0")


def test_host_code_knows_the_last_of_a_unit_s_own_fronts() -> None:
    """A shared front is the last one of some units; others have one for each architecture."""
    found, units = in_part({"new": NEW, "old": OLD}, {"new": NEW, "old": OLD})
    _, shared, exact = in_part_notes(found, units, "sm_80", ["u0"])
    assert "kernels that sm_80 does not have" in shared
    assert shared.endswith(": new of u0")
    assert "kernels that sm_90 does not have" in exact
    assert exact.endswith(": old of u1")


def test_of_many_units_some_are_named() -> None:
    kernels = {f"k{number}": OLD for number in range(5)}
    sentences = list(in_part_notes(*in_part(*[kernels] * 7), "sm_90"))
    assert "u2 (5 only in sm_80) and 4 more" in sentences[0]
    assert sentences[1].endswith(": k0 of u0, k1 of u0, k2 of u0 and 32 more")


def test_a_container_of_no_known_unit_is_called_by_its_place() -> None:
    found, _ = in_part({}, {"new": NEW})
    [sentence] = in_part_notes(found, [], "sm_90")
    assert "a.so, container 1 (1 only in sm_90)" in sentence


def test_relocatable_code_that_was_not_linked_is_wrong() -> None:
    """What asks for such a function does not load: the link would have defined it."""
    contents = library((image("sm_80"),))
    asked = (AskedSymbol("malloc"), AskedSymbol("__cudaRegisterLinkedBinary_18da5806_4_a_cu_f"))
    examined = Examined(contents, True, (), frozenset(), (), asked=asked)
    found = coverage_findings(replace(evidence(), binaries=(examined,)))
    [finding] = [one for one in found if one.severity == "wrong"]
    assert "of 1 source is in it, and was not linked (nvcc -dlink)" in finding.what
    assert (finding.where, finding.details) == ("a.so", ("18da5806_4_a_cu_f",))


def test_ptx_that_linked_code_was_made_from_is_no_partial_coverage() -> None:
    linked = KernelContainer(
        0, ("k",), (image("sm_80"),), (archs_of((image("sm_80"), image("compute_80"))),) * 2
    )
    plain = KernelContainer(1, ("p",), (image("sm_80"), image("compute_80")))
    units = (linked, plain)
    held = tuple(one for unit in units for one in unit.images)
    contents = Contents("a.so", "elf", "x86_64", 2, held, units)
    [served] = coverage_findings(evidence(contents))
    assert served.what.startswith("native on 8.0, 8.6, 8.9; by JIT on 9.0")
    partial = replace(contents, units=(replace(linked, relocatable=()), plain))
    assert any("partial coverage" in one.what for one in coverage_findings(evidence(partial)))
