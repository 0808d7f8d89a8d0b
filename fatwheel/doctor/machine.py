"""Queries this machine: system, disks, GPUs, compilers, Pythons and the cache. Changes nothing."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil
from packaging.tags import platform_tags

from .. import machine
from ..config.load import list_recipes, load_recipe
from ..config.pinned import Download, Package
from ..config.toolchain import Toolchain
from ..containers.render import FILES
from ..engines.registry import engine_named
from ..errors import FatwheelError
from ..provision.tools import find_host_compiler
from ..shipped import recipe_folders
from ..storage import cache
from ..storage.cache import chosen_folder
from ..toolchain.homes import MergedCuda, is_accepted
from ..toolchain.interpreters import find_interpreter
from .facts import (
    WINDOWS,
    CacheFacts,
    Gpu,
    GpuFacts,
    Load,
    Machine,
    Stock,
    Trouble,
    WindowsHost,
    environment_files,
    files_for,
    size_of,
)
from .network import trouble_of

_SERVICES = r"SYSTEM\CurrentControlSet\Services"
_FILE_SYSTEM = r"SYSTEM\CurrentControlSet\Control\FileSystem"
_VERSION = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion"
_HYPERV = "vmms"  # the service of the feature Hyper-V
_PF_VIRT_FIRMWARE_ENABLED = 21  # of IsProcessorFeaturePresent

T = TypeVar("T")


def ask_host() -> Machine:
    """This machine, without asking any other program."""
    return Machine(
        system=platform.system(),
        name=_name(),
        machine=platform.machine(),
        build=machine.windows_build(),
        python=platform.python_version(),
        cores=machine.cores(),
        memory=machine.all_memory(),
        free_memory=machine.free_memory(),
        wheel_platforms=frozenset(platform_tags()),
        now=time.time(),
    )


def _name() -> str:
    """`Debian GNU/Linux 12 (bookworm)`, `Windows 11`."""
    if platform.system() == WINDOWS:
        return f"Windows {platform.release()}"
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def ask_cache() -> CacheFacts:
    """Where the cache is or would be; nothing is made."""
    folder = cache.chosen_folder()
    there = nearest(folder)
    mistake = cache.mistake_in(folder)
    if not mistake and folder.exists() and not folder.is_dir():
        mistake = "it is not a folder"
    if not mistake and not there.is_dir():
        mistake = f"{there} is not a folder"
    if not mistake and not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        mistake = "no permission to write there"
    kind, options = _mount(there)
    return CacheFacts(
        folder=str(folder),
        exists=folder.is_dir(),
        mistake=mistake,
        free=shutil.disk_usage(there).free,
        filesystem=kind,
        runs_programs="noexec" not in options,
        in_home=_in_home(folder),
        accepted=is_accepted(folder),
    )


def _in_home(folder: Path) -> bool:
    try:
        return Path.home() in folder.absolute().parents
    except RuntimeError:  # nobody knows where that is
        return False


def nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next((place for place in (path, *path.parents) if place.exists()), path)


def _mount(path: Path) -> tuple[str, list[str]]:
    """Kind and options of the file system that a path lies on; nothing where it is unknown."""
    resolved = path.resolve()
    over = [
        part
        for part in psutil.disk_partitions(all=True)
        if Path(part.mountpoint) in (resolved, *resolved.parents)
    ]
    if not over:
        return "", []
    found = max(over, key=lambda part: len(part.mountpoint))
    return found.fstype, found.opts.split(",")


def ask_windows() -> WindowsHost:
    """What the registry and the processor say. None where they do not."""
    return WindowsHost(
        long_paths=_asked(lambda: _value(_FILE_SYSTEM, "LongPathsEnabled") == 1),
        hyperv=_asked(lambda: _there(rf"{_SERVICES}\{_HYPERV}")),
        virtualization=_asked(_firmware),
        edition=(platform.win32_edition() or "") if sys.platform == "win32" else "",
        revision=_asked(_revision),
    )


def _revision() -> int:
    found = _value(_VERSION, "UBR")
    if not isinstance(found, int):
        raise OSError("the registry has no number of the last update")
    return found


def _asked(question: Callable[[], T]) -> T | None:
    try:
        return question()
    except (OSError, AttributeError, ImportError):
        return None


if sys.platform == "win32":

    def _value(key: str, name: str) -> object:
        """A value of the machine's registry; None where there is none."""
        import winreg

        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:
                return winreg.QueryValueEx(opened, name)[0]
        except FileNotFoundError:
            return None

    def _there(key: str) -> bool:
        import winreg

        try:
            winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key).Close()
        except FileNotFoundError:
            return False
        return True

    def _firmware() -> bool:
        import ctypes

        return bool(ctypes.windll.kernel32.IsProcessorFeaturePresent(_PF_VIRT_FIRMWARE_ENABLED))

else:

    def _value(key: str, name: str) -> object:
        raise OSError("no registry")

    def _there(key: str) -> bool:
        raise OSError("no registry")

    def _firmware() -> bool:
        raise OSError("not checked here")


# -- GPUs, by NVIDIA's driver (NVML) ---------------------------------------------------------------

# Functions and constants as NVML's API reference gives them. A build needs no GPU.


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


# -- compilers, Pythons, recipes and the cache -----------------------------------------------------


def ask_compiler(toolchain: Toolchain) -> str | Trouble:
    """The host compiler as text, or why there is none. An installed MSVC was found already."""
    if toolchain.msvc and toolchain.msvc.installed:
        found = toolchain.msvc.installed
        return f"cl {toolchain.msvc.cl}, Windows SDK {found.sdk} ({found.folder})"
    try:
        compiler = find_host_compiler(toolchain.cuda, toolchain.gcc)
    except FatwheelError as error:
        return trouble_of(error)
    return f"g++ {compiler.version} ({compiler.path})"


def ask_pythons(toolchain: Toolchain) -> tuple[tuple[str, str | Trouble], ...]:
    """For each Python of the toolchain, where it is or why it cannot be used."""
    return tuple((python, _ask_python(python)) for python in toolchain.pythons)


def _ask_python(python: str) -> str | Trouble:
    try:
        return str(find_interpreter(python).executable)
    except FatwheelError as error:
        return Trouble(error.what, hint=error.hint or "")


def ask_loads() -> tuple[Load, ...]:
    """What the largest compiler call of each recipe takes; broken recipes are not its business."""
    loads = []
    folders = recipe_folders()
    for name in list_recipes(*folders):
        try:
            recipe = load_recipe(name, *folders)
        except FatwheelError:
            continue
        largest = max([recipe.memory, *(cost.memory for cost in recipe.costs)])
        loads.append(Load(name, largest))
    return tuple(loads)


def ask_stock(toolchain: Toolchain, python: str, engine: str) -> Stock:
    """What is in the cache of the files for one Python and engine, by name and size."""
    files = _files(toolchain, python, engine)
    missing = missing_files(toolchain, python, engine)
    return Stock(present=size_of(files) - size_of(missing), missing=size_of(missing))


def missing_files(toolchain: Toolchain, python: str, engine: str) -> tuple[Package | Download, ...]:
    """Those that are not where the engine's work looks for them; hashes are checked when used.

    A file that has no sha256 yet is missing.
    """
    cache = chosen_folder()
    in_images = engine_named(engine).uses_images
    is_here = _is_for_images if in_images else _is_for_environments
    cuda = MergedCuda(toolchain.cuda_files, toolchain.nvcc, cache)
    merged = () if in_images or not cuda.is_made() else cuda.archives
    return tuple(
        file
        for file in _files(toolchain, python, engine)
        if file not in merged and not (file.locked and is_here(file, cache))
    )


def _files(toolchain: Toolchain, python: str, engine: str) -> tuple[Package | Download, ...]:
    in_images = engine_named(engine).uses_images
    return (files_for if in_images else environment_files)(toolchain, python)


def _is_for_images(file: Package | Download, cache: Path) -> bool:
    return _has_size(cache / FILES / file.sha256 / file.filename, file.size)


def _is_for_environments(file: Package | Download, cache: Path) -> bool:
    """Downloaded, or unpacked already: that folder appears when it is complete."""
    if (cache / "packages" / file.sha256).is_dir():
        return True
    return _has_size(cache / "downloads" / file.sha256 / file.filename, file.size)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size or not size
    except OSError:
        return False
