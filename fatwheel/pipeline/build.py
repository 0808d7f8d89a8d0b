"""Executes the plan of a build, wheel by wheel, its steps in their order:

the engine prepares → source → capture → look up → compile → assemble → pack → check.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..arch import parse_gpu_list
from ..config.pinned import Download, Package
from ..config.recipe import Target
from ..edit.survey import Edited
from ..edit.thin import thin_wheel
from ..engines.base import Capture, Engine, Workplace
from ..engines.run import kept_here
from ..errors import FatwheelError, FormatError, StoppedError, UsageError
from ..events import Emit, Note, Planned, WheelMade, step
from ..fatbin.images import selection_for
from ..model import Host
from ..provenance.beside import write_beside
from ..provenance.checks import check_host
from ..provenance.lock import lock_bytes, lock_of
from ..provenance.record import FAST, unproven
from ..provenance.record import FILE as RECORD_FILE
from ..sharing.build import Shared
from ..sharing.remote import trust_of
from ..sharing.shares import only
from ..sharing.uses import note_use
from ..shipped import code_digest
from ..storage.cache import (
    Stores,
    cache_folder,
    downloads_folder,
    open_store,
    others_in,
    store_folder,
    users_stores,
    work_folder,
)
from ..storage.files import check_writable, copy, disk_error, readable, replacing
from ..storage.permissions import gap_of
from ..text import count as count_of
from ..toolchain.fetch import seed
from ..toolchain.homes import check_accepted
from ..toolchain.unpack import missing
from ..verify.papers import read_inside
from ..verify.report import check_wheel
from ..wheels.archive import open_wheel
from ..wheels.name import parse_wheel_name
from ..wheels.zipwriter import compressor
from ..worker.archs import told
from ..worker.context import digest
from .capture import captured, check_named
from .compile import compile_work
from .consent import Agree, check_consent, refuse, remember
from .costs import plan_work
from .pack import folder_notes, pack
from .plan import BuildPlan, PlannedWheel
from .proof import check_names
from .scope import scope_of
from .share import ShareMade, ShareOrder, check_order, division, leave_share, taken

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
    _check(plan, agree)
    check_writable(plan.out, "write wheels", "--out FOLDER")
    check_replaced(plan)
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


def _check(plan: BuildPlan, agree: Agree) -> None:
    """Ask whether what a plan names may be run."""
    if plan.locked and plan.lock:
        check_consent(plan.lock, plan.locked, plan.engine, agree)
    for wheel in plan.wheels:
        check_accepted(wheel.target.toolchain.msvc, cache_folder())


def build_share(plan: BuildPlan, order: ShareOrder, emit: Emit, agree: Agree = refuse) -> ShareMade:
    """Compile one share of the jobs of a plan's wheel, and leave what they make in a file, or in
    the remote. Raises a FatwheelError; what was compiled stays.

    Where the time is up, the file has what is done so far. With shares in the plan, that of an
    earlier run among them, only what they lack is compiled.
    """
    _check(plan, agree)
    check_order(order)
    _tell_of_others(emit)
    [wheel] = plan.wheels
    target = wheel.target
    if plan.find:
        find_files(target, plan.engine, plan.find, emit)
    workplace = plan.engine.prepare(target, emit)
    limits, stores = plan.effort.limits(workplace.capacity), users_stores()
    audit = plan.effort.audit
    meet = partial(check_host, plan.lock.host) if plan.lock else _any_host
    with (
        _shared(wheel, plan, workplace, emit) as shared,
        captured(wheel, workplace, limits, stores, emit, audit) as (build, capture),
    ):
        check_named(capture.wheel, target)
        meet(capture.host)
        found = shared.look_up(capture) if shared else capture.look_up()
        scope, trust = scope_of(target.recipe, workplace.scope, anywhere=True), trust_of()
        if plan.shares:
            found = taken(
                plan.shares, build, capture, found, scope, plan.front, trust, emit,
                all_of_them=False,
            )  # fmt: skip
        share = division(capture, target.recipe, build, order.share.count)[order.share.number - 1]
        work = plan_work(only(found, share), build.store, target.recipe)
        kept = shared.made if shared else kept_here
        leave = partial(
            leave_share, order, build, capture, scope, plan.front, len(work.pending), trust
        )
        try:
            compile_work(
                work, build, capture, plan.effort, plan.engine.name, plan.front, emit, kept
            )
        except StoppedError:
            made = leave(stopped=True)
            if made.file:
                done = f"{made.jobs - made.left} of {count_of(made.jobs, 'job')}"
                emit(Note(f"{made.file} has {done} of share {made.share}"))
            raise
        return leave(stopped=False)


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
        with _shared(wheel, plan, workplace, emit) as shared:
            if shared and plan.engine.isolated and _fetched(wheel, plan, workplace, meet, shared):
                made = _from_store(wheel, plan, workplace, meet, emit)
            if made is None:
                made = make(wheel, plan, workplace, users_stores(), meet, emit, shared)
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


@contextmanager
def _shared(
    wheel: PlannedWheel, plan: BuildPlan, workplace: Workplace[Capture], emit: Emit
) -> Iterator[Shared | None]:
    """What the build of a wheel shares with other machines; None where that is nothing."""
    if plan.remote is None:
        yield None
        return
    if wheel.target.toolchain.of_a_machine:
        emit(Note("nothing is shared: what is installed on a machine is not pinned"))
        yield None
        return
    scope = scope_of(wheel.target.recipe, workplace.scope, anywhere=True)
    store = users_stores().open(scope_of(wheel.target.recipe, workplace.scope))
    with work_folder() as work:
        shared = Shared(plan.remote, scope, workplace.surroundings, store, work, emit)
        with shared.writing():
            yield shared
    emit(Note(shared.in_words))
    note_use(plan.remote.shown, shared.count)


def _fetched(
    wheel: PlannedWheel, plan: BuildPlan, workplace: Workplace[Capture], meet: Meet, shared: Shared
) -> bool:
    """Whether the finished wheel came from another machine, and is in the store now."""
    key = _wheel_key(wheel, plan.front, workplace)
    found = shared.wheel(key)
    if found is None:
        return False
    file, facts = found[0], _facts_of(found[1])
    try:
        if facts is None:
            raise FormatError("what is said of the wheel cannot be read")
        meet(facts.host)
        parse_wheel_name(facts.file)
        named = file.rename(file.with_name(facts.file))
        check_wheel(named, wheel.target, wheel.fronts)
    except FatwheelError as error:
        shared.refuse(f"wheel/{key}", error)
        return False
    store = open_store()
    store.put_file("wheel", key, named)
    store.put_json("built", key, asdict(facts))
    return True


def check_replaced(plan: BuildPlan) -> None:
    """Raise UsageError where a wheel of a plan may not be put under the name that is expected."""
    if plan.order is None:  # a share is put elsewhere
        for wheel in plan.wheels:
            _check_replaced(plan.out / wheel.name.filename, plan.front)


def _check_replaced(path: Path, front: str) -> None:
    """Refuse to put a wheel for development in the place of one for users, which has the same name:
    pip knows no way to tell them apart. Raises UsageError."""
    if front != FAST or not path.is_file():
        return
    try:
        with readable(path, "a wheel"), open_wheel(path) as wheel:
            record = read_inside(wheel).get(RECORD_FILE)
    except FormatError:
        return  # damaged: nobody's loss
    if FAST not in unproven(record):
        raise UsageError(
            f"{path.name} is there, and was not built with --fast: a wheel that was would take its "
            "place under the same name",
            where=str(path.parent),
            hint="write it elsewhere: --out FOLDER; or remove that wheel first",
        )


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
class FinishedWheel:
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
    emit: Emit, shared: Shared | None = None,
) -> FinishedWheel:  # fmt: skip
    """Make a wheel, of slices that are in the stores, or come from others, or are compiled now."""
    target, fronts = wheel.target, wheel.fronts
    limits = plan.effort.limits(workplace.capacity)
    key = _wheel_key(wheel, plan.front, workplace)
    audit = plan.effort.audit
    with captured(wheel, workplace, limits, stores, emit, audit) as (build, capture):
        check_named(capture.wheel, target)
        for words in told(capture.units, fronts):
            emit(Note(words))
        found = shared.look_up(capture) if shared else capture.look_up()
        if plan.shares:
            scope = scope_of(target.recipe, workplace.scope, anywhere=True)
            found = taken(plan.shares, build, capture, found, scope, plan.front, trust_of(), emit)
        work = plan_work(found, build.store, target.recipe)
        lock = lock_of(target, capture.host)
        meet(capture.host)
        kept = shared.made if shared else kept_here
        compile_work(work, build, capture, plan.effort, plan.engine.name, plan.front, emit, kept)
        with step(emit, "assemble"):
            upstream, slices = capture.assemble(limits)
        with step(emit, "pack"):
            packed = pack(upstream, build.work, wheel, lock, slices, plan.front)
            if wheel.front_units:
                check_names(packed)
        with step(emit, "check"):
            notes = (
                *check_wheel(packed, target, fronts, wheel.front_units),
                *folder_notes(packed, build.work),
            )
            _check_replaced(plan.out / packed.name, plan.front)  # it may be called otherwise
            path = publish(packed, plan.out, "write the wheel")
        # Of the wheel in the build's own folder: others may be able to write to `out`.
        store = stores.open()
        sha256 = store.put_file("wheel", key, packed)
        facts = _Facts(path.name, work.units, work.slices, capture.host, notes)
        store.put_json("built", key, asdict(facts))
        if shared and plan.engine.isolated:
            shared.write_wheel(key, packed, asdict(facts))
        return FinishedWheel(path, sha256, facts, work.slices - work.hits)


def _from_store(
    wheel: PlannedWheel, plan: BuildPlan, workplace: Workplace[Capture], meet: Meet, emit: Emit
) -> FinishedWheel | None:
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
    _check_replaced(path, plan.front)
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
    return FinishedWheel(path, sha256, facts, compiled=0)


def _facts_of(found: Any) -> _Facts | None:
    """The facts that the store has about a wheel; None if they are invalid."""
    match found:
        case {
            "file": str(file), "units": int(units), "slices": int(slices),
            "host": {"compiler": str(name), "compiler_id": str(id_), "python": str(python)},
            "notes": list(notes),
        } if Path(file).name == file and file.endswith(".whl") and len(file) < 256:  # fmt: skip
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
        [(one.key, one.codes) for one in wheel.fronts], wheel.front_units,
        workplace.identity, code_digest(),
    )  # fmt: skip


def _tell_of_others(emit: Emit) -> None:
    """Warn about other users who can change what is built here; some share a store on purpose."""
    cache, store = cache_folder(), store_folder()
    for folder in [cache] if store.is_relative_to(cache) else [cache, store]:
        others = others_in(folder)
        if others:
            emit(Note(others))
