"""What a benchmark found, for people: tables on a terminal, or as Markdown for a document."""

from __future__ import annotations

from collections.abc import Sequence

from fatwheel import text
from fatwheel.cli.console import out, write, write_rows, write_verbatim
from fatwheel.cli.tables import Row

from .report import BYTES, COUNT, PERCENT, RATIO, SECONDS, BenchReport, Figure


def show_bench(report: BenchReport) -> None:
    """What was measured, on which machine, and how it compares."""
    console = out()
    write(console, bench_heading(report))
    for rows in (measurement_rows(report), figure_rows(report)):
        write(console, "")
        write_rows(console, rows)


def show_bench_markdown(report: BenchReport) -> None:
    """The same as Markdown, for a document."""
    for rows in (measurement_rows(report), figure_rows(report)):
        write_verbatim("".join(f"{line}\n" for line in markdown(rows)) + "\n")
    write_verbatim(f"Measured on {bench_heading(report)}.\n")


def bench_heading(report: BenchReport) -> str:
    """What was measured where."""
    machine = report.machine
    rounds = "once" if report.rounds == 1 else f"{report.rounds} times, medians"
    programs = ", ".join(f"{name} {version}" for name, version in machine.programs.items())
    return (
        f"{machine.cpu}, {text.count(machine.cores, 'core')}, {text.size(machine.memory)}, "
        f"{machine.kernel}, load {machine.load:.1f} before the start; {programs}; what has rounds: "
        f"{rounds}"
    )


def measurement_rows(report: BenchReport) -> list[Row]:
    return [
        {
            "part": item.part,
            "measured": item.what,
            "wall": text.duration(item.wall),
            "CPU": text.duration(item.cpu),
            "memory": text.size(item.memory) if item.memory else "",
            "note": item.note,
        }
        for item in report.measurements
    ]


def figure_rows(report: BenchReport) -> list[Row]:
    met = {True: "yes", False: "no", None: ""}
    return [
        {
            "part": figure.part,
            "figure": figure.what,
            "value": _amount(figure, figure.value),
            "at most": "" if figure.limit is None else _amount(figure, figure.limit),
            "met": met[figure.met],
        }
        for figure in report.figures
    ]


def _amount(figure: Figure, value: float) -> str:
    """A figure's value or limit in its unit."""
    return {
        RATIO: f"{value:.3f}×",
        PERCENT: f"{value:.1f} %",
        BYTES: text.size(int(value)),
        COUNT: f"{value:.0f}",
        SECONDS: text.duration(value),
    }[figure.unit]


def markdown(rows: Sequence[Row]) -> list[str]:
    """The lines of a Markdown table."""
    if not rows:
        return []
    cells = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return [f"| {' | '.join(_cell(cell) for cell in line)} |" for line in cells]


def _cell(words: str) -> str:
    return text.clean(words).replace("|", "\\|")
