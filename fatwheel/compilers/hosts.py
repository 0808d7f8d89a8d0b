"""How the two families of host compilers are called, and how nvcc uses each.

A family says what its commands look like; it runs nothing. Sources: gcc's manual; Microsoft,
"MSVC Compiler Options"; nvcc's own commands, as `nvcc --dryrun` lists them on both systems.
Standard library only.
"""

from __future__ import annotations

import ntpath
import os
import re
import shlex
from collections.abc import Iterator, Sequence

from .msvc import split_words

# How compilers say that the system ran out of memory, on lines that no excerpt of a source can
# be: LLVM (cicc), EDG (cudafe++), ptxas.
_DEVICE_OUT_OF_MEMORY = (
    r"^(?:LLVM ERROR|Catastrophic error): out of memory"
    r"|^ptxas fatal *: Memory allocation failure"
)


Mapped = Sequence[tuple[str, str]]  # a folder, and the name that objects have for it


class Family:
    """What commands of a family of host compilers are made of.

    object_name: what a job calls its output. keeps_text: whether compiling can leave the
    preprocessed text behind. prints_text: whether preprocessing writes to standard output.
    """

    object_name: str
    keeps_text: bool
    prints_text: bool
    out_of_memory: re.Pattern[str]

    def steady(self, mapped: Mapped, seed: str) -> list[str]:
        """Options without which an object would tell where or when it was made.

        mapped: folders, and what objects call them instead; where several fit, the last one
        counts. seed: for names that would be random.
        """
        raise NotImplementedError

    def compile(self, cxx: str, arguments: Sequence[str], source: str) -> list[str]:
        """The command that compiles C++, less its output."""
        raise NotImplementedError

    def preprocess(self, cxx: str, arguments: Sequence[str], source: str) -> list[str]:
        """The command that only preprocesses, less its output."""
        raise NotImplementedError

    def output(self, name: str) -> list[str]:
        """Where an object or a text goes to."""
        raise NotImplementedError

    def empty_library(self, cxx: str, source: str, name: str) -> list[str]:
        """The command that makes a library of an object without content; [] where the linker makes
        one of such objects by itself."""
        raise NotImplementedError

    def of_nvcc(self, cxx: str, steady: Sequence[str]) -> list[str]:
        """What nvcc must be told; steady: options for every host pass, also those that only
        preprocess for device code, where __FILE__ becomes text."""
        raise NotImplementedError

    def pass_command(self, line: str, cxx: str) -> tuple[list[str], str] | None:
        """A preprocessing command that `nvcc --dryrun` lists, and the file that it writes; None
        where the line is another."""
        raise NotImplementedError

    def anchor(self, name: str) -> str:
        """A definition of an external symbol that nobody else sees."""
        raise NotImplementedError

    def names_of_jobs(self, scratch: str) -> re.Pattern[bytes] | None:
        """Finds the jobs' own folders, below `scratch`, in texts; None where none are named."""
        raise NotImplementedError


class Gcc(Family):
    object_name = "output"
    keeps_text = True
    prints_text = False
    # nvcc's and gcc's drivers, gcc's and binutils' allocator, the C++ run time, the system.
    out_of_memory = re.compile(
        r"^nvcc error *: '\S+' died due to signal 9\b"
        r"|^\S+: fatal error: Killed signal terminated program "
        r"|^\S+: out of memory allocating \d+ bytes"
        rf"|{_DEVICE_OUT_OF_MEMORY}"
        r"|^terminate called after throwing an instance of 'std::bad_alloc'"
        r"|^virtual memory exhausted"
        r"|^[\w+./-]+: (?:[^:\n]+: )*Cannot allocate memory$",
        re.MULTILINE | re.IGNORECASE,
    )

    def steady(self, mapped: Mapped, seed: str) -> list[str]:
        # Both debug information and __FILE__ (gcc 8 and later). Without the first option texts
        # name the job's own folder.
        maps = [f"-ffile-prefix-map={folder}={name}" for folder, name in mapped]
        return ["-fno-working-directory", *maps, f"-frandom-seed={seed}"]

    def compile(self, cxx: str, arguments: Sequence[str], source: str) -> list[str]:
        return [cxx, *arguments, "-c", source]

    def preprocess(self, cxx: str, arguments: Sequence[str], source: str) -> list[str]:
        command = self.compile(cxx, arguments, source)
        return ["-E" if arg == "-c" else arg for arg in command]

    def output(self, name: str) -> list[str]:
        return ["-o", name]

    def empty_library(self, cxx: str, source: str, name: str) -> list[str]:
        return []

    def of_nvcc(self, cxx: str, steady: Sequence[str]) -> list[str]:
        return ["-ccbin", cxx, *(word for option in steady for word in ("-Xcompiler", option))]

    def pass_command(self, line: str, cxx: str) -> tuple[list[str], str] | None:
        words = shlex.split(line[2:]) if line.startswith("#$ ") and " -E " in line else []
        if "-E" not in words or "-o" not in words:
            return None
        output = words.index("-o")
        return words[:output] + words[output + 2 :], words[output + 1]

    def anchor(self, name: str) -> str:
        return f'extern "C" {{ __attribute__((visibility("hidden"))) int {name} = 1; }}\n'

    def names_of_jobs(self, scratch: str) -> re.Pattern[bytes] | None:
        return None


class Msvc(Family):
    """cl. nvcc.exe finds it by PATH, as the variables of its developer's prompt say: it takes no
    other one for Microsoft's."""

    object_name = "output.obj"
    keeps_text = False
    prints_text = True
    # cl's C1002, C1060, C1076 and C3859; nvcc, of a step that ended with STATUS_NO_MEMORY,
    # STATUS_INSUFFICIENT_RESOURCES or STATUS_COMMITMENT_LIMIT.
    out_of_memory = re.compile(
        r"^(?:\S.*\(\d+(?:,\d+)?\)|cl|c1xx|[\w.+-]+\.\w+) ?: "
        r"(?:fatal )?error C(?:1002|1060|1076|3859)\b"
        r"|^nvcc error *: '\S+' died with status 0xC0000(?:017|09A|12D)\b"
        rf"|{_DEVICE_OUT_OF_MEMORY}",
        re.MULTILINE | re.IGNORECASE,
    )

    def steady(self, mapped: Mapped, seed: str) -> list[str]:
        # The second one is what -pathmap needs. There is no seed: cl's names are not random.
        # nvcc.exe passes no blanks on, and takes a comma for an end; images have no such folders.
        maps = [f"-pathmap:{old}={new}" for old, new in mapped if not re.search("[ ,]", old)]
        return ["-Brepro", "-experimental:deterministic", *maps]

    def compile(self, cxx: str, arguments: Sequence[str], source: str) -> list[str]:
        return [cxx, "-nologo", *arguments, "-c", source]

    def preprocess(self, cxx: str, arguments: Sequence[str], source: str) -> list[str]:
        return [cxx, "-nologo", *arguments, "-E", source]

    def output(self, name: str) -> list[str]:
        return [f"-Fo{name}"]

    def empty_library(self, cxx: str, source: str, name: str) -> list[str]:
        options = ["-NOLOGO", "-DLL", "-NOENTRY", "-NODEFAULTLIB", f"-OUT:{name}"]
        return [linker_of(cxx), *options, source]

    def of_nvcc(self, cxx: str, steady: Sequence[str]) -> list[str]:
        # cl looks for pre-included headers beside the source, and where it is told to.
        return ["--use-local-env", "-I", ".", "-Xcompiler", ",".join(steady)]

    def pass_command(self, line: str, cxx: str) -> tuple[list[str], str] | None:
        words = split_words(line[3:]) if line.startswith("#$ ") and " -E " in line else []
        if "-E" not in words or ">" not in words:
            return None
        output = words.index(">")
        return [cxx, *words[1:output], *words[output + 2 :]], words[output + 1]

    def anchor(self, name: str) -> str:
        return f'extern "C" {{ int {name} = 1; }}\n'

    def names_of_jobs(self, scratch: str) -> re.Pattern[bytes] | None:
        # cl may name a file by its whole path, in small letters, with doubled backslashes.
        folder = re.escape(scratch.replace("\\", "\\\\").encode())
        return re.compile(folder + rb'\\\\[^\\"]+', re.IGNORECASE)


def linker_of(cxx: str) -> str:
    """Microsoft's linker, which lies beside cl."""
    return ntpath.join(ntpath.dirname(cxx), "link.exe")


def family_of(cxx: str) -> Family:
    """The family of a host compiler, by its path."""
    name = ntpath.basename(cxx).lower()
    return Msvc() if name in ("cl", "cl.exe") else Gcc()


# -- linking and C ---------------------------------------------------------------------------------

# What a real compiler is called with where upstream calls it itself: to link, or to compile C.
#
# Such a command is passed on as it is, but for what would tell the result where it was made. A
# Python that was configured with --enable-shared puts `-Wl,-rpath,PREFIX/lib` on every link line,
# and torch's folder gets there too: a wheel is used where those folders are not. Sources: gcc's
# manual, "Options for Linking"; ld's manual, "-rpath" and "-R".
#
# CMake wants to find in a library the search path that it was linked with: installing replaces it,
# or fails (CMake, cmSystemTools::ChangeRPath). There it stays until the wheel is made
# (`worker.linking` removes it then), and is filled up with colons, which mean nothing, to a length
# that does not depend on how long the names of this machine's folders are: what follows it in the
# file is in the same place everywhere.


# An option of ld that names folders to look in when the library is loaded; ld takes one dash or
# two. -R with a file that exists is another option, but only folders of builds are looked for.
_RPATH = re.compile(r"--?rpath(?:=(?P<value>.*))?|-R(?P<short>.+)?")
_PASSED_ON = "-Wl,"
_PASSED_ON_ALONE = "-Xlinker"


_FILLED = 4096  # bytes of a search path, or a multiple


def is_of_cmake(arguments: Sequence[str]) -> bool:
    """Whether a command of CMake's links: by where it keeps objects."""
    return any("CMakeFiles/" in argument for argument in arguments)


def without_rpaths(arguments: Sequence[str], folders: Sequence[str]) -> list[str]:
    """A command of gcc without run-time search paths into `folders`, or into any below them; one of
    CMake's with a path of steady length."""
    kept: list[str] = []
    edit = filled_folders if is_of_cmake(arguments) else without_folders
    for group in _groups(arguments):
        words = _words_of_ld(group)
        left = words if words is None else edit(words, folders)
        if left is None or left == words:
            kept += group
        else:
            kept += [word for option in left for word in (_PASSED_ON_ALONE, option)]
    return kept


def _groups(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Single arguments, and neighbours that speak to ld: an option and its value may be apart."""
    group: list[str] = []
    pending = iter(arguments)
    for argument in pending:
        if argument == _PASSED_ON_ALONE:
            group += [argument, *_next_of(pending)]
        elif argument.startswith(_PASSED_ON):
            group.append(argument)
        else:
            if group:
                yield group
            group = []
            yield [argument]
    if group:
        yield group


def _next_of(pending: Iterator[str]) -> list[str]:
    return [word for word in [next(pending, None)] if word is not None]


def _words_of_ld(group: Sequence[str]) -> list[str] | None:
    """What ld gets of a group; None where nothing of it goes to ld."""
    if group[0] != _PASSED_ON_ALONE and not group[0].startswith(_PASSED_ON):
        return None
    words: list[str] = []
    pending = iter(group)
    for argument in pending:
        if argument == _PASSED_ON_ALONE:
            words += _next_of(pending)
        else:
            words += argument.removeprefix(_PASSED_ON).split(",")
    return words


def without_folders(words: Sequence[str], folders: Sequence[str]) -> list[str]:
    """What ld is called with, without run-time search paths into `folders`."""
    kept: list[str] = []
    for option, paths in _options_of_ld(words):
        left = [path for path in paths if not is_inside(path, folders)]
        if left == paths:
            kept += option
        elif left:
            kept.append(f"-rpath={':'.join(left)}")
    return kept


def filled_folders(words: Sequence[str], folders: Sequence[str]) -> list[str]:
    """What ld is called with, with one run-time search path of steady length if any leads into
    `folders`."""
    options = list(_options_of_ld(words))
    paths = [path for _, found in options for path in found]
    if not any(is_inside(path, folders) for path in paths):
        return list(words)
    path = ":".join(paths)
    length = (len(os.fsencode(path)) // _FILLED + 1) * _FILLED
    others = [word for option, found in options if not found for word in option]
    return [*others, f"-rpath={path}{':' * (length - len(os.fsencode(path)))}"]


def _options_of_ld(words: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Each option, and the folders of a run-time search path if it is one."""
    pending = iter(words)
    for word in pending:
        found = _RPATH.fullmatch(word)
        if found is None:
            yield [word], []
            continue
        together = found["value"] if found["value"] is not None else found["short"]
        apart = _next_of(pending) if together is None else []
        yield [word, *apart], "".join([together or "", *apart]).split(":")


def is_inside(path: str, folders: Sequence[str]) -> bool:
    """Whether an absolute path is one of these folders, or below one."""
    if not os.path.isabs(path):
        return False
    places = {os.path.normpath(path), os.path.realpath(path)}
    return any(
        place == folder or place.startswith(folder.rstrip("/") + "/")
        for place in places
        for folder in folders
    )
