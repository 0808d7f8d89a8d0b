"""The only module that writes: results to stdout; progress, messages and errors to stderr.

On a terminal there is colour and a live board. Elsewhere, and wherever CI is set, there are plain
lines without control characters, as wide as they need to be. NO_COLOR is honoured.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import IO

from rich import box
from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from .. import text
from ..errors import FatwheelError
from ..events import Planned
from . import tables
from .kernelnames import fitted, readable

Words = str | tuple[str, str]  # words, or words and their style

PLAIN_WIDTH = 10_000  # columns: where nobody looks at a screen, no line is broken

STYLES = {
    tables.NATIVE: "green", tables.JIT: "yellow", tables.NONE: "red", tables.UNKNOWN: "yellow",
}  # fmt: skip
# Columns that are aligned at the right.
NUMBERS = {
    "size", "time", "entries", "count", "wall", "CPU", "memory", "value", "at most",
    "workers", "bound", "busy", "lost", "sent", "received",
}  # fmt: skip
PROSE = {"GPUs", "note"}  # columns that may go over several lines


def out() -> Console:
    """Where results go."""
    return _console(sys.stdout)


def err() -> Console:
    """Where everything else goes."""
    return _console(sys.stderr)


def _console(stream: IO[str]) -> Console:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    live = _interactive(stream)
    return Console(
        file=stream,
        force_terminal=live,
        width=None if live else PLAIN_WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
    )


def _interactive(stream: IO[str]) -> bool:
    """Whether a person looks at it: a terminal that can move its cursor, and not in CI."""
    return stream.isatty() and not _is_in_ci() and os.environ.get("TERM") not in ("dumb", "unknown")


def _is_in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def is_anybody_there() -> bool:
    """Whether somebody can be asked: they see what is written, and what they type is read."""
    if _is_in_ci() or sys.stdin is None:
        return False
    return sys.stdin.isatty() and sys.stderr.isatty()


def answer_to(question: str) -> str:
    """What is typed after a question; nothing where the input has ended."""
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline()


# -- layout --------------------------------------------------------------------------------------


def write(console: Console, *parts: Words) -> None:
    """A line that the terminal may wrap and nothing cuts; parts with a style, or plain.

    Names come from anywhere, from projects that are built above all: here, and in what else is
    drawn of lines, they are made fit for a terminal. JSON has them as they are.
    """
    line = Text()
    for part in parts:
        words, style = (part, "") if isinstance(part, str) else part
        line.append(text.one_line(words), style)
    console.print(line, soft_wrap=True)


def write_name(console: Console, line: str) -> None:
    """A line with a kernel's name; on a terminal the name is shortened to fit."""
    write_cut(console, fitted(line, console.width) if console.is_terminal else readable(line, None))


def write_cut(console: Console, line: str) -> None:
    """A line of which a terminal shows as much as its width has room for."""
    if console.is_terminal:
        console.print(Text(text.one_line(line)), no_wrap=True, overflow="ellipsis")
    else:
        write(console, line)


def write_rows(console: Console, rows: Sequence[Mapping[str, str]]) -> None:
    """Rows with equal keys as a table, or, on a screen too narrow for it, as a list of pairs."""
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for key in rows[0]:
        justify: JustifyMethod = "right" if key in NUMBERS else "left"
        table.add_column(key, no_wrap=key not in PROSE, justify=justify)
    for row in rows:
        table.add_row(
            *(Text(text.one_line(value), style=STYLES.get(value, "")) for value in row.values())
        )
    unlimited = console.options.update(max_width=PLAIN_WIDTH)
    if Measurement.get(console, unlimited, table).minimum <= console.width:
        console.print(table)
    else:
        write_pairs(console, rows)


def write_pairs(console: Console, rows: Sequence[Mapping[str, str]]) -> None:
    """Each row as lines of a key and its value, and between rows an empty line."""
    width = max((len(key) for row in rows for key in row), default=0)
    for number, row in enumerate(rows):
        if number:
            write(console, "")
        for key, value in row.items():
            write(console, f"{key:<{width}}  {value}")


def write_sentences(console: Console, sentences: Iterable[tuple[str, str]]) -> None:
    """Headings with a sentence each, whose further lines begin below its first."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for heading, sentence in sentences:
        grid.add_row(f"  {heading}", text.one_line(sentence))
    console.print(grid)


def write_verbatim(document: str) -> None:
    """A result in a format of its own: to stdout, neither wrapped nor styled."""
    sys.stdout.write(document)
    sys.stdout.flush()


# -- messages --------------------------------------------------------------------------------------

# What people are told beside results and the board: sentences, errors, the plan.


def show_note(sentence: str) -> None:
    """One sentence on what is going on."""
    write(err(), readable(sentence))


def show_error(error: FatwheelError) -> None:
    """What is wrong, where, what would be valid; details as they are but for kernels' names."""
    console = err()
    write(console, ("error: ", "bold red"), (readable(error.what), "bold"))
    if error.where:
        write(console, f"  where: {readable(error.where)}")
    for detail in error.details:
        for line in detail.splitlines():
            write(console, f"    {readable(line)}")
    if error.hint:
        write(console, ("  hint:  ", "cyan"), error.hint)


def show_planned(plan: Planned, console: Console | None = None) -> None:
    """What will be built, before it starts."""
    console = console or err()
    recipe = plan.targets[0].recipe
    wheels = text.count(len(plan.targets), "wheel")
    write(console, (f"{recipe.project} {recipe.version}: {wheels}", "bold"))
    write_sentences(console, tables.plan_lines(plan))
