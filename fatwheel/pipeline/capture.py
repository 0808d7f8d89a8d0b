"""Captures targets: what a project's build compiles and links, before anything is compiled.

A build begins so; `invoke capture` shows it, for whoever writes a recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ..config.recipe import Target
from ..engines.base import Build, Capture, Limits, Workplace, new_logs
from ..errors import FormatError, UpstreamError, UsageError
from ..events import Emit, Note, step
from ..model import Front, Job, Unit
from ..storage.cache import VARIABLE, Stores, cache_folder, users_stores, work_folder
from ..storage.files import disk_error
from ..toolchain.homes import check_accepted
from ..wheels.name import canonical_project, canonical_version, parse_wheel_name
from ..worker.archs import codes_of, told
from ..worker.secondkey import OFF
from ..worker.upstream import Project
from .plan import BuildPlan, PlannedWheel
from .requirements import check_requirements
from .scope import scope_of
from .share import division
from .source import unpack

C = TypeVar("C", bound=Capture)


@dataclass(frozen=True)
class CaptureReport:
    """What was captured of a target. notes: what the user should know of it. shares: how several
    machines would divide its jobs, with their costs by the recipe."""

    target: Target
    fronts: tuple[Front, ...]
    units: tuple[Unit, ...]
    links: tuple[tuple[str, ...], ...]
    wheel: str
    notes: tuple[str, ...]
    shares: tuple[tuple[Job, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `invoke capture --json` prints it (capture.schema.json)."""
        target = self.target
        return {
            "kernel": target.recipe.name,
            "project": target.recipe.project,
            "version": target.recipe.version,
            "toolchain": target.toolchain.name,
            "python": target.python,
            "torch": target.torch,
            "archs": list(map(str, target.archs)),
            "wheel": self.wheel,
            "units": [self._unit(unit) for unit in self.units],
            "links": list(map(list, self.links)),
            "notes": list(self.notes),
            "shares": [
                {
                    "share": f"{number}/{len(self.shares)}",
                    "seconds": sum(job.seconds for job in jobs),
                    "longest": max((job.seconds for job in jobs), default=0),
                    "memory": max((job.memory for job in jobs), default=0),
                    "jobs": [job.label for job in jobs],
                }
                for number, jobs in enumerate(self.shares, 1)
            ],
        }

    def _unit(self, unit: Unit) -> Mapping[str, Any]:
        return {
            "name": unit.name,
            "kind": unit.kind,
            "source": unit.source,
            "own": list(unit.own),
            "images": list(codes_of(unit, self.fronts)) if unit.kind == "cuda" else [],
            "codegen": list(unit.codegen),
            "preprocessor": list(unit.preprocessor),
        }


def capture(plan: BuildPlan, emit: Emit, shares: int = 0) -> CaptureReport:
    """Capture the one target of a plan; what compilers would be called with is not executed.

    shares: among how many machines its jobs are divided, to be shown; 0 for none.

    Raises what building would raise before it compiles.
    """
    if len(plan.wheels) > 1:
        raise UsageError(
            "only one target is captured at a time",
            hint="name one Python, one torch and one CUDA",
        )
    [wheel] = plan.wheels
    check_accepted(wheel.target.toolchain.msvc, cache_folder())
    workplace = plan.engine.prepare(wheel.target, emit)
    limits, stores = plan.effort.limits(workplace.capacity), users_stores()
    with captured(wheel, workplace, limits, stores, emit) as (build, found):
        check_named(found.wheel, wheel.target)
        planned = tuple(told(found.units, wheel.fronts))
        for words in planned:  # engines tell the others
            emit(Note(words))
        notes = (*found.notes, *planned)
        divided = division(found, wheel.target.recipe, build, shares) if shares else ()
        return CaptureReport(
            wheel.target, wheel.fronts, found.units, found.links, found.wheel, notes,
            tuple(map(tuple, divided)),
        )  # fmt: skip


@contextmanager
def captured(
    wheel: PlannedWheel,
    workplace: Workplace[C],
    limits: Limits,
    stores: Stores,
    emit: Emit,
    audit: int = OFF,
) -> Iterator[tuple[Build, C]]:
    """The captured target of a wheel; its work folder goes when the block ends.

    Raises what capturing does.
    """
    target = wheel.target
    logs = _log_folder(target)
    with work_folder() as work:
        build = Build(
            target=target,
            fronts=wheel.fronts,
            unpack=lambda folder: unpacked(wheel, folder, emit),
            stores=stores,
            scope=scope_of(target.recipe, workplace.scope),
            limits=limits,
            work=work,
            logs=logs,
            audit=audit,
        )
        with workplace.capture(build, emit) as capture:
            yield build, capture


def unpacked(wheel: PlannedWheel, folder: Path, emit: Emit) -> Project:
    """A wheel's source in a folder, with what its build needs. Raises ToolchainError where that is
    pinned nowhere, and what `unpack` raises."""
    target, recipe = wheel.target, wheel.target.recipe
    with step(emit, "source", f"{recipe.project} {recipe.version}"):
        project = unpack(recipe, cache_folder(), folder, emit)
        check_requirements(project.root, target)
        return replace(project, flags=target.flags, front_units=wheel.front_units)


def _log_folder(target: Target) -> Path:
    """A new folder for what the workers of a target's build say."""
    parent = cache_folder() / "logs"
    recipe = target.recipe
    try:
        return new_logs(parent, f"{recipe.project}-{recipe.version}-{target.python}")
    except OSError as error:
        raise disk_error(error, "keep logs", parent, f"{VARIABLE}=FOLDER") from error


def check_named(wheel: str, target: Target) -> None:
    """Refuse a project that is not what the recipe says: what is made of it is compiled first."""
    recipe = target.recipe
    try:
        name = parse_wheel_name(wheel)
    except FormatError as error:
        raise UpstreamError(f"the project's build named its wheel {wheel!r}") from error
    found = canonical_project(name.project), canonical_version(name.version.partition("+")[0])
    if found != (canonical_project(recipe.project), canonical_version(recipe.version)):
        raise UpstreamError(
            f"the project builds {name.project} {name.version}, and the recipe says "
            f"{recipe.project} {recipe.version}",
            where=f"kernels/{recipe.name}",
            hint="correct project or version in the recipe; or give the project the variable from "
            "which it takes its version, such as SETUPTOOLS_SCM_PRETEND_VERSION",
        )
    own = f"cp{target.python.replace('.', '')}"
    for_it = own in name.python.split(".") or name.serves(target.python)
    if name.platform == "any" or not (for_it or name.python.startswith("py3")):
        raise UpstreamError(
            f"the project's wheel is tagged {name.python}-{name.abi}-{name.platform}, though it is "
            f"built for {own} and has libraries",
            where=f"kernels/{recipe.name}",
            hint="is there a variable that makes the project build its extension modules?",
        )
