"""NVIDIA's driver: none, one that answers, and one that does not."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.doctor import machine
from fatwheel.doctor.facts import Gpu, GpuFacts


class Driver:
    """NVML's functions as its reference describes them; `failing` ones return an error."""

    def __init__(self, failing: dict[str, int] | None = None, lacking: str = "") -> None:
        self.failing = failing or {}
        self.lacking = lacking
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name == self.lacking or not name.startswith("nvml"):
            raise AttributeError(name)

        def function(*arguments: Any) -> int:
            self.calls.append(name)
            if name in self.failing:
                return self.failing[name]
            self._answer(name, arguments)
            return 0

        return function

    def _answer(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "nvmlSystemGetDriverVersion":
            arguments[0].value = b"580.65.06"
        elif name == "nvmlSystemGetCudaDriverVersion_v2":
            arguments[0]._obj.value = 12090  # 1000 * major + 10 * minor
        elif name == "nvmlDeviceGetCount_v2":
            arguments[0]._obj.value = 2
        elif name == "nvmlDeviceGetName":
            arguments[1].value = b"NVIDIA L4"
        elif name == "nvmlDeviceGetCudaComputeCapability":
            arguments[1]._obj.value, arguments[2]._obj.value = 8, 9
        elif name == "nvmlDeviceGetMemoryInfo":
            arguments[1]._obj.total = 24 << 30


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Driver | None], GpuFacts]:
    """Asks a driver on a machine without a PCI bus."""
    monkeypatch.setattr(machine, "_PCI", tmp_path / "none")

    def ask(driver: Driver | None) -> GpuFacts:
        monkeypatch.setattr(machine, "_load", lambda: driver)
        return machine.ask_gpu()

    return ask


def test_no_driver(load: Callable[[Driver | None], GpuFacts]) -> None:
    assert load(None) == GpuFacts(cards=None)


def test_a_driver_that_answers(load: Callable[[Driver | None], GpuFacts]) -> None:
    driver = Driver()
    card = Gpu("NVIDIA L4", (8, 9), 24 << 30)
    assert load(driver) == GpuFacts("580.65.06", (12, 9), (card, card))
    assert driver.calls[0] == "nvmlInit_v2"
    assert driver.calls[-1] == "nvmlShutdown"


def test_a_driver_that_does_not_start(load: Callable[[Driver | None], GpuFacts]) -> None:
    found = load(Driver({"nvmlInit_v2": 9}))
    assert (found.driver, found.trouble) == ("", "nvmlInit_v2 failed with error 9")


def test_a_driver_that_fails_later_is_closed(load: Callable[[Driver | None], GpuFacts]) -> None:
    driver = Driver({"nvmlDeviceGetName": 15})
    assert load(driver).trouble == "nvmlDeviceGetName failed with error 15"
    assert driver.calls[-1] == "nvmlShutdown"


def test_a_driver_too_old_to_have_a_function(load: Callable[[Driver | None], GpuFacts]) -> None:
    found = load(Driver(lacking="nvmlSystemGetCudaDriverVersion_v2"))
    assert "has no nvmlSystemGetCudaDriverVersion_v2" in found.trouble


def test_memory_may_stay_unknown(load: Callable[[Driver | None], GpuFacts]) -> None:
    found = load(Driver({"nvmlDeviceGetMemoryInfo": 3}))
    assert [one.memory for one in found.gpus] == [0, 0]


def test_cards_on_the_bus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An NVIDIA 3D controller and a VGA one count; their sound devices and others do not."""
    monkeypatch.setattr(machine, "_PCI", tmp_path)
    devices = [
        ("0x10de", "0x030200"),
        ("0x10de", "0x030000"),
        ("0x10de", "0x040300"),
        ("0x8086", "0x030000"),
    ]
    for number, (vendor, kind) in enumerate(devices):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "vendor").write_text(f"{vendor}\n")
        (tmp_path / str(number) / "class").write_text(f"{kind}\n")
    (tmp_path / "5").mkdir()
    monkeypatch.setattr(machine, "_load", lambda: None)
    assert machine.ask_gpu().cards == 2


def test_a_library_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bad.so").write_bytes(b"no library")
    monkeypatch.setattr(machine, "_LIBRARIES", (str(tmp_path / "bad.so"), "no-such-library.so"))
    assert machine.ask_gpu().driver == ""


@pytest.mark.gpu
def test_the_real_thing_says_what_nvidia_smi_says() -> None:
    program = shutil.which("nvidia-smi")
    if program is None:
        pytest.skip("nvidia-smi is not here: no NVIDIA driver")
    assert ctypes.CDLL("libnvidia-ml.so.1")
    line = ["--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    done = subprocess.run([program, *line], capture_output=True, text=True, timeout=60, check=True)
    found = machine.ask_gpu()
    assert done.stdout.splitlines() == [
        f"{one.name}, {found.driver}, {one.capability[0]}.{one.capability[1]}" for one in found.gpus
    ]
