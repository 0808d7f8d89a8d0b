"""What upstream's build compiles without the stand-ins, or links though none of them made it.

A compiler that is called by its path is no stand-in. But gcc looks for the programs that it starts
itself in the folder that COMPILER_PATH names, and nvcc for gcc in PATH. So stand-ins for those
programs hand on to the right ones, with what keeps a work folder out of objects, and the command
that started it all is put down (`tell`). clang starts none: it is asked, by variables that it has
for this, to log what it does, and to keep a work folder out of objects. Of other compilers only
objects are noticed: those that are linked, also in static libraries, and that no compiler made of
which a stand-in knows. Standard library only.

The format of static libraries is ar(5), in the System V and BSD variants: `!<arch>` and a newline,
then for each member 60 bytes of header (16 of name, 10 of size at 48, both padded with blanks) and
its content, which begins at an even offset. Longer names stand in a member `//` (System V) or
before the content (BSD). In a thin one (`!<thin>`) there is no content: names are paths of files.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shlex
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from ..compilers.gcc import filled_folders, is_of_cmake, without_folders
from ..compilers.hosts import Mapped, family_of
from .context import digest

STEPS_VARIABLE = "COMPILER_PATH"
# clang, lib/Driver and tools/driver/driver.cpp: commands are appended to a file; options are added.
_LOGS, _LOG, _ADDS = "CC_PRINT_OPTIONS", "CC_PRINT_OPTIONS_FILE", "CCC_OVERRIDE_OPTIONS"
# Not for compilers that a stand-in hands on to: they get options by their commands.
OF_DRIVERS = (STEPS_VARIABLE, _LOGS, _LOG, _ADDS)
_HIGHEST = 30  # processes above one in which a compiler is looked for
_OUTPUT = ("-o", "--output-file")
_COMPILES = frozenset({"-c", "--compile", "-dc", "--device-c"})
_LINKS_DEVICE_CODE = frozenset({"-dlink", "--device-link"})
_NO_LINK = _COMPILES | _LINKS_DEVICE_CODE | {"-E", "-S", "-M", "-MM"}
_LINKED = (".o", ".obj", ".a")
_ASKS = frozenset(
    {
        os.devnull,
        "-E",
        "--preprocess",
        "-M",
        "--generate-dependencies",
        "-MM",
        "-dryrun",
        "--dryrun",
    }
    | {"--generate-nonsystem-dependencies", "-fdevice-syntax-only", "--fdevice-syntax-only"}
)
_SHOWN = 5  # findings that are told one by one
_LONGEST_COMMAND = 1000  # characters of a command that is told


# -- gcc's own programs ----------------------------------------------------------------------------


def step_command(
    step: str, arguments: Sequence[str], mapped: Mapped, seed: str, folders: Sequence[str]
) -> list[str]:
    """The real command of a step of the gcc that started this process.

    mapped and seed are those of `Family.steady`; folders: those that libraries are not looked for
    in. OSError where the step's program is not found.
    """
    command = [_program(step), *arguments]
    if step == "as":
        return [*command, *(f"--debug-prefix-map={folder}={name}" for folder, name in mapped)]
    if step == "collect2":
        edit = filled_folders if is_of_cmake(arguments) else without_folders
        return [command[0], *edit(arguments, folders)]
    return [*command, *family_of("gcc").steady(mapped, seed)]


def _program(step: str) -> str:
    """Where the gcc that started this process has one of its programs."""
    import subprocess

    driver = f"/proc/{os.getppid()}/exe"
    of_its_own = [word for word in command_of(os.getppid()) if word.startswith("-B")]
    variables = {name: value for name, value in os.environ.items() if name != STEPS_VARIABLE}
    asked = [os.path.realpath(driver), *of_its_own, f"-print-prog-name={step}"]
    found = subprocess.run(
        asked, env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        check=False,
    ).stdout.strip()  # fmt: skip
    program = shutil.which(found) if found else None
    if program is None:
        raise FileNotFoundError(2, "gcc does not say where it is", step)
    return program


def command_of(process: int) -> list[str]:
    """The words that a process was started with; none where it is gone."""
    with suppress(OSError):
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[:-1]
        return [os.fsdecode(word) for word in words]
    return []


def nvcc_above() -> list[str]:
    """The command of an nvcc that started this process, through others; empty if none did."""
    for process in _above(os.getpid()):
        command = command_of(process)
        if command and os.path.basename(command[0]) == "nvcc":
            return command
    return []


def _above(process: int) -> Iterator[int]:
    for _ in range(_HIGHEST):
        try:
            # The name, in parentheses, may hold anything (proc(5)).
            stat = Path(f"/proc/{process}/stat").read_text(errors="replace")
        except OSError:
            return
        process = int(stat.rpartition(")")[2].split()[1])
        if process <= 1:
            return
        yield process


# -- clang -----------------------------------------------------------------------------------------


def clang_variables(log: Path, mapped: Mapped) -> dict[str, str]:
    """What lets every clang log its steps, and name folders in objects as `mapped` has it.

    Its options cannot hold blanks: folders that do stay as they are.
    """
    maps = [f"+-ffile-prefix-map={folder}={name}" for folder, name in mapped if " " not in folder]
    options = ["#", *maps, "+-Wno-unused-command-line-argument"]  # the first: say nothing of it
    return {_LOGS: "1", _LOG: str(log), _ADDS: " ".join(options)}


def clangs_commands(log: Path) -> Iterator[list[str]]:
    """What was logged, as people would have called it, the output's path complete: a step of clang
    has a hundred options of its own."""
    if not log.exists():
        return
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):  # a quotation that does not end
            words = shlex.split(line) if line.startswith(' "') else []
            outputs = _named_outputs(words)
            if "-cc1" in words[1:2] and outputs:
                folders = [word.partition("=")[2] for word in words
                           if word.startswith("-fdebug-compilation-dir=")]  # fmt: skip
                made = os.path.join(*folders[:1], outputs[-1])
                yield [words[0], "-c", words[-1], "-o", made]


# -- objects ---------------------------------------------------------------------------------------


def makes_device_code(arguments: Sequence[str]) -> bool:
    """Whether a command of nvcc compiles a source, or PTX, to whatever."""
    told_so = ("-x", "cu") in pairwise(arguments) or not {"-x=cu", "--x=cu"}.isdisjoint(arguments)
    links = not _LINKS_DEVICE_CODE.isdisjoint(arguments)
    suffixes = (".cu",) if links else (".cu", ".ptx")
    of_cuda = told_so or any(word.endswith(suffixes) for word in arguments)
    return of_cuda and _ASKS.isdisjoint(arguments)


def outputs(arguments: Sequence[str]) -> list[str]:
    """The files that a command may write objects to."""
    named = _named_outputs(arguments)
    if named or _COMPILES.isdisjoint(arguments):
        return named
    sources = [word for word in arguments if not word.startswith("-")]
    return [os.path.splitext(os.path.basename(source))[0] + ".o" for source in sources]


def _named_outputs(arguments: Sequence[str]) -> list[str]:
    after = [later for one, later in pairwise(arguments) if one in _OUTPUT]
    return [*after, *(word[2:] for word in arguments if re.match(r"-o.*\.o$", word))]


def note_made(folder: str, paths: Iterable[str]) -> None:
    """Put down that a stand-in knows who makes these objects."""
    for path in paths:
        _note_of(folder, path).write_bytes(os.fsencode(os.path.realpath(path)))


def unknown_objects(arguments: Sequence[str], made: str, places: Sequence[str]) -> list[str]:
    """The objects in a command that links that lie below `places` and that nobody put down; those
    in static libraries as `libother.a(member.o)`."""
    objects = (word for word in arguments if word.endswith(".o") and not word.startswith("-"))
    read = set(map(os.path.realpath, objects)) - set(
        map(os.path.realpath, _named_outputs(arguments))
    )
    found = [
        path for path in read
        if os.path.exists(path) and _is_below(path, places) and not _note_of(made, path).exists()
    ]  # fmt: skip
    libraries = sorted(path for path in _static_libraries(arguments) if _is_below(path, places))
    known = _known_contents(made) if libraries else frozenset()
    for path in libraries:
        try:
            found += [f"{path}({name})" for name in unknown_members(Path(path), known)]
        except (ValueError, OSError):
            found.append(path)
    return sorted(found)


def _static_libraries(arguments: Sequence[str]) -> set[str]:
    """Those that a command names, by their paths or as -lNAME."""
    folders = [word[2:] for word in arguments if word.startswith("-L") and word != "-L"]
    folders += [later for one, later in pairwise(arguments) if one == "-L"]
    named = [word[2:] for word in arguments if word.startswith("-l")]
    names = [name[1:] if name.startswith(":") else f"lib{name}.a" for name in named]
    paths = [word for word in arguments if word.endswith(".a") and not word.startswith("-")]
    paths += [os.path.join(folder, name) for folder in folders for name in names]
    return {
        os.path.realpath(path) for path in paths if path.endswith(".a") and os.path.isfile(path)
    }


def _known_contents(made: str) -> frozenset[str]:
    """The sha256 of the objects that were put down: `ar` copies them under other names."""
    found = set()
    for note in Path(made).iterdir():
        with suppress(OSError):  # removed since
            found.add(sha256_of(Path(os.fsdecode(note.read_bytes()))))
    return frozenset(found)


def _note_of(folder: str, path: str) -> Path:
    return Path(folder, digest(os.path.realpath(path)))


def _is_below(path: str, places: Sequence[str]) -> bool:
    return any(path.startswith(os.path.realpath(place) + os.sep) for place in places)


# -- links -----------------------------------------------------------------------------------------


def links(arguments: Sequence[str]) -> bool:
    """Whether a command of a compiler, or of a linker, links objects."""
    inputs = (word for word in arguments if not word.startswith("-"))
    objects = any(word.lower().endswith(_LINKED) for word in inputs)
    return objects and _NO_LINK.isdisjoint(arguments)


def linked(folder: Path) -> tuple[tuple[str, ...], ...]:
    """The commands that `tell` has put down in a folder of their own, by their output."""
    found = [tuple(one["command"]) for one in _findings(folder) if "command" in one]
    return tuple(sorted(found, key=lambda words: (_named_outputs(words), words)))


# -- what is told ----------------------------------------------------------------------------------


def tell(folder: str, finding: dict[str, Any]) -> None:
    """Put down a finding, once: {"command": [...]} or {"object": path}."""
    text = json.dumps(finding, sort_keys=True)
    Path(folder, digest(text)).write_text(text, encoding="utf-8")


def told(folder: Path) -> tuple[str, ...]:
    """What was put down, in sentences for the user."""
    findings = sorted(_findings(folder), key=json.dumps)
    commands = [" ".join(words)[:_LONGEST_COMMAND] for words in commands_told(folder)]
    objects = [one["object"] for one in findings if "object" in one]
    sentences = [
        "this compiler call of the project went past fatwheel, so what it makes is in the wheel as "
        f"it is: {command}"
        for command in commands[:_SHOWN]
    ]
    if len(commands) > _SHOWN:
        sentences.append(f"the same is true of {len(commands) - _SHOWN} more compiler calls")
    if objects:
        more = f" and {len(objects) - _SHOWN} more" if len(objects) > _SHOWN else ""
        sentences.append(
            "the project links objects that no compiler call made of which fatwheel knows: "
            f"{', '.join(objects[:_SHOWN])}{more}"
        )
    return tuple(sentences)


def commands_told(folder: Path) -> list[list[str]]:
    """The commands among what was put down."""
    findings = sorted(_findings(folder), key=json.dumps)
    return [one["command"] for one in findings if "command" in one]


def _findings(folder: Path) -> Iterator[dict[str, Any]]:
    """Those that `tell` has put down: the project's own build may write there, too."""
    for path in sorted(folder.iterdir()):
        with suppress(OSError, ValueError):
            if not path.is_file():
                continue
            match json.loads(path.read_text(encoding="utf-8")):
                case {"command": [*words]} if all(isinstance(word, str) for word in words):
                    yield {"command": words}
                case {"object": str(linked)}:
                    yield {"object": linked}


_MAGIC, _THIN = b"!<arch>\n", b"!<thin>\n"
_HEADER = 60
_TABLES = ("/", "//", "/SYM64/")
_BSD_TABLE = "__.SYMDEF"
_LONGEST_NAMES = 1 << 20  # bytes


def unknown_members(archive: Path, known: Collection[str]) -> list[str]:
    """The names of its members whose sha256 is not in `known`. Raises what `members` does."""
    return [
        name
        for name, content in members(archive)
        if hashlib.sha256(content).hexdigest() not in known
    ]


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each member that is no table.

    ValueError where it is malformed, OSError where it, or a member of a thin one, is not there.
    """
    with archive.open("rb") as stream:
        magic = stream.read(len(_MAGIC))
        if magic == _THIN:
            yield from ((name, content_of(archive.parent / name)) for name in _thin(stream))
        elif magic == _MAGIC:
            yield from _members(stream)
        else:
            raise ValueError("not a static library")


def is_thin(archive: Path) -> bool:
    """Whether a static library only names its members. OSError where it is not there."""
    with archive.open("rb") as stream:
        return stream.read(len(_THIN)) == _THIN


def whole(archive: Path) -> bytes:
    """A static library with the contents of a thin one's members, under other names and without a
    table of symbols. Raises what `members` does."""
    out = bytearray(_MAGIC)
    for number, (_, content) in enumerate(members(archive)):
        name = b"%d.o/" % number
        out += b"%-16s%-12d%-6d%-6d%-8d%-10d`\n" % (name, 0, 0, 0, 0o644, len(content))
        out += content + b"\n" * (len(content) % 2)
    return bytes(out)


def sha256_of(path: Path) -> str:
    """Raises what `content_of` does."""
    return hashlib.sha256(content_of(path)).hexdigest()


def content_of(path: Path) -> bytes:
    """OSError where it is no plain file: a thin archive may name a pipe, on which one waits."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        return stream.read()


def _members(stream: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    names = b""
    while header := stream.read(_HEADER):
        name, size = _read(header)
        content = stream.read(size)
        stream.seek(size % 2, 1)
        if name.startswith("#1/"):
            length = int(name[3:])
            name, content = content[:length].rstrip(b"\0").decode(), content[length:]
        if name == "//":
            names = content[:_LONGEST_NAMES]
        if name not in _TABLES and not name.startswith(_BSD_TABLE):
            yield _long(name, names), content


def _thin(stream: IO[bytes]) -> Iterator[str]:
    names = b""
    while header := stream.read(_HEADER):
        name, size = _read(header)
        if name not in _TABLES:
            yield _long(name, names)
            continue
        content = stream.read(size)
        stream.seek(size % 2, 1)
        names = content[:_LONGEST_NAMES] if name == "//" else names


def _read(header: bytes) -> tuple[str, int]:
    if len(header) != _HEADER or header[58:] != b"`\n":
        raise ValueError("not a header")
    return header[:16].decode("utf-8", "backslashreplace").rstrip(), int(header[48:58])


def _long(name: str, names: bytes) -> str:
    """`/18` stands for what is at 18 among the names; others end with a slash."""
    if name[:1] == "/" and name[1:].isdigit():
        start = int(name[1:])
        return names[start:].partition(b"\n")[0].decode("utf-8", "backslashreplace").rstrip("/")
    return name.rstrip("/")
