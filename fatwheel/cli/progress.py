"""Shows the progress of a build, as plain lines or as a live display."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .. import text
from ..events import (
    Event,
    JobFailed,
    JobFinished,
    JobsDropped,
    JobStarted,
    MemoryUsed,
    Note,
    Planned,
    Progress,
    ShardSaid,
    StepFinished,
    StepStarted,
    WheelMade,
)
from ..model import Job
from .console import err, show_planned, write
from .kernelnames import readable

PROGRESS_STEP = 64 * 2**20  # bytes: smaller steps of a download get no line of their own
REFRESH = 4  # pictures of the board a second


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
                write(self._console, line)
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
    """An Emit that keeps a live picture at the foot of a terminal, from the first event on: until
    then, somebody may be asked something."""

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
        self._live.start()
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
            show_planned(event, console)
        case StepFinished(step, seconds, detail):
            words = [step, detail, text.duration(seconds)]
            write(console, ("done  ", "green"), ", ".join(word for word in words if word))
        case JobFailed(job, _, reason, retry):
            tail = "; it will run again, alone" if retry else ""
            write(console, ("failed  ", "bold red"), f"{job.label}: {readable(reason)}{tail}")
        case JobsDropped(jobs):
            write(console, f"not run for that: {', '.join(job.label for job in jobs)}")
        case Note(sentence):
            write(console, readable(sentence))
        case WheelMade(path):
            write(console, ("made  ", "green"), path)


# -- state of a build ------------------------------------------------------------------------------

# `Standing` is told every event and the time it came; `picture` draws it for `progress`.
# Nothing here prints, reads a clock or keeps a thread.


BAR_WIDTH = 30


@dataclass
class Standing:
    """What is going on now.

    said:     the last line of each shard's log.
    started:  running steps, jobs by (shard, label): when each began.
    dropped:  jobs that will not run, and `dropped_work` the seconds that were expected of them.
    estimate: seconds expected of the jobs that finished, and `measured` what they took.
    """

    planned: Planned | None = None
    steps: dict[str, tuple[str, float]] = field(default_factory=dict)
    downloads: dict[str, Progress] = field(default_factory=dict)
    running: dict[tuple[str, str], tuple[Job, float]] = field(default_factory=dict)
    finished: int = 0
    failed: int = 0
    dropped: int = 0
    dropped_work: float = 0.0
    estimate: float = 0.0
    measured: float = 0.0
    rss: int = 0
    said: dict[str, str] = field(default_factory=dict)

    def note(self, event: Event, now: float) -> None:
        """Take in one event; now is in seconds of any steady clock."""
        match event:
            case Planned():
                self.planned = event
                self.finished = self.failed = self.dropped = 0
                self.estimate = self.measured = self.dropped_work = 0.0
            case StepStarted(step, detail):
                self.steps[step] = (detail, now)
            case StepFinished(step):
                self.steps.pop(step, None)
                self.downloads.clear()
                self.said.clear()
            case Progress(label, done, total):
                self.downloads[label] = event
                if total and done >= total:
                    del self.downloads[label]
            case JobStarted(job, shard):
                self.running[shard, job.label] = (job, now)
            case JobFinished(job, shard, seconds):
                self.running.pop((shard, job.label), None)
                self.finished += 1
                self.estimate += job.seconds
                self.measured += seconds
            case JobFailed(job, shard, _, retry):
                self.running.pop((shard, job.label), None)
                self.failed += not retry
            case JobsDropped(jobs):
                self.dropped += len(jobs)
                self.dropped_work += sum(job.seconds for job in jobs)
            case ShardSaid(shard, line):
                self.said[shard] = line
            case MemoryUsed(rss):
                self.rss = rss

    @property
    def total(self) -> int:
        """Jobs in all that were run or will be; never less than have been seen."""
        known = self.planned.pending - self.dropped if self.planned else 0
        return max(known, self.finished + self.failed + len(self.running))

    def remaining(self, now: float) -> float | None:
        """Seconds of wall time still to go, or None where nothing is known.

        The estimates of the unfinished jobs, corrected by how the finished ones compared with
        theirs, over the slots there are; and no less than the longest running job needs.
        """
        if self.planned is None or not self.planned.work:
            return None
        pace = self.measured / self.estimate if self.estimate else 1.0
        left = max(0.0, self.planned.work - self.dropped_work - self.estimate) * pace
        longest = 0.0
        for job, started in self.running.values():
            expected, elapsed = job.seconds * pace, now - started
            left -= min(elapsed, expected)
            longest = max(longest, expected - elapsed)
        slots = max(1, min(self.planned.jobs, self.total - self.finished - self.failed))
        return max(left / slots, longest, 0.0)


def picture(standing: Standing, now: float, width: int, height: int) -> RenderableType:
    """The live part of the board: running steps, downloads, counts and running jobs.

    At most `height` lines where jobs are concerned: those that don't fit are counted.
    """
    parts: list[RenderableType] = [
        _line(f"{step}  {detail}", now - started, width)
        for step, (detail, started) in standing.steps.items()
    ]
    for progress in standing.downloads.values():
        parts += [Text(f"  {text.one_line(progress.label)}", overflow="fold"), _download(progress)]
    if standing.total:
        parts.append(_counts(standing, now))
        jobs = sorted(standing.running.values(), key=lambda pair: pair[1])
        room = max(1, height - len(parts) - 3)
        parts += [_line(f"  {job.label}", now - started, width) for job, started in jobs[:room]]
        if len(jobs) > room:
            parts.append(Text(f"  and {text.count(len(jobs) - room, 'more job')}"))
        parts += _said(standing, height - len(parts) - 3, width)
    return Group(*parts)


def _said(standing: Standing, room: int, width: int) -> list[RenderableType]:
    """The last line of the log of each shard, as far as there is room."""
    lines = [f"  {shard} │ {text.one_line(line)}" for shard, line in sorted(standing.said.items())]
    return [Text(line[:width], style="dim", no_wrap=True) for line in lines[: max(0, room)]]


def _line(label: str, seconds: float, width: int) -> RenderableType:
    """A label that gives way, and a time at the right edge that does not.

    A long label loses its beginning: the end names the unit and its architecture.
    """
    label, elapsed = text.one_line(label), text.duration(seconds)
    room = max(10, width - len(elapsed) - 2)
    if len(label) > room:
        label = "  ..." + label[5 - room :]
    return Text.assemble(f"{label:<{room}}  ", (elapsed, "dim"), no_wrap=True)


def _download(progress: Progress) -> RenderableType:
    amount = text.size(progress.done)
    if progress.total:
        amount += f" of {text.size(progress.total)}"
    return _bars([("", progress.done, progress.total, amount)])


def _counts(standing: Standing, now: float) -> RenderableType:
    done = standing.finished + standing.failed
    words = [f"{done} of {standing.total}"]
    if standing.failed:
        words.append(f"{standing.failed} failed")
    left = standing.remaining(now)
    if left is not None:
        words.append(f"{text.rough_duration(left)} left")
    rows = [("jobs", done, standing.total, ", ".join(words))]
    if standing.planned:
        budget = standing.planned.memory
        used = f"{text.size(standing.rss)} of {text.size(budget)}"
        rows.append(("memory", min(standing.rss, budget), budget, used))
    return _bars(rows)


def _bars(rows: Sequence[tuple[str, int, int, str]]) -> RenderableType:
    """A name, a bar of done in total (0: unknown) and words, a row each."""
    grid = Table.grid(padding=(0, 2))
    for name, done, total, words in rows:
        bar = ProgressBar(total=total or None, completed=done, width=BAR_WIDTH)
        grid.add_row(Text(f"  {name}" if name else ""), bar, Text(words))
    return grid
