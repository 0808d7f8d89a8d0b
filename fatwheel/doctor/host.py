"""Asks this machine: system, disks, and what only Windows has. Changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from packaging.tags import platform_tags

from .. import cache, machine
from .facts import WINDOWS, CacheFacts, Host, WindowsHost

_SERVICES = r"SYSTEM\CurrentControlSet\Services"
_FILE_SYSTEM = r"SYSTEM\CurrentControlSet\Control\FileSystem"
_HYPERV = "vmms"  # the service of the feature Hyper-V
_CONTAINERS = "vmcompute"  # the service that starts containers
_PF_VIRT_FIRMWARE_ENABLED = 21  # of IsProcessorFeaturePresent


def ask_host() -> Host:
    """This machine, without asking any other program."""
    return Host(
        system=platform.system(),
        name=_name(),
        machine=platform.machine(),
        build=_windows_build(),
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


def _windows_build() -> int:
    if platform.system() != WINDOWS:
        return 0
    last = platform.version().rpartition(".")[2]
    return int(last) if last.isdigit() else 0


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
        containers=_asked(lambda: _there(rf"{_SERVICES}\{_CONTAINERS}")),
        virtualization=_asked(_firmware),
        edition=(platform.win32_edition() or "") if sys.platform == "win32" else "",
    )


def _asked(question: Callable[[], bool]) -> bool | None:
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
        raise OSError("not asked here")
