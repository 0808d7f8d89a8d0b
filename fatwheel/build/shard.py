"""A worker: makes the slices of one shard, one job per line that comes in.

Protocol, JSON lines. In: first the context, then jobs as {"id", "job"}. Out, one line per job:
{"id", "outcome": "made", "seconds", "cpu", "rss"}, {"id", "outcome": "killed", "rss"} for a
compiler that was killed for memory, or {"id", "outcome": "failed", "what", "where", "hint",
"details", "class"}. When the input ends the worker ends its compilers and itself, so nothing
outlives a build that was killed.

Standard library only.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from ..errors import FatwheelError, StoreError
from ..store import Store
from .context import Context, context_from_wire, job_from_wire
from .preprocess import Texts
from .processes import end_group, lead_group
from .slices import KilledForMemoryError, run_job


def main() -> None:
    """The worker's entry point: stdin and stdout carry the protocol."""
    lead_group()
    context = context_from_wire(json.loads(sys.stdin.readline()))
    store = context.store()
    texts = Texts(context, store)
    answer = _Answers()
    for line in sys.stdin:
        task = json.loads(line)
        # A thread per job: it only waits for its compiler.
        threading.Thread(
            target=_work, args=(context, store, texts, task, answer), daemon=True
        ).start()
    end_group()


def _work(
    context: Context,
    store: Store,
    texts: Texts,
    task: dict[str, Any],
    answer: Callable[[dict[str, Any]], None],
) -> None:
    try:
        made = run_job(context, store, texts, job_from_wire(task["job"]))
        outcome = {"outcome": "made", **dataclasses.asdict(made)}
    except KilledForMemoryError as error:
        outcome = {"outcome": "killed", "rss": error.rss}
    except FatwheelError as error:
        outcome = _failed(error)
    except OSError as error:
        outcome = _failed(StoreError(str(error), where=error.filename))
    except Exception as error:
        # Without an answer the build would wait for ever.
        outcome = _failed(
            FatwheelError(
                f"a mistake in fatwheel itself: {error!r}",
                where=task["job"]["unit"]["name"],
                hint="please report it, with the lines above",
                details=traceback.format_exc().splitlines(),
            )
        )
    answer({"id": task["id"], **outcome})


def _failed(error: FatwheelError) -> dict[str, Any]:
    return {
        "outcome": "failed", "class": type(error).__name__, "what": error.what,
        "where": error.where, "hint": error.hint, "details": error.details,
    }  # fmt: skip


class _Answers:
    """Writes one line at a time, whichever thread it comes from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, outcome: dict[str, Any]) -> None:
        with self._lock:
            sys.stdout.write(json.dumps(outcome) + "\n")
            sys.stdout.flush()
