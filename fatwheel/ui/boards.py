"""The boards: what a build does, while it does it, as plain lines or as a live picture."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live

from .. import text
from ..events import (
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
from .console import err, write
from .messages import show_plan
from .standing import Standing, picture

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
            show_plan(event, console)
        case StepFinished(step, seconds, detail):
            words = [step, detail, text.duration(seconds)]
            write(console, ("done  ", "green"), ", ".join(word for word in words if word))
        case JobFailed(job, _, reason, retry):
            tail = "; it will run again, alone" if retry else ""
            write(console, ("failed  ", "bold red"), f"{job.label}: {reason}{tail}")
        case Note(sentence):
            write(console, sentence)
        case WheelMade(path):
            write(console, ("made  ", "green"), path)
