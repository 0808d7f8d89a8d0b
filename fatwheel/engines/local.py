"""Targets prepared, captured and assembled on this machine, whoever runs their jobs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from ..config.pinned import Download, Package
from ..config.recipe import Target
from ..errors import UpstreamError
from ..events import Emit, Note, step
from ..machine import cores, free_memory
from ..model import Environment, Host, Unit
from ..provenance.lock import Material
from ..provision.tools import HostCompiler
from ..storage.cache import LIMIT, cache_folder, downloads_folder
from ..toolchain.environment import ensure_environment, host_compiler_for
from ..toolchain.homes import MergedCuda
from ..toolchain.installed import ready_installed
from ..toolchain.unpack import missing
from ..worker.assemble import Lookup, SliceDigests, look_up, slice_digests
from ..worker.context import Context, digest
from ..worker.inside import ASSEMBLE, CAPTURE
from ..worker.surroundings import names_of_headers
from ..worker.upstream import Captured, Upstream
from ..worker.workshop import Order, laid_out, upstream_of
from .base import Build, Limits, Reports, Worker, log_name, shard_purpose, with_log

# Opens a shard's worker: its name, the context of its jobs, the file for its log, the reports.
Opener = Callable[[str, Context, Path, Reports], Worker]


@dataclass(frozen=True)
class Tools:
    """A target's toolchain, ready to run on this machine."""

    environment: Environment
    compiler: HostCompiler


def ready_tools(target: Target, emit: Emit) -> Tools:
    """The host compiler, found, and the environment: made where it does not exist yet, or that of
    what is installed."""
    compiler = host_compiler_for(target.toolchain)
    with step(emit, "toolchain", f"{target.toolchain.name}, Python {target.python}"):
        if target.toolchain.installed:
            return Tools(ready_installed(target.toolchain, compiler, emit), compiler)
        environment = ensure_environment(
            target.toolchain, target.python, target.torch, cache_folder(), emit
        )
    return Tools(environment, compiler)


def environment_files(target: Target) -> list[tuple[Package | Download, Path]]:
    """The files of a target's environment that are not unpacked yet, and where they go."""
    cache, downloads = cache_folder(), downloads_folder()
    packages = [
        pin
        for pin in (*target.recipe.files, *target.tools.files)
        if isinstance(pin, Package) and pin.role != "installer" and pin != target.recipe.source.file
    ]
    cuda = MergedCuda(target.toolchain.cuda_files, target.toolchain.nvcc, cache)
    archives = [] if cuda.is_made() else [*cuda.archives]
    pins: list[Package | Download] = [*archives, *missing(packages, cache)]
    return [(pin, downloads) for pin in pins]


@dataclass(frozen=True)
class LocalWorkplace:
    """Tools on this machine. opener: opens the workers."""

    tools: Tools
    opener: Opener
    scope: ClassVar[tuple[str, ...]] = ("processes",)
    materials: ClassVar[tuple[Material, ...]] = ()

    @property
    def identity(self) -> str:
        return digest(self.tools.environment.root.name, self.tools.compiler.id)

    @cached_property
    def surroundings(self) -> str:
        return digest(self.identity, names_of_headers(self.tools.compiler.path))

    @property
    def capacity(self) -> Limits:
        return Limits(cores(), free_memory())

    @contextmanager
    def capture(self, build: Build, emit: Emit) -> Iterator[LocalCapture]:
        order = self._order(build)
        upstream = upstream_of(order)
        with step(emit, "capture"), _kept_log(upstream, build, CAPTURE):
            captured = upstream.capture(build.fronts)
        for words in captured.notes:
            emit(Note(words))
        origin = order.project.top
        with laid_out(order, origin, build.fronts, lambda words: emit(Note(words))) as context:
            yield LocalCapture(build, self, upstream, captured, context, emit)

    def _order(self, build: Build) -> Order:
        return Order(
            name=build.name,
            project=build.unpack(build.work / "project"),
            environment=self.tools.environment,
            cxx=str(self.tools.compiler.path),
            host_id=self.tools.compiler.id,
            python=sys.executable,
            seeded=build.seeded,
            variables=(),
            store_root=str(build.stores.own),
            store_limit=LIMIT,
            store_scope=build.scope,
            store_trunks=tuple(map(str, build.stores.trunks)),
            work=str(build.work),
            refuge=str(cache_folder() / "refuge"),
            audit=build.audit,
        )


@dataclass(frozen=True)
class LocalCapture:
    """A target's units, captured on this machine, and the context in which they compile."""

    bounded: ClassVar[bool] = False
    build: Build
    workplace: LocalWorkplace
    upstream: Upstream
    captured: Captured
    context: Context
    emit: Emit

    @property
    def units(self) -> tuple[Unit, ...]:
        return self.captured.units

    @property
    def notes(self) -> tuple[str, ...]:
        return self.captured.notes

    @property
    def links(self) -> tuple[tuple[str, ...], ...]:
        return self.captured.links

    @property
    def wheel(self) -> str:
        return self.captured.wheel

    @property
    def host(self) -> Host:
        environment, compiler = self.workplace.tools.environment, self.workplace.tools.compiler
        return Host(f"g++ {compiler.version}", compiler.id, environment.python_version)

    def look_up(self) -> Lookup:
        with step(self.emit, "plan"):
            return self.look_again()

    def look_again(self) -> Lookup:
        return look_up(self.units, self.build.fronts, self.context, cores())

    def open(self, shard: str, limits: Limits, reports: Reports) -> Worker:
        log = self.build.logs / log_name(shard_purpose(shard))
        return self.workplace.opener(shard, self.context, log, reports)

    def assemble(self, limits: Limits) -> tuple[Path, SliceDigests]:
        with _kept_log(self.upstream, self.build, ASSEMBLE):
            wheel = self.upstream.assemble(self.context, self.build.fronts, self.units)
        slices = slice_digests(self.units, self.build.fronts, self.context)
        return wheel, [*slices, *self.upstream.linked()]


@contextmanager
def _kept_log(upstream: Upstream, build: Build, mode: str) -> Iterator[None]:
    """Keep what upstream's build prints in the block, and name it where that fails."""
    log = build.logs / log_name(mode)
    try:
        yield
    except UpstreamError as error:
        raise with_log(error, log) from error
    finally:
        with suppress(OSError):  # it may not have begun
            shutil.copyfile(upstream.log(mode), log)
