"""Writes a build's timeline: a page, or a trace that Perfetto and Chrome show.

The trace is in the Trace Event Format: times in microseconds, X for what lasts, C for counters, M
for names. Its threads are the cores' lanes; steps and wheels have their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import __version__, text
from ..engines.schedule import ALONE, FRONTS, LAST, MEMORY
from ..errors import FatwheelError
from ..events import Emit, WheelMade
from ..pages import make_page, trace_document, write_page
from . import tables
from .console import show_error, show_note
from .kernelnames import readable
from .timeline import BETWEEN, STARTING, JobSpan, Recording, Span, StepSpan, Timeline, WheelSpan

OPTION = "--timeline"

_PID = 1
_WHEELS, _STEPS, _CORES = 1, 10, 100  # the first threads of each kind
_JOBS = 5000  # of a page, the longest; a trace has all
_SAMPLES = 1000  # of memory, on a page
_SPANS = 1000  # of idle cores on a page: shorter ones are no wider than a pixel
_SHORTEST = 0.05  # seconds: what takes less is shown as 0.0 s
_TEXT = 300  # characters of a reason

_WHY = {
    MEMORY: "memory: the next job needs more than was left",
    FRONTS: "all that was left waited for fronts that were running",
    ALONE: "a job that needs most of the memory ran alone",
    LAST: "nothing left to start: the last jobs were running",
    STARTING: "a job or its worker was being started",
    BETWEEN: "between steps",
    "compile": "the first worker was being started",
    "capture": "capture: the project's own build ran, to be recorded",
    "assemble": "assemble: the project's own build ran, and linked",
}


@contextmanager
def recorded(path: Path) -> Iterator[Callable[[Emit], Emit]]:
    """Record a build, and write its timeline at its end, however it ends.

    Gives what makes an Emit that records and passes on. What ended the build is raised, even if
    the timeline cannot be written either.
    """
    recording = Recording()
    try:
        yield recording.beside
    except BaseException as error:
        failure = error.what if isinstance(error, FatwheelError) else _named(error)
        try:
            _write(path, recording, failure)
        except FatwheelError as trouble:
            show_error(trouble)
        raise
    _write(path, recording)


def _named(error: BaseException) -> str:
    return "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}"


def _write(path: Path, recording: Recording, failure: str = "") -> None:
    timeline = recording.timeline(failure)
    as_file = timeline_trace if path.suffix.lower() == ".json" else timeline_page
    write_page(path, as_file(timeline, recording.began), OPTION)
    show_note(f"the timeline is {path}")


# -- the trace -------------------------------------------------------------------------------------


def timeline_trace(timeline: Timeline, began: float) -> bytes:
    """The trace of a build that began at this time of the clock."""
    events = [*_names(timeline)]
    events += [_lasting(wheel, "wheel", wheel.title, _WHEELS, _of_wheel(wheel))
               for wheel in timeline.wheels]  # fmt: skip
    events += [
        _lasting(step, "step", step.name, _STEPS + step.lane, _of_step(step))
        for step in timeline.steps
    ]
    events += [
        _lasting(job, job.kind, job.job.label, _CORES + job.lane, _of_job(job))
        for job in timeline.jobs
    ]
    events += [_counter("memory", at, {"bytes": rss}) for at, rss in timeline.memory]
    for span in timeline.idle:
        events.append(_counter("idle cores", span.start, {span.why: span.cores}))
        events.append(_counter("idle cores", span.end, {span.why: 0}))
    return trace_document(
        {
            "traceEvents": events,
            "displayTimeUnit": "ms",
            "otherData": {
                "project": timeline.project,
                "began": _clock(began),
                "fatwheel": __version__,
                "failure": timeline.failure,
                "cores": timeline.cores,
                "memory_budget": timeline.budget,
            },
        }
    )


def _names(timeline: Timeline) -> Iterator[dict[str, Any]]:
    yield _name("process_name", 0, f"build {timeline.project}".strip())
    yield _name("thread_name", _WHEELS, "wheels")
    for lane in sorted({step.lane for step in timeline.steps}):
        yield _name("thread_name", _STEPS + lane, "steps")
    for lane in sorted({job.lane for job in timeline.jobs}):
        yield _name("thread_name", _CORES + lane, f"core {lane + 1}")


def _name(what: str, thread: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "ts": 0, "pid": _PID, "tid": thread, "args": {"name": name}}


def _lasting(
    span: Span, category: str, name: str, thread: int, facts: dict[str, Any]
) -> dict[str, Any]:
    # Both ends are rounded, so that what begins when something ends does not begin before it.
    start, end = round(span.start * 1e6), round(span.end * 1e6)
    return {
        "name": name, "cat": category, "ph": "X", "ts": start, "dur": end - start,
        "pid": _PID, "tid": thread, "args": facts,
    }  # fmt: skip


def _counter(name: str, at: float, values: dict[str, int]) -> dict[str, Any]:
    return {
        "name": name, "ph": "C", "ts": round(at * 1e6), "pid": _PID, "tid": 0, "args": values,
    }  # fmt: skip


def _of_wheel(wheel: WheelSpan) -> dict[str, Any]:
    plan, made = wheel.plan, wheel.made
    return {
        "file": Path(made.path).name if made else None,
        "units": plan.units if plan else None,
        "slices": plan.slices if plan else None,
        "hits": plan.hits if plan else None,
        "compiled": made.compiled if made else None,
    }


def _of_step(step: StepSpan) -> dict[str, Any]:
    return {"detail": step.detail, "outcome": step.outcome}


def _of_job(span: JobSpan) -> dict[str, Any]:
    job = span.job
    return {
        "unit": job.unit.name,
        "stage": job.stage,
        "archs": list(job.front.codes) if job.front else [],
        "host_object": job.host,
        "worker": span.shard,
        "outcome": span.outcome,
        "reason": span.reason,
        "seconds": span.seconds,
        "cpu": span.cpu,
        "rss": span.rss,
        "expected_seconds": job.seconds,
        "expected_memory": job.memory,
    }


# -- the page --------------------------------------------------------------------------------------


def timeline_page(timeline: Timeline, began: float) -> bytes:
    """The page of a build that began at this time of the clock."""
    jobs = sorted(timeline.jobs, key=lambda job: (-job.length, job.start, job.lane))
    shown = sorted(jobs[:_JOBS], key=lambda job: (job.lane, job.start))
    title = f"Build of {timeline.project}" if timeline.project else "A build"
    data = {
        "wall": _rounded(timeline.wall),
        "cores": timeline.cores,
        "budget": timeline.budget,
        "wheels": [[*_ends(one), one.title, _of_wheel(one)] for one in timeline.wheels],
        "steps": [[*_ends(one), one.lane, one.name, _of_step(one)] for one in timeline.steps],
        "jobs": [[*_ends(one), one.lane, one.kind, _of_page_job(one)] for one in shown],
        "idle": [
            [*_ends(one), one.cores, one.why]
            for one in timeline.idle
            if one.length * _SPANS >= timeline.wall
        ],
        "why": {why: _why(why) for why in timeline.idle_seconds()},
        "memory": [[_rounded(at), rss] for at, rss in _highest(timeline)],
    }
    return make_page(
        "timeline",
        data,
        title=title,
        version=__version__,
        began=_clock(began),
        failure=readable(timeline.failure),
        facts=_facts(timeline),
        idle=_idle_rows(timeline),
        steps=[_step_row(step) for step in timeline.steps],
        wheels=[_wheel_row(one.made) for one in timeline.wheels if one.made],
        left_out=len(jobs[_JOBS:]),
    )


def _clock(began: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(began))


def _rounded(seconds: float) -> float:
    return round(seconds, 3)


def _ends(span: Span) -> tuple[float, float]:
    return _rounded(span.start), _rounded(span.end)


def _of_page_job(span: JobSpan) -> dict[str, Any]:
    return {**_of_job(span), "reason": readable(span.reason)[:_TEXT]}


def _highest(timeline: Timeline) -> Iterator[tuple[float, int]]:
    """The memory that was used, the highest of several samples where there are many."""
    samples = timeline.memory
    step = max(1, -(-len(samples) // _SAMPLES))
    for place in range(0, len(samples), step):
        yield max(samples[place : place + step], key=lambda sample: sample[1])


def _why(why: str) -> str:
    return _WHY.get(why) or f"no jobs run in this step: {why}"


def _facts(timeline: Timeline) -> list[tuple[str, str]]:
    """Totals, and what each is."""
    plans = [wheel.plan for wheel in timeline.wheels if wheel.plan]
    ended = [job for job in timeline.jobs if job.outcome == "done"]
    found = [(text.duration(timeline.wall), "from start to end")]
    if timeline.cores:
        found += [
            (text.duration(timeline.cpu), "CPU time of jobs"),
            (text.duration(sum(timeline.idle_seconds().values())), "of cores without a job"),
        ]
    if plans:
        slices, hits = (sum(getattr(plan, name) for plan in plans) for name in ("slices", "hits"))
        found.append((f"{hits} of {slices}", "slices from the store"))
    found.append((f"{len(ended)} of {len(timeline.jobs)}", "jobs ended well"))
    if timeline.memory:
        most = max(rss for _, rss in timeline.memory)
        found.append((f"{text.size(most)} of {text.size(timeline.budget)}", "memory, at most"))
    return found


def _idle_rows(timeline: Timeline) -> list[dict[str, Any]]:
    """Why cores were idle, and their part of all time that there was on cores."""
    whole = timeline.wall * timeline.cores or 1.0
    return [
        {
            "why": _why(why),
            "seconds": text.duration(seconds),
            "percent": round(100 * seconds / whole, 1),
        }
        for why, seconds in timeline.idle_seconds().items()
        if seconds >= _SHORTEST
    ]


def _wheel_row(made: WheelMade) -> tables.Row:
    """As the terminal shows it, but without the folder, which is nobody else's business."""
    [row] = tables.wheel_rows([replace(made, path=Path(made.path).name)])
    return row


def _step_row(step: StepSpan) -> dict[str, str]:
    return {
        "step": step.name,
        "detail": step.detail,
        "began": text.duration(step.start),
        "took": text.duration(step.length),
        "outcome": step.outcome,
    }
