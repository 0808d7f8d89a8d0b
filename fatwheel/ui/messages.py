"""What people are told beside results and the board: sentences, errors, the plan."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from .. import text
from ..errors import FatwheelError
from ..events import Planned
from . import tables
from .console import Part, err, out, write


def show_note(sentence: str) -> None:
    """One sentence on what is going on."""
    write(err(), sentence)


def show_printed(words: str) -> None:
    """What another program printed, as it is."""
    out().out(words, end="")


def show_error(error: FatwheelError) -> None:
    """What is wrong, where, what would be valid; details as they are."""
    parts: list[Part] = [("error: ", "bold red"), (error.what, "bold")]
    if error.where:
        parts.append(f"\n  where: {error.where}")
    parts += [f"\n    {line}" for detail in error.details for line in detail.splitlines()]
    if error.hint:
        parts += [("\n  hint:  ", "cyan"), error.hint]
    write(err(), *parts)


def show_plan(plan: Planned, console: Console | None = None) -> None:
    """What will be built, before it starts."""
    console = console or err()
    recipe = plan.targets[0].recipe
    wheels = text.count(len(plan.targets), "wheel")
    write(console, (f"{recipe.project} {recipe.version}: {wheels}", "bold"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for heading, sentence in tables.plan_lines(plan):
        grid.add_row(f"  {heading}", text.clean(sentence))
    console.print(grid)
