"""The `dask` engine: jobs run on the workers of a Dask cluster, on any number of machines.

Capture and assembling run on this machine, as for the `process` engine, also for Windows; only jobs
travel. A worker makes the toolchain's environment itself, of the lock, and gets the project's
sources once. No disk is shared: what a job made comes back as bytes, and enters the store after
every digest and every key was computed again here (`engines.incoming`).
"""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..config.pinned import Download, Package
from ..config.recipe import Target
from ..config.toolchain import Toolchain
from ..errors import EngineError, StoreError
from ..events import Emit, Note, step
from ..machine import cores, free_memory, in_words, this_platform
from ..model import Host, Job, Unit
from ..provenance.lock import lock_bytes, lock_of
from ..storage.store import Store
from ..worker.assemble import all_jobs
from ..worker.context import Context
from ..worker.preprocess import Texts, pass_of
from ..worker.slices import is_native
from ..worker.stages import front_key
from . import bundle, daskwindows, windows
from .base import Build, Capture, Engine, Limits, Reports, Traffic, Worker, Workplace
from .cluster import VARIABLE, address_of, check_installed, connected, quiet
from .contained import ImageCapture, capture
from .daskbench import Settlement, identity_of
from .local import LocalCapture, LocalWorkplace, Tools, environment_files, ready_tools
from .members import members_of, nobody, too_large
from .pool import Pool
from .process import ProcessWorker
from .windows import ProcessSite, WindowsWorkplace

if TYPE_CHECKING:
    from distributed import Client

_LOG = "dask.log"


class Dask(Engine):
    """Its scheduler is the one that FATWHEEL_SCHEDULER names; without, this machine is the
    cluster."""

    name = "dask"

    def obstacle(self, toolchain: Toolchain) -> str:
        here = this_platform()
        if toolchain.of_a_machine:
            return "is what this machine has installed, which no other machine can fetch"
        if toolchain.brings_all:
            return windows.obstacle(toolchain)
        if toolchain.platform != here:
            return f"is for {in_words(toolchain.platform)}, and this machine is {in_words(here)}"
        return ""

    def emulates(self, toolchain: Toolchain) -> bool:
        return toolchain.platform != this_platform()

    def files(self, target: Target) -> list[tuple[Package | Download, Path]]:
        if target.toolchain.brings_all:
            return windows.tools_files(target)
        return environment_files(target)

    def traffic(self, capture: Capture) -> Traffic | None:
        if not isinstance(capture, LocalCapture):
            return None
        return _traffic_of(capture, _sources(capture.context))

    def prepare(self, target: Target, emit: Emit) -> Workplace[Capture]:
        check_installed()
        address = os.environ.get(VARIABLE, "")
        address = address and address_of(address, VARIABLE)
        capacity = Limits(cores(), free_memory())
        if address:
            with step(emit, "workers", address):
                capacity = _capacity(address, emit)
        if target.toolchain.brings_all:
            made = windows.ready_tools(target, emit)
            return WindowsClusterWorkplace(made, target, address, capacity)
        return ClusterWorkplace(ready_tools(target, emit), ProcessWorker, target, address, capacity)


def _capacity(address: str, emit: Emit) -> Limits:
    """What the workers of a cluster have together. Raises EngineError where there are none."""
    with connected(address, Limits(0, 0)) as client:
        members = members_of(client.scheduler_info(n_workers=-1))
        if not members:
            raise nobody(address)
        if dashboard := _dashboard(client):
            emit(Note(f"Dask's dashboard: {dashboard}"))
        found = [member.limits for member in members]
        return Limits(sum(one.cpus for one in found), sum(one.memory for one in found))


def _dashboard(client: Client) -> str:
    try:
        return str(client.dashboard_link or "")
    except (KeyError, ValueError):  # it has none
        return ""


@dataclass(frozen=True)
class _OnCluster:
    """address: the scheduler's; '' for a cluster of this machine's own. has: what all its workers
    have together."""

    target: Target
    address: str
    has: Limits

    @property
    def capacity(self) -> Limits:
        return self.has

    @property
    def place(self) -> str:
        """The cluster, for people."""
        return self.address or "this machine"

    def check(self, units: Iterable[Unit]) -> None:
        """Refuse units that would be others on each machine. Raises EngineError."""
        native = [unit.name for unit in units if is_native(unit)]
        if self.address and native:
            raise EngineError(
                "it is compiled for the processor of the machine that compiles it (-march=native), "
                "and machines of a cluster may have others",
                where=native[0],
                details=native[1:],
                hint="use --engine process, or have the project name a processor",
            )


@dataclass(frozen=True)
class ClusterWorkplace(_OnCluster, LocalWorkplace):
    """Capture and assembling are processes of this machine's."""

    @contextmanager
    def capture(self, build: Build, emit: Emit) -> Iterator[ClusterCapture]:
        lock = lock_bytes(lock_of(self.target, _host(self.tools))).decode()
        name = secrets.token_hex(16)
        with connected(self.address, self.has) as client:
            quiet(build.logs / _LOG)
            identity = identity_of(self.tools)
            # Workers get the toolchain while the project is captured here.
            with (
                Pool(client, self.place, name, lock, identity) as pool,
                super().capture(build, emit) as local,
            ):
                self.check(local.units)
                _settle(pool, name, lock, build, local.context)
                yield ClusterCapture(**_fields(local), pool=pool)


@dataclass(frozen=True)
class WindowsClusterWorkplace(_OnCluster, WindowsWorkplace):
    """Capture and assembling are programs of this machine's own Windows, or of its Wine."""

    @contextmanager
    def capture(self, build: Build, emit: Emit) -> Iterator[WindowsClusterCapture]:
        emit(Note(f"logs of the processes: {build.logs}"))
        name, here = secrets.token_hex(16), Limits(cores(), free_memory())
        with (
            connected(self.address, self.has) as client,
            windows.held(build.name, emit) as system,
        ):
            quiet(build.logs / _LOG)
            site = ProcessSite(system, replace(build, limits=here), self.tools)
            message = site.prepare()
            lock = lock_bytes(lock_of(self.target, site.host)).decode()
            identity = daskwindows.identity_of(self.tools)
            with Pool(client, self.place, name, lock, identity) as pool:
                captured = capture(site, message, here, emit)
                self.check(captured.units)
                _settle(pool, name, lock, build, daskwindows.context_of(site, message))
                yield WindowsClusterCapture(**_fields(captured), pool=pool, emit=emit)


def _fields(found: LocalCapture | ImageCapture) -> dict[str, Any]:
    return {field.name: getattr(found, field.name) for field in fields(found)}


def _host(tools: Tools) -> Host:
    compiler = tools.compiler
    return Host(f"g++ {compiler.version}", compiler.id, tools.environment.python_version)


def _settle(pool: Pool, name: str, lock: str, build: Build, context: Context) -> None:
    """Tell workers of a build that is captured."""
    settlement = _settlement(name, lock, build, context)
    pool.settle(settlement, bundle.pack(_sources(context)), context)


def _settlement(name: str, lock: str, build: Build, context: Context) -> Settlement:
    """The captured build, as workers get it."""
    places, variables = context.places, dict(context.environment)
    return Settlement(
        build=name,
        lock=lock,
        name=build.name,
        epoch=int(variables["SOURCE_DATE_EPOCH"]),
        subdirectory=build.target.recipe.subdirectory,
        seeded=context.seeded,
        fronts=tuple(map(asdict, context.fronts)),
        scope=build.scope,
        sources=bundle.identity(dict(places.files or ())),
        source=places.source,
        listing=places.listing,
    )


def _sources(context: Context) -> Mapping[str, bytes]:
    """The project's files as compilers see them. Raises StoreError."""
    places = context.places
    top = Path(places.real(places.source))
    try:
        return {name: (top / name).read_bytes() for name, _ in places.files or ()}
    except OSError as error:
        raise StoreError(f"cannot read the project's sources: {error.strerror}") from error


@dataclass(frozen=True)
class ClusterCapture(LocalCapture):
    pool: Pool

    def open(self, shard: str, limits: Limits, reports: Reports) -> Worker:
        return _opened(self.pool, shard, reports, self.emit)


@dataclass(frozen=True)
class WindowsClusterCapture(ImageCapture):
    bounded: ClassVar[bool] = False
    pool: Pool
    emit: Emit

    def open(self, shard: str, limits: Limits, reports: Reports) -> Worker:
        return _opened(self.pool, shard, reports, self.emit)


def _opened(pool: Pool, shard: str, reports: Reports, emit: Emit) -> Worker:
    """A shard's jobs go wherever there is room; this only waits for the first worker."""
    pool.wait(lambda words: emit(Note(words)))
    for words in pool.said():
        emit(Note(words))
    return ClusterWorker(shard, pool, reports, emit)


class ClusterWorker:
    """A shard's jobs on the workers of a cluster."""

    def __init__(self, shard: str, pool: Pool, reports: Reports, emit: Emit) -> None:
        self._shard = shard
        self._pool = pool
        self._reports = reports
        self._emit = emit

    def start(self, job: Job) -> None:
        largest = self._pool.too_large(job)
        for words in [*self._pool.said(), *([too_large(job, largest)] if largest else [])]:
            self._emit(Note(words))
        self._pool.start(job, self._shard, self._reports)

    def close(self) -> None:
        self._pool.drop(self._shard)

    def memory(self) -> int:
        # Asked every second, and so the place to pass on what the pool has to say.
        for words in self._pool.said():
            self._emit(Note(words))
        return self._pool.memory(self._shard)


# -- what travels ----------------------------------------------------------------------------------

# As far as this machine's store has it. Sizes are bytes, packed as they travel (`engines.bundle`).


def _traffic_of(capture: LocalCapture, sources: Mapping[str, bytes]) -> Traffic:
    """sources: the files that each worker gets."""
    build, made = capture.build, capture.look_again().made
    jobs, store = all_jobs(capture.units, build.fronts), build.store
    texts = Texts(capture.context, store)
    return Traffic(
        len(bundle.pack(sources)),
        tuple(_packed(store, _results(job, keys)) for job, keys in zip(jobs, made, strict=True)),
        tuple(_left(capture, texts, job) for job in jobs),
    )


def _results(job: Job, keys: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """The names of a job's slices and host object; () where not all are known."""
    found = [pair for pair in keys if pair[0] in ("slice", "host")]
    images = len(job.front.codes) if job.front else 0
    return found if len(found) == images + job.host else ()


def _left(capture: LocalCapture, texts: Texts, job: Job) -> int | None:
    """The size of what a job's front left; None where it has none, or that is not known."""
    text = texts.recorded(job.unit, pass_of(job.front)) if job.front else None
    if job.front is None or text is None:
        return None
    key = front_key(capture.context, job.unit, job.front, text)
    return _packed(capture.build.store, [("ptx", key), ("stub", key)])


def _packed(store: Store, keys: Sequence[tuple[str, str]]) -> int | None:
    """The size of entries; None where the store does not have them."""
    size = 0
    for kind, key in keys:
        data = store.get(kind, key)
        if data is None:
            return None
        size += len(zlib.compress(data, 1))
    return size or None
