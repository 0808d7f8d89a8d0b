"""Builds in containers: the workplace of the `docker` engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..config.model import Target
from ..containers.client import DockerEngine, connect
from ..containers.imagebuild import Image, base_ids, ensure_images
from ..containers.layouts import layout_of, owner
from ..containers.roster import Roster, enrolled, reap
from ..engines import docker
from ..engines.base import Engine, Limits
from ..engines.docker import Station
from ..events import Emit, Note
from ..machine import cores, free_memory
from ..model import Front, Host
from ..provenance.buildlock import Material
from ..shipped import PACKAGE
from ..storage.cache import cache_folder
from ..storage.store import Store
from ..storage.workfolder import work_folder
from ..toolchain.interpreters import build_of, compiler_id
from ..worker.assemble import Lookup, SliceDigests
from ..worker.context import digest
from ..worker.inside import CAPTURE, PROJECT, Message
from .resolve import Stores, is_seeded, log_folder, pinned_here, project_name, step, unpacked
from .scope import scope_in_containers
from .workplaces import Premises, Workplace

_ENGINE_KEEPS = 1 << 30  # bytes of the engine's memory that are not for builds


@dataclass(frozen=True)
class _Contained:
    engine: DockerEngine
    image: str
    scope: str
    compiler_id: str
    identity: str
    materials: tuple[Material, ...]
    cores: int
    memory: int

    @contextmanager
    def workplace(
        self,
        target: Target,
        fronts: tuple[Front, ...],
        limits: Limits,
        stores: Stores,
        emit: Emit,
    ) -> Iterator[Workplace]:
        logs = log_folder(target)
        emit(Note(f"logs of the containers: {logs}"))
        with work_folder() as work, enrolled(logs.name, work, self.engine.endpoint) as roster:
            sources = work / "sources"
            project = unpacked(target.recipe, sources / PROJECT, emit)
            site = self._site(target, work, logs, stores, roster)
            layout = layout_of(site.station.os)
            below = project.root.relative_to(sources / PROJECT)
            message = Message(
                task=CAPTURE, name=project_name(target.recipe), project=project.at(below),
                fronts=fronts, units=(), compiler_id=self.compiler_id, scope=self.scope,
                seeded=is_seeded(target.toolchain), threads=limits.cpus,
                description=layout.description, sources=layout.sources, store=layout.store,
                incoming=layout.incoming, work=layout.work,
                trunk=layout.trunk if stores.trunk else "",
            )  # fmt: skip
            with step(emit, "capture"):
                captured = docker.capture(site, message, limits)
            yield _ContainedWorkplace(
                captured, captured, captured.lookup, captured.host, site.store, work
            )

    def _site(
        self, target: Target, work: Path, logs: Path, stores: Stores, roster: Roster
    ) -> docker.Site:
        containers = target.toolchain.containers
        assert containers is not None, "engine_for saw to it"
        for folder in (stores.own, *stores.trunks):
            folder.mkdir(parents=True, exist_ok=True)
        station = Station(
            image=self.image, os=containers.os, os_build=containers.os_build,
            python=target.python, code=PACKAGE, sources=work / "sources",
            store=stores.own, trunk=stores.trunk,
        )  # fmt: skip
        return docker.Site(self.engine, station, stores.open(self.scope), work, logs, roster)


def contained_premises(target: Target, emit: Emit) -> Premises:
    """An image of the target's Python and torch, built where the engine has it not.

    Leftovers of builds that were killed are removed. Raises EngineError, and what making images
    does.
    """
    toolchain = target.toolchain
    assert toolchain.containers is not None, "engine_for saw to it"
    engine = connect()
    engine.check_os(toolchain.containers.os, toolchain.name)
    if owner(engine) is not None:
        # Its containers are somebody else, who must be able to read what is written here.
        os.umask(os.umask(0o077) & ~0o055)
    if unknown := reap(engine, cache_folder()).note:
        emit(Note(unknown))
    with step(emit, "images", f"{toolchain.name}, Python {target.python}"):
        images = ensure_images(engine, toolchain, target.python, target.torch, cache_folder(), emit)
    image = images[-1].tag
    build = build_of(toolchain, target.python, target.torch)
    room = max(engine.memory - _ENGINE_KEEPS, engine.memory // 2)
    return _Contained(
        engine, image, scope_in_containers(target, pinned_here(toolchain.name), base_ids(engine)),
        compiler_id(toolchain, build), digest(image),
        tuple(_material(one) for one in images),
        _least(cores(), engine.cpus), _least(free_memory(), room),
    )  # fmt: skip


def _material(image: Image) -> Material:
    return Material("image", image.tag, "", "", 0, image.id.removeprefix("sha256:"), "")


def _least(here: int, of_engine: int) -> int:
    """The smaller value of this machine and the engine; 0 means that the engine gave none."""
    return min(here, of_engine or here)


@dataclass(frozen=True)
class _ContainedWorkplace:
    captured: docker.Captured
    engine: Engine
    lookup: Lookup
    host: Host
    store: Store
    scratch: Path

    def assemble(self, limits: Limits) -> tuple[Path, SliceDigests]:
        return self.captured.assemble(limits)
