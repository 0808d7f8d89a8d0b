"""Chooses the engine, and the workplace of a build on it.

Premises are tools or images made ready: they know what a finished wheel depends on. A workplace is
there once the project is captured. Both kinds do the same things in the same order; what differs
between them ends here.
"""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Protocol

from ..config.model import Target, Toolchain
from ..engines.base import Engine, Limits
from ..errors import EngineError, UsageError
from ..events import Emit
from ..machine import this_platform
from ..model import Front, Host
from ..provenance.buildlock import Material
from ..shipped import default_toolchain
from ..storage.store import Store
from ..worker.assemble import Lookup, SliceDigests
from .resolve import Stores


class Workplace(Protocol):
    """A captured target. store: what belongs to it, with its scope. scratch: a folder of this
    build's own. host: what of the machine, or of the image, reaches the wheel."""

    @property
    def engine(self) -> Engine: ...

    @property
    def lookup(self) -> Lookup: ...

    @property
    def host(self) -> Host: ...

    @property
    def store(self) -> Store: ...

    @property
    def scratch(self) -> Path: ...

    def assemble(self, limits: Limits) -> tuple[Path, SliceDigests]:
        """Upstream's wheel, and the digests of the slices in it."""


class Premises(Protocol):
    """What a target is built with, ready to be used.

    compiler_id: digest of its CUDA compilers. identity: everything of the place that can reach
    the wheel's bytes. materials: what is told of it beside the wheel. cores, memory (bytes): what
    a build may use unless it is told otherwise.
    """

    @property
    def compiler_id(self) -> str: ...

    @property
    def identity(self) -> str: ...

    @property
    def materials(self) -> tuple[Material, ...]: ...

    @property
    def cores(self) -> int: ...

    @property
    def memory(self) -> int: ...

    def workplace(
        self,
        target: Target,
        fronts: tuple[Front, ...],
        limits: Limits,
        stores: Stores,
        emit: Emit,
    ) -> AbstractContextManager[Workplace]:
        """Capture the target; what that leaves behind goes when the block ends, but for what is in
        `stores`."""


# -- the choice of an engine -----------------------------------------------------------------------

# Which engine builds with a toolchain, and its premises.


PROCESS, DOCKER = "process", "docker"
ENGINES = (PROCESS, DOCKER)


def toolchain_for(engine: str | None) -> str:
    """The toolchain of this system, or of what the containers are that it is asked to use."""
    system = platform.system().lower()
    if engine == DOCKER:
        from ..containers.client import connect

        # An engine that does not answer is reported once it is needed; a plan needs none.
        with suppress(EngineError):
            system = connect().os
    return default_toolchain(system)


def engine_for(toolchain: Toolchain, asked: str | None, *, foreign: bool = False) -> str:
    """The engine asked for, or the first that can be; for foreign code containers come first, where
    an engine answers. Raises UsageError where one cannot be."""
    if asked is not None and asked not in ENGINES:
        raise UsageError(
            f"{asked!r} is not a valid choice",
            where="--engine",
            hint=f"valid: {', '.join(ENGINES)}",
        )
    obstacles = {PROCESS: _no_processes(toolchain), DOCKER: _no_images(toolchain)}
    possible = [engine for engine in ENGINES if not obstacles[engine]]
    if asked in possible:
        return asked
    if asked is not None:
        raise UsageError(
            f"toolchain {toolchain.name} {obstacles[asked]}",
            where=f"--engine {asked}",
            hint=f"use --engine {possible[0]}" if possible else "use another toolchain",
        )
    if not possible:
        raise UsageError(
            "no engine can build with this toolchain here",
            where=f"--toolchain {toolchain.name}",
            details=[f"--engine {engine}: it {why}" for engine, why in obstacles.items()],
        )
    return DOCKER if foreign and DOCKER in possible and _answers(toolchain) else possible[0]


def _answers(toolchain: Toolchain) -> bool:
    """Whether there is an engine that runs a toolchain's containers."""
    from ..containers.client import connect

    assert toolchain.containers is not None, "it has images"
    with suppress(EngineError):
        return connect().os == toolchain.containers.os
    return False


def _no_processes(toolchain: Toolchain) -> str:
    """Why a toolchain cannot be used without containers, or nothing."""
    here = this_platform()
    if toolchain.platform != here:
        return f"is for {toolchain.platform}, and this machine is {here}"
    if not toolchain.runs_in_processes:
        return "cannot be installed from packages alone: it needs container images"
    return ""


def _no_images(toolchain: Toolchain) -> str:
    """Why a toolchain cannot be used in containers, or nothing."""
    if toolchain.containers is None:
        return "has no container images: its file has no [containers] table"
    return ""


def premises_for(target: Target, engine: str, emit: Emit) -> Premises:
    """Make ready what a target is built with: an environment on this machine, or an image."""
    # Imported here: what belongs to the other engine need not be waited for.
    if engine == PROCESS:
        from .local import local_premises

        return local_premises(target, emit)
    from .contained import contained_premises

    return contained_premises(target, emit)
