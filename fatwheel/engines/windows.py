"""Targets for Windows, built by processes: on Windows itself, or on Linux by Wine.

A process runs what a container would (`worker.inside`), with the Python of the toolchain. What it
needs is shown below a short path that is the same for everybody who builds the project.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from ..config.pinned import Download, Package
from ..config.recipe import Target
from ..config.toolchain import Toolchain
from ..errors import EngineError, ToolchainError
from ..events import Emit, Event, Note, silent, step
from ..machine import WINDOWS, cores, free_memory, in_words, this_platform, windows_build
from ..model import Environment, Host
from ..provenance.lock import Material
from ..provision.tools import Run
from ..shipped import PACKAGE
from ..storage.cache import VARIABLE, cache_folder, downloads_folder, remove_tree
from ..storage.files import disk_error
from ..text import clean
from ..toolchain.windows import WindowsTools, windows_tools
from ..worker.context import digest
from ..worker.inside import ASSEMBLE, CAPTURE, CAPTURED, PROJECT, Message
from ..worker.upstream import Project
from ..worker.workshop import UPSTREAM
from . import wine
from .base import Build, Limits
from .contained import ImageCapture, capture, log_of, new_incoming
from .programs import Places, Program, System, runner

_LEAST = 17763  # Windows' build that first has all that is used: 1809, and Server 2019
_SHOWN = 200  # characters of an answer that makes no sense
OPTIONS = ("-I", "-B", "-X", "utf8", "-c")  # of Python, before its code
_CODE = "import sys; sys.path.insert(0, sys.argv[1]); "  # the folder that holds fatwheel
_START = f"{_CODE}from fatwheel.worker.inside import main; main()"
_PROVISION = f"{_CODE}from fatwheel.provision.image import main; main(sys.argv[2:])"


def obstacle(toolchain: Toolchain) -> str:
    """Why nothing can be built here with a toolchain for Windows; the end of a sentence, or ''."""
    here = this_platform()
    if here == WINDOWS and toolchain.device_packages:
        return "lets CUDA's compilers for Linux make device code, and this is Windows"
    if here == WINDOWS and windows_build() < _LEAST:
        return f"needs Windows 10 1809 (build {_LEAST}) or newer, and this is {windows_build()}"
    if here == WINDOWS:
        return ""
    if here != "linux-x86_64":
        return f"is for {in_words(toolchain.platform)}, and this machine is {in_words(here)}"
    return wine.obstacle()


def held(name: str, emit: Emit) -> AbstractContextManager[System]:
    """A Windows, for a build of this name alone. Raises EngineError or StoreError where there is
    none."""
    if sys.platform == "win32":
        from . import ownwindows

        return ownwindows.held(name, emit)
    return wine.held(name, cache_folder(), emit)


def lent(name: str, place: Path, counted: Path) -> AbstractContextManager[System]:
    """A Windows for a build elsewhere, whose jobs run here: Wine's is that build's own, in a folder
    `place`. Raises EngineError or StoreError where there is none.

    counted: the file in which is counted what was killed here (see `processes.KILLS_VARIABLE`).
    """
    if sys.platform == "win32":
        from . import ownwindows

        return ownwindows.held(name, _not_twice)
    return wine.held(name, place, silent, counted)


def _not_twice(event: Event) -> None:
    """A build that waits for its workers may be the one that is waited for."""
    raise EngineError(
        "another build of this project is at work on this machine",
        hint="on Windows, one at a time: it may be the one that this worker is to help",
    )


def ready_tools(target: Target, emit: Emit) -> WindowsTools:
    """A target's toolchain, made where it does not exist yet."""
    toolchain = target.toolchain
    with step(emit, "toolchain", f"{toolchain.name}, Python {target.python}"):
        return ensure_tools(toolchain, target.python, target.torch, emit)


def ensure_tools(toolchain: Toolchain, python: str, torch: str, emit: Emit) -> WindowsTools:
    """A toolchain with one Python and torch, made where it does not exist yet.

    Raises UsageError where the toolchain has no such, EngineError where no program of Windows runs
    here, and what `WindowsTools.ensure` raises.
    """
    tools = windows_tools(toolchain, python, torch, cache_folder())
    if not tools.is_made():
        tools.fetch(emit)  # before a Windows is made that may be of no use
        with held("tools", emit) as system:
            tools.ensure(runner(system), emit)
    return tools


def tools_files(target: Target) -> list[tuple[Package | Download, Path]]:
    """The files of a target's tools that are not unpacked yet, and where they go."""
    tools = windows_tools(target.toolchain, target.python, target.torch, cache_folder())
    return [(pin, downloads_folder()) for pin in tools.pinned_files]


@dataclass(frozen=True)
class WindowsWorkplace:
    """Tools for Windows on this machine."""

    tools: WindowsTools
    scope: ClassVar[tuple[str, ...]] = ("processes", "windows")
    materials: ClassVar[tuple[Material, ...]] = ()

    @property
    def identity(self) -> str:
        return digest(self.tools.root.name)

    @property
    def surroundings(self) -> str:
        return self.identity

    @property
    def capacity(self) -> Limits:
        return Limits(cores(), free_memory())

    @contextmanager
    def capture(self, build: Build, emit: Emit) -> Iterator[ImageCapture]:
        emit(Note(f"logs of the processes: {build.logs}"))
        with held(build.name, emit) as system:
            site = ProcessSite(system, build, self.tools)
            yield capture(site, site.prepare(), build.limits, emit)


def task_of(system: Places) -> tuple[str, ...]:
    """What runs a task of a build: see `worker.inside`."""
    python = str(system.place / "env" / "python.exe")
    return (python, *OPTIONS, _START, system.path(PACKAGE.parent))


@dataclass(frozen=True)
class WindowsSite(ABC):
    """Where a build's programs of Windows run: see `contained.Site`. system: where they find
    things."""

    system: Places
    build: Build
    tools: WindowsTools

    @property
    @abstractmethod
    def run(self) -> Run:
        """Runs a program of Windows to its end."""

    @property
    def sources(self) -> Path:
        return self.build.work / "sources"

    @property
    def described(self) -> dict[str, Any]:
        """What programs are told of the tools, once they are shown. Raises OSError."""
        found: dict[str, Any] = json.loads(self._description.read_text(encoding="utf-8"))
        return found

    @property
    def host(self) -> Host:
        """The same as a lock has it. Raises OSError."""
        found = self.described
        python = found["environment"]["python_version"]
        return Host(found["compiler"], found["host_id"], python)

    def prepare(self) -> Message:
        """Show the tools, unpack the project; what programs are told of both. Raises StoreError
        where the disk does not do."""
        with self._on_disk():
            place = self.sources / PROJECT
            place.parent.mkdir(parents=True, exist_ok=True)
            project = self.build.unpack(place)
            return self._message(project.at(project.root.relative_to(place)))

    def prepare_for(self, project: Project, captured: Path) -> Message:
        """The same for a project that was captured elsewhere, of whose sources a folder has a copy.

        Raises StoreError.
        """
        with self._on_disk():
            place = self.sources / CAPTURED
            remove_tree(place)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(captured, place, copy_function=os.link)
            return self._message(project)

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            option = f"{VARIABLE}=FOLDER"
            raise disk_error(error, "get the tools ready", self.build.work, option) from error

    @property
    def _description(self) -> Path:
        return self.sources / "environment.json"

    def _message(self, project: Project) -> Message:
        """project: root is its folder's name among the sources."""
        build, system = self.build, self.system
        for folder in (self.sources, build.stores.own, *build.stores.trunks):
            folder.mkdir(parents=True, exist_ok=True)
        self._description.write_text(json.dumps(self._described()), encoding="utf-8")
        return Message(
            task=CAPTURE, name=build.name, project=project, fronts=build.fronts, units=(),
            compiler_id=self.tools.environment(self.tools.root).compiler_id,
            scope=build.scope, seeded=build.seeded, threads=build.limits.cpus, audit=build.audit,
            description=system.path(self._description), sources=system.path(self.sources),
            store=system.path(build.stores.own), incoming="", work=str(system.place),
            trunk=system.path(build.stores.trunk) if build.stores.trunk else "",
        )  # fmt: skip

    def incoming(self) -> Path:
        return new_incoming(self.build)

    def addressed(self, message: Message, incoming: Path) -> Message:
        return replace(message, incoming=self.system.path(incoming))

    def _described(self) -> dict[str, Any]:
        """What `worker.inside` must know of the tools; see `provision.image`."""
        tools, system = self.tools, self.system
        real, place = tools.environment(tools.root), system.place / "env"
        system.show(real.root, "env")
        return {
            "environment": {
                "root": str(place),
                "python": str(place / "python.exe"),
                "site": str(place / "Lib" / "site-packages"),
                "cuda_home": system.show(self._cuda_home(real), "cuda"),
                "include": str(place / "include"),
                "python_version": real.python_version,
                "torch": real.torch,
            },
            "compiler": f"cl {tools.cl}",
            **self._compiler(system.show(tools.msvc.root, "msvc")),
        }

    def _cuda_home(self, real: Environment) -> Path:
        """The toolchain's, or one whose cicc and ptxas let those for Linux do the greater part."""
        programs = self.tools.programs_of_linux()
        if not programs:
            return real.cuda_home
        home = self.build.work / "cuda"
        python = str(self.system.place / "env" / "python.exe")
        wine.make_cuda_home(home, real, programs, python, self.system)
        return home

    def _compiler(self, home: str) -> dict[str, Any]:
        """Where the C++ compiler is, the digest of what it is made of, and its variables."""
        python = self.tools.environment(self.tools.root).python
        code = self.system.path(PACKAGE.parent)
        options = ["compiler", "--msvc", home, "--cl", self.tools.cl]
        said = self.run([str(python), *OPTIONS, _PROVISION, code, *options])
        with suppress(ValueError, RecursionError):
            found = json.loads(said)
            if isinstance(found, dict):
                return found
        raise ToolchainError(
            "the toolchain's Python does not say where the C++ compiler is",
            where=str(python),
            details=[clean(said[:_SHOWN])],
            hint=f"delete its environment, and it is made again: {python.parent}",
        )


@dataclass(frozen=True)
class ProcessSite(WindowsSite):
    """Processes of this machine's Windows, or its Wine's."""

    system: System
    kind: ClassVar[str] = "process"

    @property
    def image(self) -> str:
        return self.tools.toolchain.name

    @property
    def run(self) -> Run:
        return runner(self.system)

    def container(
        self, purpose: str, incoming: Path, limits: Limits, on_line: Callable[[str], None]
    ) -> Program:
        if purpose in (CAPTURE, ASSEMBLE):
            self._forget()
        log = log_of(self.build, purpose)
        return Program(self.system, task_of(self.system), limits.memory, on_line, log)

    def _forget(self) -> None:
        """Delete what upstream's build left the last time, here where no link is followed: Wine's
        programs take links for folders."""
        for name in (PROJECT, UPSTREAM):
            remove_tree(self.system.real(self.system.place / name))
