"""The context in which a build's units compile in a Windows, as this machine knows it.

The programs there make one of their own (`worker.workshop`). This one compiles nothing: by it this
machine computes the keys of what others have compiled, and reads the files that they name. Nothing
of it comes from the project's code, which ran there.
"""

from __future__ import annotations

import ntpath
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import Any

from ..storage.cache import LIMIT
from ..worker.context import Context, digest
from ..worker.inside import CAPTURED, Message
from ..worker.view import Places, compiler_files, outer_first
from .programs import System
from .windows import ProcessSite


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
