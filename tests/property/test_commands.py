"""However an nvcc command is spelled and ordered, taking it apart finds the same meaning."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from fatwheel.compilers.commands import Compile
from fatwheel.compilers.nvcc import read_nvcc

CWD = "/project"


@dataclass(frozen=True)
class Word:
    """One option: its spellings, and where its meaning belongs ('' where it has none)."""

    spellings: tuple[tuple[str, ...], ...]
    room: str
    items: tuple[str, ...]


def _with_value(short: str, long: str, value: str, glued: bool) -> tuple[tuple[str, ...], ...]:
    """nvcc's four ways to write an option and its value (`nvcc --help`)."""
    ways = [(short, value), (f"{short}={value}",), (long, value), (f"{long}={value}",)]
    return tuple([*ways, (f"{short}{value}",)] if glued else ways)


_names = st.text("abcXYZ019_", min_size=1, max_size=8)
_folders = st.lists(_names, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))


def _text_option(
    short: str, long: str, values: st.SearchStrategy[str], glued: bool
) -> st.SearchStrategy[Word]:
    return values.map(
        lambda value: Word(_with_value(short, long, value, glued), "preprocessor", (short, value))
    )


def _code_option(short: str, long: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[Word]:
    return values.map(
        lambda value: Word(_with_value(short, long, value, False), "codegen", (short, value))
    )


def _dropped(short: str, long: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[Word]:
    return values.map(lambda value: Word(_with_value(short, long, value, False), "", ()))


def _flag(*names: str) -> st.SearchStrategy[Word]:
    return st.sampled_from([Word(((name,),), "codegen", (name,)) for name in names])


_numbers = st.integers(0, 255).map(str)
_truths = st.sampled_from(["true", "false"])
_options = st.one_of(
    _text_option("-I", "--include-path", _folders, glued=True),
    _text_option("-isystem", "--system-include", _folders, glued=False),
    _text_option("-D", "--define-macro", st.tuples(_names, _names).map("=".join), glued=True),
    _text_option("-U", "--undefine-macro", _names, glued=True),
    _text_option("-include", "--pre-include", _names.map("no_such_{}.h".format), glued=False),
    _code_option("-Xptxas", "--ptxas-options", st.sampled_from(["-v", "-O3,-v", "--x=y"])),
    _code_option("-Xcompiler", "--compiler-options", st.sampled_from(["-fPIC", "-O2,-g"])),
    _code_option("-maxrregcount", "--maxrregcount", _numbers),
    _code_option("-ftz", "--ftz", _truths),
    _code_option("-fmad", "--fmad", _truths),
    _code_option("-std", "--std", st.sampled_from(["c++17", "c++20"])),
    _code_option("-diag-suppress", "--diag-suppress", _numbers),
    _dropped("-arch", "--gpu-architecture", st.sampled_from(["sm_80", "native", "all"])),
    _dropped("-code", "--gpu-code", st.sampled_from(["sm_80", "sm_80,compute_80"])),
    _dropped("-gencode", "--generate-code", st.just("arch=compute_80,code=[sm_80,sm_86]")),
    _dropped("-t", "--threads", _numbers),
    _dropped("-frandom-seed", "--frandom-seed", _names),
    _dropped("-ccbin", "--compiler-bindir", _folders),
    _flag("-lineinfo", "-G", "--use_fast_math", "--expt-relaxed-constexpr", "-O3", "-m64", "-w"),
)


@st.composite
def commands(draw: st.DrawFn) -> tuple[list[str], list[Word]]:
    """A command's arguments, and what it means."""
    words = draw(st.lists(_options, max_size=12))
    spelled = [draw(st.sampled_from(word.spellings)) for word in words]
    output = draw(st.sampled_from(_with_value("-o", "--output-file", "/out/a.o", False)))
    fixed = [("/src/a.cu",), output, draw(st.sampled_from([("-c",), ("--compile",)]))]
    for item in fixed:
        spelled.insert(draw(st.integers(0, len(spelled))), item)
    return [argument for item in spelled for argument in item], words


def _items(words: list[Word], room: str) -> tuple[str, ...]:
    return tuple(item for word in words if word.room == room for item in word.items)


@given(commands())
def test_every_spelling_means_the_same(command: tuple[list[str], list[Word]]) -> None:
    arguments, words = command
    found = read_nvcc(arguments, CWD)
    assert found is not None
    assert replace(found, images=()) == Compile(
        kind="cuda",
        source="/src/a.cu",
        output="/out/a.o",
        depfile=None,
        codegen=_items(words, "codegen"),
        preprocessor=_items(words, "preprocessor"),
    )


@given(commands())
def test_what_was_taken_apart_reads_the_same_when_put_together(
    command: tuple[list[str], list[Word]],
) -> None:
    once = read_nvcc(command[0], CWD)
    assert once is not None
    again = read_nvcc(
        [*once.preprocessor, *once.codegen, "-c", once.source, "-o", once.output], "/elsewhere"
    )
    assert again == replace(once, images=()), "options that say for which images are left out"


@given(st.lists(st.text("-=,.abcDIUtxo/\\'\" ", max_size=8), max_size=8))
def test_any_words_at_all_are_read_or_left_alone(arguments: list[str]) -> None:
    found = read_nvcc(arguments, CWD)
    assert found is None or found.source.startswith("/")
