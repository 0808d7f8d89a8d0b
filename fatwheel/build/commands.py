"""Reads the compiler commands of an upstream build: nvcc's and the host compiler's.

nvcc's grammar is that of `nvcc --help` (CUDA 11.8 to 13.0), as nvcc really reads it: a long name
has two dashes, a short one has one, neither may be abbreviated; a value follows as the next
argument or after '=', and after one-letter names it may also follow at once (`-Idir`, `-t4`);
an option without a value takes no '='; an option that nvcc does not know stands alone. gcc's
grammar is that of its manual, "Option Summary".

Everything that is not one compilation of one source file to one object is left to the real
compiler.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

CUDA_SUFFIXES = (".cu",)
HOST_SUFFIXES = (".cpp", ".cc", ".cxx", ".c++", ".C")

# Every option of nvcc that takes a value: its long name, then its short one.
_NVCC_VALUES = dict(
    line.split()
    for line in """
    --Ofast-compile -Ofc
    --Werror -Werror
    --archive-options -Xarchive
    --archiver-binary -arbin
    --brief-diagnostics -brief-diag
    --cicc-options -Xcicc
    --compiler-bindir -ccbin
    --compiler-options -Xcompiler
    --compress-mode -compress-mode
    --cudadevrt -cudadevrt
    --cudafe-options -Xcudafe
    --cudart -cudart
    --default-stream -default-stream
    --define-macro -D
    --dependency-drive-prefix -ddp
    --dependency-output -MF
    --dependency-target-name -MT
    --device-entity-has-hidden-visibility -device-entity-has-hidden-visibility
    --device-stack-protector -device-stack-protector
    --diag-error -diag-error
    --diag-suppress -diag-suppress
    --diag-warn -diag-warn
    --dopt -dopt
    --drive-prefix -dp
    --entries -e
    --fatbin-options -Xfatbin
    --fdevice-time-trace -fdevice-time-trace
    --fmad -fmad
    --frandom-seed -frandom-seed
    --ftemplate-backtrace-limit -ftemplate-backtrace-limit
    --ftemplate-depth -ftemplate-depth
    --ftz -ftz
    --generate-code -gencode
    --gpu-architecture -arch
    --gpu-code -code
    --host-linker-script -hls
    --include-path -I
    --input-drive-prefix -idp
    --jump-table-density -jtd
    --keep-dir -keep-dir
    --libdevice-directory -ldir
    --library -l
    --library-path -L
    --linker-options -Xlinker
    --machine -m
    --maxrregcount -maxrregcount
    --nvlink-options -Xnvlink
    --optimization-info -opt-info
    --optimize -O
    --options-file -optf
    --output-directory -odir
    --output-file -o
    --pre-include -include
    --prec-div -prec-div
    --prec-sqrt -prec-sqrt
    --ptxas-options -Xptxas
    --qpp-config -qpp-config
    --relocatable-device-code -rdc
    --run-args -run-args
    --sanitize -sanitize
    --split-compile -split-compile
    --split-compile-extended -split-compile-extended
    --static-global-template-stub -static-global-template-stub
    --std -std
    --system-include -isystem
    --target-directory -target-dir
    --threads -t
    --time -time
    --undefine-macro -U
    --x -x
    """.strip().splitlines()
)
# Those without a value that matter here; the other such options are what they look like.
_NVCC_FLAGS = {
    "--compile": "-c",
    "--device-c": "-dc",
    "--device-w": "-dw",
    "--dlink-time-opt": "-dlto",
    "--dryrun": "-dryrun",
    "--extensible-whole-program": "-ewp",
    "--gen-opt-lto": "-gen-opt-lto",
    "--generate-dependencies": "-M",
    "--generate-dependencies-with-compile": "-MD",
    "--generate-dependency-targets": "-MP",
    "--generate-nonsystem-dependencies": "-MM",
    "--generate-nonsystem-dependencies-with-compile": "-MMD",
    "--jobserver": "-jobserver",
    "--keep": "-keep",
    "--lto": "-lto",
    "--objdir-as-tempdir": "-objtemp",
    "--preprocess": "-E",
    "--save-temps": "-keep",
    "-save-temps": "-keep",
}
_NVCC_WITH_VALUE = frozenset(_NVCC_VALUES.values())
_NVCC_GLUED = ("-I", "-D", "-U", "-t")
# Values that are lists: one directory or header for each comma.
_NVCC_LISTS = frozenset({"-I", "-isystem", "-include"})

# What the user's choice of architectures replaces, and what only shapes how nvcc works.
_NVCC_DROPPED = frozenset(
    {"-gencode", "-arch", "-code", "-t", "-keep", "-keep-dir", "-objtemp", "-frandom-seed"}
    | {"-ccbin", "-jobserver"}
)
# Device code that is linked again later is not stitched.
_NVCC_LINKED_LATER = frozenset({"-dc", "-dlto", "-lto", "-gen-opt-lto", "-ewp"})

_HOST_GLUED = (
    "-include", "-imacros", "-isystem", "-idirafter", "-iquote", "-isysroot",
    "-MF", "-MT", "-MQ", "-I", "-D", "-U", "-o", "-x",
)  # fmt: skip
_HOST_WITH_VALUE = frozenset(_HOST_GLUED) | {
    "-L", "-l", "-Xlinker", "-Xpreprocessor", "-Xassembler", "-B", "-T", "-u", "-z", "-A",
    "--param",
}  # fmt: skip
# They read or write files that the object does not show.
_HOST_MORE_FILES = (
    "-save-temps", "-fdump", "-ftest-coverage", "--coverage", "-coverage", "-fprofile",
    "-gsplit-dwarf", "-fstack-usage", "-fcallgraph-info", "-fplugin", "-specs", "-fmodules",
    "-aux-info", "-dumpbase", "-dumpdir", "-wrapper", "-Wp,-M", "-###",
)  # fmt: skip

_OTHER_PHASES = frozenset(
    {"-E", "-S", "-M", "-MM", "-dryrun", "-dlink", "-fsyntax-only", "-odir", "-fdevice-syntax-only"}
)
_DEPENDENCIES = frozenset({"-MD", "-MMD", "-MF", "-MT", "-MQ", "-MP"})
_FOLDERS = frozenset({"-I", "-isystem", "-idirafter", "-iquote", "-isysroot"})
_HEADERS = frozenset({"-include", "-imacros"})
_PREPROCESSOR = frozenset({"-D", "-U"}) | _FOLDERS | _HEADERS


@dataclass(frozen=True)
class Compile:
    """One source compiled to one object, taken apart.

    codegen decides what code is made from the text, preprocessor what the text is; an option
    and its value are two items, paths are absolute. depfile is None where the build asked for
    no dependency file. unsupported names the option that makes this command one that cannot be
    stitched (`-rdc=true`), and is empty for all others.
    """

    kind: str
    source: str
    output: str
    depfile: str | None
    codegen: tuple[str, ...]
    preprocessor: tuple[str, ...]
    unsupported: str = ""


def read_nvcc(
    args: Sequence[str], cwd: str, environ: Mapping[str, str] | None = None
) -> Compile | None:
    """Take an nvcc command apart (args without nvcc itself); None unless it compiles one .cu.

    args are as the build gave them; paths are resolved against cwd. environ is where nvcc finds
    more arguments (NVCC_PREPEND_FLAGS, NVCC_APPEND_FLAGS).
    """
    environ = environ or {}
    try:
        words = [
            *_more_words(environ.get("NVCC_PREPEND_FLAGS", ""), quotes=False),
            *args,
            *_more_words(environ.get("NVCC_APPEND_FLAGS", ""), quotes=False),
        ]
        options = list(_nvcc_options(words, cwd))
    except (_UnreadableError, OSError):
        return None
    return _Reader(cwd, "cuda").read(options)


def read_host(args: Sequence[str], cwd: str) -> Compile | None:
    """Take a g++ command apart; None unless it compiles one C++ source to an object."""
    return _Reader(cwd, "c++").read(list(_host_options(args)))


_Option = tuple[str, "str | None"]  # ("-I", "dir"), ("-O3", None), ("", "file.cu")


class _UnreadableError(Exception):
    """Words whose quoting only nvcc itself understands."""


def _nvcc_options(args: Sequence[str], cwd: str) -> Iterator[_Option]:
    pending = iter(args)
    for arg in pending:
        if not arg.startswith("-") or arg == "-":
            yield "", arg
            continue
        written, equals, rest = arg.partition("=")
        name = _NVCC_VALUES.get(written, written)
        value: str | None
        if name in _NVCC_WITH_VALUE:
            value = rest if equals else next(pending, "")
        else:
            name, value = _unglue(_NVCC_FLAGS.get(arg, arg), _NVCC_GLUED)
        if name == "-optf":
            yield from _options_of_files(value or "", cwd)
        elif name in _NVCC_LISTS:
            yield from ((name, item) for item in (value or "").split(","))
        else:
            yield name, value


def _options_of_files(names: str, cwd: str) -> Iterator[_Option]:
    for name in names.split(","):
        with open(os.path.join(cwd, name), encoding="utf-8") as stream:
            yield from _nvcc_options(_more_words(stream.read(), quotes=True), cwd)


def _more_words(text: str, *, quotes: bool) -> list[str]:
    """The words of an options file or a variable, where nvcc's quoting is like a shell's."""
    if "\\" in text or "'" in text or "#" in text or ('"' in text and not quotes):
        raise _UnreadableError(text)
    return shlex.split(text)


def _host_options(args: Sequence[str]) -> Iterator[_Option]:
    pending = iter(args)
    for arg in pending:
        if not arg.startswith("-") or arg == "-":
            yield "", arg
        elif arg in _HOST_WITH_VALUE:
            yield arg, next(pending, "")
        else:
            yield _unglue(arg, _HOST_GLUED)


def _unglue(arg: str, glued: tuple[str, ...]) -> _Option:
    for option in glued:
        if arg.startswith(option):
            return option, arg[len(option) :]
    return arg, None


class _Reader:
    """Sorts options into what decides the code, what decides the text, and the rest."""

    def __init__(self, cwd: str, kind: str) -> None:
        self.cwd = cwd
        self.kind = kind
        self.suffixes, self.language = {
            "cuda": (CUDA_SUFFIXES, "cu"),
            "c++": (HOST_SUFFIXES, "c++"),
        }[kind]
        self.sources: list[str] = []
        self.output = ""
        self.depfile: str | None = None
        self.wants_depfile = False
        self.compiles = False
        self.told_language = False
        self.relocatable = False
        self.linked_later = ""
        self.codegen: list[str] = []
        self.preprocessor: list[str] = []

    def read(self, options: Sequence[_Option]) -> Compile | None:
        if not all(self._take(name, value) for name, value in options):
            return None
        if not self.compiles or len(self.sources) != 1:
            return None
        source = self.sources[0]
        if not source.endswith(self.suffixes):
            if not self.told_language:
                return None
            self.codegen += ["-x", self.language]
        stem = os.path.splitext(os.path.basename(source))[0]
        output = self.output or self._absolute(stem + ".o")
        if not _may_be_replaced(output):
            return None
        if self.wants_depfile and self.depfile is None:
            self.depfile = os.path.splitext(output)[0] + ".d"
        return Compile(
            self.kind, source, output, self.depfile,
            tuple(self.codegen), tuple(self.preprocessor),
            "-rdc=true" if self.relocatable else self.linked_later,
        )  # fmt: skip

    def _take(self, name: str, value: str | None) -> bool:
        """Sort one option; False where the command is none of ours."""
        if name == "":
            self.sources.append(self._absolute(value or ""))
        elif name in _OTHER_PHASES or (self.kind == "c++" and name.startswith(_HOST_MORE_FILES)):
            return False
        elif name == "-x":
            self.told_language = value == self.language
            return self.told_language
        elif name == "-o":
            self.output = self._absolute(value or "")
        elif name in _DEPENDENCIES:
            self._take_dependency(name, value)
        elif name in _PREPROCESSOR:
            self.preprocessor += [name, self._in_place(name, value or "")]
        elif name == "-c" or (self.kind == "cuda" and name in ("-dc", "-dw", "-rdc")):
            self._take_phase(name, value)
        elif self.kind == "cuda" and name in _NVCC_LINKED_LATER:
            self.linked_later = name
        elif self.kind == "c++" or name not in _NVCC_DROPPED:
            self.codegen += [name] if value is None else [name, value]
        return True

    def _take_dependency(self, name: str, value: str | None) -> None:
        self.wants_depfile |= name in ("-MD", "-MMD", "-MF")
        if name == "-MF":
            self.depfile = self._absolute(value or "")

    def _take_phase(self, name: str, value: str | None) -> None:
        """-dc and -dw are -c with -rdc=true and -rdc=false; the last -rdc counts."""
        self.compiles |= name != "-rdc"
        if name != "-c":
            self.relocatable = name == "-dc" or value == "true"

    def _in_place(self, name: str, value: str) -> str:
        """A preprocessor option's value with its path made absolute."""
        if name in _FOLDERS and not value.startswith("="):  # gcc: below the system root
            return self._absolute(value)
        if name in _HEADERS:
            # A header may also be found on the include path: leave that to the compiler.
            absolute = self._absolute(value)
            return absolute if os.path.exists(absolute) else value
        return value

    def _absolute(self, path: str) -> str:
        return os.path.normpath(os.path.join(self.cwd, path))


def _may_be_replaced(output: str) -> bool:
    """Not a device: builds that only try a compiler write to /dev/null."""
    try:
        return stat.S_ISREG(os.stat(output).st_mode)
    except OSError:
        return True
