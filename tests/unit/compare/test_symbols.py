"""Functions of libraries from the system's compiler."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from fatwheel.compare.binaries import differing_symbols, read_host
from fatwheel.compare.differences import Difference, Position

Tool = Callable[[str], str]
SOURCE = """
int table[] = {1, 2, 3};
__attribute__((noinline)) int one(int x) { return x * 3 + 1; }
__attribute__((noinline)) int two(int x) { return one(x) + 2; }
static __attribute__((noinline, used)) int hidden(int x) { return x ^ 5; }
"""


def library(tool: Tool, folder: Path, source: str, *options: str) -> bytes:
    (folder / "a.c").write_text(source)
    command = [tool("gcc"), "-O1", "-shared", "-fPIC", "-nostdlib", *options, "a.c", "-o", "a.so"]
    subprocess.run(command, cwd=folder, check=True)
    return (folder / "a.so").read_bytes()


def told(one: bytes, other: bytes, section: str = ".text") -> list[Difference]:
    sides = []
    for data in (one, other):
        host = read_host(memoryview(data))
        assert host is not None
        assert host.elf is not None
        sides.append((host.elf, host.sections[section]))
    return list(differing_symbols(Position("a.so", section), *sides))


def names(found: list[Difference]) -> set[tuple[str, str]]:
    return {(each.level, each.place.symbol) for each in found}


def test_a_function_of_the_same_size(tool: Tool, tmp_path: Path) -> None:
    one = library(tool, tmp_path, SOURCE)
    assert told(one, one) == []
    other = library(tool, tmp_path, SOURCE.replace("x ^ 5", "x ^ 6"))
    assert names(told(one, other)) == {("function", "hidden")}


def test_a_variable(tool: Tool, tmp_path: Path) -> None:
    one = library(tool, tmp_path, SOURCE)
    other = library(tool, tmp_path, SOURCE.replace("2, 3}", "2, 4}"))
    [found] = told(one, other, ".data")
    assert found.place.symbol == "table"
    assert found.what == "12 bytes in both; the first that differs is at 0x8"


def test_a_stripped_library_has_exported_names(tool: Tool, tmp_path: Path) -> None:
    one = library(tool, tmp_path, SOURCE, "-s")
    other = library(tool, tmp_path, SOURCE.replace("+ 1", "+ 7"), "-s")
    assert names(told(one, other)) == {("function", "one")}
    both = library(tool, tmp_path, SOURCE.replace("x ^ 5", "x ^ 6"), "-s")
    assert told(one, both) == [], "nothing names it"


def test_names_that_one_file_was_stripped_of_are_no_news(tool: Tool, tmp_path: Path) -> None:
    one = library(tool, tmp_path, SOURCE)
    assert told(one, library(tool, tmp_path, SOURCE, "-s")) == []


def test_what_moved_is_only_counted_behind_what_is_new(tool: Tool, tmp_path: Path) -> None:
    one = library(tool, tmp_path, SOURCE)
    longer = SOURCE.replace("x * 3 + 1", "x * 3 + 1 + table[x & 1] * table[x & 2] / (x | 1)")
    found = told(one, library(tool, tmp_path, longer))
    assert found[0].place.symbol == "one"
    assert "became" in found[0].what
    assert all("as in calls to code that has moved" in each.what for each in found[1:])
    added = told(one, library(tool, tmp_path, SOURCE + "int three(void) { return 3; }"))
    assert (added[0].place.symbol, added[0].what) == ("three", "only in the second")


def test_aliases_are_named_once(tool: Tool, tmp_path: Path) -> None:
    alias = 'int same(int x) __attribute__((alias("one")));\n'
    one = library(tool, tmp_path, SOURCE + alias)
    other = library(tool, tmp_path, SOURCE.replace("+ 1", "+ 7") + alias)
    assert len(told(one, other)) == 1
