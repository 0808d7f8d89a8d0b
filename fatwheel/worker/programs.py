"""The programs that upstream's build finds in place of compilers, and how programs are started.

On Windows a program is an .exe. setuptools, which every environment has, ships one that runs the
script NAME-script.py beside NAME.exe in the Python that its first line names. Standard library
only.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..compilers.hosts import LINKER
from ..errors import ToolchainError
from .roots import NVCC

# Not resolved: in Windows' containers that may give a path that only the host has.
_PACKAGE = Path(os.path.abspath(__file__)).parents[2]
# CMake calls it with the compiler's path and arguments (CMAKE_<LANG>_COMPILER_LAUNCHER).
LAUNCHER = "launch-compiler"
_START = f"import sys; sys.path.insert(0, {str(_PACKAGE)!r}); from fatwheel.worker.shim import main"
_STARTER = "setuptools/cli-64.exe"  # of Windows


@dataclass(frozen=True)
class Programs:
    """Folders with stand-ins.

    cuda_home: like the real one, but for nvcc. nvcc: the real one, seen in that folder, so that it
    tells whoever asks where CUDA is (`nvcc -v`, as CMake does) of that folder. compilers: with the
    host compilers', by all their names, and those of other compilers that are called by name.
    steps: with those of the programs that gcc starts itself, however gcc was started, and the
    launcher; nothing looks there on Windows.
    """

    cuda_home: Path
    nvcc: Path
    compilers: Path
    steps: Path


def write_programs(folder: Path, python: str, cuda_home: Path, site: Path, cxx: str) -> Programs:
    """Make the stand-ins for a host compiler and the nvcc of a CUDA_HOME.

    python: the interpreter that runs them; site: the environment's site-packages. Raises
    ToolchainError.
    """
    home = folder / "cuda"
    made = Programs(home, home / "bin" / REAL_NVCC, folder / "compilers", folder / "steps")
    (made.cuda_home / "bin").mkdir(parents=True)
    for item in cuda_home.iterdir():
        if item.name != "bin":
            show_at(made.cuda_home / item.name, item)
    for tool in (cuda_home / "bin").iterdir():
        name = REAL_NVCC if tool.name == NVCC else tool.name
        show_at(made.cuda_home / "bin" / name, tool)
    made.compilers.mkdir()
    made.steps.mkdir()
    places = [(made.cuda_home / "bin", "nvcc", "nvcc")]
    places += [(made.compilers, name, tool) for name, tool in compiler_names(cxx).items()]
    places += [(made.steps, name, name) for name in (*STEPS, LAUNCHER)]
    for place, program, role in places:
        write_program(place, program, python, site, f"{_START}; sys.exit(main())", role)
    return made


def c_compiler_of(cxx: str) -> str:
    """The C compiler that belongs to a C++ compiler: `gcc-12` beside `g++-12`, cl itself."""
    folder, name = os.path.split(cxx)
    beside = os.path.join(folder, name.replace("g++", "gcc").replace("c++", "cc"))
    if beside != cxx and os.access(beside, os.X_OK):
        return beside
    return shutil.which("gcc") or shutil.which("cc") or cxx


def write_exe(folder: Path, name: str, python: str, site: Path, code: str, *arguments: str) -> None:
    """A program of Windows that runs Python code; in sys.argv, arguments come before those it
    gets."""
    launcher = site / _STARTER
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


if sys.platform == "win32":
    import _winapi
    import subprocess

    STEPS: tuple[str, ...] = ()
    REAL_NVCC = "real-nvcc.exe"

    def compiler_names(cxx: str) -> dict[str, str]:
        """Names of programs that compile, and which compiler's stand-in each is."""
        return {"cl": "cl", LINKER: LINKER}

    def show_at(path: Path, target: Path) -> None:
        """Make a file or folder seen at another path too. Raises OSError.

        Everybody may make junctions and hard links. Where the disk has none it is copied.
        """
        if not target.is_dir():
            try:
                os.link(target, path)
            except OSError:
                shutil.copy2(target, path)
            return
        try:
            _winapi.CreateJunction(str(target), str(path))
        except OSError:
            path.mkdir(exist_ok=True)
            for item in target.iterdir():
                show_at(path / item.name, item)

    write_program = write_exe

    def said_to_be_lost(text: str) -> bool:
        """Whether a program of ours says that its Python was not started: it then ends as if all
        were well. (A busy Wine can lose a process; a virus scanner may hold one up.)"""
        return "failed to create process." in text.splitlines()

    def become(command: list[str], environment: Mapping[str, str]) -> NoReturn:
        """Let another program take this one's place. OSError where it cannot start."""
        # Windows' own way starts it beside this one, whose end would be taken for its.
        sys.exit(subprocess.run(command, env=dict(environment), check=False).returncode)

else:
    # What gcc's driver starts to compile, assemble and link ("Environment Variables Affecting GCC":
    # COMPILER_PATH).
    STEPS: tuple[str, ...] = ("cc1", "cc1plus", "lto1", "as", "collect2")
    REAL_NVCC = "real-nvcc"
    _NAMES = {"gcc": "gcc", "cc": "gcc", "g++": "g++", "c++": "g++"}  # gcc: for C++ too
    _GCC = re.compile(r"(?:[\w.-]+-)?(?:gcc|g\+\+|cc|c\+\+)(?:-[\d.]+)?")
    _CLANG = re.compile(r"clang(?:\+\+)?(?:-[\d.]+)?")

    def compiler_names(cxx: str) -> dict[str, str]:
        """Names of programs that compile, and which compiler's stand-in each is.

        They are the usual names, those that the host compilers have here besides, and those of
        clang's programs.
        """
        found = dict(_NAMES)
        real = {os.path.realpath(c_compiler_of(cxx)): "gcc", os.path.realpath(cxx): "g++"}
        for folder, name in _programs(os.path.dirname(cxx)):
            path = os.path.realpath(os.path.join(folder, name))
            # Many names may be links to one program that goes by them, such as ccache.
            if path in real and _GCC.fullmatch(os.path.basename(path)):
                found.setdefault(name, real[path])
            elif _CLANG.fullmatch(name):
                found.setdefault(name, name)
        return found

    def _programs(first: str) -> Iterator[tuple[str, str]]:
        for folder in (first, *os.environ.get("PATH", os.defpath).split(os.pathsep)):
            with suppress(OSError):
                names = sorted(os.listdir(folder or os.curdir))
                yield from ((folder, n) for n in names if _GCC.fullmatch(n) or _CLANG.fullmatch(n))

    def show_at(path: Path, target: Path) -> None:
        """Make a file or folder seen at another path too."""
        path.symlink_to(target)

    def write_program(
        folder: Path, name: str, python: str, site: Path, code: str, *arguments: str
    ) -> None:
        """A program that runs Python code; in sys.argv, arguments come before those it gets."""
        path = folder / name
        words = shlex.join([python, "-I", "-S", "-c", code, *arguments])  # site takes 5 ms
        path.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        path.chmod(0o755)

    def said_to_be_lost(text: str) -> bool:
        """Whether a program of ours says that its Python was not started: here it cannot."""
        return False

    def become(command: list[str], environment: Mapping[str, str]) -> NoReturn:
        """Let another program take this one's place. OSError where it cannot start."""
        os.execve(command[0], command, dict(environment))
