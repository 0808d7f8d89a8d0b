"""Executes the plan of a build, wheel by wheel, its steps in their order:

the engine prepares → source → capture → look up → compile → assemble → pack → check.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..arch import parse_gpu_list
from ..config.model import Download, Package, Target
from ..edit.survey import Edited
from ..edit.thin import thin_wheel
from ..engines.base import Capture, Engine, Workplace
from ..errors import UsageError
from ..events import Emit, Note, Planned, WheelMade, step
from ..fatbin.select import selection_for
from ..model import Host
from ..provenance.beside import write_beside
from ..provenance.checks import check_host
from ..provenance.lock import lock_bytes, lock_of
from ..shipped import PACKAGE
from ..storage.cache import (
    Stores,
    cache_folder,
    downloads_folder,
    open_store,
    others_in,
    store_folder,
    users_stores,
)
from ..storage.files import check_writable, copy, disk_error, replacing
from ..storage.permissions import gap_of
from ..toolchain.find import seed
from ..toolchain.msvc import check_accepted
from ..toolchain.unpack import missing
from ..verify.report import check_wheel
from ..wheels.name import parse_wheel_name
from ..wheels.zipwriter import compressor
from ..worker.archs import told
from ..worker.context import digest
from .capture import captured, check_named
from .compile import compile_work, plan_work
from .consent import Agree, check_consent, refuse, remember
from .pack import folder_notes, pack
from .plan import BuildPlan, PlannedWheel

if TYPE_CHECKING:
    from ..provenance.signing import Signer

C = TypeVar("C", bound=Capture)
Meet = Callable[[Host], None]  # is told what of the machine, or of the image, reaches the wheel
_NO_HOST = Host("", "", "")  # of a lock before the host is known, which `identity` stands for


def build(plan: BuildPlan, emit: Emit, agree: Agree = refuse) -> list[WheelMade]:
    """Make every wheel of a plan. Raises a FatwheelError; finished wheels and slices stay.

    agree: is asked before what the lock of a stranger names is fetched and run.
    """
    signer = _signer(plan.sign)
    if plan.locked and plan.lock:
        check_consent(plan.lock, plan.locked, plan.engine, agree)
    for wheel in plan.wheels:
        check_accepted(wheel.target.toolchain.msvc, cache_folder())
    check_writable(plan.out, "write wheels", "--out FOLDER")
    _tell_of_others(emit)
    made: list[WheelMade] = []
    for wheel in plan.wheels:
        if serving := _serving(made, wheel.target.python):
            emit(Note(f"{serving} is for Python {wheel.target.python} too: its ABI is abi3"))
            continue
        if plan.find:
            find_files(wheel.target, plan.engine, plan.find, emit)
        made.append(_build_wheel(wheel, plan, signer, emit))
    return made


def _serving(made: Sequence[WheelMade], python: str) -> str:
    """The file of a wheel that keeps to the limited API and so is for this Python too; or ''."""
    files = (Path(one.path).name for one in made)
    return next((file for file in files if parse_wheel_name(file).serves(python)), "")


def find_files(target: Target, engine: Engine, folder: Path, emit: Emit) -> None:
    """Take what a target needs on an engine, and this machine has not yet, from a folder."""
    seed(needed_files(target, engine), folder, emit)


def needed_files(target: Target, engine: Engine) -> list[tuple[Package | Download, Path]]:
    """The files that a target may need on an engine, with the folder to which each is fetched.

    Without the packages that are unpacked already.
    """
    source = target.recipe.source.file
    build = missing(target.recipe.build, cache_folder())
    own = [(pin, downloads_folder()) for pin in (*([source] if source else ()), *build)]
    return [*own, *engine.files(target)]


def _signer(key: Path | None) -> Signer | None:
    if key is None:
        return None
    from ..provenance.signing import load_signer

    return load_signer(key)


def split(wheels: Sequence[WheelMade], sign: Path | None, emit: Emit) -> list[Edited]:
    """For each architecture of each of these wheels, a thin wheel beside it, signed as they are.

    Variants of one architecture, such as 90 and 90a, stay together: a GPU chooses among them.

    Raises UsageError where others could exchange a wheel before it is signed.
    """
    signer = _signer(sign)
    for folder in {Path(wheel.path).parent for wheel in wheels} if signer else ():
        if gap := gap_of(folder):
            raise UsageError(
                f"thin wheels are not signed where others could replace them: {gap.who} can write "
                f"to {gap.folder}",
                where="--split --sign",
                hint=gap.mend or "name a folder of your own: --out FOLDER",
            )
    made = [thin for wheel in wheels for thin in _split_wheel(wheel, emit)]
    for thin in made:
        write_beside(thin.path, (), {}, signer)
    return made


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


def _build_wheel(
    wheel: PlannedWheel, plan: BuildPlan, signer: Signer | None, emit: Emit
) -> WheelMade:
    started = time.monotonic()
    target = wheel.target
    workplace = plan.engine.prepare(target, emit)
    meet = partial(check_host, plan.lock.host) if plan.lock else _any_host
    made = _from_store(wheel, plan, workplace, meet, emit)
    if made is None:
        made = make(wheel, plan, workplace, users_stores(), meet, emit)
    facts = made.facts
    internal = {"engine": plan.engine.name, **packer()}
    files = write_beside(made.path, workplace.materials, internal, signer, made.sha256)
    remember(lock_bytes(lock_of(target, facts.host)), made.path.name)
    for sentence in facts.notes:
        emit(Note(sentence))
    emit(Note(f"{len(files)} files beside the wheel describe what it is made of"))
    result = WheelMade(
        path=str(made.path),
        size=made.path.stat().st_size,
        sha256=made.sha256,
        archs=",".join(str(request) for request in target.archs),
        seconds=time.monotonic() - started,
        hits=facts.slices - made.compiled,
        compiled=made.compiled,
    )
    emit(result)
    return result


def _any_host(host: Host) -> None:
    """Accept any compiler: without --locked, none is prescribed."""


def packer() -> dict[str, str]:
    """What compresses wheels here: only where that is the same are they the same bytes."""
    return {"zlib": compressor()}


@dataclass(frozen=True)
class _Facts:
    """What is kept with a finished wheel: its file's name, its units and slices, its host, and what
    the user should know of it."""

    file: str
    units: int
    slices: int
    host: Host
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Made:
    """A finished wheel. compiled: how many of its slices were made now.

    sha256 is that of what was made or kept, which others cannot reach: path may lie where they can
    write.
    """

    path: Path
    sha256: str
    facts: _Facts
    compiled: int


def make(
    wheel: PlannedWheel, plan: BuildPlan, workplace: Workplace[Capture], stores: Stores, meet: Meet,
    emit: Emit,
) -> Made:  # fmt: skip
    """Make a wheel, of slices that are in the stores or are compiled now."""
    target, fronts = wheel.target, wheel.fronts
    limits = plan.effort.limits(workplace.capacity)
    key = _wheel_key(wheel, plan.front, workplace)
    with captured(target, fronts, workplace, limits, stores, emit) as (build, capture):
        check_named(capture.wheel, target)
        for words in told(capture.units):
            emit(Note(words))
        work = plan_work(capture.look_up(), build.store, target.recipe)
        lock = lock_of(target, capture.host)
        meet(capture.host)
        compile_work(work, build, capture, plan.effort, plan.engine.name, plan.front, emit)
        with step(emit, "assemble"):
            upstream, slices = capture.assemble(limits)
        with step(emit, "pack"):
            packed = pack(upstream, build.work, wheel, lock, slices, plan.front)
        with step(emit, "check"):
            notes = (*check_wheel(packed, target, fronts), *folder_notes(packed, build.work))
            path = publish(packed, plan.out, "write the wheel")
        # Of the wheel in the build's own folder: others may be able to write to `out`.
        store = stores.open()
        sha256 = store.put_file("wheel", key, packed)
        facts = _Facts(path.name, work.units, work.slices, capture.host, notes)
        store.put_json("built", key, asdict(facts))
        return Made(path, sha256, facts, work.slices - work.hits)


def _from_store(
    wheel: PlannedWheel, plan: BuildPlan, workplace: Workplace[Capture], meet: Meet, emit: Emit
) -> Made | None:
    """The finished wheel from the store, if the same inputs made one before. Of what is installed,
    nobody knows whether all that upstream's build uses is as it was."""
    if wheel.target.toolchain.of_a_machine:
        return None
    store = open_store()
    key = _wheel_key(wheel, plan.front, workplace)
    facts, sha256 = _facts_of(store.get_json("built", key)), store.digest("wheel", key)
    if facts is None or sha256 is None:
        return None
    meet(facts.host)
    path = plan.out / facts.file
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
        if not store.copy_out("wheel", key, path):
            return None
    except OSError as error:
        raise disk_error(error, "write the wheel", path, "--out FOLDER") from error
    emit(
        Planned(
            (wheel.target,), plan.engine.name, plan.front, shards=0, jobs=0, memory=0,
            units=facts.units, slices=facts.slices, hits=facts.slices, work=0,
        )
    )  # fmt: skip
    return Made(path, sha256, facts, compiled=0)


def _facts_of(found: Any) -> _Facts | None:
    """The facts that the store has about a wheel; None if they are invalid."""
    match found:
        case {
            "file": str(file), "units": int(units), "slices": int(slices),
            "host": {"compiler": str(name), "compiler_id": str(id_), "python": str(python)},
            "notes": list(notes),
        } if Path(file).name == file and file.endswith(".whl"):  # fmt: skip
            return _Facts(file, units, slices, Host(name, id_, python), tuple(map(str, notes)))
    return None


def publish(wheel: Path, out: Path, action: str) -> Path:
    """Copy a finished wheel to where the user looks for it; whole or not at all.

    action: what this is, for the StoreError of a disk that does not take it.
    """
    path = out / wheel.name
    try:
        out.mkdir(parents=True, exist_ok=True)
        with wheel.open("rb") as source, replacing(path) as stream:
            copy(source, stream)
    except OSError as error:
        raise disk_error(error, action, path, "--out FOLDER") from error
    return path


def _wheel_key(wheel: PlannedWheel, front: str, workplace: Workplace[Capture]) -> str:
    """Key of a finished wheel: everything that can reach its bytes.

    The digests of recipe and toolchain alone would not do: in a lock from anywhere they are words.
    """
    target = wheel.target
    return digest(
        "wheel", lock_bytes(lock_of(target, _NO_HOST)).decode(),
        [str(request) for request in target.archs], front,
        [(one.virtual.name, one.codes) for one in wheel.fronts],
        workplace.identity, code_digest(),
    )  # fmt: skip


def code_digest() -> str:
    """Digest of fatwheel's own code: what an older fatwheel made is made again."""
    files = sorted(PACKAGE.rglob("*.py"))
    return digest([file.read_text(encoding="utf-8") for file in files])


def _tell_of_others(emit: Emit) -> None:
    """Warn about other users who can change what is built here; some share a store on purpose."""
    cache, store = cache_folder(), store_folder()
    for folder in [cache] if store.is_relative_to(cache) else [cache, store]:
        others = others_in(folder)
        if others:
            emit(Note(others))
