"""What a build did when, from its events: `invoke build --timeline`.

A `Recording` hears the events and notes when they came; `timeline_of` reads such notes as jobs in
lanes, steps, idle cores and memory. Times are seconds since the build began, sizes are bytes.
Nothing here prints or writes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ..events import (
    CoresIdle,
    Emit,
    Event,
    JobFailed,
    JobFinished,
    JobStarted,
    MemoryUsed,
    Planned,
    StepFinished,
    StepStarted,
    WheelMade,
)
from ..model import Job

_Noted = tuple[float, Event]

# What became of a job or a step.
DONE, FAILED, AGAIN, UNFINISHED = "done", "failed", "again", "unfinished"
# Kinds of jobs.
FRONT, SHARED, PTXAS, HOST = "front", "shared front", "ptxas", "C++"
# Why a core is idle while jobs run, beside the reasons of `engines.schedule`: between two jobs, and
# between two steps. In a step without jobs, the reason is its name.
STARTING, BETWEEN = "starting", "between steps"


class Recording:
    """Notes the events of a build and when they came; from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.began = time.time()
        self._clock = clock
        self._start = clock()
        self._lock = threading.Lock()
        self._noted: list[_Noted] = []

    def beside(self, emit: Emit) -> Emit:
        """An Emit that notes each event and passes it on."""

        def both(event: Event) -> None:
            with self._lock:
                self._noted.append((self._clock() - self._start, event))
            emit(event)

        return both

    def timeline(self, failure: str = "") -> Timeline:
        """All until now. failure: why the build ended early."""
        with self._lock:
            return timeline_of(self._noted, self._clock() - self._start, failure)


@dataclass(frozen=True)
class Span:
    start: float
    end: float

    @property
    def length(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class JobSpan(Span):
    """From a job's start to the report of its end, in the lane of a core.

    seconds, cpu, rss: as its worker measured them, 0 where it did not end well. reason: why not.
    """

    lane: int
    job: Job
    shard: str
    outcome: str = UNFINISHED
    seconds: float = 0.0
    cpu: float = 0.0
    rss: int = 0
    reason: str = ""

    @property
    def kind(self) -> str:
        front, stage = self.job.front, self.job.stage
        if front is None or stage == "host":
            return HOST
        if stage == "ptxas":
            return PTXAS
        return SHARED if len(front.codes) > 1 else FRONT


@dataclass(frozen=True)
class StepSpan(Span):
    """Steps within others are in a further lane."""

    lane: int
    name: str
    detail: str
    outcome: str


@dataclass(frozen=True)
class IdleSpan(Span):
    """So many cores had no job, because of `why`."""

    cores: int
    why: str


@dataclass(frozen=True)
class WheelSpan(Span):
    """All that was done for one wheel; plan and made are None where it did not come so far."""

    plan: Planned | None
    made: WheelMade | None

    @property
    def title(self) -> str:
        """`Python 3.11, torch 2.8.0`."""
        if self.plan is None:
            return "not planned yet"
        target = self.plan.targets[0]
        return f"Python {target.python}, torch {target.torch}"


@dataclass(frozen=True)
class Timeline:
    """A build. cores: 0 where no job was to be run. failure: why it ended early, or ''."""

    wall: float
    failure: str
    cores: int
    wheels: tuple[WheelSpan, ...] = ()
    steps: tuple[StepSpan, ...] = ()
    jobs: tuple[JobSpan, ...] = ()
    idle: tuple[IdleSpan, ...] = ()
    memory: tuple[tuple[float, int], ...] = ()

    @property
    def project(self) -> str:
        plans = [wheel.plan for wheel in self.wheels if wheel.plan]
        if not plans:
            return ""
        recipe = plans[0].targets[0].recipe
        return f"{recipe.project} {recipe.version}"

    @property
    def cpu(self) -> float:
        """CPU seconds of all jobs that ended well."""
        return sum(job.cpu for job in self.jobs)

    @property
    def budget(self) -> int:
        """What all jobs together might use, at most."""
        return max((wheel.plan.memory for wheel in self.wheels if wheel.plan), default=0)

    def idle_seconds(self) -> dict[str, float]:
        """Seconds of cores without a job by why, the longest first."""
        found: dict[str, float] = {}
        for span in self.idle:
            found[span.why] = found.get(span.why, 0.0) + span.length * span.cores
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def timeline_of(noted: Sequence[_Noted], wall: float, failure: str = "") -> Timeline:
    """What these events say; what they leave open ended with the build."""
    cores = max((event.cores for _, event in noted if isinstance(event, CoresIdle)), default=0)
    steps, jobs = _steps(noted, wall), _jobs(noted, wall)
    return Timeline(
        wall=wall,
        failure=failure,
        cores=cores,
        wheels=tuple(_wheels(noted, wall, failure)),
        steps=steps,
        jobs=jobs,
        idle=tuple(_idle(noted, steps, jobs, cores, wall)) if cores else (),
        memory=tuple((at, event.rss) for at, event in noted if isinstance(event, MemoryUsed)),
    )


class _Lanes:
    """Gives what begins the first lane in which nothing is going on."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def take(self) -> int:
        lane = next(number for number in range(len(self._taken) + 1) if number not in self._taken)
        self._taken.add(lane)
        return lane

    def leave(self, lane: int) -> None:
        self._taken.discard(lane)


def _jobs(noted: Iterable[_Noted], wall: float) -> tuple[JobSpan, ...]:
    """In the order in which they began."""
    lanes = _Lanes()
    running: dict[tuple[str, Job], tuple[float, int]] = {}
    found = []
    for at, event in noted:
        match event:
            case JobStarted(job, shard):
                running[shard, job] = at, lanes.take()
            case JobFinished(job, shard, seconds, cpu, rss) if (shard, job) in running:
                start, lane = running.pop((shard, job))
                lanes.leave(lane)
                found.append(JobSpan(start, at, lane, job, shard, DONE, seconds, cpu, rss))
            case JobFailed(job, shard, reason, retry) if (shard, job) in running:
                start, lane = running.pop((shard, job))
                lanes.leave(lane)
                outcome = AGAIN if retry else FAILED
                found.append(JobSpan(start, at, lane, job, shard, outcome, reason=reason))
    for (shard, job), (start, lane) in running.items():
        found.append(JobSpan(start, wall, lane, job, shard))
    return tuple(sorted(found, key=lambda span: (span.start, span.lane)))


def _steps(noted: Iterable[_Noted], wall: float) -> tuple[StepSpan, ...]:
    lanes = _Lanes()
    running: dict[str, tuple[float, int, str]] = {}
    found = []
    for at, event in noted:
        match event:
            case StepStarted(step, detail) if step not in running:
                running[step] = at, lanes.take(), detail
            case StepFinished(step) if step in running:
                start, lane, detail = running.pop(step)
                lanes.leave(lane)
                found.append(StepSpan(start, at, lane, step, detail, DONE))
    for step, (start, lane, detail) in running.items():
        found.append(StepSpan(start, wall, lane, step, detail, UNFINISHED))
    return tuple(sorted(found, key=lambda span: (span.start, span.lane)))


def _wheels(noted: Iterable[_Noted], wall: float, failure: str) -> Iterator[WheelSpan]:
    """Wheels are made one after the other: each from where the last one ended."""
    start, plan = 0.0, None
    for at, event in noted:
        if isinstance(event, Planned):
            plan = event
        elif isinstance(event, WheelMade):
            yield WheelSpan(start, at, plan, event)
            start, plan = at, None
    if failure:
        yield WheelSpan(start, wall, plan, None)


# -- cores without a job ---------------------------------------------------------------------------


@dataclass
class _Moment:
    """What is so from some time on: jobs that run, steps, and why cores are said to be idle."""

    jobs: int = 0
    steps: list[str] = field(default_factory=list)
    why: str = ""

    def idle(self, cores: int) -> tuple[int, str]:
        """How many cores have no job, and why."""
        idle = max(0, cores - self.jobs)
        if self.jobs or self.why:
            return idle, self.why or STARTING
        return idle, self.steps[-1] if self.steps else BETWEEN


def _idle(
    noted: Sequence[_Noted],
    steps: Sequence[StepSpan],
    jobs: Sequence[JobSpan],
    cores: int,
    wall: float,
) -> Iterator[IdleSpan]:
    changes: list[tuple[float, Callable[[_Moment], None]]] = []
    for job in jobs:
        changes += [(job.start, _job_began), (job.end, _job_ended)]
    for step in steps:
        changes += [(step.start, _step_began(step)), (step.end, _step_ended(step))]
    changes += [(at, _told(event.why)) for at, event in noted if isinstance(event, CoresIdle)]
    changes.sort(key=lambda change: change[0])
    moment, start, current = _Moment(), 0.0, (cores, BETWEEN)
    for at, change in changes:
        change(moment)
        now = moment.idle(cores)
        if now != current:
            if at > start and current[0]:
                yield IdleSpan(start, at, *current)
            start, current = at, now
    if wall > start and current[0]:
        yield IdleSpan(start, wall, *current)


def _job_began(moment: _Moment) -> None:
    moment.jobs += 1


def _job_ended(moment: _Moment) -> None:
    moment.jobs -= 1


def _step_began(step: StepSpan) -> Callable[[_Moment], None]:
    return lambda moment: moment.steps.append(step.name)


def _step_ended(step: StepSpan) -> Callable[[_Moment], None]:
    def end(moment: _Moment) -> None:
        moment.steps.remove(step.name)
        moment.why = ""  # which is told of a step's jobs

    return end


def _told(why: str) -> Callable[[_Moment], None]:
    def tell(moment: _Moment) -> None:
        moment.why = why

    return tell
