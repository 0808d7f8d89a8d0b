"""The engines by name, and the choice among them. An engine is loaded when it is asked for."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator

from ..config.toolchain import Toolchain
from ..errors import UsageError
from ..shipped import default_toolchain
from .base import Engine


def _process() -> Engine:
    from .process import Processes

    return Processes()


def _docker() -> Engine:
    from .docker import Docker

    return Docker()


def _dask() -> Engine:
    from .dask import Dask

    return Dask()


# In the order in which they are preferred.
ENGINES: dict[str, Callable[[], Engine]] = {
    "process": _process, "docker": _docker, "dask": _dask,
}  # fmt: skip


def engine_named(name: str) -> Engine:
    """The engine of a name. Raises UsageError where there is none."""
    if name not in ENGINES:
        raise UsageError(
            f"{name!r} is not a valid choice",
            where="--engine",
            hint=f"valid: {', '.join(ENGINES)}",
        )
    return ENGINES[name]()


def toolchain_for(asked: str | None) -> str:
    """The toolchain of this system, or of what the engine that is asked for builds for."""
    known = asked in ENGINES
    return default_toolchain(engine_named(asked).system() if asked and known else _system())


def images_toolchain() -> str:
    """The toolchain of what the first engine that uses images builds for."""
    return default_toolchain(next(one for one in _every() if one.uses_images).system())


def _system() -> str:
    return platform.system().lower()


def engine_for(toolchain: Toolchain, asked: str | None, *, foreign: bool = False) -> Engine:
    """The engine asked for, or the first that can build with a toolchain; foreign code goes where
    it is isolated, if that engine answers. Raises UsageError where none can be."""
    if asked is not None:
        return _checked(toolchain, engine_named(asked))
    possible = _possible(toolchain)
    first = next(possible, None)
    if first is None:
        raise UsageError(
            "no engine can build with this toolchain here",
            where=f"--toolchain {toolchain.name}",
            details=[f"--engine {one.name}: it {one.obstacle(toolchain)}" for one in _every()],
        )
    if first.yields(toolchain) or (foreign and not first.isolated):
        return next((one for one in possible if one.isolated and one.answers(toolchain)), first)
    return first


def _checked(toolchain: Toolchain, engine: Engine) -> Engine:
    obstacle = engine.obstacle(toolchain)
    if not obstacle:
        return engine
    other = next(_possible(toolchain), None)
    raise UsageError(
        f"toolchain {toolchain.name} {obstacle}",
        where=f"--engine {engine.name}",
        hint=f"use --engine {other.name}" if other else "use another toolchain",
    )


def _possible(toolchain: Toolchain) -> Iterator[Engine]:
    """The engines that can build with a toolchain; those that emulate its system come last."""
    for emulating in (False, True):
        for engine in _every():
            if not engine.obstacle(toolchain) and engine.emulates(toolchain) is emulating:
                yield engine


def _every() -> Iterator[Engine]:
    return (load() for load in ENGINES.values())
