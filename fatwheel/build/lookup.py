"""What the store can answer of a build, and what is left to compile. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from ..model import Front, Job, Unit
from .assemble import jobs_of, look_up_text
from .context import Context
from .preprocess import Texts, pass_of
from .slices import absent_codes, missing, slice_key


@dataclass(frozen=True)
class Lookup:
    """pending: the jobs for what the store lacks, without estimates. slices counts units × images,
    hits those that are there. archlist_units must be compiled again because their text changes
    with the list of architectures.
    """

    pending: tuple[Job, ...]
    units: int
    slices: int
    hits: int
    archlist_units: tuple[str, ...]

    def to_wire(self) -> dict[str, Any]:
        return asdict(self)


def look_up(
    units: Sequence[Unit],
    fronts_of: Callable[[Unit], Sequence[Front]],
    context: Context,
    threads: int,
) -> Lookup:
    """Ask the store for every slice and host object; what it lacks becomes jobs."""
    store = context.store()
    texts = Texts(context, store)
    jobs = [job for unit in units for job in jobs_of(unit, fronts_of(unit))]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda job: look_up_text(texts, context, job), jobs))
        # Side by side: all that the store answers with is read.
        parts = list(pool.map(lambda job: missing(texts, context, store, job), jobs))
    pending = tuple(part for part in parts if part)
    slices = sum(len(job.front.codes) for job in jobs if job.front)
    lacking = sum(len(job.front.codes) for job in pending if job.front)
    again = _archlist_units(pending, texts, context)
    return Lookup(pending, len(units), slices, slices - lacking, again)


class UnitSlices(TypedDict):
    """A unit's slices: sha256 in hex by image, None for what the store has not."""

    name: str
    slices: dict[str, str | None]


# In the units' order: one source compiled in two ways is two units of one name.
SliceDigests = list[UnitSlices]


def slice_digests(units: Sequence[Unit], fronts: Sequence[Front], context: Context) -> SliceDigests:
    """What the store holds of each CUDA unit."""
    store = context.store()
    texts = Texts(context, store)

    def slices_of(unit: Unit) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for front in fronts:
            text = texts.recorded(unit, pass_of(front))
            for code in front.codes:
                key = text and slice_key(context, unit, front, code, text)
                found[code] = store.digest("slice", key) if key else None
        return found

    return [{"name": unit.name, "slices": slices_of(unit)} for unit in units if unit.kind == "cuda"]


def _archlist_units(pending: Iterable[Job], texts: Texts, context: Context) -> tuple[str, ...]:
    """Units whose slices are pending because their text changes with the list.

    A job may be pending for its host object alone: that is no matter of the list.
    """
    names = [
        job.unit.name
        for job in pending
        if texts.reads_archlist(job.unit, pass_of(job.front))
        and absent_codes(texts, context, context.store(), job)
    ]
    return tuple(dict.fromkeys(names))
