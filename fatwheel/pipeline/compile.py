"""Compiles what a plan found missing in the store, on an engine and within limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config.model import Target
from ..engines.base import Allotment, Engine, allot
from ..engines.run import JobRun
from ..engines.schedule import Scheduler
from ..errors import CompileError, FatwheelError
from ..events import Emit, Note, Planned
from ..storage.store import Store
from ..text import size
from .plan import Work, make_shards
from .resolve import step


@dataclass(frozen=True)
class Means:
    """The means to compile with.

    shards: workers to spread it over.
    jobs:   compiler calls at a time; lend: whether one more may run where that ends sooner.
    memory: bytes for all of them together.
    """

    shards: int
    jobs: int
    lend: bool
    memory: int


def compile_work(
    work: Work, target: Target, engine: Engine, store: Store, means: Means, front: str, emit: Emit
) -> None:
    """Say what the plan is and do it. `front` is how the plan calls its fronts; `store` keeps what
    jobs cost.

    One job's failure stops no other: when all are done, what failed is raised as one error.
    """
    shards = make_shards(work.pending, means.shards)
    scheduler = Scheduler(work.pending, means.jobs, means.memory, lend=means.lend)
    emit(
        Planned(
            (target,), engine.name, front, shards=len(shards), jobs=scheduler.slots,
            memory=means.memory, units=work.units, slices=work.slices, hits=work.hits,
            work=work.seconds, archlist_units=work.archlist_units, pending=len(work.pending),
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
    allotment = _allotment(work, len(shards), scheduler.slots, means.memory)
    run = JobRun(engine, shards, allotment, scheduler, store, emit)
    with step(emit, "compile", f"{len(work.pending)} jobs"):
        run.run()
    if run.errors:
        raise _summed_up(run.errors, len(work.pending))


def _allotment(work: Work, shards: int, slots: int, memory: int) -> Allotment:
    largest = max(job.memory for job in work.pending)
    return allot(shards, min(largest, memory), slots, memory)


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
