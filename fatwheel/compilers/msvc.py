"""Windows command lines: one text, that each program takes apart for itself.

Rules: Microsoft, "Parsing C command-line arguments". cl, link and nvcc.exe read their response
files by the same ones. A backslash is itself, unless it stands before a quotation mark; so paths
need no care. Standard library only.

The linker's command lines are read as far as a build's capture must know them. Their grammar is
that of "MSVC linker options" (Visual Studio 2022): an option begins with / or - and knows no case,
its value follows a colon; every other word is a file, and `@file` stands for the words in a file.
"""

from __future__ import annotations

import codecs
import ntpath
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .commands import PREPROCESSOR, Compile, Option, Reader

# Backslashes before a quotation mark, a pair of them inside quotes, a mark, space, anything else.
_PART = re.compile(r'(?P<slashes>\\+)(?=")|(?P<quote>"+)|(?P<space>\s+)|(?P<text>\\+|[^\\"\s]+)')


def split_words(text: str) -> list[str]:
    """The words of a command line, less the program's own name, or of a response file."""
    words: list[str] = []
    word: str | None = None
    quoted = False
    literal = False  # whether a quotation mark that follows is escaped
    for part in _PART.finditer(text):
        found = part[0]
        if part["slashes"]:
            literal = len(found) % 2 == 1
            word = (word or "") + "\\" * (len(found) // 2)
            continue
        if part["quote"]:
            marks = len(found)
            if literal:
                word, marks = (word or "") + '"', marks - 1
            word, quoted = _marks(word or "", quoted, marks)
        elif part["space"] and not quoted:
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + found
        literal = False
    return words if word is None else [*words, word]


def _marks(word: str, quoted: bool, marks: int) -> tuple[str, bool]:
    """What a row of quotation marks does: inside quotes, two of them are one of the text."""
    while marks:
        if quoted and marks >= 2:
            word, marks = word + '"', marks - 2
        else:
            quoted, marks = not quoted, marks - 1
    return word, quoted


def join_words(words: Iterable[str]) -> str:
    """The inverse of `split_words`, with quotes that nvcc's options files allow too."""
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    if word and not re.search(r'[\s"]', word):
        return word
    # Backslashes before a quotation mark, the closing one too, count twice.
    inside = re.sub(r'(\\*)"', r'\1\1\\"', word)
    return '"' + re.sub(r"(\\+)$", r"\1\1", inside) + '"'


# -- cl's commands ---------------------------------------------------------------------------------

# Its grammar is that of "Compiler options listed alphabetically" (Visual Studio 2022): an option
# begins with / or -, names are case-sensitive, a value follows at once, for some options also as
# the next argument or after a colon; `@file` stands for the words in a file, and the variables CL
# and _CL_ hold words that come before and after all others.


# Their value is the next argument where it does not follow at once.
_SPACED = ("-external:I", "-FI", "-Tp", "-Tc", "-D", "-I", "-U")
_OBJECT = "-Fo"
# They only shape how cl works, or what it says. A program database (-Fd) is never written: what
# would go there goes into the object.
_DROPPED = (
    "-nologo",
    "-MP",
    "-FS",
    "-Fd",
    "-Fe",
    "-Fm",
    "-showIncludes",
    "-errorReport:",
    "-diagnostics:",
)
_DEBUG_ELSEWHERE = ("-Zi", "-ZI")
_DEBUG_INSIDE = "-Z7"
# They make something else than one object, or read and write files that the object does not show.
_OTHER = (
    "-E", "-EP", "-P", "-Zs", "-LD", "-LDd", "-link", "-TC", "-Tc", "-interface",
    "-internalPartition", "-exportHeader", "-scanDependencies", "-help", "-?",
)  # fmt: skip
_MORE_FILES = (
    "-FA", "-Fa", "-Fi", "-Fp", "-FR", "-Fr", "-FU", "-Fx", "-Yc", "-Yu", "-Yl", "-Y-", "-Gm",
    "-analyze", "-doc", "-sourceDependencies", "-clr", "-ifc", "-reference", "-headerUnit",
    "-headerName", "-translateInclude", "-experimental:module", "-module", "-fsanitize-coverage",
    "-external:env:",
)  # fmt: skip


def read_cl(args: Sequence[str], cwd: str, environ: Mapping[str, str]) -> Compile | None:
    """Take a cl command apart; None unless it compiles one C++ source to an object."""
    reader = _ClReader(cwd)
    words = [*split_words(environ.get("CL", "")), *args, *split_words(environ.get("_CL_", ""))]
    try:
        options = list(_options(words, cwd))
    except (OSError, UnicodeError, RecursionError):  # a response file may name itself
        return None
    return reader.read(options)


def steady_option(name: str) -> str | None:
    """A host compiler's option as it is used here, with a dash; None where it is left out."""
    name = "-" + name[1:] if name.startswith("/") else name
    if name.startswith(_DROPPED):
        return None
    return _DEBUG_INSIDE if name in _DEBUG_ELSEWHERE else name


def _options(args: Sequence[str], cwd: str) -> Iterator[Option]:
    pending = iter(args)
    for arg in pending:
        if arg.startswith("@"):
            yield from _options(response_file(os.path.join(cwd, arg[1:])), cwd)
        elif arg[0:1] not in ("/", "-") or len(arg) == 1:
            yield "", arg
        else:
            yield _option("-" + arg[1:], pending)


def _option(arg: str, pending: Iterator[str]) -> Option:
    if arg.startswith(_OBJECT):
        value = arg[len(_OBJECT) :]
        return _OBJECT, next(pending, "") if value == ":" else value.removeprefix(":")
    if arg.startswith(_MORE_FILES + _DROPPED):
        return arg, None
    for name in _SPACED:
        if arg.startswith(name):
            return name, arg[len(name) :] or next(pending, "")
    return arg, None


def response_file(path: str) -> list[str]:
    """The words in a response file of cl or link. Raises OSError or UnicodeError."""
    with open(path, "rb") as stream:
        data = stream.read()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return split_words(data.decode("utf-16"))
    return split_words(data.decode("utf-8-sig"))


class _ClReader(Reader):
    kind = "c++"
    suffixes = (".cpp", ".cxx", ".cc")
    language = ("-TP",)
    object_suffix = ".obj"

    def take(self, name: str, value: str | None) -> bool:
        if name == "":
            self.sources.append(self.absolute(value or ""))
        elif name == "-Tp":
            self.told_language = True
            self.sources.append(self.absolute(value or ""))
        elif name == "-TP":
            self.told_language = True
        elif name == _OBJECT:
            self.output = value or ""
        elif name in PREPROCESSOR:
            self.take_preprocessor(name, value or "")
        elif name in _OTHER or name.startswith(_MORE_FILES):
            return False
        elif name == "-c":
            self.compiles = True
        else:
            self._take_codegen(name, value)
        return True

    def _take_codegen(self, name: str, value: str | None) -> None:
        kept = steady_option(name)
        if kept is not None:
            self.codegen += [kept] if value is None else [kept, value]

    def output_of(self, source: str) -> str:
        """The object: -Fo names it, with or without a suffix, or the folder that it goes to."""
        stem = self.paths.splitext(self.paths.basename(source))[0] + self.object_suffix
        if not self.output or self.output.endswith(("/", "\\")):
            return self.absolute(self.paths.join(self.output, stem))
        named = self.absolute(self.output)
        return named if self.paths.splitext(named)[1] else named + self.object_suffix


# The first option says that link works as lib, dumpbin or editbin does.
_OTHER_TOOLS = ("lib", "dump", "edit")


@dataclass(frozen=True)
class Link:
    """What a command links: the files that it reads, the one that it makes, and the import library
    that it makes besides where that is a library, else None."""

    inputs: tuple[str, ...]
    output: str
    import_library: str | None


def read_link(args: Sequence[str], cwd: str) -> Link | None:
    """Take a command of link apart; None where it does anything else, or cannot be read."""
    try:
        words = list(_words(args, cwd))
    except (OSError, UnicodeError, RecursionError):  # a response file may name itself
        return None
    options: dict[str, str] = {}
    inputs = []
    for word in words:
        if word.startswith(("/", "-")):
            name, _, value = word[1:].partition(":")
            options[name.lower()] = value
        else:
            inputs.append(ntpath.join(cwd, word))
    if not inputs or any(tool in options for tool in _OTHER_TOOLS):
        return None
    library = "dll" in options
    stem = ntpath.splitext(inputs[0])[0]
    output = ntpath.join(cwd, options.get("out") or stem + (".dll" if library else ".exe"))
    named = options.get("implib") or ntpath.splitext(output)[0] + ".lib"
    return Link(tuple(inputs), output, ntpath.join(cwd, named) if library else None)


def _words(args: Sequence[str], cwd: str) -> Iterator[str]:
    for arg in args:
        if arg.startswith("@"):
            yield from _words(response_file(ntpath.join(cwd, arg[1:])), cwd)
        else:
            yield arg
