"""Containers of a Dask worker: the compilers of a build run in one, as those of a shard do with the
`docker` engine: no network, limits of its own, and nothing to write to but one folder.

The image is made here, of the toolchain in the build's lock and the base that the lock names, or
that FATWHEEL_BASES names here. What is in it must be what the build's machine has: a container says
so itself (`worker.surroundings`), as each other worker does of its machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..config.recipe import Target
from ..containers.roster import enrolled
from ..errors import EngineError, FatwheelError
from ..events import silent
from ..storage.store import Store
from ..toolchain.interpreters import build_of, compiler_id
from ..worker.context import digest, fronts_from_wire
from ..worker.inside import PROJECT, SURVEY
from ..worker.roots import VIEW_ROOT
from ..worker.upstream import Project
from ..worker.view import compiler_files
from .base import Build, Limits, Reports, Worker
from .contained import ContainerWorker, survey
from .daskbench import Settlement, check_places, lent_build, project_of
from .docker import Docker, DockerSite, ImageWorkplace


@dataclass(frozen=True)
class ContainerEquipment:
    """A target's image on this machine's engine.

    home: a work folder of this worker's, by which what was left of it is found. limits: of each
    container.
    """

    workplace: ImageWorkplace
    target: Target
    home: Path
    limits: Limits
    tells_ends: ClassVar[bool] = True

    @classmethod
    def ready(cls, target: Target, home: Path, limits: Limits) -> ContainerEquipment:
        """Make the image, if the engine does not have it. Raises what that does."""
        if target.toolchain.brings_all:
            raise EngineError("for Windows, workers compile in processes, and not in containers")
        engine = Docker()
        if obstacle := engine.obstacle(target.toolchain):
            raise EngineError(f"toolchain {target.toolchain.name} {obstacle}")
        workplace = engine.prepare(target, silent)
        assert isinstance(workplace, ImageWorkplace)  # only Wine's is another
        return cls(workplace, target, home, limits)

    def identity(self) -> dict[str, str]:
        toolchain, target = self.target.toolchain, self.target
        folder = self.home / SURVEY
        build = lent_build(target, (), "", self.limits, folder)
        with self._site(build, folder / "sources") as site:
            nothing = Project(Path(PROJECT), "", (), (), 0)
            found = survey(site, self.workplace.message(build, nothing), self.limits)
        pins = build_of(toolchain, target.python, target.torch)
        return {"CUDA compiler": compiler_id(toolchain, pins), **found}

    @contextmanager
    def at_work(
        self, what: Settlement, origin: Path, folder: Path, reports: Reports
    ) -> Iterator[tuple[Worker, Store]]:
        listing = digest(sorted(compiler_files(origin, what.subdirectory)))
        check_places(str(VIEW_ROOT / what.name / "src"), listing, what)
        fronts = fronts_from_wire(list(what.fronts))
        build = lent_build(self.target, fronts, what.scope, self.limits, folder)
        with self._site(build, origin.parent) as site:
            message = self.workplace.message(build, project_of(what, Path(PROJECT)))
            worker = ContainerWorker("dask", site, message, self.limits, reports)
            try:
                yield worker, build.store
            finally:
                with suppress(FatwheelError):  # the engine went away
                    worker.close()

    @contextmanager
    def _site(self, build: Build, sources: Path) -> Iterator[DockerSite]:
        sources.mkdir(parents=True, exist_ok=True)
        with enrolled(build.logs.name, self.home, self.workplace.engine.endpoint) as roster:
            yield self.workplace.site(build, roster, sources)
