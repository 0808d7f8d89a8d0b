"""Asks NVIDIA's driver for its GPUs, through its own library (NVML) and no other program.

Functions and constants as NVML's API reference gives them. A build needs no GPU.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

from .facts import Gpu, GpuFacts

_LIBRARIES = (
    ("nvml.dll", r"C:\Program Files\NVIDIA Corporation\NVSMI\nvml.dll")
    if sys.platform == "win32"
    else ("libnvidia-ml.so.1",)
)
_TEXT = 96  # bytes: as long as any name or version
_PCI = Path("/sys/bus/pci/devices")
_NVIDIA = "0x10de"
_DISPLAYS = ("0x0300", "0x0302")  # VGA and 3D controllers, by the class's first two bytes


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = [
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    ]


class _Failed(Exception):
    """A function of NVML that did not return 0; its text says which."""


def ask_gpu() -> GpuFacts:
    """The driver and its GPUs; none of either is no failure."""
    library = _load()
    if library is None:
        return GpuFacts(cards=_count_cards())
    try:
        _call(library, "nvmlInit_v2")
    except _Failed as error:
        return GpuFacts(trouble=str(error), cards=_count_cards())
    try:
        return _ask(library)
    except _Failed as error:
        return GpuFacts(trouble=str(error), cards=_count_cards())
    finally:
        with suppress(_Failed):
            _call(library, "nvmlShutdown")


def _load() -> ctypes.CDLL | None:
    for name in _LIBRARIES:
        with suppress(OSError):
            return ctypes.CDLL(name)
    return None


def _ask(library: ctypes.CDLL) -> GpuFacts:
    driver = ctypes.create_string_buffer(_TEXT)
    _call(library, "nvmlSystemGetDriverVersion", driver, _TEXT)
    cuda = ctypes.c_int()
    _call(library, "nvmlSystemGetCudaDriverVersion_v2", ctypes.byref(cuda))
    count = ctypes.c_uint()
    _call(library, "nvmlDeviceGetCount_v2", ctypes.byref(count))
    return GpuFacts(
        driver=driver.value.decode("utf-8", "replace"),
        cuda=(cuda.value // 1000, cuda.value % 1000 // 10),
        gpus=tuple(_ask_gpu(library, number) for number in range(count.value)),
        cards=_count_cards(),
    )


def _ask_gpu(library: ctypes.CDLL, number: int) -> Gpu:
    device = ctypes.c_void_p()
    _call(library, "nvmlDeviceGetHandleByIndex_v2", number, ctypes.byref(device))
    name = ctypes.create_string_buffer(_TEXT)
    _call(library, "nvmlDeviceGetName", device, name, _TEXT)
    major, minor = ctypes.c_int(), ctypes.c_int()
    _call(
        library,
        "nvmlDeviceGetCudaComputeCapability",
        device,
        ctypes.byref(major),
        ctypes.byref(minor),
    )
    memory = _Memory()
    with suppress(_Failed):  # not every GPU that shares its memory with the CPU says it
        _call(library, "nvmlDeviceGetMemoryInfo", device, ctypes.byref(memory))
    return Gpu(name.value.decode("utf-8", "replace"), (major.value, minor.value), memory.total)


def _call(library: ctypes.CDLL, name: str, *arguments: object) -> None:
    try:
        code = getattr(library, name)(*arguments)
    except AttributeError:
        raise _Failed(f"the driver's library has no {name}") from None
    if code:
        raise _Failed(f"{name} failed with error {code}")


def _count_cards() -> int | None:
    """NVIDIA GPUs on the bus, whether or not there is a driver; None where that is not known."""
    if not _PCI.is_dir():
        return None
    count = 0
    for device in _PCI.iterdir():
        with suppress(OSError):
            vendor = (device / "vendor").read_text().strip()
            kind = (device / "class").read_text().strip()
            count += vendor == _NVIDIA and kind.startswith(_DISPLAYS)
    return count
