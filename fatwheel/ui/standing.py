"""Where a build stands, as its events tell it, and how that looks on a terminal.

`Standing` is told every event and the time it came; `picture` draws it for `boards`.
Nothing here prints, reads a clock or keeps a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .. import text
from ..events import (
    Event,
    JobFailed,
    JobFinished,
    JobStarted,
    MemoryUsed,
    Planned,
    Progress,
    ShardSaid,
    StepFinished,
    StepStarted,
)
from ..model import Job

BAR_WIDTH = 30


@dataclass
class Standing:
    """What is going on now.

    said:     the last line of each shard's log.
    started:  running steps, jobs by (shard, label): when each began.
    estimate: seconds expected of the jobs that finished, and `measured` what they took.
    """

    planned: Planned | None = None
    steps: dict[str, tuple[str, float]] = field(default_factory=dict)
    downloads: dict[str, Progress] = field(default_factory=dict)
    running: dict[tuple[str, str], tuple[Job, float]] = field(default_factory=dict)
    finished: int = 0
    failed: int = 0
    estimate: float = 0.0
    measured: float = 0.0
    rss: int = 0
    said: dict[str, str] = field(default_factory=dict)

    def note(self, event: Event, now: float) -> None:
        """Take in one event; now is in seconds of any steady clock."""
        match event:
            case Planned():
                self.planned = event
                self.finished = self.failed = 0
                self.estimate = self.measured = 0.0
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
            case ShardSaid(shard, line):
                self.said[shard] = line
            case MemoryUsed(rss):
                self.rss = rss

    @property
    def total(self) -> int:
        """Jobs in all; never less than have been seen."""
        known = self.planned.pending if self.planned else 0
        return max(known, self.finished + self.failed + len(self.running))

    def remaining(self, now: float) -> float | None:
        """Seconds of wall time still to go, or None where nothing is known.

        The estimates of the unfinished jobs, corrected by how the finished ones compared with
        theirs, over the slots there are; and no less than the longest running job needs.
        """
        if self.planned is None or not self.planned.work:
            return None
        pace = self.measured / self.estimate if self.estimate else 1.0
        left = max(0.0, self.planned.work - self.estimate) * pace
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
        parts += [Text(f"  {text.clean(progress.label)}", overflow="fold"), _download(progress)]
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
    lines = [f"  {shard} │ {text.clean(line)}" for shard, line in sorted(standing.said.items())]
    return [Text(line[:width], style="dim", no_wrap=True) for line in lines[: max(0, room)]]


def _line(label: str, seconds: float, width: int) -> RenderableType:
    """A label that gives way, and a time at the right edge that does not.

    A long label loses its beginning: the end names the unit and its architecture.
    """
    label, elapsed = text.clean(label), text.duration(seconds)
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
