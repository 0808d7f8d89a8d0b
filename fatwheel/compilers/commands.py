"""The parts of a compile command of an upstream build, for any compiler.

Everything that is not one compilation of one source file to one object is left to the real
compiler. The readers are `compilers.nvcc`, `compilers.gcc` and `compilers.msvc`.
"""

from __future__ import annotations

import ntpath
import os
import posixpath
import stat
from collections.abc import Sequence
from dataclasses import dataclass

Option = tuple[str, "str | None"]  # ("-I", "dir"), ("-O3", None), ("", "file.cu")

FOLDERS = frozenset({"-I", "-isystem", "-idirafter", "-iquote", "-isysroot", "-external:I"})
HEADERS = frozenset({"-include", "-imacros", "-FI"})
PREPROCESSOR = frozenset({"-D", "-U"}) | FOLDERS | HEADERS


@dataclass(frozen=True)
class Compile:
    """One source compiled to one object, taken apart.

    codegen decides what code is made from the text, preprocessor what the text is; an option
    and its value are two items, paths are absolute. depfile is None where the build asked for
    no dependency file. unsupported names the option that makes this command one that cannot be
    stitched (`-dlto`), and is empty for all others. images are those that the command asks for
    (`sm_80`, `compute_80`), () where it leaves them to nvcc or to the machine.
    """

    kind: str
    source: str
    output: str
    depfile: str | None
    codegen: tuple[str, ...]
    preprocessor: tuple[str, ...]
    unsupported: str = ""
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceLink:
    """A command of nvcc that links device code, taken apart.

    only: whether that is all it does (`nvcc -dlink`); else nvcc links the host's code afterwards.
    inputs: objects and libraries, in their order. libraries: names that are looked for in `folders`
    (-lNAME, -LFOLDER), then in those that LIBRARY_PATH names. options: what else can decide the
    result. Paths are absolute. unsupported names an option with which it cannot be linked for each
    architecture apart.
    """

    output: str
    only: bool
    inputs: tuple[str, ...]
    libraries: tuple[str, ...]
    folders: tuple[str, ...]
    options: tuple[str, ...]
    unsupported: str
    library_path: tuple[str, ...] = ()


class Reader:
    """Sorts options into what decides the code, what decides the text, and the rest.

    The folder that the command ran in says which system's paths are in it.
    """

    kind: str
    suffixes: tuple[str, ...]
    language: tuple[str, ...]  # says that a source of another name is one of this kind
    object_suffix = ".o"

    def __init__(self, cwd: str) -> None:
        self.cwd = cwd
        self.on_windows = bool(ntpath.splitdrive(cwd)[0])
        self.paths = ntpath if self.on_windows else posixpath
        self.sources: list[str] = []
        self.output = ""
        self.depfile: str | None = None
        self.wants_depfile = False
        self.compiles = False
        self.told_language = False
        self.unsupported = ""
        self.codegen: list[str] = []
        self.preprocessor: list[str] = []
        self.images: tuple[str, ...] = ()

    def read(self, options: Sequence[Option]) -> Compile | None:
        if not all(self.take(name, value) for name, value in options):
            return None
        if not self.compiles or len(self.sources) != 1:
            return None
        source = self.sources[0]
        if not source.endswith(self.suffixes):
            if not self.told_language:
                return None
            self.codegen += self.language
        output = self.output_of(source)
        if not self._may_be_replaced(output):
            return None
        if self.wants_depfile and self.depfile is None:
            self.depfile = self.paths.splitext(output)[0] + ".d"
        return Compile(
            self.kind, source, output, self.depfile,
            tuple(self.codegen), tuple(self.preprocessor), self.unsupported, self.images,
        )  # fmt: skip

    def take(self, name: str, value: str | None) -> bool:
        """Sort one option; False where the command is none of ours."""
        raise NotImplementedError

    def output_of(self, source: str) -> str:
        stem = self.paths.splitext(self.paths.basename(source))[0]
        return self.output or self.absolute(stem + self.object_suffix)

    def take_preprocessor(self, name: str, value: str) -> None:
        """Keep an option of PREPROCESSOR, with its path made absolute."""
        if name in FOLDERS and not value.startswith("="):  # gcc: below the system root
            value = self.absolute(value)
        elif name in HEADERS:
            # A header may also be found on the include path: leave that to the compiler.
            absolute = self.absolute(value)
            value = absolute if os.path.exists(absolute) else value
        self.preprocessor += [name, value]

    def absolute(self, path: str) -> str:
        return str(self.paths.normpath(self.paths.join(self.cwd, path)))

    def _may_be_replaced(self, output: str) -> bool:
        """Not a device: builds that only try a compiler write to /dev/null."""
        if self.on_windows and self.paths.basename(output).lower().partition(".")[0] == "nul":
            return False
        try:
            return stat.S_ISREG(os.stat(output).st_mode)
        except OSError:
            return True


def unglue(arg: str, glued: tuple[str, ...]) -> Option:
    """An argument whose value may follow its name at once: `-Idir`."""
    for option in glued:
        if arg.startswith(option):
            return option, arg[len(option) :]
    return arg, None
