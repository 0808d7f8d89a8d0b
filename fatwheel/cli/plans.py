"""Prints the plan of a build (`--plan`): sentences and tables, then the commands. To stdout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from .. import text
from .console import out, write, write_rows
from .tables import Row

if TYPE_CHECKING:
    from ..pipeline.preview import PlanDocument, PlannedContainer

NAMES_SHOWN = 3  # of the files that are not locked yet


def show_plan_document(plan: PlanDocument) -> None:
    """What `invoke build` would do, of which nothing was started."""
    console = out()
    wheels = text.count(len(plan.wheels), "wheel")
    write(console, (f"{plan.project} {plan.version}: {wheels}; nothing was started", "bold"))
    _write_sentences(console, _sentences(plan))
    for heading, rows in (
        ("Wheels", wheel_rows(plan)),
        ("Images", image_rows(plan)),
        ("Containers", container_rows(plan)),
    ):
        if rows:
            write(console, "")
            write(console, (heading, "bold"))
            write_rows(console, rows)
    _write_commands(console, plan)


def _sentences(plan: PlanDocument) -> Iterator[tuple[str, str]]:
    """Heading and sentence of each line above the tables."""
    yield "source", plan.fetched or "beside the recipe"
    compilers = f"CUDA {plan.cuda}, nvcc {plan.nvcc}, {plan.compiler}"
    yield "toolchain", f"{plan.toolchain}, for {plan.platform}: {compilers}"
    yield "torch", plan.torch
    yield "archs", ", ".join(plan.archs)
    fronts = "; ".join(f"{front.front} → {', '.join(front.codes)}" for front in plan.fronts)
    yield "front", f"{plan.front}: {fronts}"
    yield "engine", f"{plan.engine}: {_shares(plan)}"
    limits = f"{text.count(plan.jobs, 'job')} at a time, {text.size(plan.memory)} for all"
    yield "limits", limits + (", if the engine has that many" if plan.containers else "")
    if len(plan.wheels) > 1:
        yield "device", _sharing(plan)
    if plan.unlocked:
        yield "to lock", _locking(plan)
    elif not plan.final_tags:
        yield (
            "tags",
            ("will differ: they depend on the ids of the base images that FATWHEEL_BASES names"),
        )


def _shares(plan: PlanDocument) -> str:
    """How the work is divided."""
    shards = "; ".join(f"{shard.name} → {', '.join(shard.codes)}" for shard in plan.shards)
    at_once = f", {plan.at_once} at a time" if plan.at_once < len(plan.shards) else ""
    return f"{text.count(len(plan.shards), 'shard')}{at_once}: {shards}"


def _sharing(plan: PlanDocument) -> str:
    first, *others = (wheel.python for wheel in plan.wheels)
    again = f"Python {', '.join(others)} takes it from the store"
    return f"code is compiled once, for Python {first}; {again}"


def _locking(plan: PlanDocument) -> str:
    names = ", ".join(plan.unlocked[:NAMES_SHOWN])
    if len(plan.unlocked) > NAMES_SHOWN:
        names += f" and {len(plan.unlocked) - NAMES_SHOWN} more"
    return f"{names}: run `invoke lock --toolchain {plan.toolchain}` first; this changes the tags"


def _write_sentences(console: Console, sentences: Iterator[tuple[str, str]]) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for heading, sentence in sentences:
        grid.add_row(f"  {heading}", text.clean(sentence))
    console.print(grid)


# -- tables --------------------------------------------------------------------------------------


def wheel_rows(plan: PlanDocument) -> list[Row]:
    return [{"Python": wheel.python, "wheel": wheel.file} for wheel in plan.wheels]


def image_rows(plan: PlanDocument) -> list[Row]:
    return [
        {
            "layer": image.kind,
            "Python": ", ".join(image.pythons),
            "files": str(image.files),
            "size": text.size(image.size) + ("+" if image.unlocked else ""),
            **({"not locked": str(len(image.unlocked))} if plan.unlocked else {}),
            "image": image.tag,
            "built on": image.base,
        }
        for image in plan.images
    ]


def container_rows(plan: PlanDocument) -> list[Row]:
    return [
        {
            "Python": group.python,
            "container": group.purpose,
            "compiles": group.compiles,
            "count": _count(group),
            "CPUs": str(group.cpus),
            "memory": text.size(group.memory),
        }
        for group in plan.containers
    ]


def _count(group: PlannedContainer) -> str:
    return f"up to {group.most}" if group.most > 1 else str(group.most)


# -- commands ------------------------------------------------------------------------------------


def _write_commands(console: Console, plan: PlanDocument) -> None:
    """What amounts to the same, a command a line: images first, then containers."""
    commands = [("build contexts", plan.render)] if plan.render else []
    commands += [(f"{image.kind} image", image.command) for image in plan.images]
    commands += [
        (f"Python {group.python}: {_what(group)}", group.command)
        for group in plan.containers
        if group.command
    ]
    if commands:
        write(console, "")
        write(console, ("Equivalent commands", "bold"))
    for what, command in commands:
        write(console, (f"  {what}", "dim"))
        write(console, f"  {command}")


def _what(group: PlannedContainer) -> str:
    return f"{group.purpose}, {group.compiles}" if group.compiles else group.purpose
