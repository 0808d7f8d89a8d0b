"""Builds on this machine: the workplace of the `process` engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..config.model import Target
from ..engines.base import Engine, Limits
from ..engines.process import ProcessEngine
from ..events import Emit
from ..machine import cores, free_memory
from ..model import Front, Host
from ..provenance.buildlock import Material
from ..storage.store import Store
from ..worker.assemble import Lookup, SliceDigests
from ..worker.context import digest
from .resolve import Prepared, Stores, Tools, log_folder, prepared, ready_tools, step
from .workplaces import Premises, Workplace


@dataclass(frozen=True)
class _Local:
    tools: Tools
    compiler_id: str
    identity: str
    host: Host
    cores: int
    memory: int
    materials: tuple[Material, ...] = ()

    @contextmanager
    def workplace(
        self,
        target: Target,
        fronts: tuple[Front, ...],
        limits: Limits,
        stores: Stores,
        emit: Emit,
    ) -> Iterator[Workplace]:
        with prepared(target, self.tools, emit, stores) as ready:
            with step(emit, "plan"):
                lookup = ready.workshop.look_up(ready.units, fronts, cores())
            engine = ProcessEngine(ready.context(fronts), log_folder(target))
            store = ready.context(fronts).store()
            yield _LocalWorkplace(ready, fronts, engine, lookup, self.host, store, ready.scratch)


def local_premises(target: Target, emit: Emit) -> Premises:
    """This machine: raises what making the environment does."""
    tools = ready_tools(target, emit)
    environment, compiler = tools.environment, tools.compiler
    host = Host(f"g++ {compiler.version}", compiler.id, environment.python_version)
    return _Local(
        tools, environment.compiler_id, digest(environment.root.name, compiler.id), host,
        cores(), free_memory(),
    )  # fmt: skip


@dataclass(frozen=True)
class _LocalWorkplace:
    ready: Prepared
    fronts: tuple[Front, ...]
    engine: Engine
    lookup: Lookup
    host: Host
    store: Store
    scratch: Path

    def assemble(self, limits: Limits) -> tuple[Path, SliceDigests]:
        wheel = self.ready.upstream.assemble(self.ready.context(self.fronts), self.fronts)
        return wheel, self.ready.workshop.slice_digests(self.ready.units, self.fronts)
