"""A worker: reads the jobs of one shard, one per line, and makes their slices.

Protocol, JSON lines. In: first the context (or, in a container, what `worker.inside` wants), then
jobs as {"id", "job"}. Out, one line per job: {"id", "outcome": "made", "seconds", "cpu", "rss",
"taken", "entries"} with what it put into the store, or a branch of it, as [kind, key, sha256] each;
{"id", "outcome": "killed", "rss"} for a compiler that was killed for memory; or {"id", "outcome":
"failed", "what", "where", "hint", "details", "class"}; "id" is null where no job can be done.
{"said": LINE} in between is for who looks on. When the input ends the worker ends its compilers
and itself, so nothing outlives a build that was killed. What happens is written to stderr for the
log, in words.

Standard library only.
"""

from __future__ import annotations

import json
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from ..errors import FatwheelError, StoreError
from ..model import Job
from .context import Context, context_from_wire, job_from_wire
from .preprocess import Texts
from .processes import end_group, lead_group
from .slices import KilledForMemoryError, run_job

_MOST_LINES = 1000  # of what a compiler says, in an answer
_WIDEST = 4000  # characters of one of these

Answer = Callable[[dict[str, Any]], None]


def main() -> None:
    """The worker's entry point: stdin and stdout carry the protocol."""
    lead_group()
    serve(context_from_wire(json.loads(sys.stdin.readline())), sys.stdin, Answers())
    end_group()


def serve(context: Context, lines: Iterable[str], answer: Answer) -> None:
    """Begin every job that comes in, until the lines end."""
    texts = Texts(context, context.store())
    for line in lines:
        task = json.loads(line)
        # A thread per job: it only waits for its compiler.
        threading.Thread(target=_work, args=(context, texts, task, answer), daemon=True).start()


def _work(context: Context, texts: Texts, task: dict[str, Any], answer: Answer) -> None:
    def done() -> dict[str, Any]:
        return _done(context, texts, job_from_wire(task["job"]), answer)

    answer({"id": task["id"], **outcome_of(done, task["job"]["unit"]["name"])})


def _done(context: Context, texts: Texts, job: Job, answer: Answer) -> dict[str, Any]:
    log(f"{job.label}: begun", answer)
    outcome = outcome_of(lambda: _made(context, texts, job, answer), job.label)
    log(f"{job.label}: {_in_words(outcome)}", answer)
    return outcome


def _made(context: Context, texts: Texts, job: Job, answer: Answer) -> dict[str, Any]:
    store = context.store()  # the job's own, which knows what the job wrote
    made = run_job(context, store, texts.on(store), job)
    for line in made.output.splitlines():
        log(line, answer)
    return {
        "outcome": "made", "seconds": made.seconds, "cpu": made.cpu, "rss": made.rss,
        "taken": made.taken, "entries": store.written,
    }  # fmt: skip


def outcome_of(task: Callable[[], dict[str, Any]], label: str) -> dict[str, Any]:
    """What a task returns, or how it failed: without an answer the build would wait for ever."""
    try:
        return task()
    except KilledForMemoryError as error:
        return {"outcome": "killed", "rss": error.rss}
    except FatwheelError as error:
        return _failed(error)
    except OSError as error:
        return _failed(StoreError(str(error), where=error.filename))
    except Exception as error:
        return _failed(
            FatwheelError(
                f"internal error: {error!r}",
                where=label,
                hint="this is a bug in fatwheel: please report it, with the lines above",
                details=traceback.format_exc().splitlines(),
            )
        )


def _failed(error: FatwheelError) -> dict[str, Any]:
    return {
        "outcome": "failed", "class": type(error).__name__, "what": error.what,
        "where": error.where, "hint": error.hint, "details": _shortened(error.details),
    }  # fmt: skip


def _shortened(lines: Sequence[str]) -> list[str]:
    """What a compiler said, as much of it as anyone reads; the log has all of it."""
    left_out = len(lines) - _MOST_LINES
    if left_out > 0:
        half = _MOST_LINES // 2
        lines = [*lines[:half], f"[{left_out} lines are left out here]", *lines[-half:]]
    return [line if len(line) <= _WIDEST else f"{line[:_WIDEST]} […]" for line in lines]


def _in_words(outcome: dict[str, Any]) -> str:
    if outcome["outcome"] == "made":
        return f"made in {outcome['seconds']:.1f} s, at most {outcome['rss'] / 2**30:.2f} GiB"
    if outcome["outcome"] == "killed":
        return f"killed for memory at {outcome['rss'] / 2**30:.2f} GiB"
    return "\n".join([f"failed: {outcome['what']}", *outcome["details"]])


def log(words: str, answer: Answer | None = None) -> None:
    """Words for the worker's log, and for who looks on if there is a way to tell."""
    with suppress(OSError):
        sys.stderr.write(f"{words}\n")
        sys.stderr.flush()
    if answer is not None:
        answer({"said": words.partition("\n")[0]})


class Answers:
    """Writes one line at a time, whichever thread it comes from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, outcome: dict[str, Any]) -> None:
        with self._lock:
            sys.stdout.write(json.dumps(outcome) + "\n")
            sys.stdout.flush()
