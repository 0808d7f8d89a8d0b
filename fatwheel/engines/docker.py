"""The `docker` engine: capture, shards and assembly each run in a container.

Here are the engine and a target's images. What is made in containers of the last image is in
`engines.contained`, which containers those are in `engines.dockerplan`. Docker itself is the
business of `containers`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..config.pinned import Download, Package
from ..config.recipe import Target
from ..config.toolchain import Toolchain
from ..containers.client import DockerEngine, connect
from ..containers.contexts import uses_wine
from ..containers.imagebuild import ContainerImage, base_ids, ensure_images
from ..containers.layouts import layout_of, owner
from ..containers.render import FILES
from ..containers.roster import Roster, enrolled, reap
from ..containers.running import RunningContainer
from ..errors import EngineError
from ..events import Emit, Note, step
from ..machine import cores, free_memory
from ..model import Shard
from ..provenance.lock import Material
from ..shipped import PACKAGE
from ..storage.cache import cache_folder
from ..toolchain.interpreters import build_of, compiler_id
from ..worker.context import digest
from ..worker.inside import CAPTURE, PROJECT, Message
from ..worker.upstream import Project
from .base import Allotment, Build, Engine, Footprint, Limits
from .contained import ImageCapture, capture, log_of, new_incoming
from .dockerplan import Station, containers_of, footprint_of, pinned_here, scope_of, within
from .windows import tools_files
from .winedocker import WineWorkplace, wine_workplace
from .winestation import IN_WINE


class Docker(Engine):
    name = "docker"
    isolated = True
    uses_images = True

    def obstacle(self, toolchain: Toolchain) -> str:
        if toolchain.of_a_machine:
            return "uses what is installed on this machine, and containers do not see that"
        if toolchain.device_packages:
            return "lets CUDA's compilers for Linux make device code, which works in processes only"
        if toolchain.containers is None and not uses_wine(toolchain, ""):
            return "has no container images: its file has no [containers] table"
        return ""

    def answers(self, toolchain: Toolchain) -> bool:
        found = _os()
        made = toolchain.containers is not None and found == toolchain.containers.os
        return made or (found == IN_WINE.os and uses_wine(toolchain, found))

    def emulates(self, toolchain: Toolchain) -> bool:
        return toolchain.containers is None

    def system(self) -> str:
        # An engine that does not answer is reported once it is needed; a plan needs none.
        return _os() or super().system()

    def files(self, target: Target) -> list[tuple[Package | Download, Path]]:
        if target.toolchain.wine and uses_wine(target.toolchain, _os()):
            own: tuple[Package | Download, ...] = target.toolchain.wine.files
            return [*tools_files(target), *((pin, cache_folder() / FILES) for pin in own)]
        pins = (*target.recipe.files, *target.tools.image_files)
        source = target.recipe.source.file
        return [(pin, cache_folder() / FILES) for pin in pins if pin != source]

    def footprint(
        self, targets: Sequence[Target], shards: Sequence[Shard], allotment: Allotment
    ) -> Footprint:
        wine = targets[0].toolchain.wine is not None and uses_wine(targets[0].toolchain, _os())
        return footprint_of(targets, shards, allotment, wine)

    def prepare(self, target: Target, emit: Emit) -> ImageWorkplace | WineWorkplace:
        """An image of the target's Python and torch, built if the engine does not have it.

        Leftovers of builds that were killed are removed. Raises EngineError, and what making images
        does.
        """
        toolchain = target.toolchain
        engine = connect()
        wine = uses_wine(toolchain, engine.os)
        engine.check_os((IN_WINE if wine else containers_of(toolchain)).os, toolchain.name)
        if owner(engine) is not None:
            # Its containers are somebody else, who must be able to read what is written here.
            os.umask(os.umask(0o077) & ~0o055)
        cache = cache_folder()
        if unknown := reap(engine, cache).note:
            emit(Note(unknown))
        if wine:
            return wine_workplace(engine, target, cache, emit)
        with step(emit, "images", f"{toolchain.name}, Python {target.python}"):
            images = ensure_images(engine, toolchain, target.python, target.torch, cache, emit)
        return ImageWorkplace(
            engine, tuple(images), scope_of(target, pinned_here(target), base_ids(engine))
        )


def _os() -> str:
    """What an engine's containers are; '' where none answers."""
    with suppress(EngineError):
        return connect().os
    return ""


# -- a target in its image -------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageWorkplace:
    """The images of a target, on an engine; the last is the one that its containers are made
    from."""

    engine: DockerEngine
    images: tuple[ContainerImage, ...]
    scope: tuple[Any, ...]

    @property
    def identity(self) -> str:
        return digest(self.images[-1].tag)

    @property
    def surroundings(self) -> str:
        return self.identity

    @property
    def materials(self) -> tuple[Material, ...]:
        return tuple(image.material for image in self.images)

    @property
    def capacity(self) -> Limits:
        return within(Limits(cores(), free_memory()), self.engine)

    @contextmanager
    def capture(self, build: Build, emit: Emit) -> Iterator[ImageCapture]:
        emit(Note(f"logs of the containers: {build.logs}"))
        with enrolled(build.logs.name, build.work, self.engine.endpoint) as roster:
            site = self.site(build, roster, build.work / "sources")
            place = site.sources / PROJECT
            project = build.unpack(place)
            message = self.message(build, project.at(project.root.relative_to(place)))
            yield capture(site, message, build.limits, emit)

    def site(self, build: Build, roster: Roster, sources: Path) -> DockerSite:
        """Where a build's containers run. sources: see `Station`."""
        containers = containers_of(build.target.toolchain)
        for folder in (build.stores.own, *build.stores.trunks):
            folder.mkdir(parents=True, exist_ok=True)
        station = Station(
            image=self.images[-1].tag, os=containers.os, os_build=containers.os_build,
            python=build.target.python, code=PACKAGE, sources=sources,
            store=build.stores.own, trunk=build.stores.trunk,
        )  # fmt: skip
        return DockerSite(self.engine, station, build, roster)

    def message(self, build: Build, project: Project) -> Message:
        """What a build's containers are told. project: root is its folder's name among the
        sources."""
        toolchain = build.target.toolchain
        layout = layout_of(containers_of(toolchain).os)
        pins = build_of(toolchain, build.target.python, build.target.torch)
        return Message(
            task=CAPTURE, name=build.name, project=project,
            fronts=build.fronts, units=(), compiler_id=compiler_id(toolchain, pins),
            scope=build.scope, seeded=build.seeded, threads=build.limits.cpus, audit=build.audit,
            description=layout.description, sources=layout.sources, store=layout.store,
            incoming=layout.incoming, work=layout.work,
            trunk=layout.trunk if build.stores.trunk else "",
        )  # fmt: skip


@dataclass(frozen=True)
class DockerSite:
    """Where a build's containers run: on an engine.

    roster: lists every container, so that leftovers can be found.
    """

    engine: DockerEngine
    station: Station
    build: Build
    roster: Roster
    kind: ClassVar[str] = "container"

    @property
    def image(self) -> str:
        return self.station.image

    @property
    def sources(self) -> Path:
        return self.station.sources

    def incoming(self) -> Path:
        return new_incoming(self.build, owner(self.engine))

    def addressed(self, message: Message, incoming: Path) -> Message:
        """All containers see their own at the same place."""
        return message

    def container(
        self, purpose: str, incoming: Path, limits: Limits, on_line: Callable[[str], None]
    ) -> RunningContainer:
        spec = self.station.container(purpose, incoming, limits)
        return RunningContainer(
            self.engine, spec, self.roster, on_line, log_of(self.build, purpose)
        )
