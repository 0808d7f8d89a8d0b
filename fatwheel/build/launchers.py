"""Programs that are Python: how stand-ins for compilers are started, on Linux and on Windows.

On Windows a program is an .exe. setuptools, which every environment has, ships one that runs the
script NAME-script.py beside NAME.exe in the Python that its first line names. Standard library
only.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from ..errors import ToolchainError
from .sight import NVCC

_PACKAGE = Path(__file__).resolve().parents[2]
_START = f"import sys; sys.path.insert(0, {str(_PACKAGE)!r}); from fatwheel.build.shim import main"


def write_shims(folder: Path, python: str, cuda_home: Path, site: Path) -> tuple[Path, Path]:
    """Make the stand-ins: a CUDA_HOME with the shim as its nvcc, and a folder with the host
    compilers'.

    Returns the two folders. Everything else of the real CUDA_HOME is linked. site is the
    environment's site-packages. Raises ToolchainError.
    """
    shadow = folder / "cuda"
    (shadow / "bin").mkdir(parents=True)
    for item in cuda_home.iterdir():
        if item.name != "bin":
            show_at(shadow / item.name, item.resolve())
    for tool in (cuda_home / "bin").iterdir():
        if tool.name != NVCC:
            show_at(shadow / "bin" / tool.name, tool.resolve())
    compilers = folder / "compilers"
    compilers.mkdir()
    for place, name in ((shadow / "bin", "nvcc"), *((compilers, name) for name in COMPILERS)):
        write_program(place, name, python, site, f"{_START}; sys.exit(main())", name)
    return shadow, compilers


if sys.platform == "win32":
    COMPILERS: tuple[str, ...] = ("cl",)
    _LAUNCHER = "setuptools/cli-64.exe"

    def show_at(path: Path, target: Path) -> None:
        """Make a file or folder seen at another path too."""
        with suppress(OSError):  # not an administrator
            path.symlink_to(target, target_is_directory=target.is_dir())
        if not os.path.exists(path):
            copy = shutil.copytree if target.is_dir() else shutil.copy2
            copy(target, path)

    def write_program(
        folder: Path, name: str, python: str, site: Path, code: str, *arguments: str
    ) -> None:
        """A program that runs Python code; in sys.argv, arguments come before those it gets."""
        launcher = site / _LAUNCHER
        if not launcher.is_file():
            raise ToolchainError(
                "the environment's setuptools has no launcher for programs",
                where=str(launcher),
                hint="the toolchain must pin a setuptools for Windows that has it, such as 80.9.0",
            )
        shutil.copyfile(launcher, folder / f"{name}.exe")
        (folder / f"{name}-script.py").write_text(
            f'#!"{python}" -I\nimport sys; sys.argv[1:1] = {list(arguments)!r}\n{code}\n',
            encoding="utf-8",
        )

    def become(command: list[str], environment: Mapping[str, str]) -> NoReturn:
        """Let another program take this one's place. OSError where it cannot start."""
        # Windows' own way starts it beside this one, whose end would be taken for its.
        sys.exit(subprocess.run(command, env=dict(environment), check=False).returncode)

else:
    COMPILERS: tuple[str, ...] = ("gcc", "g++")  # gcc: setuptools may call it for C++ too

    def show_at(path: Path, target: Path) -> None:
        """Make a file or folder seen at another path too."""
        path.symlink_to(target)

    def write_program(
        folder: Path, name: str, python: str, site: Path, code: str, *arguments: str
    ) -> None:
        """A program that runs Python code; in sys.argv, arguments come before those it gets."""
        path = folder / name
        words = shlex.join([python, "-I", "-c", code, *arguments])
        path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        path.chmod(0o755)

    def become(command: list[str], environment: Mapping[str, str]) -> NoReturn:
        """Let another program take this one's place. OSError where it cannot start."""
        os.execve(command[0], command, dict(environment))
