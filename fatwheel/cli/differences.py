"""Prints what `invoke compare` found: the highest level first, at most a screenful, to stdout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

from rich.console import Console

from .. import text
from .console import out, write, write_cut, write_name
from .names import readable

ROWS_SHOWN = 36  # of all files
ROWS_OF_FILE = 16
TOOL_LINES_SHOWN = 16  # of diffoscope

_LISTS = {
    "pins": "likely causes: what went into the wheels",
    "files": "files",
    "modes": "permissions",
    "archive": "the archive",
}

Found = Mapping[str, Any]  # a difference, as the report has it


class Row(NamedTuple):
    """A line, indented to its depth.

    Of one that ends with a name, and of what is quoted from a file, a terminal shows as much as it
    has room for. Names in what is quoted stay as they are.
    """

    depth: int
    words: str
    kind: Literal["words", "name", "quoted"] = "words"


def show_comparison(report: Mapping[str, Any]) -> None:
    """`compare.report`'s report: whether two wheels are the same, and what is not."""
    console = out()
    one, other = report["one"], report["other"]
    if report["identical"]:
        write(console, ("identical", "bold green"), f": sha256 {one['sha256']}")
        return
    write(console, ("not the same", "bold red"))
    for which, side in (("first ", one), ("second", other)):
        write(console, f"  {which} {side['file']}, {text.size(side['size'])}")
        write(console, f"         sha256 {side['sha256']}")
    _show_blocks(list(_blocks(report["differences"])))
    write(console, "")
    write(console, _rest(report))
    if report["diffoscope"]:
        _show_tool(report["diffoscope"])


def _show_blocks(blocks: Sequence[tuple[str, list[Row]]]) -> None:
    """Each file's rows, or each list's, as far as there is room; the rest is counted."""
    console = out()
    left = ROWS_SHOWN
    for number, (heading, rows) in enumerate(blocks):
        if left <= 0:
            write(console, f"\nand {len(blocks) - number} more: see --json")
            return
        shown = rows[: min(left, ROWS_OF_FILE)]
        left -= len(shown)
        write(console, "\n", (heading, "bold"))
        for row in shown:
            _show_row(console, row)
        if len(rows) > len(shown):
            write(console, f"  and {text.count(len(rows) - len(shown), 'more line')}: see --json")


def _show_row(console: Console, row: Row) -> None:
    line = f"{'  ' * row.depth}{row.words}"
    match row.kind:
        case "name":
            write_name(console, line)
        case "quoted":
            write_cut(console, line)
        case _:
            write(console, readable(line))


def _blocks(differences: Sequence[Found]) -> Iterator[tuple[str, list[Row]]]:
    """Headings, with what stands below each."""
    for (heading, listed), some in groupby(differences, _heading):
        rows = _list_rows if listed else _file_rows
        yield heading, list(rows(some))


def _heading(found: Found) -> tuple[str, bool]:
    """What a difference stands below: its file, or the list that its level has."""
    listed = found["level"] in _LISTS
    return (_LISTS[found["level"]] if listed else found["file"]), listed


def _list_rows(differences: Iterable[Found]) -> Iterator[Row]:
    for found in differences:
        named = found["file"] is not None and found["level"] != "pins"
        words = f"{found['file']}: {found['what']}" if named else found["what"]
        if found["one"] is not None and found["other"] is not None:
            words = f"{words}: {found['one']} became {found['other']}"
        yield Row(1, words)


def _file_rows(differences: Iterable[Found]) -> Iterator[Row]:
    """A tree: sections, units and images, kernels and functions, and what differs in each."""
    told: tuple[str, ...] = ()
    for found in differences:
        path = tuple(_path(found))
        fresh = next((n for n, (a, b) in enumerate(zip(path, told, strict=False)) if a != b),
                     min(len(path), len(told)))  # fmt: skip
        for depth, node in enumerate(path[fresh:-1], start=fresh + 1):
            yield Row(depth, node)
        yield from _leaf(found, path, fresh < len(path))
        told = path


def _path(found: Found) -> Iterator[str]:
    if found["section"] is not None:
        yield f"section {found['section']}"
    if found["container"] is not None or found["image"] is not None:
        yield ", ".join(filter(None, [_unit(found), found["image"]]))
    if found["symbol"] is not None:
        yield f"{'kernel' if found['image'] else 'function or variable'} {found['symbol']}"


def _unit(found: Found) -> str:
    if found["container"] is None:
        return ""
    place = f"container {found['container']}"
    return f"unit {found['unit']} ({place})" if found["unit"] else place


def _leaf(found: Found, path: Sequence[str], fresh: bool) -> Iterator[Row]:
    """What differs, behind the name of where, unless that stands there or may be cut."""
    depth = len(path)
    if path and fresh and found["symbol"] is None:
        yield Row(depth, f"{path[-1]}: {found['what']}")
    else:
        if path and fresh:
            yield Row(depth, path[-1], "name")
        depth += 1
        yield Row(depth, found["what"])
    for sign, line in (("-", found["one"]), ("+", found["other"])):
        if line is not None:
            yield Row(depth + 1, f"{sign} {line}", "quoted")


def _rest(report: Mapping[str, Any]) -> str:
    """What is the same, and what must differ."""
    words = [f"the same in both: {text.count(report['same'], 'file')}"]
    if report["follows"]:
        names = ", ".join(name.rpartition("/")[2] for name in report["follows"])
        words.append(f"different only as a consequence: {names}")
    if report["more"]:
        words.append("too many differences: some were not looked for")
    return "; ".join(words)


def _show_tool(said: str) -> None:
    console = out()
    lines = said.splitlines()
    write(console, "\n", ("diffoscope", "bold"))
    for line in lines[:TOOL_LINES_SHOWN]:
        write_cut(console, f"  {line}")
    if len(lines) > TOOL_LINES_SHOWN:
        rest = text.count(len(lines) - TOOL_LINES_SHOWN, "more line")
        write(console, f"  and {rest}: see --json")
