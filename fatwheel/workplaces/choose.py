"""Which engine builds with a toolchain, and its premises."""

from __future__ import annotations

import platform
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import EngineError, UsageError
from ..events import Emit
from ..model import Target, Toolchain

if TYPE_CHECKING:  # what builds needs more of a system than saying what would build
    from .base import Premises

PROCESS, DOCKER = "process", "docker"
ENGINES = (PROCESS, DOCKER)
TOOLCHAINS = {"linux": "linux-cuda13.0", "windows": "windows-msvc17.8-cuda12.3"}  # by system


def default_toolchain(engine: str | None) -> str:
    """The toolchain of this system, or of what the containers are that it is asked to use."""
    system = platform.system().lower()
    if engine == DOCKER:
        from ..containers.client import connect

        # An engine that does not answer is reported once it is needed; a plan needs none.
        with suppress(EngineError):
            system = connect().os
    return TOOLCHAINS.get(system, TOOLCHAINS["linux"])


def engine_for(toolchain: Toolchain, asked: str | None) -> str:
    """The engine asked for, or the one that fits. Raises UsageError where one cannot be."""
    here = f"{platform.system()}-{platform.machine()}".lower()
    if asked is None:
        local = toolchain.runs_in_processes and toolchain.platform == here
        return PROCESS if local else DOCKER
    if asked not in ENGINES:
        raise UsageError(
            f"{asked!r} is not a valid choice",
            where="--engine",
            hint=f"valid: {', '.join(ENGINES)}",
        )
    if asked == DOCKER and toolchain.containers is None:
        raise UsageError(
            f"toolchain {toolchain.name} has no images", where="--engine docker",
            hint="its file says nothing of [containers]; use --engine process",
        )  # fmt: skip
    return asked


def premises_for(target: Target, engine: str, emit: Emit) -> Premises:
    """Make ready what a target is built with: an environment on this machine, or an image."""
    # Imported here: what belongs to the other engine need not be waited for.
    if engine == PROCESS:
        from .local import local_premises

        return local_premises(target, emit)
    from .contained import contained_premises

    return contained_premises(target, emit)
