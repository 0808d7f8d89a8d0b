"""Stands in for nvcc and g++ while the upstream build runs.

In mode 'capture' it writes each compile command down and leaves an empty object; in mode
'assemble' it answers each with an object stitched from the store, and compiles what is missing
on the spot. Whatever is not one compilation of one source below the project's folder goes to
the real compiler.

Standard library only; it starts once per command, so it imports little.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from ..errors import FatwheelError, UpstreamError
from ..model import Unit
from .commands import Compile
from .commands_cl import read_cl
from .commands_gcc import read_gcc
from .commands_nvcc import read_nvcc
from .context import context_from_wire, fingerprint
from .view import Marks, abstract

SETTINGS = "FATWHEEL_SHIM"  # the environment variable that names the settings file


def write_shims(folder: Path, python: str, cuda_home: Path) -> tuple[Path, Path]:
    """Make the stand-ins: a CUDA_HOME with the shim as its nvcc, and a folder with gcc and g++.

    Returns the two folders. Everything else of the real CUDA_HOME is linked. gcc is there
    because setuptools may call it for C++ too.
    """
    shadow = folder / "cuda"
    (shadow / "bin").mkdir(parents=True)
    for item in cuda_home.iterdir():
        if item.name != "bin":
            (shadow / item.name).symlink_to(item.resolve())
    for tool in (cuda_home / "bin").iterdir():
        if tool.name != "nvcc":
            (shadow / "bin" / tool.name).symlink_to(tool.resolve())
    compilers = folder / "compilers"
    compilers.mkdir()
    _write_shim(shadow / "bin" / "nvcc", python, "nvcc")
    for tool_name in ("gcc", "g++"):
        _write_shim(compilers / tool_name, python, tool_name)
    return shadow, compilers


def _write_shim(path: Path, python: str, tool: str) -> None:
    package = Path(__file__).resolve().parents[2]
    start = (
        f"import sys; sys.path.insert(0, {str(package)!r}); from fatwheel.build.shim import main"
    )
    path.write_text(
        f"#!/bin/sh\nexec {shlex.quote(python)} -I -c "
        f'{shlex.quote(start + "; sys.exit(main())")} {tool} "$@"\n'
    )
    path.chmod(0o755)


def main() -> int:
    """The shim's entry point: argv is the tool's name, then the command's arguments."""
    tool, arguments = sys.argv[1], sys.argv[2:]
    try:
        settings = _settings()
        command = _read(tool, arguments)
        if command is None or not _below(command.source, settings["root"]):
            real = settings[tool]
            os.execv(real, [real, *arguments])
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
    name = re.sub(r"^build/temp[^/]*/", "", name)
    for repeated in (root, os.path.realpath(root)):
        name = name.removeprefix(repeated.lstrip("/") + "/")
    return os.path.splitext(name)[0]


def _below(path: str, root: str) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(root) + os.sep)


def _marks(settings: dict[str, Any]) -> Marks:
    return tuple((real, name) for real, name in settings["marks"])


def _capture(settings: dict[str, Any], command: Compile) -> None:
    unit = unit_of(command, settings["root"], _marks(settings))
    record = {"unit": dataclasses.asdict(unit), "unsupported": command.unsupported}
    path = Path(settings["records"], fingerprint(unit))
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(record))
    part.rename(path)
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
    *, mode: str, root: Path, marks: Marks, nvcc: Path, cxx: str, **more: object
) -> str:
    """The settings file's content."""
    real = {"nvcc": str(nvcc), "g++": cxx, "gcc": c_compiler_of(cxx)}
    return json.dumps({"mode": mode, "root": str(root), "marks": marks, **real, **more})


def c_compiler_of(cxx: str) -> str:
    """The C compiler that belongs to a C++ compiler: `gcc-12` beside `g++-12`."""
    folder, name = os.path.split(cxx)
    beside = os.path.join(folder, name.replace("g++", "gcc").replace("c++", "cc"))
    if beside != cxx and os.access(beside, os.X_OK):
        return beside
    return shutil.which("gcc") or shutil.which("cc") or cxx
