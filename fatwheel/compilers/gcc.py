"""Reads g++'s commands; the grammar is that of gcc's manual, "Option Summary"."""

from __future__ import annotations

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
    suffixes = (".cpp", ".cc", ".cxx", ".c++", ".C")
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
