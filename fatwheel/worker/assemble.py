"""What the store already has for a build and what is left to compile; answers compile commands.
Standard library only.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, TypedDict

from ..errors import CompileError, FormatError, OutOfMemoryError, StitchError
from ..fatbin.container import Entry
from ..fatbin.images import Described, compare, in_part, shorten
from ..fatbin.stitch import nvcc_order, stitch_object
from ..model import Front, Job, Unit
from ..storage.store import Store
from .archs import fronts_of
from .context import Context
from .preprocess import Texts, pass_of
from .slices import (
    KilledForMemoryError,
    absent_codes,
    absent_keys,
    known_host_key,
    known_keys,
    load_slice,
    missing,
    passes_of,
    preprocess_command,
    run_job,
    slice_key,
)
from .stages import check_split, forget_front, front_key


@dataclass(frozen=True)
class Pass:
    """One pass of all units: the keys of the records of its texts, and of their having been seen,
    in the units' order."""

    name: str
    texts: tuple[str, ...]
    seen: tuple[str, ...]


@dataclass(frozen=True)
class Reason:
    """Why units are compiled again, as the end of a sentence, and their names."""

    what: str
    units: tuple[str, ...]


@dataclass(frozen=True)
class Lookup:
    """pending: the jobs for what the store lacks; `look_up` estimates no costs. slices counts
    units × images, hits those that are there. archlist_units must be compiled again because their
    text changes with the list of architectures.

    passes: by which texts the units are known. made: what each job of `all_jobs` makes, as kind and
    key, as far as that is known before compiling. absent: what of it the store lacks, but for what
    only this machine can use (see `slices.is_native`).

    reasons: why units are compiled that were compiled before. state: what they are compiled with,
    to be kept for the next build's reasons.
    """

    pending: tuple[Job, ...]
    units: int
    slices: int
    hits: int
    archlist_units: tuple[str, ...]
    passes: tuple[Pass, ...] = ()
    made: tuple[tuple[tuple[str, str], ...], ...] = ()
    absent: tuple[tuple[str, str], ...] = ()
    reasons: tuple[Reason, ...] = ()
    state: str = ""

    def to_wire(self) -> dict[str, Any]:
        return asdict(self)


def look_up(
    units: Sequence[Unit], fronts: Sequence[Front], context: Context, threads: int
) -> Lookup:
    """Ask the store for every slice and host object; what it lacks becomes jobs.

    Raises ToolchainError where fronts are to be split and nvcc cannot do it.
    """
    check_split(context)
    # Not imported above: the stand-ins, of which one starts for each object, do without.
    from concurrent.futures import ThreadPoolExecutor

    from .reasons import reasons, state_of

    store = context.store()
    texts = Texts(context, store)
    jobs = all_jobs(units, fronts)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda job: look_up_text(texts, context, store, job), jobs))
        # Side by side: all that the store answers with is read.
        parts = list(pool.map(lambda job: missing(texts, context, store, job), jobs))
    pending = tuple(part for found in parts for part in found)
    slices = sum(len(job.front.codes) for job in jobs if job.front)
    lacking = sum(len(job.front.codes) for job in pending if job.front)
    again = _archlist_units(pending, texts, context)
    absent = [pair for job in pending for pair in absent_keys(texts, context, store, job)]
    made = tuple(_shareable(known_keys(texts, context, store, job)) for job in jobs)
    passes = _passes(texts, jobs)
    others = [job for job in pending if job.unit.name not in again]
    return Lookup(
        pending, len(units), slices, slices - lacking, again, passes, made, tuple(absent),
        reasons(context, store, texts, others), state_of(context, texts, jobs),
    )  # fmt: skip


def _shareable(keys: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """What of a job's entries other machines are given by name: what is kept with a slice goes with
    it, and what a front leaves is for this machine."""
    return tuple(pair for pair in keys if pair[0] in ("text", "seen", "slice", "host"))


def _passes(texts: Texts, jobs: Iterable[Job]) -> tuple[Pass, ...]:
    keys: dict[str, dict[str, str]] = {}
    for job in jobs:
        for name in passes_of(job):
            keys.setdefault(name, {})[texts.key(job.unit, name)] = texts.seen_key(job.unit, name)
    return tuple(
        Pass(name, tuple(found), tuple(found.values())) for name, found in sorted(keys.items())
    )


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
        for front in fronts_of(unit, fronts) if unit.images != () else ():
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


# -- assembling ------------------------------------------------------------------------------------

# A CUDA unit's answer is its host object with one container that holds the slices of all fronts;
# a C++ unit's is its object. What the store does not have is compiled on the spot.


def all_jobs(units: Sequence[Unit], fronts: Sequence[Front]) -> list[Job]:
    """All jobs of a build, whatever the store has."""
    return [job for unit in units for job in jobs_of(unit, fronts)]


def jobs_of(unit: Unit, fronts: Sequence[Front]) -> list[Job]:
    """All jobs of a unit: one per front, the last yields the host object too."""
    if unit.kind == "c++":
        return [Job(unit, None, host=True, memory=0, seconds=0)]
    fronts = fronts_of(unit, fronts)
    return [Job(unit, front, host=front == fronts[-1], memory=0, seconds=0) for front in fronts]


def look_up_text(texts: Texts, context: Context, store: Store, job: Job) -> None:
    """Make a job's texts known where the store may have their results and no record holds."""
    for pass_ in passes_of(job):
        if texts.recorded(job.unit, pass_) is not None or not texts.seen(job.unit, pass_):
            continue
        # What is new to a front is new to the host, which reads the same files: it is compiled.
        if pass_ != pass_of(job.front) and absent_codes(texts, context, store, job):
            continue
        # A source that does not preprocess is reported when it is compiled.
        with suppress(subprocess.CalledProcessError):
            texts.preprocess(job.unit, pass_, preprocess_command(context, job))


def object_of(context: Context, store: Store, unit: Unit, fronts: Sequence[Front]) -> bytes:
    """The unit's finished object. Raises CompileError, StitchError or OutOfMemoryError."""
    texts = Texts(context, store)
    try:
        found = _from_store(texts, context, store, unit, fronts)
    except FormatError:
        # Sound bytes, but not what they should be: they are made again, or the error comes again.
        _forget(texts, context, store, unit, fronts)
        found = None
    if found is None:
        _compile(texts, context, store, unit, fronts)
        found = _from_store(texts, context, store, unit, fronts)
    if found is None:
        raise CompileError(
            "a slice that was just compiled is missing from the store",
            where=unit.name,
            hint="something may be changing the sources or the store while the build runs",
        )
    return found


def _from_store(
    texts: Texts, context: Context, store: Store, unit: Unit, fronts: Sequence[Front]
) -> bytes | None:
    if unit.kind == "c++":
        return _host_object(texts, context, store, unit, None)
    entries: list[Entry] = []
    images: list[list[_Image]] = []
    fronts = fronts_of(unit, fronts)
    for front in fronts:
        text = texts.recorded(unit, pass_of(front))
        images.append([])
        for code in front.codes:
            if text is None:
                return None
            key = slice_key(context, unit, front, code, text)
            data = store.get("slice", key)
            if data is None or not store.has("abi", key):
                return None
            entries += load_slice(data) if unit.images != () else ()
            images[-1].append(_image(unit.name, code, store.get_json("abi", key)))
    _check_parity(unit.name, images)
    host = _host_object(texts, context, store, unit, fronts[-1])
    return host and stitch_object(host, nvcc_order(entries))


def _host_object(
    texts: Texts, context: Context, store: Store, unit: Unit, front: Front | None
) -> bytes | None:
    key = known_host_key(texts, context, store, unit, front)
    return store.get("host", key) if key else None


# Sources may leave kernels and variables out for an architecture (`#if __CUDA_ARCH__ >= 800`), so
# that fronts differ. One nvcc call for several fronts compiles the host's code once, and takes the
# stub, which registers and launches kernels, from the last front on its command line (12.4.131 and
# 13.0.88, --dryrun and --keep). Ours stands for the call with the architectures in ascending order:
# the host object comes from the last front (`jobs_of`). So it is as with nvcc (CUDA 13.0, an H200,
# CUDA_MODULE_LOADING=LAZY and EAGER alike) that
#
# - what the last front has is registered, whether or not other images have it. To use it on a GPU
#   whose image has not is error 500 (cudaErrorSymbolNotFound), and nothing else suffers;
# - what the last front lacks is in images and cannot be used: what would launch a kernel does not
#   link; for a template it gives error 98 (cudaErrorInvalidDeviceFunction), for a variable 13;
# - what the last front has must be there for the host too, or it does not compile;
# - managed variables are the exception: the host's code reads them through pointers, which stay
#   null, and crashes. These are refused.


@dataclass(frozen=True)
class _Image:
    """What is kept with a slice. managed: the names of its front's managed variables."""

    kernels: Described
    managed: frozenset[str]


def _check_parity(unit: str, fronts: Sequence[Sequence[_Image]]) -> None:
    """Refuse, by the unit's name, images that contradict each other, or that the host's code would
    crash with.

    Fronts may differ in kernels, images of one front may not: nvcc makes them from the same PTX.
    """
    for images in fronts:
        differing = in_part([image.kernels for image in images])
        if differing:
            raise FormatError(
                "images of one front do not have the same kernels",
                where=unit,
                details=_only_in(differing),
            )
    everything = [image for images in fronts for image in images]
    compare(unit, (image.kernels for image in everything))
    variables = in_part(
        [Described(image.kernels.title, image.managed, None) for image in everything]
    )
    if variables:
        raise StitchError(
            "not all architectures have the same __managed__ variables",
            where=unit,
            details=_only_in(variables),
            hint="on a GPU whose code has no such variable, host code that reads or writes it "
            "crashes. Declare it for all architectures, or build a wheel for each group of "
            "architectures that have it",
        )


def _only_in(names: Mapping[str, Sequence[str]]) -> list[str]:
    return shorten(f"only in {', '.join(codes)}: {name}" for name, codes in names.items())


def _image(unit: str, code: str, abi: Any) -> _Image:
    """What was kept with a slice. FormatError where it cannot be read."""
    is_ptx = code.startswith("compute_")
    kind = type(None) if is_ptx else str
    match abi:
        case {"kernels": dict(kernels), "managed": list(managed), "stub": str()} if all(
            isinstance(one, kind) for one in kernels.values()
        ) and all(isinstance(one, str) for one in managed):
            described = Described(code, frozenset(kernels), None if is_ptx else kernels)
            return _Image(described, frozenset(managed))
    raise FormatError(f"what is kept of the kernels for {code} cannot be read", where=unit)


def _forget(
    texts: Texts, context: Context, store: Store, unit: Unit, fronts: Sequence[Front]
) -> None:
    """Make a unit's host object and slices absent, and what they would be made from again."""
    fronts = fronts_of(unit, fronts)
    host = known_host_key(texts, context, store, unit, fronts[-1] if unit.kind == "cuda" else None)
    if host:
        store.remove("host", host)
    for front in fronts:
        text = texts.recorded(unit, pass_of(front))
        if text is None:
            continue
        for code in front.codes:
            key = slice_key(context, unit, front, code, text)
            store.remove("slice", key)
            store.remove("abi", key)
        forget_front(store, front_key(context, unit, front, text))


def _compile(
    texts: Texts, context: Context, store: Store, unit: Unit, fronts: Sequence[Front]
) -> None:
    for job in jobs_of(unit, fronts):
        look_up_text(texts, context, store, job)
        for wanted in missing(texts, context, store, job):
            _run(texts, context, store, wanted)


def _run(texts: Texts, context: Context, store: Store, job: Job) -> None:
    try:
        run_job(context, store, texts, job)
    except KilledForMemoryError as error:
        raise OutOfMemoryError(
            f"the compiler was killed for memory at {error.rss / 2**30:.1f} GiB",
            where=job.label,
            hint="give the build more memory, or fewer --jobs",
        ) from error
