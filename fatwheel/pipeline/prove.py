"""Proves that fronts may be shared, or split, for a kernel: `invoke prove`.

Compiles units as nvcc by itself does and in other ways, compares the machine code of every kernel,
and writes the proof beside the recipe. It works as a build does, with any engine and toolchain.
Beside a recipe that is part of an installed fatwheel nothing is written: the user gets a copy of
it, with the proof.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..arch import ArchRequest
from ..compilers.nvcc import PARTS
from ..config.recipe import Recipe, Target
from ..containers.commandlines import quoted
from ..engines.base import Capture
from ..engines.registry import engine_for, toolchain_for
from ..errors import ConfigError, EngineError, UpstreamError, UsageError
from ..events import Emit, Note
from ..fatbin.container import Entry
from ..model import Front, Job, Unit
from ..shipped import OWN_KERNELS, is_installed
from ..storage.cache import cache_folder, users_stores
from ..storage.files import check_writable
from ..storage.store import Store
from ..text import count
from ..toolchain.homes import check_accepted
from ..toolchain.interpreters import build_of, compiler_id
from ..worker.assemble import Lookup, all_jobs
from ..worker.slices import load_slice
from .capture import captured
from .compile import Effort, compile_work
from .costs import plan_work
from .plan import PlannedWheel, exact_fronts, shared_fronts, split_fronts
from .proof import (
    ELSEWHERE,
    FOLDER,
    WAYS,
    Proof,
    UnitProof,
    Way,
    compare,
    earlier,
    joined,
    loses_nothing,
    proof_path,
    select_units,
    source_id,
    write_proof,
)
from .resolve import ToolchainRequest, resolve

_LABELS: dict[Way, str] = {
    "shared": "shared front",
    "split": "split fronts",
    "both": "shared and split",
}


@dataclass(frozen=True)
class ProveRequest:
    """What `invoke prove` was asked for; None means the default. memory is in bytes.

    ways: some of WAYS, comma-separated. recipes: a folder in which the kernel is looked for first.
    """

    kernel: str
    archs: str | None
    units: str | None
    toolchain: str | None
    python: str | None
    jobs: int | None
    memory: int | None
    recipes: Path | None = None
    ways: str | None = None
    engine: str | None = None
    torch: str | None = None
    cuda: str | None = None
    platform: str | None = None

    @property
    def toolchains(self) -> ToolchainRequest:
        return ToolchainRequest(
            toolchain_for(self.engine), self.toolchain, self.cuda, self.torch, self.python,
            self.platform,
        )  # fmt: skip


# The images of units, by their names.
_Slices = dict[Unit, dict[str, Entry]]


def prove(request: ProveRequest, emit: Emit) -> Proof:
    """Make the proof and write it. Raises a FatwheelError."""
    target = _only(resolve(request.kernel, request.toolchains, request.archs, request.recipes))
    recipe, archs = target.recipe, tuple(ArchRequest(item.arch) for item in target.archs)
    own = exact_fronts(archs)
    ways = _fronts_of(_ways_of(request.ways, len(archs)), archs)
    source = source_id(recipe)
    if not is_installed(recipe.folder):
        check_writable(recipe.folder / FOLDER, "write the proof", ELSEWHERE)
    engine = engine_for(target.toolchain, request.engine)
    check_accepted(target.toolchain.msvc, cache_folder())
    workplace = engine.prepare(target, emit)
    effort = Effort(None, request.jobs, request.memory)
    known = tuple(sorted(front.virtual for front in own))
    proof = Proof(
        project=recipe.project,
        version=recipe.version,
        source=source,
        toolchain=target.toolchain.name,
        compiler_id=compiler_id(
            target.toolchain, build_of(target.toolchain, target.python, target.torch)
        ),
        front=known[0],
        archs=known,
        parts=PARTS if any(front.split for fronts in ways.values() for front in fronts) else 0,
        units=(),
        path=proof_path(recipe, target.toolchain, known),
    )
    before = earlier(proof)

    def made(fronts: tuple[Front, ...], label: str) -> _Slices:
        limits = effort.limits(workplace.capacity)
        wheel = PlannedWheel(target, fronts)
        with captured(wheel, workplace, limits, users_stores(), emit) as (build, capture):
            units = _units_of(capture, request.units)
            if before:
                _check_joins(before, units, ways)
            lacking = _lacking(capture, units, fronts, build.store)
            work = plan_work(lacking, build.store, recipe)
            compile_work(work, build, capture, effort, engine.name, label, emit)
            return _slices(capture, units, fronts, build.store)

    # Split ones first: an nvcc that cannot do it says so before hours of compiling.
    order = sorted(ways, key=lambda way: not ways[way][0].split)
    split = {way: made(ways[way], _LABELS[way]) for way in order if ways[way][0].split}
    exact = made(own, "own fronts")
    found = {**split, **{way: made(ways[way], _LABELS[way]) for way in order if way not in split}}
    units = _compared(exact, {way: found[way] for way in ways})
    if before := earlier(proof):  # hours later: another run may have added to it
        _check_joins(before, units, ways)
    proof = replace(proof, units=units)
    if before:
        proof = joined(before, proof)
    if is_installed(recipe.folder):
        recipe = _copied(recipe, request.recipes or OWN_KERNELS, emit)
        proof = replace(proof, path=proof_path(recipe, target.toolchain, proof.archs))
    write_proof(proof)
    return proof


# -- what is compared ------------------------------------------------------------------------------


def _check_joins(before: Proof, units: Collection[Unit | UnitProof], ways: Iterable[Way]) -> None:
    """Refuse what could only take the place of an earlier proof."""
    if loses_nothing(before, {unit.name for unit in units}, set(ways)):
        return
    names = [unit.name for unit in before.units]
    every = ",".join(sorted({*names, *(unit.name for unit in units)}))
    tried = ",".join(way for way in WAYS if way in {*before.ways, *ways})
    all_of_it = quoted(
        ["--ways", tried, "--units", every], "windows" if os.name == "nt" else "linux"
    )
    raise UsageError(
        f"an earlier proof compares {count(len(names), 'unit')} ({', '.join(before.ways)}), and "
        "with this one no way would be tried with all units of both",
        where=str(before.path),
        details=names,
        hint=f"try all of it: {all_of_it}; or remove the file to begin anew",
    )


def _only(targets: Sequence[Target]) -> Target:
    if len(targets) > 1:
        raise UsageError(
            "a proof is about one toolchain",
            hint="name one Python, one torch and one CUDA",
        )
    return targets[0]


def _ways_of(asked: str | None, archs: int) -> tuple[Way, ...]:
    """The ways to try: by default all that there are for so many architectures."""
    if asked is None:
        return WAYS if archs > 1 else ("split",)
    words = [word.strip() for word in asked.split(",")]
    if unknown := [word for word in words if word not in WAYS]:
        raise UsageError(
            f"{unknown[0]!r} is not a valid choice",
            where="--ways",
            hint=f"valid, comma-separated: {', '.join(WAYS)}",
        )
    return tuple(way for way in WAYS if way in words)


def _fronts_of(ways: Sequence[Way], archs: Sequence[ArchRequest]) -> dict[Way, tuple[Front, ...]]:
    shared, own = shared_fronts(archs), exact_fronts(archs)
    if ("shared" in ways or "both" in ways) and (len(shared) != 1 or len(archs) < 2):
        raise UsageError(
            "a proof covers one front shared by several architectures of one family",
            where="--arch " + ",".join(map(str, archs)),
            hint="name two or more with the same major number: 80,86,89 or 100,103; or do not try "
            "to share: --ways split",
        )
    every: dict[Way, tuple[Front, ...]] = {
        "shared": shared, "split": split_fronts(own), "both": split_fronts(shared),
    }  # fmt: skip
    return {way: every[way] for way in ways}


def _units_of(capture: Capture, pattern: str | None) -> tuple[Unit, ...]:
    # Those that are for some architectures alone have an exact front for each in any case.
    everywhere = tuple(unit for unit in capture.units if unit.images is None)
    units = select_units(everywhere, pattern)
    if units:
        return units
    known = [unit.name for unit in select_units(everywhere, None)]
    if not known:
        raise UsageError(
            "there is nothing to compare: no CUDA unit of this project is for all architectures",
            where=f"--units {pattern}" if pattern else "",
        )
    raise UsageError(
        "no unit matches",
        where=f"--units {pattern}",
        details=known,
        hint="names of those above, or globs over them, separated by commas",
    )


def _lacking(
    capture: Capture, units: Sequence[Unit], fronts: Sequence[Front], store: Store
) -> Lookup:
    """The device code of some units that the store lacks; host objects say nothing here."""
    found = capture.look_up()
    keys = _keys(capture, fronts, found)

    def lacks(unit: Unit, code: str) -> bool:
        key = keys.get((unit, code))
        return not (key and store.has("slice", key) and store.has("abi", key))

    pending: list[Job] = []
    for job in found.pending:
        if job.unit in units and job.front:
            codes = tuple(code for code in job.front.codes if lacks(job.unit, code))
            if codes:
                pending.append(replace(job, front=replace(job.front, codes=codes), host=False))
    slices = sum(len(front.codes) for front in fronts) * len(units)
    lacking = sum(len(job.front.codes) for job in pending if job.front)
    return Lookup(tuple(pending), len(units), slices, slices - lacking, archlist_units=())


def _keys(capture: Capture, fronts: Sequence[Front], found: Lookup) -> dict[tuple[Unit, str], str]:
    """The keys of slices, as far as a look-up knows them."""
    keys: dict[tuple[Unit, str], str] = {}
    for job, made in zip(all_jobs(capture.units, fronts), found.made, strict=True):
        slices = [key for kind, key in made if kind == "slice"]
        if job.front and len(slices) == len(job.front.codes):
            keys |= zip(((job.unit, code) for code in job.front.codes), slices, strict=True)
    return keys


def _slices(
    capture: Capture, units: Sequence[Unit], fronts: Sequence[Front], store: Store
) -> _Slices:
    """The cubins of some units. Raises EngineError where one is not there, though all were made."""
    keys = _keys(capture, fronts, capture.look_again())
    slices: _Slices = {}
    for unit in units:
        for code in (code for front in fronts for code in front.codes):
            key = keys.get((unit, code))
            data = store.get("slice", key) if key else None
            entries = load_slice(data) if data is not None else ()
            if len(entries) != 1:
                raise EngineError(
                    "code that was just compiled is not in the store",
                    where=f"{unit.name} [{code}]",
                    hint="something may be changing the sources or the store while this runs",
                )
            slices.setdefault(unit, {})[code] = entries[0]
    return slices


def _compared(exact: _Slices, found: Mapping[Way, _Slices]) -> tuple[UnitProof, ...]:
    if any(slices.keys() != exact.keys() for slices in found.values()):
        raise UpstreamError(
            "the project's build does not compile the same units each time",
            hint="its commands must be the same whenever it is built",
        )
    return tuple(
        compare(unit.name, own, {way: slices[unit] for way, slices in found.items()})
        for unit, own in exact.items()
    )


# -- where it is written ---------------------------------------------------------------------------


def _copied(recipe: Recipe, folder: Path, emit: Emit) -> Recipe:
    """A recipe in a folder of the user's, where it is found first. Raises ConfigError."""
    own = folder / recipe.name
    part = folder / f".{secrets.token_hex(8)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(recipe.folder, part, ignore=shutil.ignore_patterns("__pycache__"))
        part.rename(own)
    except OSError as error:
        raise ConfigError(
            f"cannot copy the recipe that comes with fatwheel: {error}",
            where=str(own),
            hint="the proof is written beside a copy; name another folder: --recipes FOLDER",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    emit(Note(f"{own}: a copy of the recipe that comes with fatwheel"))
    return replace(recipe, folder=own)
