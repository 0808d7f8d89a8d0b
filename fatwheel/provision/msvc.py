"""The C++ compiler of a Windows image: its variables, its version, and what it is made of."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ToolchainError
from .tools import run, same

_BANNER = re.compile(r"^.*\bVersion (\d+\.\d+\.\d+)(?:\.\d+)? for x64.*$", re.MULTILINE)
_PARTS = ("cl.exe", "c1xx.dll", "c2.dll")  # the programs whose bytes decide what code is made
_MARK = "fatwheel: the variables follow"
# So that setuptools and torch use the compiler that these variables name, and look for no other.
_CHOSEN = {"DISTUTILS_USE_SDK": "1", "MSSdk": "1"}


@dataclass(frozen=True)
class Msvc:
    """cl.exe, a digest of what it is made of, and the variables without which it does not work."""

    path: Path
    id: str
    variables: dict[str, str]


def find_msvc(home: Path, toolset: str, version: str) -> Msvc:
    """The compiler of the Build Tools in `home`.

    toolset is what vcvars64.bat chooses by (`14.38`), version what cl must say (`19.38.33130`).
    Raises ToolchainError where it does not work or is another.
    """
    variables = _variables(home, toolset)
    path = Path(_found("cl.exe", variables))
    banner = _banner(path)
    same("cl", version, banner[1])
    digest = hashlib.sha256(banner[0].strip().encode())
    for part in _PARTS:
        content = hashlib.sha256((path.parent / part).read_bytes()).hexdigest()
        digest.update(f"\n{part} {content}".encode())
    return Msvc(path, digest.hexdigest(), {**variables, **_CHOSEN})


def _variables(home: Path, toolset: str) -> dict[str, str]:
    """What vcvars64.bat sets or changes."""
    script = home / "VC" / "Auxiliary" / "Build" / "vcvars64.bat"
    # One string, because cmd has rules of its own for quotes: it takes off the outer ones. What
    # it ends with says nothing of the script; that the mark was printed does.
    command = f'cmd /s /c ""{script}" -vcvars_ver={toolset} && echo {_MARK}&& set & exit 0"'
    said = run(command)
    before, mark, listing = said.partition(_MARK)
    if not mark:
        raise ToolchainError(
            f"vcvars64.bat -vcvars_ver={toolset} fails",
            where=str(script),
            details=before.strip().splitlines(),
        )
    return changed(listing, os.environ)


def changed(listing: str, before: Mapping[str, str]) -> dict[str, str]:
    """The variables of a listing as `set` prints it that differ from before, by name in capitals.

    Windows does not tell capitals in names. Those that begin with __VSCMD are notes that the
    script makes for itself.
    """
    old = {name.upper(): value for name, value in before.items()}
    pairs = (line.partition("=") for line in listing.splitlines() if "=" in line)
    found = {name.upper(): value.rstrip("\r") for name, _, value in pairs}
    return {
        name: value
        for name, value in sorted(found.items())
        if old.get(name) != value and name != "PROMPT" and not name.startswith("__VSCMD")
    }


def _found(program: str, variables: Mapping[str, str]) -> str:
    for folder in variables.get("PATH", "").split(";"):
        path = Path(folder, program)
        if folder and path.is_file():
            return str(path)
    raise ToolchainError(f"{program} is not in the PATH that vcvars64.bat sets")


def _banner(path: Path) -> re.Match[str]:
    """What cl says of itself, which it does on its standard error."""
    said = run(f'cmd /s /c ""{path}" 2>&1 & exit 0"')
    banner = _BANNER.search(said)
    if banner is None:
        raise ToolchainError(f"{path} does not say what version it is", details=said.splitlines())
    return banner
