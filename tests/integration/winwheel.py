"""Small win_amd64 wheels for tests: real extension modules with real device code.

Debian's mingw-w64 compiles them against a real Windows CPython. As with nvcc, each unit is an
object with a container in section `.nv_fatb` and a wrapper for it in `.nvFatBi`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..helpers import deviceimages
from .windows import WindowsPython

SOURCE = Path(__file__).parent.parent / "data" / "windows" / "reader.c"
TAG = "cp311-cp311-win_amd64"

UNIT = """
.section .nv_fatb,"dr"
.p2align 3
container:
.incbin "{fatbin}"
.section .nvFatBi,"dr"
.p2align 3
.globl {name}
{name}:
.long 0x466243b1, 1
.quad container, 0
"""
TABLE = """
.section .rdata,"dr"
.p2align 3
.globl units
units:
.quad {names}, 0
"""


def build_extension(
    gcc: str, python: WindowsPython, folder: Path, module: str, units: Sequence[bytes]
) -> bytes:
    """A .pyd whose function containers() gives what it finds through its wrappers.

    units: each unit's container. The folder must be new; it gets the sources and objects.
    """
    folder.mkdir()
    sources = [SOURCE, folder / "units.s"]
    names = [f"unit{number}" for number in range(len(units))]
    sources[1].write_text(TABLE.format(names=", ".join(names)))
    for name, container in zip(names, units, strict=True):
        (folder / f"{name}.fatbin").write_bytes(container)
        sources.append(folder / f"{name}.s")
        sources[-1].write_text(UNIT.format(name=name, fatbin=f"{name}.fatbin"))
    command = [
        gcc, "-shared", "-O2", "-Wall", "-Werror", f"-DMODULE={module}",
        f"-I{python.folder / 'include'}", *sources, python.folder / "libs" / "python311.lib",
        "-o", "module.pyd",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{module}: mingw's gcc failed:\n{done.stderr}"
    return (folder / "module.pyd").read_bytes()


def write_wheel(folder: Path, project: str, version: str, members: Mapping[str, bytes]) -> Path:
    """A wheel of these members, by hand: neither fatwheel nor another tool packs it."""
    return deviceimages.write_wheel(folder, members, project=project, version=version, tag=TAG)
