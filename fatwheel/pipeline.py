"""The one place where the steps of a build are put in order:

resolve → toolchain → source → capture → plan → compile → assemble → pack → check.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .arch import parse_gpu_list
from .build.context import digest
from .compiling import Means, compile_work
from .engines.allot import Limits
from .errors import UsageError
from .events import Emit, Note, Planned, WheelMade
from .fatbin.choose import selection_for
from .files import copy, disk_error, replacing
from .fronts import exact_fronts, shared_fronts
from .model import Front, Target
from .plan import plan_work
from .postlink.edited import Edited
from .postlink.record import FILE as RECORD_FILE
from .postlink.record import record_bytes
from .postlink.thin import thin_wheel
from .prepare import code_digest, open_store, resolve, step
from .proof import find_proofs
from .record import build_record
from .source import epoch_of
from .verify.wheel import check_wheel
from .wheels.name import version_label
from .wheels.pack import repack
from .workplaces.base import Premises, Workplace
from .workplaces.choose import default_toolchain, engine_for, premises_for

FRONTS = ("auto", "exact", "shared")


@dataclass(frozen=True)
class BuildRequest:
    """What `invoke build` was asked for; None means the default. memory is in bytes."""

    kernel: str
    archs: str | None
    pythons: str | None
    torch: str | None
    toolchain: str | None
    engine: str | None
    shards: int | None
    jobs: int | None
    memory: int | None
    front: str
    out: Path


def build(request: BuildRequest, emit: Emit) -> list[WheelMade]:
    """Make every wheel asked for. Raises a FatwheelError; finished wheels and slices stay."""
    check_front(request.front)
    toolchain = request.toolchain or default_toolchain(request.engine)
    asked = resolve(request.kernel, toolchain, request.archs, request.pythons, request.torch)
    engine = engine_for(asked.toolchain, request.engine)
    _check_writable(request.out)
    return [_build_target(target, engine, request, emit) for target in asked.targets]


def split(wheels: Sequence[WheelMade], emit: Emit) -> list[Edited]:
    """For each architecture of each of these wheels, a thin wheel beside it.

    Variants of one architecture, such as 90 and 90a, stay together: a GPU chooses among them.
    """
    return [thin for wheel in wheels for thin in _split_wheel(wheel, emit)]


def _split_wheel(wheel: WheelMade, emit: Emit) -> Iterator[Edited]:
    path = Path(wheel.path)
    requests = parse_gpu_list(wheel.archs)
    numbers = sorted({request.arch.number for request in requests})
    if len(numbers) == 1:
        emit(Note(f"{path.name} is for one architecture already: nothing to split"))
        return
    for number in numbers:
        wanted = [request for request in requests if request.arch.number == number]
        with step(emit, "split", ",".join(map(str, wanted))):
            yield thin_wheel(path, selection_for(wanted), path.parent)


def check_front(mode: str) -> None:
    """Raise UsageError for what `--front` does not know."""
    if mode not in FRONTS:
        raise UsageError(
            f"{mode!r} is not a valid choice", where="--front", hint=f"valid: {', '.join(FRONTS)}"
        )


def fronts_for(target: Target, mode: str, compiler_id: str) -> tuple[Front, ...]:
    """The fronts of a target under `--front` mode."""
    if mode == "exact":
        return exact_fronts(target.archs)
    if mode == "shared":
        return shared_fronts(target.archs, lambda front, archs: True)
    proofs = find_proofs(target.recipe, compiler_id)
    return shared_fronts(
        target.archs, lambda front, archs: any(proof.covers(front, archs) for proof in proofs)
    )


def _build_target(target: Target, engine: str, request: BuildRequest, emit: Emit) -> WheelMade:
    started = time.monotonic()
    premises = premises_for(target, engine, emit)
    fronts = fronts_for(target, request.front, premises.compiler_id)
    key = _wheel_key(target, premises, fronts, request.front)
    made = _from_store(target, engine, request, key, emit)
    if made is None:
        means = _means(request, target, premises)
        limits = Limits(means.jobs, means.memory)
        with premises.workplace(target, fronts, limits, emit) as place:
            made = _make(target, place, means, request, fronts, key, emit)
    path, slices, compiled = made
    result = WheelMade(
        path=str(path),
        size=path.stat().st_size,
        sha256=_sha256(path),
        archs=",".join(str(request) for request in target.archs),
        seconds=time.monotonic() - started,
        hits=slices - compiled,
        compiled=compiled,
    )
    emit(result)
    return result


Made = tuple[Path, int, int]  # the wheel, its slices, how many of them were compiled


def _means(request: BuildRequest, target: Target, premises: Premises) -> Means:
    return Means(
        shards=request.shards or len(target.archs),
        jobs=request.jobs or premises.cores,
        lend=request.jobs is None,
        memory=request.memory or premises.memory,
    )


def _from_store(
    target: Target, engine: str, request: BuildRequest, key: str, emit: Emit
) -> Made | None:
    """The finished wheel, where these very inputs made it before."""
    store = open_store()
    facts = store.get_json("built", key)
    if not isinstance(facts, dict) or not store.has("wheel", key):
        return None
    path = request.out / facts["file"]
    try:
        request.out.mkdir(parents=True, exist_ok=True)
        if not store.copy_out("wheel", key, path):
            return None
    except OSError as error:
        raise disk_error(error, "write the wheel", path, "--out FOLDER") from error
    emit(
        Planned(
            (target,), engine, request.front, shards=0, jobs=0, memory=0,
            units=facts["units"], slices=facts["slices"], hits=facts["slices"], work=0,
        )
    )  # fmt: skip
    return path, facts["slices"], 0


def _make(
    target: Target, place: Workplace, means: Means, request: BuildRequest,
    fronts: tuple[Front, ...], key: str, emit: Emit,
) -> Made:  # fmt: skip
    store = open_store()
    work = plan_work(place.lookup, store, target.recipe)
    compile_work(work, target, place.engine, means, request.front, emit)
    with step(emit, "assemble"):
        upstream_wheel, slices = place.assemble(Limits(means.jobs, means.memory))
    with step(emit, "pack"):
        record = build_record(target, slices, fronts, request.front)
        wheel = repack(
            upstream_wheel,
            place.scratch,
            local_version=version_label(target.toolchain.cuda, target.torch, target.archs),
            extra_files={RECORD_FILE: record_bytes(record)},
            epoch=place.epoch,
        )
        check_wheel(wheel, target, fronts)
        path = _publish(wheel, request.out)
    store.put_file("wheel", key, path)
    store.put_json("built", key, {"file": path.name, "units": work.units, "slices": work.slices})
    return path, work.slices, work.slices - work.hits


def _publish(wheel: Path, out: Path) -> Path:
    """Copy a wheel to where the user looks for it, now that it is checked; whole or not at all."""
    path = out / wheel.name
    try:
        out.mkdir(parents=True, exist_ok=True)
        with wheel.open("rb") as source, replacing(path) as stream:
            copy(source, stream)
    except OSError as error:
        raise disk_error(error, "write the wheel", path, "--out FOLDER") from error
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return copy(stream, None)[0]


def _wheel_key(target: Target, premises: Premises, fronts: tuple[Front, ...], mode: str) -> str:
    """Key of a finished wheel: everything that can reach its bytes."""
    return digest(
        "wheel", target.recipe.digest, target.toolchain.digest, target.python, target.torch,
        [str(request) for request in target.archs], mode,
        [(front.virtual.name, front.codes) for front in fronts],
        premises.identity, epoch_of(target.recipe), code_digest(),
    )  # fmt: skip


def _check_writable(folder: Path) -> None:
    """Refuse a folder for wheels in which nothing can be written, before hours of work.

    It is made when there is a wheel to put into it.
    """
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise disk_error(error, "write wheels", folder, "--out FOLDER") from error
