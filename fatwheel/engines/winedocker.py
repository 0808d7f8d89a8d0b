"""Targets for Windows, built by the `docker` engine in Linux containers with Wine.

The compilers, Pythons and torches are those of the `process` engine, in the same folders of the
cache; the image has no more than Wine. A container gets a Windows of its own, and can change none
of these folders. What its programs are told, and how, is as in processes (`engines.windows`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import Any, ClassVar

from ..config.recipe import Target
from ..containers.client import DockerEngine
from ..containers.imagebuild import LOGS, ContainerImage, ensure_wine
from ..containers.layouts import LINUX, TOOLS, ContainerSpec, Mount, owner, seen_in_wine
from ..containers.roster import Roster, enrolled
from ..containers.running import RunningContainer
from ..errors import EngineError, ToolchainError
from ..events import Emit, Note, step
from ..machine import cores, free_memory
from ..provenance.lock import Material, wine_materials
from ..provision.tools import Run
from ..shipped import PACKAGE
from ..storage.cache import remove_tree, work_folder
from ..toolchain.windows import WindowsTools, windows_tools
from ..worker.context import digest
from ..worker.inside import Message
from ..worker.roots import SHORT_ROOT
from .base import Build, Limits
from .contained import ImageCapture, capture, log_of, new_incoming
from .dockerplan import is_pinned, pinned_here, wine_scope_of, within
from .windows import WindowsSite
from .winestation import WineStation, wine_container

_MOST_SAID = 1 << 20  # characters that a program may answer
_LAST = 10  # lines of a failing program that are shown
_READABLE = stat.S_IROTH | stat.S_IXOTH


def wine_workplace(engine: DockerEngine, target: Target, cache: Path, emit: Emit) -> WineWorkplace:
    """The image with Wine and a target's tools, made where they do not exist yet.

    Raises EngineError, and what making images and `WindowsTools.ensure` do.
    """
    toolchain, own = target.toolchain, pinned_here(target)
    with step(emit, "images", f"Wine, {toolchain.name}"):
        image = ensure_wine(engine, toolchain, cache, emit)
    tools = windows_tools(toolchain, target.python, target.torch, cache)
    with step(emit, "toolchain", f"{toolchain.name}, Python {target.python}"):
        if not tools.is_made():
            tools.fetch(emit)
            with work_folder() as work, enrolled("tools", work, engine.endpoint) as roster:
                trusted = is_pinned(target, own)
                shop = _Workshop(engine, roster, image, cache, work, trusted)
                tools.ensure(shop.run, emit)
    _check_readable(tools, engine)
    materials = (image.material, *wine_materials(toolchain))
    return WineWorkplace(engine, image, tools, wine_scope_of(target, own, image.tag), materials)


def _check_readable(tools: WindowsTools, engine: DockerEngine) -> None:
    """What was made when other users were kept out, containers of root's engine cannot read."""
    made = tools.environment(tools.root)
    for folder in (made.root, made.cuda_home, tools.msvc.root):
        if owner(engine) and folder.stat().st_mode & _READABLE != _READABLE:
            raise EngineError(
                "a folder of the toolchain is closed to other users, and so to containers",
                where=str(folder),
                hint=f"delete it, and it is made again: rm -r {folder}",
            )


@dataclass(frozen=True)
class WineWorkplace:
    """The image with Wine, and tools for Windows on this machine."""

    engine: DockerEngine
    image: ContainerImage
    tools: WindowsTools
    scope: tuple[Any, ...]
    materials: tuple[Material, ...]

    @property
    def identity(self) -> str:
        return digest(self.image.tag, self.tools.root.name)

    @property
    def surroundings(self) -> str:
        return self.identity

    @property
    def capacity(self) -> Limits:
        return within(Limits(cores(), free_memory()), self.engine)

    @contextmanager
    def capture(self, build: Build, emit: Emit) -> Iterator[ImageCapture]:
        emit(Note(f"logs of the containers: {build.logs}"))
        with enrolled(build.logs.name, build.work, self.engine.endpoint) as roster:
            station = WineStation(
                image=self.image.tag, name=build.name, tools=self.tools, code=PACKAGE,
                sources=build.work / "sources", store=build.stores.own, trunk=build.stores.trunk,
            )  # fmt: skip
            site = WineSite(station, build, self.tools, self.engine, roster)
            yield capture(site, site.prepare(), build.limits, emit)


@dataclass(frozen=True)
class WineSite(WindowsSite):
    """Where a build's containers run; see `docker.DockerSite`."""

    system: WineStation
    engine: DockerEngine
    roster: Roster
    kind: ClassVar[str] = "container"

    @property
    def image(self) -> str:
        return self.system.image

    @property
    def run(self) -> Run:
        def run(command: Sequence[str]) -> str:
            program, *arguments = command
            words = (self.system.path(Path(program)), *arguments)
            incoming, limits = self.incoming(), self.build.limits
            spec = self.system.running(words, "tools", incoming, limits)
            return answer_of(self.engine, spec, self.roster, log_of(self.build, "tools"))

        return run

    def incoming(self) -> Path:
        return new_incoming(self.build, owner(self.engine))

    def addressed(self, message: Message, incoming: Path) -> Message:
        """All containers see their own at the same place."""
        return replace(message, incoming=seen_in_wine(LINUX.incoming))

    def container(
        self, purpose: str, incoming: Path, limits: Limits, on_line: Callable[[str], None]
    ) -> RunningContainer:
        spec = self.system.container(purpose, incoming, limits)
        log = log_of(self.build, purpose)
        return RunningContainer(self.engine, spec, self.roster, on_line, log)


@dataclass(frozen=True)
class _Workshop:
    """Containers that try tools while they are made, before any project is there. They see no more
    than the folder that is being made.

    trusted: this checkout pins the tools. Then they may write into an environment, where Python
    keeps what it has compiled. Those of a lock from elsewhere may not: its files are hard links,
    which other environments have too.
    """

    engine: DockerEngine
    roster: Roster
    image: ContainerImage
    cache: Path
    work: Path
    trusted: bool

    def run(self, command: Sequence[str]) -> str:
        program, *arguments = command
        tools, inside = self._tools(Path(program))
        spec = wine_container(
            self.image.tag,
            PureWindowsPath(SHORT_ROOT, "tools"),
            (seen_in_wine(inside), *arguments),
            (tools, Mount(str(self._incoming()), LINUX.incoming, writable=True)),
            "tools",
            within(Limits(cores(), free_memory()), self.engine),
            as_caller=self.trusted,
        )
        log = self.cache / LOGS / "tools.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        return answer_of(self.engine, spec, self.roster, log)

    def _tools(self, program: Path) -> tuple[Mount, str]:
        """The folder of a program, and where the program is in a container. A cache may be made of
        links, and tools know their real places."""
        tops = {name: (self.cache / name).resolve() for name in ("envs", "cuda")}
        kind = next(name for name, top in tops.items() if program.is_relative_to(top))
        made, *rest = program.relative_to(tops[kind]).parts
        mount = Mount(
            str(tops[kind] / made), f"{TOOLS}/{kind}", writable=self.trusted and kind == "envs"
        )
        return mount, "/".join((mount.target, *rest))

    def _incoming(self) -> Path:
        folder = self.work / "tools"
        remove_tree(folder)
        folder.mkdir()
        user = owner(self.engine)
        if user is not None and not self.trusted:
            os.chown(folder, *user)
        return folder


def answer_of(engine: DockerEngine, spec: ContainerSpec, roster: Roster, log: Path) -> str:
    """Run a container's program to its end; what it printed. Raises ToolchainError where it fails,
    and what `RunningContainer` raises."""
    said: list[str] = []
    left = _MOST_SAID

    def hear(line: str) -> None:
        nonlocal left
        left -= len(line) + 1
        if left > 0:
            said.append(line)

    container = RunningContainer(engine, spec, roster, hear, log)
    container.start()
    try:
        ending = container.wait()
    finally:
        container.kill()
    if ending.code:
        program = next(word for word in spec.command if word.lower().endswith(".exe"))
        raise ToolchainError(
            f"{PureWindowsPath(program).name} fails in a container of {spec.image}",
            where=" ".join(spec.command[3:]),
            details=[*ending.last_lines, *said][-_LAST:],
            hint=f"its log: {log}",
        )
    return "\n".join(said)
