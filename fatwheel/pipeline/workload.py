"""All compiler calls of a build, with what each costs and how much of it travels, as a document.

It is made of a captured project and what the store has of it, or read from a file, which
`invoke simulate --keep-costs` wrote (costs.schema.json). What was never measured is said by the
recipe, as in the plan of a build, and marked so. Times are seconds of CPU, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ..arch import Arch, parse_arch
from ..engines.base import Build, Capture, Traffic
from ..engines.placing import LeftBy
from ..engines.registry import engine_named
from ..errors import FormatError, UsageError
from ..events import Emit
from ..model import Front, Job, Stage, Unit
from ..storage.cache import cache_folder, users_stores
from ..storage.documents import MOST, json_bytes, read_object
from ..storage.files import check_writable, disk_error, readable, replacing
from ..storage.store import Store
from ..toolchain.homes import check_accepted
from ..worker.assemble import all_jobs
from ..worker.context import digest
from ..worker.slices import cost_key
from .capture import captured, check_named
from .costs import apart, estimated, measured
from .plan import BuildPlan

FORMAT: Final = 1
# What is taken to travel where the store does not have it, packed (`engines.bundle`). Measured of a
# unit of flash-attention's: three images with the host object 2.7 MB, what its front left 2.0 MB.
_IMAGE, _OBJECT, _LEFT = 850_000, 150_000, 2_000_000
_SOURCES = 5_000_000

_Text = Annotated[str, Field(min_length=1, max_length=1000)]
_Seconds = Annotated[float, Field(ge=0, le=10_000_000, allow_inf_nan=False)]
_Bytes = Annotated[int, Field(ge=0, le=1 << 50)]
_Image = Annotated[str, Field(pattern=r"^(sm|compute)_[0-9]{2,3}[af]?$")]
_Images = Annotated[tuple[_Image, ...], Field(max_length=200)]
# As costs.schema.json has it: nothing else, and nothing in another form.
_STRICT = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True)
class Record:
    """What a call, or a stage of it, was measured to cost. codes: the images that it made."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    stage: Stage
    codes: _Images
    cpu: _Seconds
    rss: _Bytes


@dataclass(frozen=True)
class Call:
    """One compiler call.

    options: tells units of one name apart. front: '' for C++; split: as of `model.Front`. memory,
    seconds: what is expected.
    made: what it makes, packed; left: what its front leaves; None where that is not known.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    unit: _Text
    kind: Literal["cuda", "c++"]
    source: Annotated[str, Field(max_length=4000)]
    options: Annotated[str, Field(max_length=64)]
    front: Annotated[str, Field(pattern=r"^(compute_[0-9]{2,3}[af]?)?$")]
    codes: _Images
    host: bool
    memory: _Bytes
    seconds: _Seconds
    made: _Bytes | None
    left: _Bytes | None
    records: Annotated[tuple[Record, ...], Field(max_length=300)]
    split: Annotated[int, Field(ge=0, le=1024)] = 0

    @cached_property
    def job(self) -> Job:
        unit = Unit(self.unit, self.kind, self.source, (self.options,), ())
        front = Front(_arch(self.front), self.codes, self.split) if self.front else None
        return Job(unit, front, self.host, self.memory, self.seconds)


@dataclass(frozen=True)
class Workload:
    """All calls of a build, from nothing. sources: of the project, packed; None where that is not
    known."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    format: Literal[1]
    project: _Text
    version: _Text
    toolchain: _Text
    archs: Annotated[tuple[_Text, ...], Field(min_length=1, max_length=100)]
    sources: _Bytes | None
    calls: Annotated[tuple[Call, ...], Field(min_length=1, max_length=20_000)]

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        return tuple(call.job for call in self.calls)

    @cached_property
    def _records(self) -> Mapping[str, Any]:
        return {
            cost_key(job): {"cpu": record.cpu, "rss": record.rss, "seconds": record.cpu}
            for call in self.calls
            for record in call.records
            for job in (call.job, *apart(call.job))
            if (job.stage, job.front.codes if job.front else ()) == (record.stage, record.codes)
        }

    def get_json(self, kind: str, key: str) -> Any:
        """What was measured, as a store has it."""
        return self._records.get(key) if kind == "cost" else None

    @property
    def measured(self) -> int:
        """How many calls were measured, whole or in all their stages."""
        return sum(_is_measured(job, self) for job in self.jobs)

    @property
    def sized(self) -> int:
        """Of how many calls it is known what travels."""
        return sum(call.made is not None for call in self.calls)

    @cached_property
    def _sizes(self) -> Mapping[LeftBy | Unit, tuple[int, int]]:
        """What a call makes in all, and what its front leaves."""
        found: dict[LeftBy | Unit, tuple[int, int]] = {}
        for call in self.calls:
            made, left = call.made, call.left
            if made is None:
                made = _IMAGE * len(call.codes) + _OBJECT * call.host
            key = _place(call.job)
            found[key] = made, _LEFT if left is None else left
        return found

    def made(self, job: Job) -> int:
        """Bytes that travel back of a job: what it makes, and what its front left. Of a call in
        stages, each brings its part."""
        made, left = self._sizes[_place(job)]
        if job.stage == "front":
            return left
        if job.stage == "whole":
            return made + (left if job.front else 0)
        images = self._images[_place(job)]
        own = _OBJECT * images[1]
        share = max(0, made - own) // max(1, images[0])
        return own if job.stage == "host" else share

    @cached_property
    def _images(self) -> Mapping[LeftBy | Unit, tuple[int, bool]]:
        return {_place(call.job): (len(call.codes), call.host) for call in self.calls}

    def left(self, front: LeftBy) -> int:
        """Bytes of what a front leaves."""
        return self._sizes[front][1]

    @property
    def source_size(self) -> int:
        return _SOURCES if self.sources is None else self.sources


def _place(job: Job) -> LeftBy | Unit:
    return (job.unit, job.front.virtual) if job.front else job.unit


def _is_measured(job: Job, costs: Any) -> bool:
    return bool(measured(job, costs)) or all(measured(part, costs) for part in apart(job))


def _arch(compute: str) -> Arch:
    return parse_arch(compute.removeprefix("compute_"))


# -- of a project ----------------------------------------------------------------------------------


def workload_of(plan: BuildPlan, emit: Emit) -> Workload:
    """Capture the one target of a plan and find what is known of its costs. Raises what capturing
    does; UsageError for what no cluster can build."""
    if len(plan.wheels) > 1:
        raise UsageError(
            "one wheel is simulated at a time", hint="name one Python, one torch and one CUDA"
        )
    [wheel] = plan.wheels
    target = wheel.target
    cluster = engine_named("dask")
    if target.toolchain.brings_all:  # what is simulated takes calls apart, and such builds do not
        raise UsageError(
            f"toolchain {target.toolchain.name} is for Windows, for which no build is simulated",
            hint="simulate one for Linux",
        )
    if obstacle := cluster.obstacle(target.toolchain):
        raise UsageError(
            f"toolchain {target.toolchain.name} {obstacle}",
            hint="simulated are builds on a cluster: see docs/cluster.md",
        )
    check_accepted(target.toolchain.msvc, cache_folder())
    workplace = plan.engine.prepare(target, emit)
    limits, stores = plan.effort.limits(workplace.capacity), users_stores()
    with captured(wheel, workplace, limits, stores, emit) as (build, capture):
        check_named(capture.wheel, target)
        traffic = cluster.traffic(capture)
        calls = tuple(_calls(capture, build, traffic))
    if not calls:
        raise UsageError(f"{target.recipe.project} compiles nothing")
    return Workload(
        FORMAT, target.recipe.project, target.recipe.version, target.toolchain.name,
        tuple(map(str, target.archs)), traffic.sources if traffic else None, calls,
    )  # fmt: skip


def notes_of(workload: Workload) -> Iterator[str]:
    """What of it is no measurement."""
    calls = len(workload.calls)
    if workload.measured < calls:
        yield (
            f"{calls - workload.measured} of {calls} calls were never measured: they are taken to "
            "cost what the recipe says"
        )
    if workload.sized < calls:
        yield (
            f"how much {calls - workload.sized} of {calls} calls make is not known: "
            "sizes are those of flash-attention's units"
        )


def _calls(capture: Capture, build: Build, traffic: Traffic | None) -> Iterator[Call]:
    store, jobs = build.store, all_jobs(capture.units, build.fronts)
    none = (None,) * len(jobs)
    made, left = (traffic.made, traffic.left) if traffic else (none, none)
    for bare, own, of_front in zip(jobs, made, left, strict=True):
        job = estimated(bare, store, build.target.recipe)
        front = job.front
        yield Call(
            unit=job.unit.name, kind="c++" if front is None else "cuda", source=job.unit.source,
            options=digest(job.unit.codegen, job.unit.preprocessor)[:16],
            front=front.virtual.compute if front else "", codes=front.codes if front else (),
            host=job.host, memory=job.memory, seconds=job.seconds, made=own, left=of_front,
            records=tuple(_records(job, store)), split=front.split if front else 0,
        )  # fmt: skip


def _records(job: Job, store: Store) -> Iterator[Record]:
    for one in dict.fromkeys((job, *apart(job))):
        match store.get_json("cost", cost_key(one)):
            case {"rss": int(rss), "cpu": int(cpu) | float(cpu)} if measured(one, store):
                yield Record(one.stage, one.front.codes if one.front else (), float(cpu), rss)


# -- files -----------------------------------------------------------------------------------------

_FILE = TypeAdapter(Workload)
_VALID = "a file that `invoke simulate --keep-costs FILE` wrote"


def check_costs_place(path: Path) -> None:
    """Refuse a file that cannot be written, or is something else. Raises UsageError, StoreError."""
    if path.suffix != ".json":
        raise UsageError(f"{path.name!r} is no name of a list of costs", where="--keep-costs",
                         hint="NAME.json")  # fmt: skip
    if path.exists():
        try:
            read_workload(path)
        except (UsageError, FormatError) as error:
            raise UsageError(
                f"{path} is there, and no list of costs", where="--keep-costs",
                details=[error.what], hint="name another file",
            ) from error  # fmt: skip
    check_writable(path.absolute().parent, "write the costs", "--keep-costs FILE")


def keep_workload(path: Path, workload: Workload) -> None:
    """Write it to a file, whole or not at all. Raises StoreError."""
    try:
        with replacing(path) as out:
            out.write(json_bytes(asdict(workload)))
    except OSError as error:
        raise disk_error(error, "write the costs", path, "--keep-costs FILE") from error


def read_workload(path: Path) -> Workload:
    """Raises UsageError where it is no file, and FormatError where it is no such document."""
    with readable(path, _VALID), path.open("rb") as stream:
        content = stream.read(MOST + 1)
    read_object(content, str(path))  # not too large, nor too deep
    try:
        found = _FILE.validate_json(content)
        jobs = found.jobs
    except ValidationError as error:
        raise FormatError(
            "not a list of compiler calls with their costs",
            where=str(path),
            details=[
                f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:10]
            ],
            hint=f"valid: {_VALID}",
        ) from error
    except UsageError as error:  # an architecture that there is not
        raise FormatError(error.what, where=str(path)) from error
    if len(set(map(_place, jobs))) < len(jobs):
        raise FormatError("it has a compiler call twice", where=str(path))
    if bad := [call.unit for call in found.calls if len(set(call.codes)) < len(call.codes)]:
        raise FormatError("a call makes an image twice", where=f"{path}: {bad[0]}")
    if bad := [call.unit for call in found.calls if (call.kind == "cuda") != bool(call.front)]:
        raise FormatError("a call has a front and is C++, or neither", where=f"{path}: {bad[0]}")
    return found
