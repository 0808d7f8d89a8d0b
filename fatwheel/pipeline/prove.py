"""Proves that architectures may share a front: `invoke prove`.

Compiles units with a front for each architecture and with a shared one, compares the machine code
of every kernel, and writes the proof beside the recipe. Beside a recipe that is part of an
installed fatwheel nothing is written: the user gets a copy of it, with the proof.
"""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from ..arch import Arch, ArchRequest
from ..config.model import Recipe, Target
from ..engines.process import Processes, local_workplace
from ..errors import ConfigError, UsageError
from ..events import Emit, Note
from ..fatbin.container import Entry
from ..machine import in_words
from ..model import Front, Job, Unit
from ..shipped import OWN_KERNELS, is_installed
from ..storage.cache import users_stores
from ..worker.assemble import Lookup
from ..worker.context import Context
from ..worker.preprocess import Texts, pass_of
from ..worker.slices import load_slice, missing, slice_key
from .capture import captured
from .compile import Effort, compile_work, estimated
from .plan import exact_fronts, shared_fronts
from .proof import Proof, compare, proof_path, select_units, write_proof
from .resolve import ToolchainRequest, resolve


@dataclass(frozen=True)
class ProveRequest:
    """What `invoke prove` was asked for; None means the default. memory is in bytes.

    recipes: a folder in which the kernel is looked for first.
    """

    kernel: str
    archs: str | None
    units: str | None
    toolchain: str
    python: str | None
    jobs: int | None
    memory: int | None
    recipes: Path | None = None


def prove(request: ProveRequest, emit: Emit) -> Proof:
    """Make the proof and write it, on this machine. Raises a FatwheelError."""
    asked = ToolchainRequest(request.toolchain, request.toolchain, pythons=request.python)
    target = resolve(request.kernel, asked, request.archs, request.recipes)[0]
    if target.toolchain.brings_all:
        raise UsageError(
            f"proofs are made with toolchains for Linux, and this one is for "
            f"{in_words(target.toolchain.platform)}",
            where=f"--toolchain {target.toolchain.name}",
            hint="such a build shares fronts if it is told to: --front shared",
        )
    archs = tuple(ArchRequest(item.arch) for item in target.archs)
    shared, own = shared_fronts(archs, lambda front, family: True), exact_fronts(archs)
    if len(shared) != 1 or len(archs) < 2:
        raise UsageError(
            "a proof covers one front shared by several architectures of one family",
            where="--arch " + ",".join(map(str, target.archs)),
            hint="name two or more with the same major number: 80,86,89 or 100,103",
        )
    workplace = local_workplace(target, emit)
    limits = Effort(None, request.jobs, request.memory).limits(workplace.capacity)
    with captured(target, own, workplace, limits, users_stores(), emit) as (build, capture):
        # Those that are for some architectures alone have a front for each in any case.
        units = select_units(tuple(u for u in capture.units if u.images is None), request.units)
        if not units:
            raise UsageError(
                "no unit matches",
                where=f"--units {request.units}",
                details=[unit.name for unit in select_units(capture.units, None)],
                hint="a glob over the names above, several separated by commas",
            )
        contexts: list[Context] = []
        for label, fronts in (("own fronts", own), ("shared front", shared)):
            part = capture.with_fronts(fronts)
            work = _lacking(units, fronts, part.context, target.recipe)
            effort = Effort(len(fronts), request.jobs, request.memory)
            compile_work(work, build, part, effort, Processes.name, label, emit)
            contexts.append(part.context)
        proof = _proof(target, units, own, shared[0], *contexts)
    if is_installed(target.recipe.folder):
        recipe = _copied(target.recipe, request.recipes or OWN_KERNELS, emit)
        proof = replace(proof, path=proof_path(recipe, target.toolchain, proof.archs))
    write_proof(proof)
    return proof


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


def _lacking(
    units: tuple[Unit, ...], fronts: tuple[Front, ...], context: Context, recipe: Recipe
) -> Lookup:
    """The device code that the store lacks; host objects say nothing here."""
    store = context.store()
    texts = Texts(context, store)
    jobs = [Job(unit, front, False, 0, 0) for unit in units for front in fronts]
    pending = [part for job in jobs if (part := missing(texts, context, store, job))]
    slices = sum(len(front.codes) for front in fronts) * len(units)
    lacking = sum(len(job.front.codes) for job in pending if job.front)
    return Lookup(
        pending=tuple(estimated(job, store, recipe) for job in pending),
        units=len(units),
        slices=slices,
        hits=slices - lacking,
        archlist_units=(),
    )


def _proof(
    target: Target, units: tuple[Unit, ...], own: tuple[Front, ...], shared: Front,
    mine: Context, other: Context,
) -> Proof:  # fmt: skip
    """mine: the context of each architecture's own front; other: that of the shared one."""
    archs: tuple[Arch, ...] = tuple(front.virtual for front in own)
    proofs = tuple(
        compare(
            unit.name,
            {
                front.virtual.sm: (
                    _cubin(mine, unit, front, front.virtual.sm),
                    _cubin(other, unit, shared, front.virtual.sm),
                )
                for front in own
            },
        )
        for unit in units
    )
    return Proof(
        project=target.recipe.project,
        version=target.recipe.version,
        toolchain=target.toolchain.name,
        compiler_id=mine.device_id,
        front=shared.virtual,
        archs=archs,
        units=proofs,
        path=proof_path(target.recipe, target.toolchain, archs),
    )


def _cubin(context: Context, unit: Unit, front: Front, code: str) -> Entry:
    store = context.store()
    text = Texts(context, store).recorded(unit, pass_of(front))
    assert text is not None, "it was compiled a moment ago"
    data = store.get("slice", slice_key(context, unit, front, code, text))
    assert data is not None, "it was compiled a moment ago"
    return load_slice(data)[0]
