"""Compiles what a captured target lacks in the store: how the jobs are divided among workers, and
the run of them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..engines.base import Allotment, Build, Capture, Limits, allot
from ..engines.run import JobRun, Kept, keeping, kept_here
from ..engines.schedule import Scheduler
from ..errors import CompileError, FatwheelError, StoppedError
from ..events import Emit, Note, Planned, step
from ..model import Job, Shard, Unit
from ..text import count as count_of
from ..text import duration, size
from ..worker.assemble import Lookup
from ..worker.preprocess import HOST_PASS, pass_of
from ..worker.reasons import LAST, last_key
from ..worker.secondkey import OFF
from .costs import Costs, in_stages


@dataclass(frozen=True)
class Effort:
    """How much a build may use, without effect on its result; None means the default.

    shards: workers to spread it over. jobs: compiler calls at a time. memory: bytes for all of
    them together. until: when to start no more of them, by time.monotonic(). audit: as in
    `worker.context.Context`.
    """

    shards: int | None = None
    jobs: int | None = None
    memory: int | None = None
    until: float | None = None
    audit: int = OFF

    def limits(self, capacity: Limits) -> Limits:
        """The limits of a build where there is so much."""
        return Limits(self.jobs or capacity.cpus, self.memory or capacity.memory)

    @property
    def lend(self) -> bool:
        """Whether one more compiler may run where that ends the build sooner."""
        return self.jobs is None


def compile_work(
    work: Lookup, build: Build, capture: Capture, effort: Effort, engine: str, front: str,
    emit: Emit, kept: Kept = kept_here,
) -> None:  # fmt: skip
    """Say how the pending jobs are done and do them. engine and front: what they are called.
    kept: is told what each job put into the store.

    One job's failure stops none that does not need it: when all are done, what failed is raised as
    one error. StoppedError where the time was up before all were started.
    """
    count = effort.shards or len(build.target.archs)
    # nvcc.exe lists no steps that could be run one by one.
    costs = None if build.target.toolchain.msvc else build.store
    ready = prepared(work.pending, costs, build.limits, count, effort.lend, capture.bounded)
    jobs, scheduler, shards = ready.jobs, ready.scheduler, ready.shards
    emit(
        Planned(
            (build.target,), engine, front, shards=len(shards), jobs=scheduler.slots,
            memory=build.limits.memory, units=work.units, slices=work.slices, hits=work.hits,
            work=sum(job.seconds for job in jobs),
            archlist_units=work.archlist_units, pending=len(jobs), reasons=work.reasons,
        )
    )  # fmt: skip
    for job in scheduler.oversized:
        emit(
            Note(
                f"{job.label} may need {size(job.memory)}, more than the build's limit: it "
                "runs alone"
            )
        )
    if not jobs:
        _keep_state(work, build)
        return
    made = keeping(build.store, kept)
    run = JobRun(capture, shards, ready.allotment, scheduler, made, emit, effort.until)
    with step(emit, "compile", f"{len(jobs)} jobs"):
        run.run()
    if run.taken:
        emit(
            Note(
                f"{run.taken} of {count_of(len(jobs), 'job')} took code over from an earlier "
                "build: the device program is the same"
            )
        )
    if run.errors:
        raise summed_up(run.errors, len(jobs))
    if run.left:
        total = count_of(len(jobs), "job")
        rest = duration(sum(job.seconds for job in run.left))
        raise StoppedError(
            f"the time is up: {len(run.left)} of {total} left, about {rest} of work for one core",
            hint="what was compiled is kept: run the same command again to go on",
        )
    _keep_state(work, build)


def _keep_state(work: Lookup, build: Build) -> None:
    """Keep what units are compiled with, so that a later build can say why it compiles again."""
    if work.state and build.store.get(LAST, last_key()) != work.state.encode():
        build.store.put(LAST, last_key(), work.state.encode())


@dataclass(frozen=True)
class Ready:
    """Jobs as they are run, and all that decides when and by which worker each is."""

    jobs: tuple[Job, ...]
    scheduler: Scheduler
    shards: tuple[Shard, ...]
    allotment: Allotment


def prepared(
    jobs: Sequence[Job], costs: Costs | None, limits: Limits, shards: int, lend: bool, bounded: bool
) -> Ready:
    """Decide how pending jobs are done within the limits of a build, by at most so many shards.

    costs: what was measured of stages; None where calls are never taken apart. lend: as in
    `Effort`. bounded: as in `Capture`.
    """
    if costs is not None:
        jobs = in_stages(jobs, costs, limits.cpus, limits.memory, lend)
    scheduler = Scheduler(jobs, limits.cpus, limits.memory, lend)
    within = Limits(scheduler.slots, limits.memory)
    divided, allotment = divide(jobs, shards, within)
    if not bounded:
        # Memory divided among workers would only keep jobs from what others leave free.
        allotment = Allotment(max(1, len(divided)), within, within)
    return Ready(tuple(jobs), scheduler, divided, allotment)


def summed_up(errors: Sequence[FatwheelError], total: int) -> FatwheelError:
    """What failed of so many jobs, as one error."""
    if all(error is errors[0] for error in errors):  # also what befell all jobs at once
        return errors[0]
    told = dict.fromkeys(map(str, errors))
    kinds = {type(error) for error in errors}
    kind = kinds.pop() if len(kinds) == 1 else CompileError
    return kind(
        f"{len(errors)} of {total} jobs failed",
        details=[line for error in told for line in (*error.splitlines(), "")],
        hint="finished jobs are kept: the next run continues from there",
    )


# -- shards ----------------------------------------------------------------------------------------


def divide(jobs: Sequence[Job], count: int, limits: Limits) -> tuple[tuple[Shard, ...], Allotment]:
    """Distribute jobs over at most `count` shards, and a build's limits over their workers."""
    shards = make_shards(jobs, count)
    largest = max((job.memory for job in jobs), default=0)
    return shards, allot(len(shards), min(largest, limits.memory), limits.cpus, limits.memory)


def make_shards(jobs: Iterable[Job], count: int) -> tuple[Shard, ...]:
    """Distribute jobs over `count` shards.

    The jobs of one front stay together while there are no more shards than fronts; beyond that
    a front's units are split. C++ units go wherever there is least to do.
    """
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(pass_of(job.front), []).append(job)
    loose = groups.pop(HOST_PASS, [])
    bins = _split(groups, count)
    for job in sorted(loose, key=lambda job: -job.seconds):
        if len(bins) < count:
            bins.append((HOST_PASS, [job]))
        else:
            min(bins, key=lambda item: sum(job.seconds for job in item[1]))[1].append(job)
    return tuple(
        Shard(f"{index}:{name}", tuple(members)) for index, (name, members) in enumerate(bins, 1)
    )


def _split(groups: dict[str, list[Job]], count: int) -> list[tuple[str, list[Job]]]:
    """Join the smallest groups, or halve the largest, until there are `count`.

    All stages of a unit stay together: each worker gets fronts and what follows from them.
    """
    bins = list(groups.items())
    bins.sort(key=lambda item: -sum(job.seconds for job in item[1]))
    while len(bins) > count:
        (last, few), (name, more) = bins.pop(), bins.pop()
        bins.append((f"{name}+{last}", more + few))
    while 0 < len(bins) < count and max(len(_units(members)) for _, members in bins) > 1:
        bins.sort(key=lambda item: len(_units(item[1])))
        name, members = bins.pop()
        units = _units(members)
        bins += [(name, [job for job in members if units[job.unit] % 2 == half]) for half in (0, 1)]
    return bins


def _units(jobs: Iterable[Job]) -> dict[Unit, int]:
    """The units of jobs, numbered as they come."""
    return {unit: number for number, unit in enumerate(dict.fromkeys(job.unit for job in jobs))}
