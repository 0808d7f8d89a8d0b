"""`invoke prove`: compile units with a front for each architecture and with a shared one,
compare the machine code of every kernel, and write the proof beside the recipe.
"""

from __future__ import annotations

from dataclasses import dataclass

from .arch import Arch, ArchRequest
from .build.context import Context
from .build.preprocess import Texts, pass_of
from .build.slices import load_slice, missing, slice_key
from .compiling import Means, compile_work
from .engines.process import ProcessEngine
from .errors import UsageError
from .events import Emit
from .fatbin.container import Entry
from .fronts import exact_fronts, shared_fronts
from .machine import cores, free_memory
from .model import Front, Job, Recipe, Unit
from .plan import Work, estimated
from .prepare import Asked, Prepared, log_folder, prepared, ready_tools, resolve
from .proof import Proof, compare, proof_path, select_units, write_proof


@dataclass(frozen=True)
class ProveRequest:
    """What `invoke prove` was asked for; None means the default. memory is in bytes."""

    kernel: str
    archs: str | None
    units: str | None
    toolchain: str
    python: str | None
    jobs: int | None
    memory: int | None


def prove(request: ProveRequest, emit: Emit) -> Proof:
    """Make the proof and write it. Raises a FatwheelError."""
    asked = resolve(request.kernel, request.toolchain, request.archs, request.python, None)
    archs = tuple(ArchRequest(item.arch) for item in asked.archs)
    fronts = shared_fronts(archs, lambda front, family: True)
    if len(fronts) != 1 or len(archs) < 2:
        raise UsageError(
            "a proof is about one front for several architectures of one family",
            where="--arch " + ",".join(map(str, asked.archs)),
            hint="name two or more with the same major number: 80,86,89 or 100,103",
        )
    target = asked.targets[0]
    tools = ready_tools(target, emit)
    with prepared(target, tools, emit) as ready:
        units = select_units(ready.units, request.units)
        if not units:
            raise UsageError(
                "no unit has such a name",
                where=f"--units {request.units}",
                details=[unit.name for unit in select_units(ready.units, None)],
                hint="a glob over the names above, several separated by commas",
            )
        shared, own = fronts, exact_fronts(archs)
        for label, wanted in (("own fronts", own), ("shared front", shared)):
            context = ready.context(wanted)
            work = _lacking(units, wanted, context, target.recipe)
            means = Means(
                shards=len(wanted),
                jobs=request.jobs or cores(),
                lend=request.jobs is None,
                memory=request.memory or free_memory(),
            )
            engine = ProcessEngine(context, log_folder(target))
            compile_work(work, target, engine, context.store(), means, label, emit)
        proof = _proof(ready, asked, units, own, shared[0])
    write_proof(proof)
    return proof


def _lacking(
    units: tuple[Unit, ...], fronts: tuple[Front, ...], context: Context, recipe: Recipe
) -> Work:
    """The device code that the store lacks; host objects say nothing here."""
    store = context.store()
    texts = Texts(context, store)
    jobs = [Job(unit, front, False, 0, 0) for unit in units for front in fronts]
    pending = [part for job in jobs if (part := missing(texts, context, store, job))]
    slices = sum(len(front.codes) for front in fronts) * len(units)
    lacking = sum(len(job.front.codes) for job in pending if job.front)
    return Work(
        pending=tuple(estimated(job, store, recipe) for job in pending),
        units=len(units),
        slices=slices,
        hits=slices - lacking,
        archlist_units=(),
    )


def _proof(
    ready: Prepared, asked: Asked, units: tuple[Unit, ...], own: tuple[Front, ...], shared: Front
) -> Proof:
    archs: tuple[Arch, ...] = tuple(front.virtual for front in own)
    mine, other = ready.context(own), ready.context((shared,))
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
        project=asked.recipe.project,
        version=asked.recipe.version,
        toolchain=asked.toolchain.name,
        compiler_id=ready.tools.environment.compiler_id,
        front=shared.virtual,
        archs=archs,
        units=proofs,
        path=proof_path(asked.recipe, asked.toolchain, archs),
    )


def _cubin(context: Context, unit: Unit, front: Front, code: str) -> Entry:
    store = context.store()
    text = Texts(context, store).recorded(unit, pass_of(front))
    assert text is not None, "it was compiled a moment ago"
    data = store.get("slice", slice_key(context, unit, front, code, text))
    assert data is not None, "it was compiled a moment ago"
    return load_slice(data)[0]
