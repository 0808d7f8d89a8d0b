"""Results, a function each: what a command was run for, to stdout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import text
from . import tables
from .console import out, write, write_rows, write_verbatim
from .messages import show_note

if TYPE_CHECKING:
    # What is shown, made by modules that take a while to import and that few commands need.
    from ..bench.report import BenchReport
    from ..events import WheelMade
    from ..housekeeping import CacheReport
    from ..postlink.edited import Edited
    from ..proof import Proof

NAMES_SHOWN = 10  # of the kernels that differ


def show_json(data: Any) -> None:
    """One JSON document, as a result."""
    write_verbatim(json.dumps(data, indent=2) + "\n")


def show_wheels(wheels: Sequence[WheelMade]) -> None:
    """One table of what was made; a list instead where the screen is too narrow for it."""
    write_rows(out(), tables.wheel_rows(wheels))


def show_edited(files: Sequence[Edited]) -> None:
    """Files with more device code, or less, in one table; to stderr what was lost on the way."""
    for file in files:
        for note in file.notes:
            show_note(f"{file.path.name}: {note}")
    write_rows(out(), tables.edited_rows(files))


def show_proof(proof: Proof) -> None:
    """Whether one front may serve several architectures, and where that is written."""
    console = out()
    archs = ", ".join(str(arch) for arch in proof.archs)
    compared = f"{text.count(proof.kernels, 'kernel')} in {text.count(len(proof.units), 'unit')}"
    if proof.same:
        write(console, ("same code with a shared front", "green"), f" for {archs}: {compared}")
    else:
        write(console, ("other code with a shared front", "yellow"), f" for {archs}: {compared}")
    for name in proof.different[:NAMES_SHOWN]:
        write(console, f"  {name}")
    if len(proof.different) > NAMES_SHOWN:
        write(console, f"  and {len(proof.different) - NAMES_SHOWN} more")
    write(console, f"written to {proof.path}")


def show_cache(report: CacheReport) -> None:
    """What the cache holds, by kind, and what was found damaged and deleted."""
    console = out()
    total = text.size(sum(item.bytes for item in report.usage))
    write(console, f"{report.folder}: {total}")
    write_rows(console, tables.cache_rows(report.usage))
    for damage in report.damaged:
        write(console, f"deleted {damage.kind} {damage.key}: {damage.reason}")


def show_bench(report: BenchReport) -> None:
    """What was measured, on which machine, and how it compares."""
    console = out()
    write(console, tables.bench_heading(report))
    for rows in (tables.measurement_rows(report), tables.figure_rows(report)):
        write(console, "")
        write_rows(console, rows)


def show_bench_markdown(report: BenchReport) -> None:
    """The same as Markdown, for a document."""
    for rows in (tables.measurement_rows(report), tables.figure_rows(report)):
        write_verbatim("".join(f"{line}\n" for line in tables.markdown(rows)) + "\n")
    write_verbatim(f"Measured on {tables.bench_heading(report)}.\n")
