"""Reads the compiler commands of an upstream build: nvcc's and the host compiler's.

The grammar is that of `nvcc --help` (CUDA 11.8 to 13.x) and of gcc; only what decides how a
command is taken apart is here. Everything that is not one compilation of one source file to one
object is left to the real compiler.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

CUDA_SUFFIXES = (".cu",)
HOST_SUFFIXES = (".cpp", ".cc", ".cxx", ".c++", ".C")

# Options whose value is the next argument, or follows '='. Only those that occur in builds; an
# unknown option is taken to stand alone, as nvcc's own are mostly written.
_NVCC_ALIASES = {
    "--include-path": "-I",
    "--define-macro": "-D",
    "--undefine-macro": "-U",
    "--pre-include": "-include",
    "--system-include": "-isystem",
    "--output-file": "-o",
    "--compile": "-c",
    "--device-c": "-dc",
    "--generate-code": "-gencode",
    "--gpu-architecture": "-arch",
    "--gpu-code": "-code",
    "--threads": "-t",
    "-threads": "-t",
    "--dependency-output": "-MF",
    "--dependency-target-name": "-MT",
    "--generate-dependencies-with-compile": "-MD",
    "--generate-nonsystem-dependencies-with-compile": "-MMD",
    "--generate-dependency-targets": "-MP",
    "--compiler-options": "-Xcompiler",
    "--ptxas-options": "-Xptxas",
    "--nvlink-options": "-Xnvlink",
    "--fatbin-options": "-Xfatbin",
    "--cudafe-options": "-Xcudafe",
    "--linker-options": "-Xlinker",
    "--archive-options": "-Xarchive",
    "--compiler-bindir": "-ccbin",
    "--relocatable-device-code": "-rdc",
    "--keep-dir": "-keep-dir",
    "--keep": "-keep",
    "--save-temps": "-keep",
    "-save-temps": "-keep",
    "--objdir-as-tempdir": "-objtemp",
    "--options-file": "-optf",
    "--frandom-seed": "-frandom-seed",
    "--optimize": "-O",
    "--std": "-std",
    "--maxrregcount": "-maxrregcount",
    "--machine": "-m",
    "--diag-suppress": "-diag-suppress",
    "--diag-error": "-diag-error",
    "--diag-warn": "-diag-warn",
    "--library": "-l",
    "--library-path": "-L",
    "--default-stream": "-default-stream",
    "--compress-mode": "-compress-mode",
    "--split-compile": "-split-compile",
}
_NVCC_WITH_VALUE = frozenset(_NVCC_ALIASES.values()) - {
    "-c", "-dc", "-MD", "-MMD", "-MP", "-keep", "-objtemp",
} | {"-x", "-idirafter", "-iquote", "-Werror"}  # fmt: skip
# Written without a space or '=' before the value.
_GLUED = ("-I", "-D", "-U", "-L", "-l", "-O", "-isystem", "-std", "-t", "-m")

# What the user's choice of architectures replaces, and what only shapes how nvcc works.
_NVCC_DROPPED = frozenset(
    {"-gencode", "-arch", "-code", "-t", "-keep", "-keep-dir", "-objtemp", "-frandom-seed"}
    | {"-ccbin"}
)
_DEPENDENCIES = frozenset({"-MD", "-MMD", "-MF", "-MT", "-MQ", "-MP"})
_PREPROCESSOR = frozenset({"-D", "-U", "-I", "-isystem", "-include", "-idirafter", "-iquote"})
_PATHS = frozenset({"-I", "-isystem", "-include", "-idirafter", "-iquote"})

_HOST_WITH_VALUE = frozenset(
    {"-o", "-I", "-D", "-U", "-isystem", "-include", "-idirafter", "-iquote", "-MF", "-MT", "-MQ"}
    | {"-x", "-L", "-l", "-Xlinker", "-Xpreprocessor", "-Xassembler", "-imacros", "-isysroot"}
    | {"-B", "-T", "-u", "-z"}
)


@dataclass(frozen=True)
class Compile:
    """One source compiled to one object, taken apart.

    codegen decides what code is made from the text, preprocessor what the text is; an option
    and its value are two items, paths are absolute. depfile is None where the build asked for
    no dependency file. relocatable is true for -rdc=true and -dc.
    """

    kind: str
    source: str
    output: str
    depfile: str | None
    codegen: tuple[str, ...]
    preprocessor: tuple[str, ...]
    relocatable: bool = False


def read_nvcc(args: Sequence[str], cwd: str) -> Compile | None:
    """Take an nvcc command apart (args without nvcc itself); None unless it compiles one .cu.

    args are as the build gave them; paths are resolved against cwd.
    """
    return _Reader(cwd, CUDA_SUFFIXES, "cuda").read(_nvcc_options(args))


def read_host(args: Sequence[str], cwd: str) -> Compile | None:
    """Take a g++ command apart; None unless it compiles one C++ source to an object."""
    return _Reader(cwd, HOST_SUFFIXES, "c++").read(_host_options(args))


_Option = tuple[str, "str | None"]  # ("-I", "dir"), ("-O3", None), ("", "file.cu")


def _nvcc_options(args: Sequence[str]) -> Iterator[_Option]:
    pending = iter(args)
    for arg in pending:
        if not arg.startswith("-") or arg == "-":
            yield "", arg
            continue
        name, equals, value = arg.partition("=")
        name = _NVCC_ALIASES.get(name, name)
        if equals and name in _NVCC_WITH_VALUE:
            yield name, value
        elif name in _NVCC_WITH_VALUE and not equals:
            yield name, next(pending, "")
        else:
            yield _unglue(arg)


def _host_options(args: Sequence[str]) -> Iterator[_Option]:
    pending = iter(args)
    for arg in pending:
        if not arg.startswith("-") or arg == "-":
            yield "", arg
        elif arg in _HOST_WITH_VALUE:
            yield arg, next(pending, "")
        else:
            yield _unglue(arg)


def _unglue(arg: str) -> _Option:
    for option in _GLUED:
        if arg.startswith(option) and len(arg) > len(option) and option in _PREPROCESSOR:
            return option, arg[len(option) :]
    if arg[:2] == "-t" and arg[2:].isdigit():
        return "-t", arg[2:]
    return arg, None


class _Reader:
    """Sorts options into what decides the code, what decides the text, and the rest."""

    def __init__(self, cwd: str, suffixes: tuple[str, ...], kind: str) -> None:
        self.cwd = cwd
        self.suffixes = suffixes
        self.kind = kind
        self.sources: list[str] = []
        self.output = ""
        self.depfile: str | None = None
        self.wants_depfile = False
        self.compiles = False
        self.relocatable = False
        self.codegen: list[str] = []
        self.preprocessor: list[str] = []

    def read(self, options: Iterator[_Option]) -> Compile | None:
        for name, value in options:
            if not self._take(name, value):
                return None
        if not self.compiles or len(self.sources) != 1:
            return None
        source = self.sources[0]
        stem = os.path.splitext(os.path.basename(source))[0]
        output = self.output or self._absolute(stem + ".o")
        if self.wants_depfile and self.depfile is None:
            self.depfile = os.path.splitext(output)[0] + ".d"
        return Compile(
            self.kind, source, output, self.depfile,
            tuple(self.codegen), tuple(self.preprocessor), self.relocatable,
        )  # fmt: skip

    def _take(self, name: str, value: str | None) -> bool:
        """Sort one option; False where the command is none of ours."""
        if name == "":
            if not (value or "").endswith(self.suffixes):
                return False
            self.sources.append(self._absolute(value or ""))
        elif name in ("-c", "-dc"):
            self.compiles = True
            self.relocatable |= name == "-dc"
        elif name in ("-E", "-M", "-MM", "-optf", "--dryrun", "-dryrun", "-dlink", "-x"):
            return False
        elif name == "-o":
            self.output = self._absolute(value or "")
        elif name in _DEPENDENCIES:
            self.wants_depfile |= name in ("-MD", "-MMD", "-MF")
            if name == "-MF":
                self.depfile = self._absolute(value or "")
        elif name in _PREPROCESSOR:
            path = self._absolute(value or "") if name in _PATHS else value
            self.preprocessor += [name, path or ""]
        elif name == "-rdc":
            self.relocatable |= value == "true"
        elif self.kind == "c++" or name not in _NVCC_DROPPED:
            self.codegen += [name] if value is None else [name, value]
        return True

    def _absolute(self, path: str) -> str:
        # -include may name a header found on the include path: leave that to the compiler.
        absolute = os.path.normpath(os.path.join(self.cwd, path))
        return absolute if os.path.isabs(path) or os.path.exists(absolute) else path
