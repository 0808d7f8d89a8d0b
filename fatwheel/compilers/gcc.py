"""g++'s commands: read as compiles, or passed on where upstream links or compiles C.

The grammar is that of gcc's manual, "Option Summary".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from .commands import PREPROCESSOR, Compile, Option, Reader, unglue

_GLUED = (
    "-include", "-imacros", "-isystem", "-idirafter", "-iquote", "-isysroot",
    "-MF", "-MT", "-MQ", "-I", "-D", "-U", "-o", "-x",
)  # fmt: skip
_WITH_VALUE = frozenset(_GLUED) | {
    "-L", "-l", "-Xlinker", "-Xpreprocessor", "-Xassembler", "-B", "-T", "-u", "-z", "-A",
    "--param",
}  # fmt: skip
# They read or write files that the object does not show.
_MORE_FILES = (
    "-save-temps", "-fdump", "-ftest-coverage", "--coverage", "-coverage", "-fprofile",
    "-gsplit-dwarf", "-fstack-usage", "-fcallgraph-info", "-fplugin", "-specs", "-fmodules",
    "-aux-info", "-dumpbase", "-dumpdir", "-wrapper", "-Wp,-M", "-###",
)  # fmt: skip
# What C++ sources end with.
CXX_SOURCES = (".cpp", ".cc", ".cxx", ".c++", ".C")
_OTHER_PHASES = frozenset({"-E", "-S", "-M", "-MM", "-fsyntax-only"})
_DEPENDENCIES = frozenset({"-MD", "-MMD", "-MF", "-MT", "-MQ", "-MP"})


def read_gcc(args: Sequence[str], cwd: str) -> Compile | None:
    """Take a g++ command apart; None unless it compiles one C++ source to an object."""
    return _GccReader(cwd).read(list(_options(args)))


def _options(args: Sequence[str]) -> Iterator[Option]:
    pending = iter(args)
    for arg in pending:
        if not arg.startswith("-") or arg == "-":
            yield "", arg
        elif arg in _WITH_VALUE:
            yield arg, next(pending, "")
        else:
            yield unglue(arg, _GLUED)


class _GccReader(Reader):
    kind = "c++"
    suffixes = CXX_SOURCES
    language = ("-x", "c++")

    def take(self, name: str, value: str | None) -> bool:
        if name == "":
            self.sources.append(self.absolute(value or ""))
        elif name in _OTHER_PHASES or name.startswith(_MORE_FILES):
            return False
        elif name == "-x":
            self.told_language = value == "c++"
            return self.told_language
        elif name == "-o":
            self.output = self.absolute(value or "")
        elif name in _DEPENDENCIES:
            self.wants_depfile |= name in ("-MD", "-MMD", "-MF")
            if name == "-MF":
                self.depfile = self.absolute(value or "")
        elif name in PREPROCESSOR:
            self.take_preprocessor(name, value or "")
        elif name == "-c":
            self.compiles = True
        else:
            self.codegen += [name] if value is None else [name, value]
        return True


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
