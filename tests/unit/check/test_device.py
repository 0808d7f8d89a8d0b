"""GPU code against GPUs and drivers, by NVIDIA's rules and tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.check import device
from fatwheel.check.cures import Symptom, in_order
from fatwheel.check.environment import FoundDriver, FoundGpu, Packages
from fatwheel.check.subject import read_installed

from ...helpers.cudawheels import NONE
from ...helpers.datasections import elf_library
from ...helpers.deviceimages import compute, container, sm
from ...helpers.environments import driver, install, target

NEW = "580.65.06"


def found_in(site: Path, of: FoundDriver, *containers: bytes, more: bytes = b"") -> list[Symptom]:
    files = {"demo/_C.so": elf_library({".nv_fatbin": b"".join(containers)})}
    if more:
        files["demo/_D.so"] = elf_library({".nv_fatbin": more})
    install(site, "demo", "1.0", files)
    found = Packages((site,)).find("demo")
    assert found
    here = target(site, driver=of)
    return list(in_order(device.device_findings(here, read_installed(found), None)))


def test_machine_code(tmp_path: Path) -> None:
    [finding] = found_in(tmp_path, driver("8.9", version=NEW), container(sm(80)))
    assert (finding.severity, finding.what) == ("note", "it has machine code for NVIDIA L4 (8.9)")


def test_ptx_alone(tmp_path: Path) -> None:
    [finding] = found_in(tmp_path, driver("9.0", version=NEW), container(sm(80), compute(80)))
    assert finding.severity == "warning"
    assert "(JIT)" in finding.what


def test_no_code(tmp_path: Path) -> None:
    [finding] = found_in(tmp_path, driver("7.5", version=NEW), container(sm(80), compute(80)))
    assert (finding.cause, finding.severity) == ("gpu", "wrong")
    assert "no kernel image is available" in finding.what
    assert finding.details == ("it has sm_80, compute_80",)
    assert finding.cure
    assert "--arch 75" in finding.cure.say


def test_a_gpu_of_tomorrow_runs_ptx(tmp_path: Path) -> None:
    [finding] = found_in(tmp_path, driver("15.0", version=NEW), container(sm(80), compute(80)))
    assert "(JIT)" in finding.what


def test_code_for_a_part_of_it(tmp_path: Path) -> None:
    parts = container(sm(80)), container(sm(80), sm(90))
    [finding] = found_in(tmp_path, driver("9.0", version=NEW), *parts)
    assert finding.severity == "warning"
    assert "only 1 of 2 units have code" in finding.what


def test_a_library_for_other_gpus_beside_the_right_one(tmp_path: Path) -> None:
    found = found_in(
        tmp_path, driver("8.9", version=NEW), container(sm(80)), more=container(sm(90))
    )
    assert [finding.severity for finding in found] == ["warning", "note"]


@pytest.mark.parametrize(
    ("of", "older"),
    [
        (driver("8.0", version="580.65.06"), False),
        (driver("8.0", version="575.57.08"), True),
        (driver("8.0", version="470.42.01"), True),
        (driver("8.0", cuda=(11, 4)), True),
        (driver("8.0", cuda=(12, 9)), True),
        (driver("8.0", cuda=(13, 0)), False),
        (driver("8.0", cuda=(99, 0)), False),
        (driver("8.0"), False),  # nobody knows
        (driver("8.0", version="nonsense"), False),
    ],
)
def test_a_driver_for_machine_code(of: FoundDriver, older: bool, tmp_path: Path) -> None:
    """NVIDIA's own cubins of CUDA 13 (data/device), which any driver for a CUDA 13 loads."""
    found = found_in(tmp_path, of, NONE)
    assert ("driver" in {finding.cause for finding in found}) == older
    if older:
        assert found[0].what.endswith("is too old: CUDA 13 needs 580")


def test_a_driver_for_ptx(tmp_path: Path) -> None:
    """PTX 8.3 is CUDA 12.3's."""
    [first, *_] = found_in(tmp_path, driver("9.0", version="535.54.03"), container(compute(80)))
    assert "PTX 8.3 needs 545.23.06" in first.what


def test_a_driver_that_cannot_be_asked_is_a_note(tmp_path: Path) -> None:
    [finding] = found_in(tmp_path, FoundDriver(trouble="no such library"), container(sm(80)))
    assert (finding.cause, finding.severity) == ("driver", "note")
    assert "cannot be asked: no such library" in finding.what


def test_a_driver_without_gpus(tmp_path: Path) -> None:
    [finding] = found_in(tmp_path, FoundDriver(NEW), container(sm(80)))
    assert finding.what == "the driver knows no GPU of this machine"


def test_every_gpu_counts_and_equal_ones_once(tmp_path: Path) -> None:
    gpus = (FoundGpu("A", "8.0"), FoundGpu("A", "8.0"), FoundGpu("B", "7.5"))
    found = found_in(tmp_path, FoundDriver(NEW, None, gpus), container(sm(80)))
    assert [finding.severity for finding in found] == ["wrong", "note"]


def test_damaged_images_are_counted_and_not_read(tmp_path: Path) -> None:
    broken = bytearray(container(sm(80, compression="lz4")))
    broken[100:] = bytes(len(broken) - 100)
    [finding] = found_in(tmp_path, driver("8.0", version=NEW), bytes(broken))
    assert finding.what == "it has machine code for NVIDIA L4 (8.0)"
