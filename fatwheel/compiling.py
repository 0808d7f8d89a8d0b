"""Compiles what a plan found missing in the store, on an engine and within limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .build.context import Context
from .build.schedule import Scheduler
from .engines.base import Engine
from .engines.process import ProcessEngine
from .engines.run import JobRun
from .errors import CompileError, FatwheelError
from .events import Emit, Note, Planned
from .machine import cores, free_memory
from .model import Target
from .plan import Work, make_shards
from .prepare import step
from .text import size

ENGINES: dict[str, type[Engine]] = {"process": ProcessEngine}


@dataclass(frozen=True)
class Means:
    """What work is done with.

    engine: a name of ENGINES.
    jobs:   compiler calls at a time; None: as many as this machine does best.
    memory: bytes for all of them together; None: what is free.
    """

    engine: str
    shards: int
    jobs: int | None
    memory: int | None


def compile_work(
    work: Work, target: Target, context: Context, means: Means, front: str, emit: Emit
) -> None:
    """Say what the plan is and do it. `front` is how the plan calls its fronts.

    One job's failure stops no other: when all are done, what failed is raised as one error.
    """
    memory = means.memory or free_memory()
    shards = make_shards(work.pending, means.shards)
    scheduler = Scheduler(work.pending, means.jobs or cores(), memory, lend=means.jobs is None)
    emit(
        Planned(
            (target,), means.engine, front, shards=len(shards), jobs=scheduler.slots,
            memory=memory, units=work.units, slices=work.slices, hits=work.hits,
            work=work.seconds, archlist_units=work.archlist_units, pending=len(work.pending),
        )
    )  # fmt: skip
    for job in scheduler.oversized:
        emit(Note(f"{job.label} may need {size(job.memory)}, more than all may: it runs alone"))
    if not work.pending:
        return
    run = JobRun(ENGINES[means.engine](), context, shards, scheduler, emit)
    with step(emit, "compile", f"{len(work.pending)} jobs"):
        run.run()
    if run.errors:
        raise _summed_up(run.errors, len(work.pending))


def _summed_up(errors: Sequence[FatwheelError], total: int) -> FatwheelError:
    if len(errors) == 1:
        return errors[0]
    kinds = {type(error) for error in errors}
    kind = kinds.pop() if len(kinds) == 1 else CompileError
    return kind(
        f"{len(errors)} of {total} jobs failed",
        details=[line for error in errors for line in (*str(error).splitlines(), "")],
        hint="what was finished is kept: the next run goes on from there",
    )
