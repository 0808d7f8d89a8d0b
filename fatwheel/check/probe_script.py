"""Runs in the environment that is checked: says what its Python is, or what the GPU's driver is.

    python probe.py RESULTS python|driver

RESULTS gets one JSON object. Standard library only, and nothing of fatwheel: it is run as a file,
by whatever Python is there. The driver is asked as NVIDIA's references of the driver API and of
NVML have it, without a context on any GPU; nvidia-smi is asked where the driver's library is not
found.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys
import sysconfig
from contextlib import suppress
from importlib.util import find_spec

_WINDOWS = sys.platform == "win32"
_CUDA = "nvcuda.dll" if _WINDOWS else "libcuda.so.1"
_MANAGEMENT = "nvml.dll" if _WINDOWS else "libnvidia-ml.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_TEXT = 256
_MOST_GPUS = 64
_SMI = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
_SMI_SECONDS = 20
_POLICY = r"SYSTEM\CurrentControlSet\Control\CI\Policy"
_FILE_SYSTEM = r"SYSTEM\CurrentControlSet\Control\FileSystem"


def python_facts() -> dict[str, object]:
    """What decides which wheels this Python takes, and where it finds modules and libraries."""
    own = os.path.dirname(os.path.abspath(__file__))
    searched = [os.getcwd() if place == own else os.path.abspath(place) for place in sys.path]
    base = getattr(sys, "_base_executable", None) or sys.executable
    return {
        "version": list(sys.version_info[:3]),
        "implementation": sys.implementation.name,
        "base_executable": os.path.realpath(base),
        "prefix": sys.prefix,
        "base_prefix": sys.base_prefix,
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "debug": hasattr(sys, "gettotalrefcount"),
        "soabi": sysconfig.get_config_var("SOABI") or "",
        "system": platform.system(),
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 1 << 32 else 32,
        "platform": sysconfig.get_platform(),
        "libc": libc(),
        "path": searched,
        "library_path": os.environ.get("LD_LIBRARY_PATH", ""),
        "pip": find_spec("pip") is not None,
        "windows": windows_facts() if _WINDOWS else None,
    }


def libc() -> list[str]:
    """The C library and its version: ["glibc", "2.36"]."""
    try:
        said = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, OSError, ValueError):
        said = ""
    if said:
        return said.split(None, 1)
    loader = f"/lib/ld-musl-{platform.machine()}.so.1"
    if not os.path.exists(loader):
        return []
    try:
        words = subprocess.run(
            [loader], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            timeout=10,
        ).stderr.decode("ascii", "replace").split()  # fmt: skip
        return ["musl", words[words.index("Version") + 1]]
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return ["musl", ""]


def windows_facts() -> dict[str, object]:
    """The system's folder, and of the registry what decides whether libraries load."""
    folder = ctypes.create_unicode_buffer(1024)
    ctypes.windll.kernel32.GetSystemDirectoryW(folder, len(folder))  # type: ignore[attr-defined]
    return {
        "system_folder": folder.value,
        "app_control": registry(_POLICY, "VerifiedAndReputablePolicyState"),
        "long_paths": registry(_FILE_SYSTEM, "LongPathsEnabled"),
    }


def registry(key: str, name: str) -> object:
    """A number of the machine's registry; None where there is none."""
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key) as opened:  # type: ignore[attr-defined]
            value = winreg.QueryValueEx(opened, name)[0]  # type: ignore[attr-defined]
    except OSError:
        return None
    return value if isinstance(value, int) else None


# -- the driver ------------------------------------------------------------------------------------


class Failed(Exception):
    """The driver cannot be asked; the text says why."""


def driver_facts() -> dict[str, object]:
    """Version, the CUDA that it knows (13000 is 13.0), GPUs; "trouble" where it cannot be asked."""
    facts: dict[str, object] = {"version": "", "cuda": 0, "gpus": [], "trouble": ""}
    with suppress(Failed, OSError):
        facts["version"] = management_version()
    try:
        library = ctypes.CDLL(_CUDA)
    except OSError as error:
        facts["trouble"] = str(error)
        facts.update(asked_of_smi())
        return facts
    try:
        cuda = ctypes.c_int()
        call(library, "cuDriverGetVersion", ctypes.byref(cuda))
        facts["cuda"] = cuda.value
        call(library, "cuInit", 0)
        facts["gpus"] = gpus_of(library)
    except Failed as error:
        facts["trouble"] = str(error)
    return facts


def gpus_of(library: ctypes.CDLL) -> list[dict[str, str]]:
    count = ctypes.c_int()
    call(library, "cuDeviceGetCount", ctypes.byref(count))
    found = []
    for number in range(min(count.value, _MOST_GPUS)):
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        call(library, "cuDeviceGet", ctypes.byref(device), number)
        name = ctypes.create_string_buffer(_TEXT)
        call(library, "cuDeviceGetName", name, len(name), device)
        call(library, "cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, device)
        call(library, "cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, device)
        capability = f"{major.value}.{minor.value}"
        found.append({"name": name.value.decode("utf-8", "replace"), "capability": capability})
    return found


def management_version() -> str:
    """The driver's own version, by NVML."""
    library = ctypes.CDLL(_MANAGEMENT)
    call(library, "nvmlInit_v2")
    try:
        version = ctypes.create_string_buffer(_TEXT)
        call(library, "nvmlSystemGetDriverVersion", version, len(version))
        return version.value.decode("utf-8", "replace")
    finally:
        call(library, "nvmlShutdown")


def asked_of_smi() -> dict[str, object]:
    """The same by nvidia-smi, which lies in the PATH; nothing where it does not."""
    try:
        said = subprocess.run(
            _SMI, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            timeout=_SMI_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = [line.split(", ") for line in said.stdout.decode("utf-8", "replace").splitlines()]
    rows = [row for row in rows if len(row) == 3]
    if said.returncode or not rows:
        return {}
    gpus = [{"name": row[0], "capability": row[1]} for row in rows[:_MOST_GPUS]]
    return {"version": rows[0][2], "gpus": gpus, "trouble": ""}


def call(library: ctypes.CDLL, name: str, *arguments: object) -> None:
    try:
        code = getattr(library, name)(*arguments)
    except AttributeError:
        raise Failed(f"the driver's library has no {name}") from None
    if code:
        raise Failed(f"{name} failed with error {code}{words_for(library, code)}")


def words_for(library: ctypes.CDLL, code: int) -> str:
    """What the driver itself says of an error, in brackets."""
    text = ctypes.c_char_p()
    if not hasattr(library, "cuGetErrorString"):
        return ""
    if library.cuGetErrorString(code, ctypes.byref(text)) or not text.value:
        return ""
    return f" ({text.value.decode('utf-8', 'replace')})"


def main(arguments: list[str]) -> int:
    results, question = arguments
    facts = driver_facts() if question == "driver" else python_facts()
    with open(results, "w", encoding="utf-8") as stream:
        json.dump(facts, stream)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
