"""The only module that prints: results to stdout; progress, messages and errors to stderr.

On a terminal there is colour and a live board. Elsewhere, and wherever CI is set, there are plain
lines without control characters, as wide as they need to be. NO_COLOR is honoured.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import IO, Any

from rich import box
from rich.console import Console, JustifyMethod, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from . import tables, text
from .bench.report import BenchReport
from .board import Standing, picture
from .errors import FatwheelError
from .events import (
    Event,
    JobFailed,
    JobFinished,
    Note,
    Planned,
    Progress,
    StepFinished,
    StepStarted,
    WheelMade,
)
from .housekeeping import CacheReport
from .proof import Proof

Part = str | tuple[str, str]  # words, or words and their style

PLAIN_WIDTH = 10_000  # columns: where nobody looks at a screen, no line is broken
PROGRESS_STEP = 64 * 2**20  # bytes: smaller steps of a download get no line of their own
NAMES_SHOWN = 10  # of the kernels that differ
REFRESH = 4  # pictures of the board a second

STYLES = {tables.NATIVE: "green", tables.JIT: "yellow", tables.NONE: "red"}
# Columns that are aligned at the right.
NUMBERS = {"size", "time", "entries", "count", "wall", "CPU", "memory", "value", "at most"}
PROSE = {"GPUs", "note"}  # columns that may go over several lines


# -- consoles ------------------------------------------------------------------------------------


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
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return stream.isatty() and not in_ci and os.environ.get("TERM") not in ("dumb", "unknown")


# -- messages ------------------------------------------------------------------------------------


def show_note(sentence: str) -> None:
    """One sentence on what is going on."""
    _print(err(), sentence)


def show_error(error: FatwheelError) -> None:
    """What is wrong, where, what would be valid; details as they are."""
    parts: list[Part] = [("error: ", "bold red"), (error.what, "bold")]
    if error.where:
        parts.append(f"\n  where: {error.where}")
    parts += [f"\n    {line}" for detail in error.details for line in detail.splitlines()]
    if error.hint:
        parts += [("\n  hint:  ", "cyan"), error.hint]
    _print(err(), *parts)


def show_json(data: Any) -> None:
    """One JSON document, as a result."""
    sys.stdout.write(json.dumps(data, indent=2) + "\n")
    sys.stdout.flush()


def show_plan(plan: Planned, console: Console | None = None) -> None:
    """What will be built, before it starts."""
    console = console or err()
    recipe = plan.targets[0].recipe
    wheels = text.count(len(plan.targets), "wheel")
    _print(console, (f"{recipe.project} {recipe.version}: {wheels}", "bold"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for heading, sentence in tables.plan_lines(plan):
        grid.add_row(f"  {heading}", text.clean(sentence))
    console.print(grid)


# -- the board -----------------------------------------------------------------------------------


class PlainBoard:
    """An Emit that writes one line per start and end of a step, and per finished job."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._standing = Standing()
        self._marks: dict[str, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> PlainBoard:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def __call__(self, event: Event) -> None:
        """Take in an event; from any thread."""
        with self._lock:
            self._standing.note(event, self._clock())
            line = self._started_or_done(event)
            if line:
                _print(self._console, line)
            else:
                _report(self._console, event)

    def _started_or_done(self, event: Event) -> str | None:
        match event:
            case StepStarted(step, detail):
                return f"{step}: {detail}" if detail else step
            case JobFinished(job, _, seconds, _, rss):
                count = (
                    f"[{self._standing.finished + self._standing.failed}/{self._standing.total}]"
                )
                return f"{count} {job.label} {text.duration(seconds)}, {text.size(rss)}"
            case Progress():
                return self._download(event)
        return None

    def _download(self, progress: Progress) -> str | None:
        """A line at the end, and before it at most one per tenth and per PROGRESS_STEP."""
        label, done, total = progress.label, progress.done, progress.total
        last = self._marks.get(label, 0)
        if done < last:  # another download of that name
            last = self._marks[label] = 0
        a_tenth_more = not total or 10 * done // total > 10 * last // total
        if done == last or (done != total and (done - last < PROGRESS_STEP or not a_tenth_more)):
            return None
        self._marks[label] = done
        if not total:
            return f"{label}: {text.size(done)}"
        return f"{label}: {100 * done // total} % of {text.size(total)}"


class LiveBoard:
    """An Emit that keeps a live picture at the foot of a terminal."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._standing = Standing()
        self._lock = threading.Lock()
        self._live = Live(
            console=console,
            get_renderable=self._picture,
            refresh_per_second=REFRESH,
            transient=True,
        )

    def __enter__(self) -> LiveBoard:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take in an event; from any thread."""
        with self._lock:
            self._standing.note(event, self._clock())
        # Printed outside the lock: the thread that refreshes the picture takes the console's
        # lock first and ours second.
        _report(self._console, event)

    def _picture(self) -> RenderableType:
        with self._lock:
            return picture(self._standing, self._clock(), *self._console.size)


def board() -> PlainBoard | LiveBoard:
    """The board that suits stderr; a context manager, to be called with each event."""
    console = err()
    return LiveBoard(console) if console.is_terminal else PlainBoard(console)


def _report(console: Console, event: Event) -> None:
    """The lines that stay, on a terminal too."""
    match event:
        case Planned():
            show_plan(event, console)
        case StepFinished(step, seconds, detail):
            words = [step, detail, text.duration(seconds)]
            _print(console, ("done  ", "green"), ", ".join(word for word in words if word))
        case JobFailed(job, _, reason, retry):
            tail = "; it will run again, alone" if retry else ""
            _print(console, ("failed  ", "bold red"), f"{job.label}: {reason}{tail}")
        case Note(sentence):
            _print(console, sentence)
        case WheelMade(path):
            _print(console, ("made  ", "green"), path)


# -- results -------------------------------------------------------------------------------------


def show_wheels(wheels: Sequence[WheelMade]) -> None:
    """One table of what was made; a list instead where the screen is too narrow for it."""
    _show_rows(out(), tables.wheel_rows(wheels))


def show_proof(proof: Proof) -> None:
    """Whether one front may serve several architectures, and where that is written."""
    console = out()
    archs = ", ".join(str(arch) for arch in proof.archs)
    compared = f"{text.count(proof.kernels, 'kernel')} in {text.count(len(proof.units), 'unit')}"
    if proof.same:
        _print(console, ("same code with a shared front", "green"), f" for {archs}: {compared}")
    else:
        _print(console, ("other code with a shared front", "yellow"), f" for {archs}: {compared}")
    for name in proof.different[:NAMES_SHOWN]:
        _print(console, f"  {name}")
    if len(proof.different) > NAMES_SHOWN:
        _print(console, f"  and {len(proof.different) - NAMES_SHOWN} more")
    _print(console, f"written to {proof.path}")


def show_cache(report: CacheReport) -> None:
    """What the cache holds, by kind, and what was found damaged and deleted."""
    console = out()
    total = text.size(sum(item.bytes for item in report.usage))
    _print(console, f"{report.folder}: {total}")
    _show_rows(console, tables.cache_rows(report.usage))
    for damage in report.damaged:
        _print(console, f"deleted {damage.kind} {damage.key}: {damage.reason}")


def show_bench(report: BenchReport) -> None:
    """What was measured, on which machine, and how it compares."""
    console = out()
    _print(console, tables.bench_heading(report))
    for rows in (tables.measurement_rows(report), tables.figure_rows(report)):
        _print(console, "")
        _show_rows(console, rows)


def show_bench_markdown(report: BenchReport) -> None:
    """The same as Markdown, for a document."""
    for rows in (tables.measurement_rows(report), tables.figure_rows(report)):
        for line in tables.markdown(rows):
            sys.stdout.write(line + "\n")
        sys.stdout.write("\n")
    sys.stdout.write(f"Measured on {tables.bench_heading(report)}.\n")
    sys.stdout.flush()


def show_inspection(report: Mapping[str, Any]) -> None:
    """`verify.inspect.inspect_file`'s report, for people."""
    console = out()
    _print(console, (report["file"], "bold"))
    wheel = report["wheel"]
    if wheel:
        _print(console, f"{wheel['name']} {wheel['version']} for {', '.join(wheel['tags'])}")
    for binary in report["binaries"]:
        _show_binary(console, binary)
    if any(binary["images"] for binary in report["binaries"]):
        _print(console, "")
        _show_rows(console, tables.coverage_rows(report["coverage"]))
    else:
        _print(console, "no GPU code")


def _show_binary(console: Console, binary: Mapping[str, Any]) -> None:
    containers = text.count(binary["containers"], "container")
    kernels = text.count(binary["kernels"], "kernel")
    kind = f"{binary['format']}, {binary['machine']}"
    _print(console, f"\n{binary['path']}  ({kind}; {containers}, {kernels})")
    _show_rows(console, tables.image_rows(binary["images"]))


# -- layout --------------------------------------------------------------------------------------


def _print(console: Console, *parts: Part) -> None:
    """Lines that the terminal may wrap and nothing cuts; parts with a style, or plain."""
    line = Text()
    for part in parts:
        words, style = (part, "") if isinstance(part, str) else part
        line.append(text.clean(words), style)
    console.print(line, soft_wrap=True)


def _show_rows(console: Console, rows: Sequence[Mapping[str, str]]) -> None:
    """Rows with equal keys as a table, or, on a screen too narrow for it, as a list of pairs."""
    if not rows:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for key in rows[0]:
        justify: JustifyMethod = "right" if key in NUMBERS else "left"
        table.add_column(key, no_wrap=key not in PROSE, justify=justify)
    for row in rows:
        table.add_row(
            *(Text(text.clean(value), style=STYLES.get(value, "")) for value in row.values())
        )
    unlimited = console.options.update(max_width=PLAIN_WIDTH)
    if Measurement.get(console, unlimited, table).minimum <= console.width:
        console.print(table)
        return
    width = max(len(key) for key in rows[0])
    for row in rows:
        for key, value in row.items():
            _print(console, f"{key:<{width}}  {value}")
        _print(console, "")
