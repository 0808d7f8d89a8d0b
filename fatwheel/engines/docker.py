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

from ..config.model import Download, Package, Target, Toolchain
from ..containers.client import DockerEngine, connect
from ..containers.imagebuild import Image, base_ids, ensure_images
from ..containers.layouts import layout_of, owner
from ..containers.render import FILES
from ..containers.roster import Roster, enrolled, reap
from ..containers.running import Container
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
from .base import Allotment, Build, Engine, Footprint, Limits
from .contained import ImageCapture, capture, log_of, new_incoming
from .dockerplan import Station, containers_of, footprint_of, pinned_here, scope_of

_ENGINE_KEEPS = 1 << 30  # bytes of the engine's memory that are not for builds


class Docker(Engine):
    name = "docker"
    isolated = True
    uses_images = True

    def obstacle(self, toolchain: Toolchain) -> str:
        if toolchain.of_a_machine:
            return "uses what is installed on this machine, and containers do not see that"
        if toolchain.containers is None:
            return "has no container images: its file has no [containers] table"
        return ""

    def answers(self, toolchain: Toolchain) -> bool:
        with suppress(EngineError):
            return connect().os == containers_of(toolchain).os
        return False

    def system(self) -> str:
        # An engine that does not answer is reported once it is needed; a plan needs none.
        with suppress(EngineError):
            return connect().os
        return super().system()

    def files(self, target: Target) -> list[tuple[Package | Download, Path]]:
        pins = (*target.recipe.files, *target.tools.image_files)
        source = target.recipe.source.file
        return [(pin, cache_folder() / FILES) for pin in pins if pin != source]

    def footprint(
        self, targets: Sequence[Target], shards: Sequence[Shard], allotment: Allotment
    ) -> Footprint:
        return footprint_of(targets, shards, allotment)

    def prepare(self, target: Target, emit: Emit) -> ImageWorkplace:
        """An image of the target's Python and torch, built if the engine does not have it.

        Leftovers of builds that were killed are removed. Raises EngineError, and what making images
        does.
        """
        toolchain = target.toolchain
        engine = connect()
        engine.check_os(containers_of(toolchain).os, toolchain.name)
        if owner(engine) is not None:
            # Its containers are somebody else, who must be able to read what is written here.
            os.umask(os.umask(0o077) & ~0o055)
        cache = cache_folder()
        if unknown := reap(engine, cache).note:
            emit(Note(unknown))
        with step(emit, "images", f"{toolchain.name}, Python {target.python}"):
            images = ensure_images(engine, toolchain, target.python, target.torch, cache, emit)
        return ImageWorkplace(
            engine, tuple(images), scope_of(target, pinned_here(target), base_ids(engine))
        )


# -- a target in its image -------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageWorkplace:
    """The images of a target, on an engine; the last is the one that its containers are made
    from."""

    engine: DockerEngine
    images: tuple[Image, ...]
    scope: tuple[Any, ...]

    @property
    def identity(self) -> str:
        return digest(self.images[-1].tag)

    @property
    def materials(self) -> tuple[Material, ...]:
        return tuple(
            Material("image", one.tag, "", "", 0, one.id.removeprefix("sha256:"), "")
            for one in self.images
        )

    @property
    def capacity(self) -> Limits:
        """The smaller of this machine's and the engine's, which is 0 where it gave none."""
        memory = max(self.engine.memory - _ENGINE_KEEPS, self.engine.memory // 2)
        here = Limits(cores(), free_memory())
        return Limits(
            min(here.cpus, self.engine.cpus or here.cpus), min(here.memory, memory or here.memory)
        )

    @contextmanager
    def capture(self, build: Build, emit: Emit) -> Iterator[ImageCapture]:
        emit(Note(f"logs of the containers: {build.logs}"))
        with enrolled(build.logs.name, build.work, self.engine.endpoint) as roster:
            site = self._site(build, roster)
            message = self._message(build, site.station)
            with step(emit, "capture"):
                captured = capture(site, message, build.limits)
            for words in captured.notes:
                emit(Note(words))
            yield captured

    def _site(self, build: Build, roster: Roster) -> DockerSite:
        containers = containers_of(build.target.toolchain)
        for folder in (build.stores.own, *build.stores.trunks):
            folder.mkdir(parents=True, exist_ok=True)
        station = Station(
            image=self.images[-1].tag, os=containers.os, os_build=containers.os_build,
            python=build.target.python, code=PACKAGE, sources=build.work / "sources",
            store=build.stores.own, trunk=build.stores.trunk,
        )  # fmt: skip
        return DockerSite(self.engine, station, build, roster)

    def _message(self, build: Build, station: Station) -> Message:
        toolchain, layout = build.target.toolchain, layout_of(station.os)
        place = station.sources / PROJECT
        project = build.unpack(place)
        pins = build_of(toolchain, build.target.python, build.target.torch)
        return Message(
            task=CAPTURE, name=build.name, project=project.at(project.root.relative_to(place)),
            fronts=build.fronts, units=(), compiler_id=compiler_id(toolchain, pins),
            scope=build.scope, seeded=build.seeded, threads=build.limits.cpus,
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
        folder = new_incoming(self.build)
        user = owner(self.engine)
        if user is not None:
            os.chown(folder, *user)
        return folder

    def addressed(self, message: Message, incoming: Path) -> Message:
        """All containers see their own at the same place."""
        return message

    def container(
        self, purpose: str, incoming: Path, limits: Limits, on_line: Callable[[str], None]
    ) -> Container:
        spec = self.station.container(purpose, incoming, limits)
        return Container(self.engine, spec, self.roster, on_line, log_of(self.build, purpose))
