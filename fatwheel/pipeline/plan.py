"""Plans a build: fronts (exact, shared or auto), jobs and shards, with their expected cost.

A front (one run of cicc) may serve several architectures of one family: those with the same
major number and without an a or f suffix. Its PTX is then that of the lowest of them. That
halves the work, and gives the same machine code for some projects and not for others: `auto`
shares only what a proof covers (see `proof`).
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..arch import Arch, ArchRequest
from ..config.model import Recipe
from ..model import Front, Job, Shard
from ..storage.store import Store
from ..worker.assemble import Lookup
from ..worker.preprocess import HOST_PASS, pass_of
from ..worker.slices import cost_key

Covers = Callable[[Arch, frozenset[Arch]], bool]  # front, architectures → is sharing proven?


def exact_fronts(archs: Iterable[ArchRequest]) -> tuple[Front, ...]:
    """One front for each architecture, as nvcc's own -gencode flags would have it."""
    return tuple(
        Front(request.arch, (request.arch.sm, *([request.arch.compute] if request.ptx else [])))
        for request in archs
    )


def shared_fronts(archs: Iterable[ArchRequest], covers: Covers) -> tuple[Front, ...]:
    """One front for each family for which `covers` allows it, exact ones for the rest."""
    fronts: list[Front] = []
    for family in _families(archs):
        lowest = family[0].arch
        if len(family) == 1 or not covers(lowest, frozenset(r.arch for r in family)):
            fronts += exact_fronts(family)
        else:
            fronts += _share(family)
    return tuple(sorted(fronts, key=lambda front: front.virtual))


def _families(archs: Iterable[ArchRequest]) -> list[list[ArchRequest]]:
    families: dict[tuple[int, str, int], list[ArchRequest]] = {}
    for request in sorted(archs, key=lambda request: request.arch):
        arch = request.arch
        # Code with a suffix is its own family: its front knows other instructions.
        key = (arch.major, arch.suffix, arch.number if arch.suffix else 0)
        families.setdefault(key, []).append(request)
    return list(families.values())


def _share(family: list[ArchRequest]) -> list[Front]:
    lowest = family[0]
    codes = [lowest.arch.sm]
    if lowest.ptx:
        codes.append(lowest.arch.compute)
    codes += [request.arch.sm for request in family[1:]]
    # PTX of a higher architecture can only come from a front of its own.
    own = [Front(r.arch, (r.arch.compute,)) for r in family[1:] if r.ptx]
    return [Front(lowest.arch, tuple(codes)), *own]


# -- jobs and shards -------------------------------------------------------------------------------

# Costs come from the store where a job was measured before, else from the recipe.


# A further image from the same front costs its ptxas run alone (measured: 16 s of 110 s).
_FURTHER_IMAGE = 0.15
_MOST = 1 << 50  # bytes or seconds: no job was ever measured to take as much
# The next run of a unit may need a little more memory than the last one did.
_HEADROOM = 1.05


@dataclass(frozen=True)
class Work:
    """What is left to compile, and what the store already has.

    pending: the jobs for what the store lacks. slices counts units × images, hits those that
    are there. archlist_units must be compiled again because their text changes with the list
    of architectures.
    """

    pending: tuple[Job, ...]
    units: int
    slices: int
    hits: int
    archlist_units: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return sum(job.seconds for job in self.pending)


def plan_work(lookup: Lookup, store: Store, recipe: Recipe) -> Work:
    """The work that a look-up left, with what each job is expected to cost."""
    return Work(
        pending=tuple(estimated(job, store, recipe) for job in lookup.pending),
        units=lookup.units,
        slices=lookup.slices,
        hits=lookup.hits,
        archlist_units=lookup.archlist_units,
    )


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


def _recipe_cost(job: Job, recipe: Recipe) -> tuple[int, float]:
    memory, seconds = recipe.memory, recipe.seconds
    for cost in recipe.costs:
        if fnmatch.fnmatch(job.unit.name, cost.units):
            memory, seconds = cost.memory, cost.seconds
            break
    images = len(job.front.codes) if job.front else 1
    return memory, seconds * (1 + _FURTHER_IMAGE * (images - 1))
