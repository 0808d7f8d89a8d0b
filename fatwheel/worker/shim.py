"""The stand-in for a compiler.

In mode 'capture' it writes each compile command down and leaves an empty object; in mode
'assemble' it answers each with an object stitched from the store, and compiles what is missing
on the spot. Whatever is not one compilation of one source below the project's folder goes to
the real compiler, but for commands of nvcc that are several such compilations. It starts once
per command, so it imports little. Standard library only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import posixpath
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..compilers.commands import Compile, DeviceLink
from ..compilers.gcc import CXX_SOURCES, is_of_cmake, read_gcc, without_rpaths
from ..compilers.hosts import LINKER, Mapped, family_of, linker_of
from ..compilers.msvc import read_cl
from ..compilers.nvcc import read_device_link, read_nvcc, split_nvcc, with_archs
from ..errors import FatwheelError, UpstreamError
from ..model import Front, Unit
from . import bypass
from .context import context_from_wire, digest, fingerprint, fronts_from_wire
from .programs import LAUNCHER, STEPS, become, c_compiler_of, compiler_names
from .roots import OBJECT_FOLDER
from .view import Marks, abstract

SETTINGS = "FATWHEEL_SHIM"  # the environment variable that names the settings file
# How nvcc names its files for other compilers: by its process.
_OF_NVCC = re.compile(r"tmpxft_[0-9a-f]{8}_")
_HANDED_ON = "FATWHEEL_HANDED_ON"  # is set for real compilers, and for what they start


def main() -> int:
    """The shim's entry point: argv is the tool's name, then the command's arguments."""
    tool, arguments = sys.argv[1], sys.argv[2:]
    try:
        settings = _settings()
        if tool in ("nvcc", "gcc", "g++", LAUNCHER):
            arguments += settings["includes"]
        arguments += _flags(tool, arguments, settings)
        if tool in STEPS:
            _take_step(tool, arguments, settings)
        if tool == LINKER:
            return _link(arguments, settings)
        if tool == LAUNCHER:
            _launch(arguments[0], arguments[1:], settings)
            return 0
        if link := _device_link(tool, arguments):
            return _link_device_code(link, arguments, settings)
        command = None if _is_nvccs(tool, settings) else _read(tool, arguments)
        if command is not None and _is_unit(command, arguments, settings):
            _make(command, settings)
        elif tool != "nvcc" or not _make_apart(arguments, settings):
            _hand_on(tool, arguments, command, settings)
    except FatwheelError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"{tool}: {error}\n")
        return 1
    return 0


def _flags(tool: str, arguments: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """What the recipe adds to a command of the project's own. What follows /link is the linker's,
    so cl gets none where it links; setuptools compiles C++ by gcc, too."""
    if _HANDED_ON in os.environ or (tool == "cl" and not {"-c", "/c"} & set(arguments)):
        return []
    if tool == "gcc" and any(word.endswith(CXX_SOURCES) for word in arguments):
        tool = "g++"
    found: list[str] = settings["flags"].get(tool, [])
    return found


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
    return read_gcc(arguments, os.getcwd()) if tool in ("gcc", "g++") else None


# What CMake tries out compilers with: for their names and abilities (its modules
# CMakeDetermineCompilerId and try_compile; CMakeTmp before 3.25). The answers must be real.
_TRIAL = re.compile(
    r"(?:^|/)CMakeFiles/(?:CMakeScratch|CMakeTmp|[^/]*/CompilerId\w*|cmTC_\w+\.dir)(?:/|$)"
    r"|^__cmake_determine_cuda$"
)


def is_trial(words: Sequence[str], cwd: str) -> bool:
    """Whether a command, run in a folder, is one of those by which CMake tries out compilers."""
    return any(_TRIAL.search(word.replace(os.sep, "/")) for word in (cwd, *words))


def _is_unit(command: Compile, arguments: Sequence[str], settings: Mapping[str, Any]) -> bool:
    return _below(command.source, settings["top"]) and not is_trial(arguments, os.getcwd())


def _make(command: Compile, settings: dict[str, Any]) -> None:
    if settings["mode"] == "capture":
        _capture(settings, command)
    else:
        _answer(settings, command)
    _write_depfile(command)


def _make_apart(arguments: Sequence[str], settings: dict[str, Any]) -> bool:
    """Make what one nvcc command makes of several sources, or before it links; False where it is
    no such command, or a source is no unit's."""
    folder = os.path.join(settings["objects"], digest("apart", os.getcwd(), arguments)[:16])
    split = split_nvcc(arguments, folder)
    commands = [_read("nvcc", list(words)) for words in split.compiles] if split else []
    units = [one for one in commands if one is not None and _is_unit(one, arguments, settings)]
    if split is None or len(units) < len(split.compiles):
        return False
    os.makedirs(folder, exist_ok=True)
    for command in units:
        _make(command, settings)
    if split.links is not None:
        words = list(split.links)
        if link := _device_link("nvcc", words):
            _link_device_code(link, words, settings)
        else:
            _hand_on("nvcc", words, None, settings)
    return True


def _launch(program: str, arguments: list[str], settings: dict[str, Any]) -> None:
    """Do what a compiler should do that CMake calls, wherever that compiler is: units are made
    here, all else is left to it."""
    tool = settings["roles"].get(os.path.basename(program), "")
    arguments = [*arguments, *_flags(tool, arguments, settings)]
    command = _read(tool, arguments)
    if command is None or not _is_unit(command, arguments, settings):
        become([shutil.which(program) or program, *arguments], os.environ)
    _make(command, settings)


# -- what goes to the real compilers ---------------------------------------------------------------


def _hand_on(
    tool: str, arguments: list[str], command: Compile | None, settings: dict[str, Any]
) -> NoReturn:
    """Let the real compiler do it, and put down what of that the user must know."""
    noted = settings["mode"] == "capture" and _HANDED_ON not in os.environ
    if noted and not is_trial(arguments, os.getcwd()):
        _note(tool, arguments, command, settings)
    real = settings.get(tool) or _found(tool, settings["standins"])
    variables = {**os.environ, **settings["variables"], _HANDED_ON: "1"}
    for name in bypass.OF_DRIVERS:
        variables.pop(name, None)
    become([real, *_passed_on(tool, real, arguments, settings)], variables)


def _found(tool: str, standins: str) -> str:
    """The program of this name that is no stand-in."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    path = os.pathsep.join(folder for folder in folders if folder != standins)
    return shutil.which(tool, path=path) or tool


def _note(
    tool: str, arguments: list[str], command: Compile | None, settings: dict[str, Any]
) -> None:
    if bypass.links(arguments):
        _note_link(tool, arguments, settings)
    made = settings["made"]
    by_clang = (command[-1] for command in bypass.clangs_commands(Path(settings["log_of_clang"])))
    bypass.note_made(made, by_clang)
    for path in bypass.unknown_objects(arguments, made, settings["work"]):
        bypass.tell(settings["told"], {"object": shown(path, settings)})
    bypass.note_made(made, bypass.outputs(arguments))
    # Device code of sources from elsewhere, or in files of its own, or by a command that is not
    # understood; and what clang compiles.
    of_cuda = command is not None and command.kind == "cuda"
    if of_cuda or tool not in settings or (tool == "nvcc" and bypass.makes_device_code(arguments)):
        _tell_command([tool, *arguments], settings)


def _note_link(tool: str, arguments: Sequence[str], settings: dict[str, Any]) -> None:
    objects = settings["objects"]
    words = [
        os.path.basename(word) if word.startswith(objects) else shown(word, settings)
        for word in (tool, *arguments)
    ]
    bypass.tell(settings["links"], {"command": words})


def _tell_command(words: Sequence[str], settings: dict[str, Any]) -> None:
    if settings["mode"] == "capture" and not is_trial(words, os.getcwd()):
        bypass.note_made(settings["made"], bypass.outputs(words))
        bypass.tell(settings["told"], {"command": [shown(word, settings) for word in words]})


def shown(text: str, settings: Mapping[str, Any]) -> str:
    """A word of a command without the folders that are this machine's. settings: marks, and the
    name of the project's folder."""
    marks = _named(settings)
    text = abstract(text, marks)
    for _, name in marks:
        text = text.replace(f"@{name}@", name)
    return text


def _is_nvccs(tool: str, settings: dict[str, Any]) -> bool:
    """Whether a real nvcc started this; one that no stand-in started is told of."""
    if _HANDED_ON in os.environ:
        return True
    above = bypass.nvcc_above() if tool in ("gcc", "g++") else []
    if above:
        _tell_command(above, settings)
    return bool(above)


def _passed_on(tool: str, real: str, arguments: list[str], settings: dict[str, Any]) -> list[str]:
    """A command for the real compiler, for the architectures of the build, and less what would tell
    where it ran."""
    if tool == "nvcc" and not is_trial(arguments, os.getcwd()):
        return with_archs(arguments, settings["gencodes"])
    if tool in ("nvcc", LINKER) or not arguments:
        return arguments
    if tool == "cl" and not {"-c", "/c"} & set(arguments):
        return arguments  # it does not link here, and says who it is only without options
    steady = family_of(real).steady(mapped(settings), _seed(arguments, settings))
    left = without_rpaths(arguments, settings["homes"])
    filled = left != arguments and is_of_cmake(arguments)
    return [*steady, *left, *(_build_id(arguments) if filled else ())]


def _build_id(arguments: Sequence[str]) -> list[str]:
    """An id for a library whose search path changes after the link: ld's own is over that, too.
    This one is over what is linked, by names without folders and contents."""
    inputs = [word for word in arguments if word.endswith((".o", ".a")) and os.path.isfile(word)]
    names = [os.path.basename(word) for word in arguments if "-rpath" not in word]
    contents = [bypass.sha256_of(Path(word)) for word in inputs]
    return ["-Xlinker", f"--build-id=0x{digest('build id', names, contents)[:40]}"]


def _link(arguments: list[str], settings: dict[str, Any]) -> int:
    """Do what link should do. A capture's objects are empty, and so are the libraries of them."""
    from .linking import answer_link

    if settings["mode"] == "capture":
        _note_link(LINKER, arguments, settings)
        empty = settings["empty_object"], settings["empty_library"]
        if answer_link(arguments, os.getcwd(), *empty):
            return 0
    _hand_on(LINKER, arguments, None, settings)


def _device_link(tool: str, arguments: list[str]) -> DeviceLink | None:
    """What a command links of device code; None for all other commands."""
    if tool != "nvcc" or _HANDED_ON in os.environ or is_trial(arguments, os.getcwd()):
        return None
    return read_device_link(arguments, os.getcwd(), os.environ)


def _link_device_code(link: DeviceLink, arguments: list[str], settings: dict[str, Any]) -> int:
    """Do what nvcc should link, the device code of it for the architectures of the build."""
    if settings["mode"] == "capture":
        if not link.only:
            _hand_on("nvcc", arguments, None, settings)
        _note("nvcc", arguments, None, settings)
        _note_link("nvcc", arguments, settings)
        shutil.copyfile(settings["empty_object"], link.output)
        return 0
    made = _linked(link, settings)
    if made is None:
        _hand_on("nvcc", arguments, None, settings)
    if link.only:
        _write(link.output, made)
        return 0
    # nvcc puts the object with linked device code before all others.
    linked = os.path.join(settings["linked"], f"{digest('of', link.output)}.o")
    _write(linked, made)
    _hand_on("nvcc", [linked, *arguments, "-nodlink"], None, settings)


def _linked(link: DeviceLink, settings: dict[str, Any]) -> bytes | None:
    """The object with linked device code; None where there is nothing to link."""
    from .devicelink import link_device_code

    context = context_from_wire(settings["context"])
    name = _object_name(link.output, link.output, settings["root"], settings["top"])
    made = link_device_code(
        context, context.store(), link, name, _marks(settings), fronts_from_wire(settings["fronts"])
    )
    if made is None:
        return None
    record = {"name": name, "slices": dict(made.slices)}
    _write(os.path.join(settings["linked"], f"{digest(record)}.json"), json.dumps(record).encode())
    return made.data


def _take_step(step: str, arguments: list[str], settings: dict[str, Any]) -> NoReturn:
    """Do what a gcc wants done that no stand-in started."""
    driver = bypass.command_of(os.getppid())
    _tell_command(bypass.nvcc_above() or driver, settings)
    seed = _seed([word for word in driver if not word.startswith("@")], settings)
    command = bypass.step_command(step, arguments, mapped(settings), seed, settings["homes"])
    become(command, os.environ)


def mapped(settings: Mapping[str, Any]) -> Mapped:
    """Folders, and what objects call them; an inner folder comes after the one around it."""
    return sorted(_named(settings), key=lambda pair: len(pair[0]))


def _named(settings: Mapping[str, Any]) -> Marks:
    """Folders, and what people and finished files call them."""
    return tuple((real, settings["name"] if name == "src" else name)
                 for real, name in _marks(settings))  # fmt: skip


def _seed(arguments: Sequence[str], settings: dict[str, Any]) -> str:
    marks = _marks(settings)
    words = [abstract(_OF_NVCC.sub("tmpxft_", argument), marks) for argument in arguments]
    return digest("seed", words)[:16]


# -- units -----------------------------------------------------------------------------------------


def unit_of(command: Compile, settings: Mapping[str, Any]) -> Unit:
    """The unit that a captured command compiles, with placeholders for all folders."""
    marks = _marks(settings)
    return Unit(
        name=_object_name(command.output, command.source, settings["root"], settings["top"]),
        kind=command.kind,
        source=abstract(command.source, marks),
        codegen=tuple(abstract(arg, marks) for arg in command.codegen),
        preprocessor=tuple(abstract(arg, marks) for arg in command.preprocessor),
        own=command.images,
    )


def _object_name(output: str, source: str, root: str, top: str) -> str:
    """An object's path from the project's folder on: no build folder, no suffix.

    setuptools puts objects below build/temp.PLATFORM-PYTHON/, and those of sources named by an
    absolute path below that with the whole path repeated. CMake has a build folder, wherever that
    is. Another object outside the source lies in a folder that has another name in each build: its
    source's path is used instead.
    """
    if home := _cmakes_folder(output):
        name = os.path.relpath(os.path.realpath(output), home).replace(os.sep, "/")
        return os.path.splitext(os.path.splitext(name)[0])[0]
    # Either may go through links: the folder of the cache, or what upstream made of it.
    place = output if _below(output, top) else source
    name = os.path.relpath(os.path.realpath(place), os.path.realpath(root))
    name = OBJECT_FOLDER.sub("", name.replace(os.sep, "/"))
    for repeated in (top, os.path.realpath(top)):
        path = os.path.splitdrive(repeated)[1].replace(os.sep, "/").lstrip("/") + "/"
        if name.startswith(path):
            inside = os.path.relpath(root, top).replace(os.sep, "/")
            name = posixpath.relpath(name.removeprefix(path), inside)
    return os.path.splitext(name)[0]


def _cmakes_folder(output: str) -> str:
    """The folder that CMake builds in, if it keeps an object there; its name may be random."""
    folder, found, _ = os.path.realpath(output).replace(os.sep, "/").rpartition("/CMakeFiles/")
    while found and folder != os.path.dirname(folder):
        if os.path.isfile(os.path.join(folder, "CMakeCache.txt")):
            return folder
        folder = os.path.dirname(folder)
    return ""


def _below(path: str, root: str) -> bool:
    return _canonical(path).startswith(_canonical(root) + os.sep)


def _canonical(path: str) -> str:
    return os.path.normcase(os.path.realpath(path))


def _marks(settings: Mapping[str, Any]) -> Marks:
    return tuple((real, name) for real, name in settings["marks"])


def _capture(settings: dict[str, Any], command: Compile) -> None:
    unit = unit_of(command, settings)
    record = {"unit": dataclasses.asdict(unit), "unsupported": command.unsupported}
    path = Path(settings["records"], fingerprint(unit))
    part = path.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(record))
    part.replace(path)
    shutil.copyfile(settings["empty_object"], command.output)
    bypass.note_made(settings["made"], [command.output])


def _answer(settings: dict[str, Any], command: Compile) -> None:
    # Imported here: capturing does without, and it runs once per command.
    from .assemble import object_of
    from .context import unit_from_wire

    unit = unit_of(command, settings)
    limited = settings["limited"].get(fingerprint(unit))
    if limited is not None:
        unit = unit_from_wire(limited)
    context = context_from_wire(settings["context"])
    data = object_of(context, context.store(), unit, fronts_from_wire(settings["fronts"]))
    _write(command.output, data)
    Path(settings["answered"], fingerprint(unit)).touch()


def _write(path: str, data: bytes) -> None:
    part = Path(f"{path}.{os.getpid()}")
    part.write_bytes(data)
    part.replace(path)


def _write_depfile(command: Compile) -> None:
    """ninja and make read it; a stitched object depends on its source alone."""
    if command.depfile:
        output, source = (path.replace(" ", "\\ ") for path in (command.output, command.source))
        Path(command.depfile).write_text(f"{output}: {source}\n")


def settings_text(
    *,
    mode: str,
    fronts: Sequence[Front],
    gencodes: Sequence[str],
    root: Path,
    top: Path,
    marks: Marks,
    libraries: Sequence[str],
    nvcc: Path,
    cxx: str,
    variables: Mapping[str, str],
    standins: Path,
    objects: Path,
    includes: Sequence[Path] = (),
    flags: Sequence[tuple[str, Sequence[str]]] = (),
    **more: object,
) -> str:
    """The settings file's content.

    fronts: those of the build. gencodes: nvcc's options for what is no unit. root: the project's
    folder; top: the one of the whole source.
    libraries: folders of libraries that only this machine has, beside those of marks. variables:
    those that real compilers must see otherwise than upstream's build does. standins: the folder of
    those that are found in PATH. objects: a folder for those that upstream has in no file, because
    it links them at once.
    includes: folders in which headers are looked for last, of packages that the build requires.
    flags: what the recipe adds to commands, by tool (see `Project`).
    """
    from tempfile import gettempdir

    real = {
        "nvcc": str(nvcc), "cl": cxx, LINKER: linker_of(cxx), "g++": cxx, "gcc": c_compiler_of(cxx)
    }  # fmt: skip
    homes = [*(folder for folder, _ in marks), *libraries, os.path.realpath(gettempdir())]
    return json.dumps(
        {
            "mode": mode, "fronts": [dataclasses.asdict(front) for front in fronts],
            "gencodes": list(gencodes), "root": str(root), "top": str(top), "name": top.name,
            "marks": marks,
            "homes": homes, "variables": variables, "standins": str(standins),
            "includes": [word for folder in includes for word in ("-isystem", str(folder))],
            "flags": dict(flags), "objects": str(objects), **real, **more,
            "roles": {"nvcc": "nvcc", **compiler_names(cxx)},
        }
    )  # fmt: skip
