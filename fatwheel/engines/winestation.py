"""What containers with Wine are made of: a Windows of their own, with the compilers of the
`process` engine, of which they see no more than one build needs.

    /fatwheel/tools/env, cuda, msvc    the toolchain's, read-only; C:\\b\\NAME has links to them
    /fatwheel/incoming/work            the Windows, as `docker/linux/run-in-windows.sh.j2` makes it

The rest lies where a container for Linux has it. No Docker here: a plan shows the same
specifications that the engine gets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from ..config.toolchain import Containers
from ..containers.layouts import (
    LINUX,
    RUN_IN_WINDOWS,
    TOOLS,
    ContainerSpec,
    Mount,
    seen_in_wine,
)
from ..toolchain.windows import WindowsTools
from ..worker.roots import SHORT_ROOT
from .base import Limits
from .windows import task_of

IN_WINE = Containers("linux", 0, ())


@dataclass(frozen=True)
class WineStation:
    """What all containers of one target have in common; see `dockerplan.Station`, and
    `programs.Places`. name: the build's."""

    image: str
    name: str
    tools: WindowsTools
    code: Path
    sources: Path
    store: Path
    trunk: Path | None = None

    @property
    def place(self) -> PureWindowsPath:
        return PureWindowsPath(SHORT_ROOT, self.name)

    def show(self, folder: Path, name: str) -> str:
        assert folder == dict(self._shown())[name]
        return str(self.place / name)

    def path(self, path: Path) -> str:
        for mount in self._mounts():
            if path.is_relative_to(mount.source):
                inside = path.relative_to(mount.source).as_posix()
                return seen_in_wine(mount.target if inside == "." else f"{mount.target}/{inside}")
        assert path == self.code.parent, path
        return seen_in_wine(LINUX.code)

    def container(self, purpose: str, incoming: Path, limits: Limits) -> ContainerSpec:
        """The container for a purpose, which may write to `incoming` and nowhere else."""
        return self.running(task_of(self), purpose, incoming, limits)

    def running(
        self, command: Sequence[str], purpose: str, incoming: Path, limits: Limits
    ) -> ContainerSpec:
        """The same for another program of Windows."""
        inside = Mount(str(incoming), LINUX.incoming, writable=True)
        mounts = (*self._mounts(), inside)
        return wine_container(self.image, self.place, command, mounts, purpose, limits)

    def _shown(self) -> Iterator[tuple[str, Path]]:
        made = self.tools.environment(self.tools.root)
        yield "env", made.root
        yield "cuda", made.cuda_home
        yield "msvc", self.tools.msvc.root

    def _mounts(self) -> Iterator[Mount]:
        yield Mount(str(self.code), LINUX.package, writable=False)
        yield Mount(str(self.sources), LINUX.sources, writable=False)
        yield Mount(str(self.store), LINUX.store, writable=False)
        if self.trunk:
            yield Mount(str(self.trunk), LINUX.trunk, writable=False)
        for name, folder in self._shown():
            yield Mount(str(folder), f"{TOOLS}/{name}", writable=False)


def wine_container(
    image: str,
    place: PureWindowsPath,
    command: Sequence[str],
    mounts: tuple[Mount, ...],
    purpose: str,
    limits: Limits,
    *,
    as_caller: bool = False,
) -> ContainerSpec:
    """A container that runs a program of Windows, with what is mounted as tools in `place`."""
    return ContainerSpec(
        purpose=purpose,
        image=image,
        command=("sh", RUN_IN_WINDOWS, "/".join(place.parts[1:]), *command),
        mounts=mounts,
        cpus=limits.cpus,
        memory=limits.memory,
        os="linux",
        as_caller=as_caller,
    )
