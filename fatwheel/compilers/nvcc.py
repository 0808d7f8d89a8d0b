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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .commands import PREPROCESSOR, Compile, DeviceLink, Option, Reader, unglue
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
    "--device-link": "-dlink",
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
_ARCHS = frozenset({"-gencode", "-arch", "-code"})
_NVCC_DROPPED = _ARCHS | {
    "-t", "-keep", "-keep-dir", "-objtemp", "-frandom-seed", "-ccbin", "-jobserver",
    "-use-local-env",
}  # fmt: skip
# Device code that is compiled again when it is linked is not stitched.
_NVCC_COMPILED_LATER = frozenset({"-dlto", "-lto", "-gen-opt-lto", "-ewp"})
_NVCC_ELSEWHERE = _NVCC_DROPPED | _NVCC_COMPILED_LATER | {"-c", "-dc", "-dw", "-rdc"}
_RELOCATABLE = "-rdc=true"  # as it stands among the options that decide what code is made

SPLIT_COMPILE = "--split-compile"
# In how many parts optimisers divide a unit's code, where they do. The number decides bytes, so it
# does not depend on the cores that there are.
PARTS = 4
_FOR_EACH_CPU = re.compile(r"(-split-compile=)0(?=,|$)")  # among ptxas' options

_OTHER_PHASES = frozenset(
    {"-E", "-S", "-M", "-MM", "-dryrun", "-dlink", "-fsyntax-only", "-odir", "-fdevice-syntax-only"}
)
_ALONE = frozenset(
    {
        "-ptx",
        "--ptx",
        "-cubin",
        "--cubin",
        "-fatbin",
        "--fatbin",
        "-cuda",
        "--cuda",
        "-run",
        "--run",
    }
    | {"--device-link", "--syntax-only", "-optix-ir", "--optix-ir", "-ltoir", "--ltoir"}
)
_LINKS_ALONE = frozenset(
    {
        "-shared",
        "--shared",
        "-lib",
        "--lib",
        "-link",
        "--link",
        "-l",
        "-L",
        "-Xlinker",
        "-Xarchive",
        "-cudart",
    }
)
_DEPENDENCIES = frozenset({"-MD", "-MMD", "-MF", "-MT", "-MQ", "-MP"})
# What a command that is taken apart into several must not have, beside one that makes no object.
_NOT_SPLIT = (_OTHER_PHASES - {"-odir"}) | _DEPENDENCIES | _ALONE | {"-x", "-optf"}
_GENCODE_CODES = re.compile("^.*code=")  # what goes before the codes in arch=…,code=…
_IMAGE = re.compile(r"(?:sm|compute)_(\d{2,3})([af]?)", re.ASCII)


def read_nvcc(
    args: Sequence[str], cwd: str, environ: Mapping[str, str] | None = None
) -> Compile | None:
    """Take an nvcc command apart (args without nvcc itself); None unless it compiles one .cu.

    args are as the build gave them; paths are resolved against cwd. environ is where nvcc finds
    more arguments (NVCC_PREPEND_FLAGS, NVCC_APPEND_FLAGS).
    """
    reader = _NvccReader(cwd)
    try:
        options = _all_options(args, reader, environ or {})
    except (_UnreadableError, OSError):
        return None
    return reader.read(options)


def is_relocatable(codegen: Sequence[str]) -> bool:
    """Whether what is compiled with these options (see `Compile`) is linked before it runs."""
    return _RELOCATABLE in codegen


def split_compile(parts: int, codegen: Sequence[str]) -> list[str]:
    """The option that has optimisers divide a unit's code in so many parts, if in any. A unit whose
    own options have a number keeps that.

    codegen: the options as `read_nvcc` gives them.
    """
    return [f"{SPLIT_COMPILE}={parts}"] if parts and "-split-compile" not in codegen else []


@dataclass(frozen=True)
class Split:
    """One command as several: those that compile a source each, and the one that links what they
    make, if the command links."""

    compiles: tuple[tuple[str, ...], ...]
    links: tuple[str, ...] | None


def split_nvcc(args: Sequence[str], folder: str) -> Split | None:
    """A command that compiles several .cu files, or compiles and links, as nvcc itself takes it
    apart; None where it is neither, or does more.

    folder: for objects that would be nvcc's own temporary files. The commands for single sources
    are such as `read_nvcc` takes.
    """
    options = list(_written(args))
    names = {name for name, _, _ in options}
    sources = [value or "" for name, value, _ in options if not name]
    compiles = bool(names & {"-c", "-dc", "-dw"})
    of_cuda = [source for source in sources if source.endswith(_NvccReader.suffixes)]
    if not of_cuda or names & _NOT_SPLIT or (compiles and ("-o" in names or of_cuda != sources)):
        return None
    place = next((value or "" for name, value, _ in options if name == "-odir"), "")
    shared = [
        word for name, _, words in options for word in words
        if name not in ("", "-o", "-odir") and not _links_alone(name)
    ]  # fmt: skip
    objects = {}
    for number, source in enumerate(dict.fromkeys(of_cuda)):
        stem = os.path.splitext(os.path.basename(source))[0]
        made = os.path.join(place, stem) if compiles else os.path.join(folder, f"{number}-{stem}")
        objects[source] = made + (".obj" if os.name == "nt" else ".o")
    phase = () if compiles else ("-c",)
    parts = tuple((*shared, *phase, source, "-o", made) for source, made in objects.items())
    if compiles:
        return Split(parts, None)
    links = (
        (objects.get(value or "", value or ""),) if not name else words
        for name, value, words in options
    )
    # Without relocatable code there is nothing to link, and nvcc would add an image without code.
    alone = () if "-rdc" in names or names & (_NVCC_COMPILED_LATER | {"-dc"}) else ("-nodlink",)
    return Split(parts, (*alone, *(word for words in links for word in words)))


def with_archs(args: Sequence[str], gencodes: Iterable[str]) -> list[str]:
    """A command by which nvcc compiles no device code, but the host's sources, or links, with these
    values of -gencode in place of its own architectures; any other command as it is.

    The host's sources see them (__CUDA_ARCH_LIST__), and nvcc refuses those that it does not know,
    whatever it is to do.
    """
    options = list(_written(args))
    inputs = [value or "" for name, value, _ in options if not name]
    known = all(_HOST_SOURCES.fullmatch(one) or _LINK_INPUTS.fullmatch(one) for one in inputs)
    # What is code already is for the architecture that it was made for.
    known = known and not any(one.endswith((".ptx", ".cubin", ".fatbin")) for one in inputs)
    if not inputs or not known or any(name in ("-x", "-optf") for name, _, _ in options):
        return list(args)
    kept = [word for name, _, words in options if name not in _ARCHS for word in words]
    return [*kept, *(word for value in gencodes for word in ("-gencode", value))]


def _links_alone(name: str) -> bool:
    """Whether an option is for links: `-Ldir` and `-lname` as well, with the value at once."""
    of_libraries = name.startswith(("-l", "-L")) and name not in ("-lineinfo", "-lto", "-ldir")
    return name in _LINKS_ALONE or of_libraries


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


# -- links of device code --------------------------------------------------------------------------

# `nvcc -dlink` links the relocatable device code of objects and static libraries, and makes an
# object of the result. An nvcc that links a library or program does that first, unless told
# -nodlink.

_NO_DEVICE_LINK = frozenset(
    {"-c", "-dc", "-dw", "-nodlink", "--no-device-link", "-lib", "--lib", "-ptx", "--ptx"}
    | {"-cubin", "--cubin", "-fatbin", "--fatbin", "-ltoir", "--ltoir", "-optix-ir", "--optix-ir"}
    | {"-run", "--run", "-x"}
)  # fmt: skip
_LINK_INPUTS = re.compile(r".+\.(?:o|obj|a|so|so\.[0-9.]+|cubin|fatbin|ptx)", re.ASCII)
# What nvcc has the host's compiler make an object of, in which there is no device code.
_HOST_SOURCES = re.compile(r".+\.(?:c|cc|cpp|cxx|i|ii)", re.ASCII)
_LIBRARIES = ("-l", "-L")
_NO_LIBRARIES = frozenset({"-lineinfo", "-link", "-lib", "-lto", "-ltoir"})  # for all their -l
# What only the compiling, or the link of the host's code, needs.
_NOT_FOR_DEVICES = _DEPENDENCIES | PREPROCESSOR | {
    "-Xlinker", "-cudart", "-hls", "-Xarchive", "-arbin", "-shared", "--shared", "-link", "--link",
}  # fmt: skip


def read_device_link(
    args: Sequence[str], cwd: str, environ: Mapping[str, str] | None = None
) -> DeviceLink | None:
    """Take an nvcc command apart (see `read_nvcc`) that links device code, or may; None for others,
    for those that compile CUDA sources as well, and on Windows.

    Where nvcc links the host's code, too, it may compile sources of that: they are no inputs.
    """
    reader = Reader(cwd)
    if reader.on_windows:
        return None
    try:
        found = _all_options(args, reader, environ or {})
    except (_UnreadableError, OSError):
        return None
    options = [one for option in found for one in _unglued(*option)]
    names = {name for name, _ in options}
    only = "-dlink" in names
    if names & (_NO_DEVICE_LINK | _OTHER_PHASES - {"-dlink"}):
        return None
    named = [value or "" for name, value in options if name == ""]
    inputs = [one for one in named if only or not _HOST_SOURCES.fullmatch(one)]
    libraries = tuple(_listed(options, "-l"))
    # Libraries alone are enough where the host's code has sources: `nvcc -shared m.cpp -lk`.
    of_host_sources = bool(named) and not only
    if not (inputs or (of_host_sources and libraries)):
        return None
    if not all(map(_LINK_INPUTS.fullmatch, inputs)):
        return None
    shared = not names.isdisjoint({"-shared", "--shared"})
    output = [value for name, value in options if name == "-o"]
    return DeviceLink(
        output=reader.absolute((output or ["a_dlink.o" if only else "a.out"])[-1] or ""),
        only=only,
        inputs=tuple(map(reader.absolute, inputs)),
        libraries=libraries,
        folders=tuple(map(reader.absolute, _listed(options, "-L"))),
        # nvcc itself tells nvlink so where it links the host's code, too, and not for -dlink.
        options=(*_device_options(options), *(["-Xnvlink", "--shared"] * (shared and not only))),
        unsupported=next((name for name, _ in options if name in _NVCC_COMPILED_LATER), ""),
        library_path=tuple(
            reader.absolute(folder)
            for folder in (environ or {}).get("LIBRARY_PATH", "").split(os.pathsep)
            if folder
        ),
    )


def _unglued(name: str, value: str | None) -> Iterator[Option]:
    """An option, with the value of -l and -L apart from its name, also where it is for nvlink
    alone."""
    if name != "-Xnvlink":
        yield _apart(name, value)
        return
    words = [(word, _apart(word, None)) for word in (value or "").split(",")]
    yield from (option for _, option in words if option[0] in _LIBRARIES)
    others = [word for word, option in words if option[0] not in _LIBRARIES]
    if others:
        yield name, ",".join(others)


def _apart(name: str, value: str | None) -> Option:
    if value is not None or name in _NO_LIBRARIES:
        return name, value
    return unglue(name, _LIBRARIES)


def _listed(options: Iterable[Option], name: str) -> list[str]:
    return [word for one, value in options if one == name for word in (value or "").split(",")]


def _device_options(options: Iterable[Option]) -> Iterator[str]:
    left_out = _NVCC_ELSEWHERE | _NOT_FOR_DEVICES | {"", "-o", "-dlink", *_LIBRARIES}
    for name, value in options:
        if name not in left_out and not name.startswith("-Wl,"):
            yield from [name] if value is None else [name, value]


class _UnreadableError(Exception):
    """Words whose quoting only nvcc itself understands."""


def _all_options(args: Sequence[str], reader: Reader, environ: Mapping[str, str]) -> list[Option]:
    """The options of a command, also those that are in variables and files."""
    words = [
        *_more_words(environ.get("NVCC_PREPEND_FLAGS", ""), reader, quotes=False),
        *args,
        *_more_words(environ.get("NVCC_APPEND_FLAGS", ""), reader, quotes=False),
    ]
    return list(_options(words, reader))


def _options(args: Sequence[str], reader: Reader) -> Iterator[Option]:
    for name, value, _ in _written(args):
        if name == "-optf":
            yield from _options_of_files(value or "", reader)
        elif name in _NVCC_LISTS:
            yield from ((name, item) for item in (value or "").split(","))
        else:
            yield name, value


def _written(args: Sequence[str]) -> Iterator[tuple[str, str | None, tuple[str, ...]]]:
    """Each option, by its short name, with its value and the words that it was written in."""
    pending = iter(args)
    for arg in pending:
        if not arg.startswith("-") or arg == "-":
            yield "", arg, (arg,)
            continue
        written, equals, rest = arg.partition("=")
        name = _NVCC_VALUES.get(written, written)
        if name not in _NVCC_WITH_VALUE:
            yield *unglue(_NVCC_FLAGS.get(arg, arg), _NVCC_GLUED), (arg,)
        elif equals:
            yield name, rest, (arg,)
        else:
            value = next(pending, "")
            yield name, value, (arg, value)


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


def _steady_parts(name: str, value: str) -> str:
    """A value without the parts into which optimisers divide code as often as there are CPUs."""
    if name == "-split-compile" and value == "0":
        return str(PARTS)
    return _FOR_EACH_CPU.sub(rf"\g<1>{PARTS}", value) if name == "-Xptxas" else value


class _NvccReader(Reader):
    kind = "cuda"
    suffixes = (".cu",)
    language = ("-x", "cu")

    def __init__(self, cwd: str) -> None:
        super().__init__(cwd)
        self.object_suffix = ".obj" if self.on_windows else ".o"
        self.relocatable = False
        self.compiled_later = ""

    def read(self, options: Sequence[Option]) -> Compile | None:
        for name, value in options:
            if name in ("-c", "-dc", "-dw", "-rdc"):
                self._take_phase(name, value)
            elif name in _NVCC_COMPILED_LATER:
                self.compiled_later = name
        self.unsupported = self.compiled_later
        if self.relocatable:
            self.codegen.append(_RELOCATABLE)  # first, wherever the command has it
            self.unsupported = self.unsupported or (_RELOCATABLE if self.on_windows else "")
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
            self.codegen += [name] if value is None else [name, _steady_parts(name, value)]
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
