"""Toolchains for Windows on a Dask cluster: on Windows itself, or on Linux by Wine. A build's
compilers run on workers as those of a shard do with the `process` engine (`engines.windows`).

On Linux each build has a Wine of its own while it has jobs here: builds do not wait for each other,
nor for one that is made on the same machine, which may be the one that this worker helps.
"""

from __future__ import annotations

import ntpath
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, ClassVar

from ..config.recipe import Target
from ..errors import EngineError
from ..events import silent
from ..provision.msvc import headers_of, parts_of
from ..storage.cache import LIMIT, cache_folder
from ..storage.store import Store
from ..toolchain.homes import check_accepted
from ..toolchain.windows import WindowsTools
from ..worker.context import Context, digest, fronts_from_wire
from ..worker.inside import CAPTURED, PROJECT, Message
from ..worker.roots import SHORT_ROOT
from ..worker.surroundings import headers_below
from ..worker.view import Places, compiler_files, outer_first
from . import windows
from .base import Limits, Reports, Worker
from .contained import ContainerWorker
from .daskbench import Settlement, check_places, lent_build, project_of
from .programs import System
from .windows import ProcessSite


def identity_of(tools: WindowsTools) -> dict[str, str]:
    """See `daskbench.Equipment`. All of it is pinned: this says whether it is as it was unpacked.
    Raises ToolchainError, OSError."""
    made, msvc = tools.environment(tools.root), tools.msvc.root
    return {
        "CUDA compiler": made.compiler_id,
        "C++ compiler": f"cl {tools.cl} {digest(parts_of(msvc))}",
        "Python": made.python_version,
        "headers of Python": headers_below(made.include),
        "names of the system's headers": digest(headers_of(msvc)),
    }


@dataclass(frozen=True)
class WindowsEquipment:
    """A target's tools on this machine.

    limits: of each build's programs together, as far as this Windows can limit them. counted: the
    file in which is counted what a guard of this worker has killed.
    """

    tools: WindowsTools
    target: Target
    limits: Limits
    counted: Path
    tells_ends: ClassVar[bool] = False  # see `processes.KILLS_VARIABLE`

    @classmethod
    def ready(cls, target: Target, limits: Limits, counted: Path) -> WindowsEquipment:
        """Make the tools, if they are not here. Raises what that does, and UsageError where this
        machine's user has not accepted Microsoft's terms."""
        if obstacle := windows.obstacle(target.toolchain):
            raise EngineError(f"toolchain {target.toolchain.name} {obstacle}")
        check_accepted(target.toolchain.msvc, cache_folder())
        return cls(windows.ready_tools(target, silent), target, limits, counted)

    def identity(self) -> dict[str, str]:
        return identity_of(self.tools)

    @contextmanager
    def at_work(
        self, what: Settlement, origin: Path, folder: Path, reports: Reports
    ) -> Iterator[tuple[Worker, Store]]:
        fronts = fronts_from_wire(list(what.fronts))
        build = lent_build(self.target, fronts, what.scope, self.limits, folder)
        listing = digest(sorted(compiler_files(origin, what.subdirectory)))
        check_places(str(PureWindowsPath(SHORT_ROOT, build.name, "src")), listing, what)
        with windows.lent(build.name, folder, self.counted) as system:
            site = ProcessSite(system, build, self.tools)
            message = site.prepare_for(project_of(what, Path(PROJECT)), origin)
            with closing(ContainerWorker("dask", site, message, self.limits, reports)) as worker:
                yield worker, build.store


# -- where builds start ----------------------------------------------------------------------------

# The programs in a build's Windows make a context of their own (`worker.workshop`). That of the
# machine that builds compiles nothing: by it keys of what others have compiled are computed, and
# the files that they name are read. Nothing of it comes from the project's code, which ran there.


@dataclass(frozen=True, kw_only=True)
class WindowsPlaces(Places):
    """Places in a Windows that this machine has, whatever system this is itself."""

    system: System

    def real(self, path: str) -> str:
        return str(self.system.real(PureWindowsPath(ntpath.normpath(path))))

    def mapped(self) -> tuple[tuple[str, str], ...]:
        seen = [(folder, name) for name, folder in self.links]
        return (*outer_first(seen), (self.source, PureWindowsPath(self.source).parent.name))


def context_of(site: ProcessSite, message: Message) -> Context:
    """The context of a build whose capture has run. message: what its programs are told. Raises
    OSError."""
    build, place, described = site.build, site.system.place, site.described
    return Context(
        nvcc="",
        cxx=described["cxx"],
        device_id=message.compiler_id,
        host_id=described["host_id"],
        seeded=message.seeded,
        fronts=message.fronts,
        places=_places(site, message.project.subdirectory, described["environment"]),
        environment=(("SOURCE_DATE_EPOCH", str(message.project.epoch)),),
        scratch=str(place / "scratch"),
        store_root=str(build.stores.own),
        store_limit=LIMIT,
        store_scope=build.scope,
        store_trunks=tuple(map(str, build.stores.trunks)),
    )


def _places(site: ProcessSite, subdirectory: str, environment: dict[str, Any]) -> WindowsPlaces:
    files = compiler_files(site.sources / CAPTURED, subdirectory)
    return WindowsPlaces(
        source=str(site.system.place / "src"),
        links=(
            ("site", environment["site"]),
            ("env", environment["root"]),
            ("cuda", environment["cuda_home"]),
            ("python", environment["include"]),
        ),
        listing=digest(sorted(files)),
        files=tuple(sorted(files.items())),
        system=site.system,
    )
