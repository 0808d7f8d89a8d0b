"""MSVC without its installer: what lies where in the folder that its packages are unpacked to, and
the variables that its programs need. Neither the registry nor a script of Microsoft's is asked.

    VC/Tools/MSVC/14.38.33130/bin/Hostx64/x64/cl.exe    also include, lib/x64
    VC/Redist/MSVC/14.38.33135/x64/*/*.dll              the libraries that programs made by it load
    VC/Auxiliary/Build/vcvarsall.bat                    see VCVARS
    Windows Kits/10/Include/10.0.22621.0/ucrt           also shared, um, winrt
    Windows Kits/10/Lib/10.0.22621.0/ucrt/x64           also um/x64
    Windows Kits/10/bin/10.0.22621.0/x64/rc.exe

The folders are those of the packages and of an installed Visual Studio; the variables name those
that vcvars64.bat names.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ToolchainError
from .compilers import same
from .mend import finish

# nvcc.exe looks for it above cl.exe and stops where it is missing, though it is told not to run it.
VCVARS = "VC/Auxiliary/Build/vcvarsall.bat"
TOOLSETS = "VC/Tools/MSVC"
REDIST = "VC/Redist/MSVC"
KIT = "Windows Kits/10"
PROGRAMS = "bin/Hostx64/x64"  # of a toolset
_PARTS = ("cl.exe", "c1xx.dll", "c2.dll")  # the programs whose bytes decide what code is made
MADE_OF = (*_PARTS, "link.exe")
LIBRARIES = ("libcmt.lib", "msvcrt.lib")  # for /MT and /MD, which come in packages of their own
# An installed one says it in the language of its user: "Version 19.44.35207 für x64".
_BANNER = re.compile(r"^(?=.*\bx64\b).*?\b(\d+\.\d+\.\d+)\b.*$", re.MULTILINE)
_VCVARS_TEXT = "@rem Nothing: nvcc.exe wants this file to be here, and is told not to run it.\r\n"
_PATIENCE = 300  # seconds for cl to say its version; Wine makes its prefix in that time
# So that setuptools and torch use the compiler that these variables name, and look for no other.
_CHOSEN = {"DISTUTILS_USE_SDK": "1", "MSSdk": "1"}


@dataclass(frozen=True)
class Msvc:
    """cl.exe, a digest of what it is made of, and the variables without which it does not work."""

    path: Path
    id: str
    variables: dict[str, str]


def find_msvc(home: Path, version: str, runner: Sequence[str] = ()) -> Msvc:
    """The compiler in a folder that MSVC and a Windows SDK were unpacked to.

    version is what cl must say (`19.38.33130`). runner is what a program of Windows is run with,
    (`wine`,) on Linux; the variables are for programs of Windows there as well, with the paths by
    which Wine knows this machine's. Raises ToolchainError where a part is missing, or cl does not
    run or is another.
    """
    check_complete(home)
    path = _inside(_programs(home), "cl.exe")
    banner = ask_version([*runner, str(path)])
    same("cl", version, banner[1])
    digest = hashlib.sha256(banner[0].strip().encode())
    for name in _PARTS:
        content = hashlib.sha256(_inside(path.parent, name).read_bytes()).hexdigest()
        digest.update(f"\n{name} {content}".encode())
    return Msvc(path, digest.hexdigest(), _variables(home))


def check_complete(home: Path) -> None:
    """Raise ToolchainError, with its path, where a folder or a program of MSVC is missing."""
    for folder in (folder for paths in _folders(home).values() for folder in paths):
        if not folder.is_dir():
            raise ToolchainError("the unpacked MSVC lacks a folder", where=str(folder))
    programs, libraries = _programs(home), _folders(home)["LIB"][0]
    for part in (
        home / VCVARS,
        *(_inside(programs, name) for name in MADE_OF),
        *(_inside(libraries, name) for name in LIBRARIES),
    ):
        if not part.is_file():
            raise ToolchainError("the unpacked MSVC lacks a file", where=str(part))
    _run_time(home)


def install_run_time(home: Path, folder: Path) -> None:
    """Copy the libraries that programs made by this MSVC load, such as msvcp140.dll, to a folder.

    Windows itself does not have them, and torch needs them: Python finds them beside python.exe.
    What is there already, as CPython's own vcruntime140.dll, stays: it may be in use.
    Raises ToolchainError where there are none.
    """
    for library in _run_time(home):
        if not (folder / library.name).exists():
            shutil.copyfile(library, folder / library.name)


def write_vcvars(home: Path) -> None:
    """Make the file that nvcc.exe wants to be there. Raises OSError."""
    script = home / VCVARS
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(_VCVARS_TEXT, encoding="ascii", newline="")
    finish(script, executable=False)


def windows_path(path: Path) -> str:
    """A path as programs of Windows know it: on Linux, that of Wine's drive for this machine's
    files."""
    return str(path) if os.name == "nt" else "Z:" + str(path.absolute()).replace("/", "\\")


def _folders(home: Path) -> dict[str, list[Path]]:
    """What the variables of vcvars64.bat name, by their names."""
    tools, kit = _only(home / TOOLSETS), home / KIT
    include = _only(_inside(kit, "Include"))
    library = _inside(kit, "Lib", include.name)
    return {
        "INCLUDE": [
            _inside(tools, "include"),
            *(_inside(include, name) for name in ("ucrt", "shared", "um", "winrt")),
        ],
        "LIB": [
            _inside(tools, "lib", "x64"),
            _inside(library, "ucrt", "x64"),
            _inside(library, "um", "x64"),
        ],
        # link.exe calls rc.exe and mt.exe.
        "PATH": [_programs(home), _inside(kit, "bin", include.name, "x64")],
    }


def _variables(home: Path) -> dict[str, str]:
    """What vcvars64.bat would set."""
    variables = {
        name: ";".join(windows_path(folder) for folder in paths)
        for name, paths in _folders(home).items()
    }
    system = os.environ.get("SYSTEMROOT", r"C:\Windows")
    variables["PATH"] += rf";{system}\System32;{system}"
    return {**variables, **_CHOSEN}


def _programs(home: Path) -> Path:
    return _inside(_only(home / TOOLSETS), *PROGRAMS.split("/"))


def _run_time(home: Path) -> list[Path]:
    libraries = sorted(_inside(_only(home / REDIST), "x64").glob("*/*.dll"))
    if not libraries:
        raise ToolchainError("the unpacked MSVC has no run-time libraries", where=str(home))
    return libraries


def _inside(folder: Path, *names: str) -> Path:
    """What lies there under these names, however they are spelled: Windows does not tell capitals,
    and Microsoft's packages do not agree on them."""
    for name in names:
        there = folder.iterdir() if folder.is_dir() else ()
        same = (one for one in there if one.name.lower() == name.lower())
        folder = next(same, folder / name)
    return folder


def _only(folder: Path) -> Path:
    """The one folder in a folder, which is named after a version."""
    found = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    if len(found) != 1:
        raise ToolchainError(
            "an unpacked MSVC has one version of each part",
            where=str(folder),
            details=sorted(path.name for path in found) or ["there is none here"],
        )
    return found[0]


def ask_version(command: Sequence[str]) -> re.Match[str]:
    """What cl says of itself, which it does on its standard error; group 1 is its version
    (`19.38.33130`). Raises ToolchainError where it does not."""
    try:
        answer = subprocess.run(
            command, input="", capture_output=True, text=True,
            errors="replace", timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except OSError as error:
        raise ToolchainError(f"cannot run {command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"{command[-1]} does not end") from error
    banner = _BANNER.search(answer.stderr)
    if banner is None:
        raise ToolchainError(
            f"{command[-1]} does not say what version it is",
            details=[*answer.stderr.splitlines(), *answer.stdout.splitlines()],
        )
    return banner
