"""Compiles what a captured target lacks in the store: what each job is expected to cost, how the
jobs are divided among workers, and the run of them all.

Costs come from the store where a job was measured before, else from the recipe.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..config.model import Recipe
from ..engines.base import Allotment, Build, Capture, Limits, allot
from ..engines.run import JobRun
from ..engines.schedule import Scheduler
from ..errors import CompileError, FatwheelError, StoppedError
from ..events import Emit, Note, Planned, step
from ..model import Job, Shard
from ..storage.store import Store
from ..text import count as count_of
from ..text import duration, size
from ..worker.assemble import Lookup
from ..worker.preprocess import HOST_PASS, pass_of
from ..worker.slices import cost_key

# A further image from the same front costs its ptxas run alone (measured: 16 s of 110 s).
_FURTHER_IMAGE = 0.15
_MOST = 1 << 50  # bytes or seconds: no job was ever measured to take as much
# The next run of a unit may need a little more memory than the last one did.
_HEADROOM = 1.05


@dataclass(frozen=True)
class Effort:
    """How much a build may use, without effect on its result; None means the default.

    shards: workers to spread it over. jobs: compiler calls at a time. memory: bytes for all of
    them together. until: when to start no more of them, by time.monotonic().
    """

    shards: int | None = None
    jobs: int | None = None
    memory: int | None = None
    until: float | None = None

    def limits(self, capacity: Limits) -> Limits:
        """The limits of a build where there is so much."""
        return Limits(self.jobs or capacity.cpus, self.memory or capacity.memory)

    @property
    def lend(self) -> bool:
        """Whether one more compiler may run where that ends the build sooner."""
        return self.jobs is None


def compile_work(
    work: Lookup, build: Build, capture: Capture, effort: Effort, engine: str, front: str,
    emit: Emit,
) -> None:  # fmt: skip
    """Say how the pending jobs are done and do them. engine and front: what they are called.

    One job's failure stops no other: when all are done, what failed is raised as one error.
    StoppedError where the time was up before all were started.
    """
    memory = build.limits.memory
    scheduler = Scheduler(work.pending, build.limits.cpus, memory, lend=effort.lend)
    count = effort.shards or len(build.target.archs)
    shards, allotment = divide(work.pending, count, Limits(scheduler.slots, memory))
    emit(
        Planned(
            (build.target,), engine, front, shards=len(shards), jobs=scheduler.slots,
            memory=memory, units=work.units, slices=work.slices, hits=work.hits,
            work=sum(job.seconds for job in work.pending),
            archlist_units=work.archlist_units, pending=len(work.pending),
        )
    )  # fmt: skip
    for job in scheduler.oversized:
        emit(
            Note(
                f"{job.label} may need {size(job.memory)}, more than the build's limit: it "
                "runs alone"
            )
        )
    if not work.pending:
        return
    run = JobRun(capture, shards, allotment, scheduler, build.store, emit, effort.until)
    with step(emit, "compile", f"{len(work.pending)} jobs"):
        run.run()
    if run.errors:
        raise _summed_up(run.errors, len(work.pending))
    if run.left:
        jobs = count_of(len(work.pending), "job")
        rest = duration(sum(job.seconds for job in run.left))
        raise StoppedError(
            f"the time is up: {len(run.left)} of {jobs} left, about {rest} of work for one core",
            hint="what was compiled is kept: run the same command again to go on",
        )


def _summed_up(errors: Sequence[FatwheelError], total: int) -> FatwheelError:
    if len(errors) == 1:
        return errors[0]
    kinds = {type(error) for error in errors}
    kind = kinds.pop() if len(kinds) == 1 else CompileError
    return kind(
        f"{len(errors)} of {total} jobs failed",
        details=[line for error in errors for line in (*str(error).splitlines(), "")],
        hint="finished jobs are kept: the next run continues from there",
    )


# -- costs -----------------------------------------------------------------------------------------


def plan_work(lookup: Lookup, store: Store, recipe: Recipe) -> Lookup:
    """What a look-up left to do, with what each job is expected to cost."""
    pending = tuple(estimated(job, store, recipe) for job in lookup.pending)
    return dataclasses.replace(lookup, pending=pending)


def estimated(job: Job, store: Store, recipe: Recipe) -> Job:
    """The job with the memory (bytes) and seconds that it is expected to take."""
    match store.get_json("cost", cost_key(job)):
        case {"rss": int(rss), "cpu": int(cpu) | float(cpu)} if _plausible(rss, cpu):
            memory, seconds = int(rss * _HEADROOM), float(cpu)
        case _:
            memory, seconds = _recipe_cost(job, recipe)
    return dataclasses.replace(job, memory=memory, seconds=seconds)


def _plausible(*figures: float) -> bool:
    return all(0 <= figure < _MOST for figure in figures)


def _recipe_cost(job: Job, recipe: Recipe) -> tuple[int, float]:
    memory, seconds = recipe.memory, recipe.seconds
    for cost in recipe.costs:
        if fnmatch.fnmatch(job.unit.name, cost.units):
            memory, seconds = cost.memory, cost.seconds
            break
    images = len(job.front.codes) if job.front else 1
    return memory, seconds * (1 + _FURTHER_IMAGE * (images - 1))


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
    """Join the smallest groups, or halve the largest, until there are `count`."""
    bins = list(groups.items())
    bins.sort(key=lambda item: -sum(job.seconds for job in item[1]))
    while len(bins) > count:
        (last, few), (name, more) = bins.pop(), bins.pop()
        bins.append((f"{name}+{last}", more + few))
    while 0 < len(bins) < count and max(len(members) for _, members in bins) > 1:
        bins.sort(key=lambda item: len(item[1]))
        name, members = bins.pop()
        bins += [(name, members[::2]), (name, members[1::2])]
    return bins
