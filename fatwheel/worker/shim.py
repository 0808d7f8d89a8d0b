"""The stand-ins for nvcc and the host compiler, and how they are started.

On Windows a program is an .exe. setuptools, which every environment has, ships one that runs the
script NAME-script.py beside NAME.exe in the Python that its first line names. Standard library
only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from ..compilers.commands import Compile
from ..compilers.gcc import read_gcc
from ..compilers.hosts import family_of, without_rpaths
from ..compilers.msvc import read_cl
from ..compilers.nvcc import read_nvcc
from ..errors import FatwheelError, ToolchainError, UpstreamError
from ..model import Unit
from .context import context_from_wire, digest, fingerprint
from .roots import NVCC, OBJECT_FOLDER
from .view import Marks, abstract

_PACKAGE = Path(__file__).resolve().parents[2]
_START = f"import sys; sys.path.insert(0, {str(_PACKAGE)!r}); from fatwheel.worker.shim import main"


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


# -- the stand-in ----------------------------------------------------------------------------------

# In mode 'capture' it writes each compile command down and leaves an empty object; in mode
# 'assemble' it answers each with an object stitched from the store, and compiles what is missing
# on the spot. Whatever is not one compilation of one source below the project's folder goes to
# the real compiler. It starts once per command, so it imports little.


SETTINGS = "FATWHEEL_SHIM"  # the environment variable that names the settings file


def main() -> int:
    """The shim's entry point: argv is the tool's name, then the command's arguments."""
    tool, arguments = sys.argv[1], sys.argv[2:]
    try:
        settings = _settings()
        command = _read(tool, arguments)
        if command is None or not _below(command.source, settings["root"]):
            real = [settings[tool], *_passed_on(tool, arguments, settings)]
            become(real, {**os.environ, **settings["variables"]})
        if settings["mode"] == "capture":
            _capture(settings, command)
        else:
            _answer(settings, command)
        _write_depfile(command)
    except FatwheelError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"{tool}: {error}\n")
        return 1
    return 0


def _settings() -> dict[str, Any]:
    path = os.environ.get(SETTINGS)
    if path is None:
        raise UpstreamError(
            f"a compiler was called without the variable {SETTINGS}",
            hint="the project's build must pass its environment on to the compilers that it calls",
        )
    found: dict[str, Any] = json.loads(Path(path).read_text())
    return found


def _read(tool: str, arguments: list[str]) -> Compile | None:
    if tool == "nvcc":
        return read_nvcc(arguments, os.getcwd(), os.environ)
    if tool == "cl":
        return read_cl(arguments, os.getcwd(), os.environ)
    return read_gcc(arguments, os.getcwd())


def _passed_on(tool: str, arguments: list[str], settings: dict[str, Any]) -> list[str]:
    """A command for the real compiler, less what would tell where it ran."""
    if tool == "nvcc" or not arguments:
        return arguments
    if tool == "cl" and not {"-c", "/c"} & set(arguments):
        return arguments  # it does not link here, and says who it is only without options
    marks = _marks(settings)
    named = [(real, settings["name"] if name == "src" else name) for real, name in marks]
    seed = digest("seed", [abstract(argument, marks) for argument in arguments])[:16]
    steady = family_of(settings[tool]).steady(sorted(named, key=lambda pair: len(pair[0])), seed)
    return [*steady, *without_rpaths(arguments, settings["homes"])]


def unit_of(command: Compile, root: str, marks: Marks) -> Unit:
    """The unit that a captured command compiles, with placeholders for all folders."""
    return Unit(
        name=_unit_name(command, root),
        kind=command.kind,
        source=abstract(command.source, marks),
        codegen=tuple(abstract(arg, marks) for arg in command.codegen),
        preprocessor=tuple(abstract(arg, marks) for arg in command.preprocessor),
    )


def _unit_name(command: Compile, root: str) -> str:
    """The object's path inside the project: no build folder, no suffix.

    setuptools puts objects below build/temp.PLATFORM-PYTHON/, and those of sources named by an
    absolute path below that with the whole path repeated. An object outside the project lies in
    a folder that has another name in each build: its source's path is used instead.
    """
    # Either may go through links: the folder of the cache, or what upstream made of it.
    place = command.output if _below(command.output, root) else command.source
    name = os.path.relpath(os.path.realpath(place), os.path.realpath(root))
    name = OBJECT_FOLDER.sub("", name.replace(os.sep, "/"))
    for repeated in (root, os.path.realpath(root)):
        path = os.path.splitdrive(repeated)[1].replace(os.sep, "/")
        name = name.removeprefix(path.lstrip("/") + "/")
    return os.path.splitext(name)[0]


def _below(path: str, root: str) -> bool:
    return _canonical(path).startswith(_canonical(root) + os.sep)


def _canonical(path: str) -> str:
    return os.path.normcase(os.path.realpath(path))


def _marks(settings: dict[str, Any]) -> Marks:
    return tuple((real, name) for real, name in settings["marks"])


def _capture(settings: dict[str, Any], command: Compile) -> None:
    unit = unit_of(command, settings["root"], _marks(settings))
    record = {"unit": dataclasses.asdict(unit), "unsupported": command.unsupported}
    path = Path(settings["records"], fingerprint(unit))
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(record))
    part.replace(path)
    shutil.copyfile(settings["empty_object"], command.output)


def _answer(settings: dict[str, Any], command: Compile) -> None:
    # Imported here: capturing does without, and it runs once per command.
    from .assemble import object_of
    from .context import fronts_from_wire

    unit = unit_of(command, settings["root"], _marks(settings))
    context = context_from_wire(settings["context"])
    data = object_of(context, context.store(), unit, fronts_from_wire(settings["fronts"]))
    part = Path(f"{command.output}.{os.getpid()}")
    part.write_bytes(data)
    part.replace(command.output)


def _write_depfile(command: Compile) -> None:
    """ninja and make read it; a stitched object depends on its source alone."""
    if command.depfile:
        output, source = (path.replace(" ", "\\ ") for path in (command.output, command.source))
        Path(command.depfile).write_text(f"{output}: {source}\n")


def settings_text(
    *,
    mode: str,
    root: Path,
    marks: Marks,
    libraries: Sequence[str],
    nvcc: Path,
    cxx: str,
    variables: Mapping[str, str],
    **more: object,
) -> str:
    """The settings file's content.

    libraries: folders of libraries that only this machine has, beside those of marks. variables:
    those that real compilers must see otherwise than upstream's build does.
    """
    real = {"nvcc": str(nvcc), "cl": cxx, "g++": cxx, "gcc": c_compiler_of(cxx)}
    homes = [*(folder for folder, _ in marks), *libraries]
    return json.dumps(
        {
            "mode": mode, "root": str(root), "name": root.name, "marks": marks, "homes": homes,
            "variables": variables, **real, **more,
        }
    )  # fmt: skip


def c_compiler_of(cxx: str) -> str:
    """The C compiler that belongs to a C++ compiler: `gcc-12` beside `g++-12`, cl itself."""
    folder, name = os.path.split(cxx)
    beside = os.path.join(folder, name.replace("g++", "gcc").replace("c++", "cc"))
    if beside != cxx and os.access(beside, os.X_OK):
        return beside
    return shutil.which("gcc") or shutil.which("cc") or cxx
