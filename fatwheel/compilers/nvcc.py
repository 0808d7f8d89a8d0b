"""Reads nvcc's commands.

The grammar is that of `nvcc --help` (CUDA 11.8 to 13.0), as nvcc really reads it: a long name
has two dashes, a short one has one, neither may be abbreviated; a value follows as the next
argument or after '=', and after one-letter names it may also follow at once (`-Idir`, `-t4`);
an option without a value takes no '='; an option that nvcc does not know stands alone.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from .commands import PREPROCESSOR, Compile, Option, Reader, unglue
from .msvc import split_words, steady_option

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
    "--use-local-env": "-use-local-env",
    "-save-temps": "-keep",
}
_NVCC_WITH_VALUE = frozenset(_NVCC_VALUES.values())
_NVCC_GLUED = ("-I", "-D", "-U", "-t")
# Values that are lists: one directory or header for each comma.
_NVCC_LISTS = frozenset({"-I", "-isystem", "-include"})

# What the user's choice of architectures replaces, and what only shapes how nvcc works.
_NVCC_DROPPED = frozenset(
    {"-gencode", "-arch", "-code", "-t", "-keep", "-keep-dir", "-objtemp", "-frandom-seed"}
    | {"-ccbin", "-jobserver", "-use-local-env"}
)
# Device code that is linked again later is not stitched.
_NVCC_LINKED_LATER = frozenset({"-dc", "-dlto", "-lto", "-gen-opt-lto", "-ewp"})
_NVCC_ELSEWHERE = _NVCC_DROPPED | _NVCC_LINKED_LATER | {"-c", "-dc", "-dw", "-rdc"}

_OTHER_PHASES = frozenset(
    {"-E", "-S", "-M", "-MM", "-dryrun", "-dlink", "-fsyntax-only", "-odir", "-fdevice-syntax-only"}
)
_DEPENDENCIES = frozenset({"-MD", "-MMD", "-MF", "-MT", "-MQ", "-MP"})
_GENCODE_CODES = re.compile("^.*code=")  # what goes before the codes in arch=…,code=…
_IMAGE = re.compile(r"(?:sm|compute)_(\d{2,3})([af]?)", re.ASCII)


def read_nvcc(
    args: Sequence[str], cwd: str, environ: Mapping[str, str] | None = None
) -> Compile | None:
    """Take an nvcc command apart (args without nvcc itself); None unless it compiles one .cu.

    args are as the build gave them; paths are resolved against cwd. environ is where nvcc finds
    more arguments (NVCC_PREPEND_FLAGS, NVCC_APPEND_FLAGS).
    """
    environ = environ or {}
    reader = _NvccReader(cwd)
    try:
        words = [
            *_more_words(environ.get("NVCC_PREPEND_FLAGS", ""), reader, quotes=False),
            *args,
            *_more_words(environ.get("NVCC_APPEND_FLAGS", ""), reader, quotes=False),
        ]
        options = list(_options(words, reader))
    except (_UnreadableError, OSError):
        return None
    return reader.read(options)


def _images(options: Sequence[Option]) -> tuple[str, ...]:
    """The images that a command asks for, ascending; () where one of them is no architecture by its
    name (`native`, `all`, `lto_80`), or none is given."""
    codes: list[str] = []
    arch, beside = "", []
    for name, value in options:
        if name == "-gencode":
            codes += _GENCODE_CODES.sub("", value or "").strip("[]\"'").split(",")
        elif name == "-arch":
            arch = value or ""
        elif name == "-code":
            beside += (value or "").split(",")
    if arch:
        # -arch=sm_80 is short for the cubin and its PTX ("--gpu-architecture" in nvcc --help).
        codes += beside or [arch, arch.replace("sm_", "compute_")]
    found = {match[0]: match for code in codes if (match := _IMAGE.fullmatch(code))}
    if not all(code in found for code in codes):
        return ()
    return tuple(
        sorted(found, key=lambda code: (int(found[code][1]), found[code][2], code[0] == "c"))
    )


class _UnreadableError(Exception):
    """Words whose quoting only nvcc itself understands."""


def _options(args: Sequence[str], reader: Reader) -> Iterator[Option]:
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
            name, value = unglue(_NVCC_FLAGS.get(arg, arg), _NVCC_GLUED)
        if name == "-optf":
            yield from _options_of_files(value or "", reader)
        elif name in _NVCC_LISTS:
            yield from ((name, item) for item in (value or "").split(","))
        else:
            yield name, value


def _options_of_files(names: str, reader: Reader) -> Iterator[Option]:
    for name in names.split(","):
        with open(os.path.join(reader.cwd, name), encoding="utf-8") as stream:
            yield from _options(_more_words(stream.read(), reader, quotes=True), reader)


def _more_words(text: str, reader: Reader, *, quotes: bool) -> list[str]:
    """The words of an options file or a variable, where nvcc's quoting is like a shell's; that
    of Windows leaves the backslashes of paths alone."""
    if "'" in text or "#" in text or ('"' in text and not quotes):
        raise _UnreadableError(text)
    if reader.on_windows:
        return split_words(text)
    if "\\" in text:
        raise _UnreadableError(text)
    return shlex.split(text)


class _NvccReader(Reader):
    kind = "cuda"
    suffixes = (".cu",)
    language = ("-x", "cu")

    def __init__(self, cwd: str) -> None:
        super().__init__(cwd)
        self.object_suffix = ".obj" if self.on_windows else ".o"
        self.relocatable = False
        self.linked_later = ""

    def read(self, options: Sequence[Option]) -> Compile | None:
        for name, value in options:
            if name in ("-c", "-dc", "-dw", "-rdc"):
                self._take_phase(name, value)
            elif name in _NVCC_LINKED_LATER:
                self.linked_later = name
        self.unsupported = "-rdc=true" if self.relocatable else self.linked_later
        self.images = _images(options)
        return super().read(options)

    def take(self, name: str, value: str | None) -> bool:
        if name == "":
            self.sources.append(self.absolute(value or ""))
        elif name in _OTHER_PHASES:
            return False
        elif name == "-x":
            self.told_language = value == "cu"
            return self.told_language
        elif name == "-o":
            self.output = self.absolute(value or "")
        elif name in _DEPENDENCIES:
            self._take_dependency(name, value)
        elif name in PREPROCESSOR:
            self.take_preprocessor(name, value or "")
        elif name == "-Xcompiler" and self.on_windows:
            self._take_for_cl(value or "")
        elif name not in _NVCC_ELSEWHERE:
            self.codegen += [name] if value is None else [name, value]
        return True

    def _take_for_cl(self, value: str) -> None:
        """Options for cl: words between commas, or in one argument between spaces."""
        words = [steady_option(word) for word in value.replace(",", " ").split()]
        if '"' in value or "\\" in value:
            self.codegen += ["-Xcompiler", value]
        elif kept := ",".join(filter(None, words)):
            self.codegen += ["-Xcompiler", kept]

    def _take_dependency(self, name: str, value: str | None) -> None:
        self.wants_depfile |= name in ("-MD", "-MMD", "-MF")
        if name == "-MF":
            self.depfile = self.absolute(value or "")

    def _take_phase(self, name: str, value: str | None) -> None:
        """-dc and -dw are -c with -rdc=true and -rdc=false; the last -rdc counts."""
        self.compiles |= name != "-rdc"
        if name != "-c":
            self.relocatable = name == "-dc" or value == "true"
