"""Compiles what a build's captured target lacks in the store."""

from __future__ import annotations

from collections.abc import Sequence

from ..engines.base import Build, Capture, Limits
from ..engines.run import JobRun
from ..engines.schedule import Scheduler
from ..errors import CompileError, FatwheelError
from ..events import Emit, Note, Planned, step
from ..text import size
from ..worker.assemble import Lookup
from .work import Effort, divide


def compile_work(
    work: Lookup, build: Build, capture: Capture, effort: Effort, engine: str, front: str,
    emit: Emit,
) -> None:  # fmt: skip
    """Say how the pending jobs are done and do them. engine and front: what they are called.

    One job's failure stops no other: when all are done, what failed is raised as one error.
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
    run = JobRun(capture, shards, allotment, scheduler, build.store, emit)
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
        hint="finished jobs are kept: the next run continues from there",
    )
