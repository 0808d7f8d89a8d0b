"""What jobs are expected to cost, and whether nvcc's calls are run whole or in stages.

Costs come from the store where a job was measured before, else from the recipe.

A call in stages makes the same bytes. It costs a little more, since each stage is a process that
gets ready by itself; in return the stages that follow the front run side by side, on cores that
would have nothing to do while the longest calls end. So calls are taken apart where the build is
expected to end sooner for it: on many cores, or with few units.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Sequence
from typing import Any, Protocol

from ..config.recipe import Recipe
from ..engines.schedule import Scheduler, simulate
from ..model import Job, Stage
from ..worker.assemble import Lookup
from ..worker.slices import cost_key, further_stages

# What stages have of a call for one image with its host object. A further image from the same front
# costs its ptxas run alone (measured: of 110 s, cicc 76, ptxas 16, cudafe++ and g++ 16).
_FRONT, _IMAGE, _HOST = 0.7, 0.15, 0.15
# And what they have of its memory: about twice what was measured of two units of flash-attention's
# (nvcc 13.0: cicc 3.2 and 3.6 GiB, ptxas 0.4 and 0.45, cudafe++ and g++ 0.75).
_MEMORY: dict[Stage, float] = {"whole": 1.0, "front": 1.0, "ptxas": 0.25, "host": 0.5}
# How much more memory a split front takes than a recipe says: more of its code is in work at a time
# (measured: 1.2 GB exact, 2.5 GB split in 4).
_SPLIT_MEMORY = 2.2
# Seconds that a stage takes by itself: nvcc lists its steps, files come and go.
_STAGE = 0.1
# Take calls apart only if that brings the end nearer by more than estimates are worth: by this part
# of the time, and by these seconds.
_GAIN, _LEAST_GAIN = 0.01, 2.0
_MOST = 1 << 50  # bytes or seconds: no job was ever measured to take as much
# The next run of a unit may need a little more memory than the last one did.
_HEADROOM = 1.05


class Costs(Protocol):
    """What was measured of jobs: a store, or what was read of one."""

    def get_json(self, kind: str, key: str) -> Any:
        """The record of kind 'cost' under a key of `worker.slices.cost_key`; None where there is
        none."""


def plan_work(lookup: Lookup, costs: Costs, recipe: Recipe) -> Lookup:
    """What a look-up left to do, with what each job is expected to cost."""
    pending = tuple(estimated(job, costs, recipe) for job in lookup.pending)
    return dataclasses.replace(lookup, pending=pending)


def estimated(job: Job, costs: Costs, recipe: Recipe) -> Job:
    """The job with the memory (bytes) and seconds that it is expected to take."""
    parts = [measured(part, costs) for part in apart(job)]
    if whole := measured(job, costs):
        memory, seconds = whole
    elif len(known := [part for part in parts if part is not None]) == len(parts):
        memory, seconds = max(part[0] for part in known), sum(part[1] for part in known)
    else:
        memory, seconds = _recipe_cost(job, recipe)
    return dataclasses.replace(job, memory=memory, seconds=seconds)


def with_recipe_cost(job: Job, recipe: Recipe) -> Job:
    """The job with what the recipe says of its cost, whatever was measured here."""
    memory, seconds = _recipe_cost(job, recipe)
    return dataclasses.replace(job, memory=memory, seconds=seconds)


def measured(job: Job, costs: Costs) -> tuple[int, float] | None:
    """The memory (bytes) and seconds of a job that ran before, by itself."""
    match costs.get_json("cost", cost_key(job)):
        case {"rss": int(rss), "cpu": int(cpu) | float(cpu)} if _plausible(rss, cpu):
            return int(rss * _HEADROOM), float(cpu)
    return None


def _plausible(*figures: float) -> bool:
    return all(0 <= figure < _MOST for figure in figures)


def _recipe_cost(job: Job, recipe: Recipe) -> tuple[int, float]:
    memory, seconds = recipe.memory, recipe.seconds
    for cost in recipe.costs:
        if fnmatch.fnmatch(job.unit.name, cost.units):
            memory, seconds = cost.memory, cost.seconds
            break
    if job.front and job.front.split:
        memory = int(memory * _SPLIT_MEMORY)
    if job.stage != "whole":
        return _memory(job, memory), seconds * _share(job)
    images = len(job.front.codes) if job.front else 1
    return memory, seconds * (1 + _IMAGE * (images - 1))


# -- stages ----------------------------------------------------------------------------------------


def in_stages(
    jobs: Sequence[Job], costs: Costs, cores: int, memory: int, lend: bool
) -> tuple[Job, ...]:
    """The jobs as they are run: with calls in stages if the build ends sooner so."""
    stages = tuple(part for job in jobs for part in priced(job, costs))
    if len(stages) == len(jobs):
        return tuple(jobs)

    def end(tried: Sequence[Job]) -> float:
        return simulate(Scheduler(tried, cores, memory, lend), cores)

    whole = end(jobs)
    return stages if whole - end(stages) > max(_LEAST_GAIN, whole * _GAIN) else tuple(jobs)


def apart(job: Job) -> tuple[Job, ...]:
    """The stages of a call; the job itself where nothing of it could run side by side."""
    if job.front is None or job.stage != "whole":
        return (job,)
    ptx = tuple(code for code in job.front.codes if code.startswith("compute_"))
    cubins = [code for code in job.front.codes if code not in ptx]
    later = further_stages(job, cubins, job.host)
    if len(later) < 2:
        return (job,)
    front = dataclasses.replace(job.front, codes=ptx)
    return (dataclasses.replace(job, front=front, host=False, stage="front"), *later)


def priced(job: Job, costs: Costs) -> list[Job]:
    """The stages of a call with what each is expected to cost: as it was measured, else its share
    of the call."""
    stages = apart(job)
    if len(stages) == 1:
        return [job]
    whole = sum(map(_share, stages))
    found = []
    for stage in stages:
        memory, seconds = measured(stage, costs) or (
            _memory(stage, job.memory),
            job.seconds * _share(stage) / whole + _STAGE,
        )
        found.append(dataclasses.replace(stage, memory=memory, seconds=seconds))
    return found


def _memory(stage: Job, whole: int) -> int:
    """What a stage is expected to need, of a call that needs so many bytes."""
    return int(whole * _MEMORY[stage.stage])


def _share(stage: Job) -> float:
    """What a stage takes of the time of a call for one image with its host object."""
    if stage.stage == "front":
        return _FRONT
    return _HOST if stage.stage == "host" else _IMAGE
