"""Runs the steps of a build in their order:

resolve → toolchain → source → capture → plan → compile → assemble → pack → check.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..arch import parse_gpu_list
from ..config.model import Download, Package, Target
from ..containers.render import FILES as IMAGE_FILES
from ..edit.survey import Edited
from ..edit.thin import thin_wheel
from ..engines.base import Limits
from ..errors import UsageError
from ..events import Emit, Note, Planned, WheelMade
from ..fatbin.select import selection_for
from ..model import Front, Host
from ..provenance.beside import write_beside
from ..provenance.buildlock import BuildLock, lock_of
from ..provenance.locked import check_host, check_locked, read_lock_file
from ..provenance.lockfile import lock_bytes
from ..provenance.signing import Signer, load_signer
from ..shipped import recipe_folders
from ..storage.cache import cache_folder, others_in
from ..storage.files import copy, disk_error, replacing
from ..storage.permissions import gap_of
from ..storage.store import Store
from ..toolchain.find import seed
from ..toolchain.unpack import missing
from ..verify.report import check_wheel
from ..wheels.zipwriter import compressor
from ..worker.context import digest
from .compile import Means, compile_work
from .consent import Agree, check_consent, refuse, remember
from .pack import pack
from .plan import exact_fronts, plan_work, shared_fronts
from .prove import find_proofs
from .resolve import (
    Asked,
    Stores,
    code_digest,
    downloads_folder,
    open_store,
    resolve,
    step,
    store_folder,
    users_stores,
)
from .workplaces import PROCESS, Premises, Workplace, engine_for, premises_for, toolchain_for

FRONTS = ("auto", "exact", "shared")
KERNEL = "flash-attn"
_NO_HOST = Host("", "", "")  # of a lock before the host is known, which `identity` stands for


@dataclass(frozen=True)
class Effort:
    """How wheels are made, without effect on their content; None means the default.

    memory is in bytes; out: the folder for wheels.
    """

    shards: int | None
    jobs: int | None
    memory: int | None
    out: Path


@dataclass(frozen=True)
class BuildRequest:
    """What `invoke build` was asked for; None means the default. memory is in bytes.

    locked: a lock, or a wheel with one, beyond which nothing may be used. find: a folder in which
    pinned files may lie. sign: a private key. recipes: a folder in which the kernel is looked for
    first.
    """

    kernel: str | None
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
    locked: Path | None = None
    find: Path | None = None
    sign: Path | None = None
    recipes: Path | None = None

    @property
    def effort(self) -> Effort:
        return Effort(self.shards, self.jobs, self.memory, self.out)


@dataclass(frozen=True)
class Making:
    """One wheel to make: its fronts, and how the build was asked for them.

    meet: is told what of the machine, or of the image, reaches the wheel, once that is known.
    """

    target: Target
    fronts: tuple[Front, ...]
    front_mode: str
    meet: Callable[[Host], None]


def build(request: BuildRequest, emit: Emit, agree: Agree = refuse) -> list[WheelMade]:
    """Make every wheel asked for. Raises a FatwheelError; finished wheels and slices stay.

    agree: is asked before what the lock of a stranger names is fetched and run.
    """
    check_front(request.front)
    signer = load_signer(request.sign) if request.sign else None
    asked, lock = asked_for(request)
    engine = engine_for(asked.toolchain, request.engine)
    if request.locked and lock:
        check_consent(lock, request.locked, engine, agree)
    _check_writable(request.out)
    _tell_of_others(emit)
    made: list[WheelMade] = []
    for target in asked.targets:
        if request.find:
            find_files(target, engine, request.find, emit)
        made.append(_build_target(target, lock, engine, request, signer, emit))
    return made


def asked_for(request: BuildRequest) -> tuple[Asked, BuildLock | None]:
    """The targets of a request; with --locked, options left out are taken from the lock.

    Raises LockError where the recipe or the toolchain is not what the lock says.
    """
    if request.locked is None:
        toolchain = request.toolchain or toolchain_for(request.engine)
        kernel = _given(request.kernel, KERNEL)
        return resolve(
            kernel, toolchain, request.archs, request.pythons, request.torch, request.recipes
        ), None
    lock = read_lock_file(request.locked, *recipe_folders(request.recipes))
    asked = resolve(
        _given(request.kernel, lock.recipe.name),
        _given(request.toolchain, lock.toolchain.name),
        request.archs,
        _given(request.pythons, lock.python),
        _given(request.torch, lock.torch),
        request.recipes,
    )
    for target in asked.targets:
        check_locked(lock, lock_of(target, lock.host), request.locked)
    return asked, lock


def _given(option: str | None, default: str) -> str:
    """Whether an option was given; an empty one counts, and is refused later."""
    return default if option is None else option


def find_files(target: Target, engine: str, folder: Path, emit: Emit) -> None:
    """Take what a target needs on an engine, and this machine has not yet, from a folder."""
    seed(needed_files(target, engine), folder, emit)


def needed_files(target: Target, engine: str) -> list[tuple[Package | Download, Path]]:
    """The files that a target may need on an engine, with the folder to which each is fetched.

    Without the packages that are unpacked already.
    """
    source = target.recipe.source.package
    pins = [pin for pin in (*target.recipe.files, *target.tools.files) if pin != source]
    places: list[tuple[Package | Download, Path]] = []
    if source:
        places.append((source, downloads_folder()))
    if engine == PROCESS:
        packages = [pin for pin in pins if isinstance(pin, Package) and pin.role != "installer"]
        places += [(pin, downloads_folder()) for pin in missing(packages, cache_folder())]
    else:
        places += [(pin, cache_folder() / IMAGE_FILES) for pin in pins]
    return places


def split(wheels: Sequence[WheelMade], sign: Path | None, emit: Emit) -> list[Edited]:
    """For each architecture of each of these wheels, a thin wheel beside it, signed as they are.

    Variants of one architecture, such as 90 and 90a, stay together: a GPU chooses among them.

    Raises UsageError where others could exchange a wheel before it is signed.
    """
    signer = load_signer(sign) if sign else None
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


def check_front(mode: str) -> None:
    """Raise UsageError for an unknown `--front` mode."""
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


def _build_target(
    target: Target, lock: BuildLock | None, engine: str, request: BuildRequest,
    signer: Signer | None, emit: Emit,
) -> WheelMade:  # fmt: skip
    started = time.monotonic()
    premises = premises_for(target, engine, emit)
    fronts = fronts_for(target, request.front, premises.compiler_id)
    meet = partial(check_host, lock.host) if lock else _any_host
    making = Making(target, fronts, request.front, meet)
    made = _from_store(making, premises, engine, request.out, emit)
    if made is None:
        made = make(making, premises, request.effort, users_stores(), emit)
    facts = made.facts
    internal = {"engine": engine, **packer()}
    files = write_beside(made.path, premises.materials, internal, signer, made.sha256)
    remember(lock_bytes(lock_of(target, facts.host)), made.path.name)
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


def make(
    making: Making, premises: Premises, effort: Effort, stores: Stores, emit: Emit
) -> Made:  # fmt: skip
    """Make a wheel, of slices that are in the stores or are compiled now."""
    target = making.target
    means = _means(effort, target, premises)
    limits = Limits(means.jobs, means.memory)
    key = _wheel_key(making, premises)
    with premises.workplace(target, making.fronts, limits, stores, emit) as place:
        return _make(making, place, means, effort.out, stores.open(), key, emit)


@dataclass(frozen=True)
class _Facts:
    """What is kept with a finished wheel: its file's name, its units and slices, its host."""

    file: str
    units: int
    slices: int
    host: Host


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


def _means(effort: Effort, target: Target, premises: Premises) -> Means:
    return Means(
        shards=effort.shards or len(target.archs),
        jobs=effort.jobs or premises.cores,
        lend=effort.jobs is None,
        memory=effort.memory or premises.memory,
    )


def _from_store(
    making: Making, premises: Premises, engine: str, out: Path, emit: Emit
) -> Made | None:
    """The finished wheel from the store, if the same inputs made one before."""
    store = open_store()
    key = _wheel_key(making, premises)
    facts, sha256 = _facts_of(store.get_json("built", key)), store.digest("wheel", key)
    if facts is None or sha256 is None:
        return None
    making.meet(facts.host)
    path = out / facts.file
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not store.copy_out("wheel", key, path):
            return None
    except OSError as error:
        raise disk_error(error, "write the wheel", path, "--out FOLDER") from error
    emit(
        Planned(
            (making.target,), engine, making.front_mode, shards=0, jobs=0, memory=0,
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
        } if Path(file).name == file and file.endswith(".whl"):  # fmt: skip
            return _Facts(file, units, slices, Host(name, id_, python))
    return None


def _make(
    making: Making, place: Workplace, means: Means, out: Path, store: Store, key: str, emit: Emit
) -> Made:  # fmt: skip
    target, fronts, mode = making.target, making.fronts, making.front_mode
    lock = lock_of(target, place.host)
    making.meet(place.host)
    work = plan_work(place.lookup, place.store, target.recipe)
    compile_work(work, target, place.engine, place.store, means, mode, emit)
    with step(emit, "assemble"):
        upstream_wheel, slices = place.assemble(Limits(means.jobs, means.memory))
    with step(emit, "pack"):
        wheel = pack(upstream_wheel, place.scratch, target, lock, slices, fronts, mode)
        check_wheel(wheel, target, fronts)
        path = publish(wheel, out, "write the wheel")
    # Of the wheel in the build's own folder: others may be able to write to `out`.
    sha256 = store.put_file("wheel", key, wheel)
    facts = _Facts(path.name, work.units, work.slices, place.host)
    store.put_json("built", key, asdict(facts))
    return Made(path, sha256, facts, work.slices - work.hits)


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


def _wheel_key(making: Making, premises: Premises) -> str:
    """Key of a finished wheel: everything that can reach its bytes.

    The digests of recipe and toolchain alone would not do: in a lock from anywhere they are words.
    """
    target = making.target
    return digest(
        "wheel", lock_bytes(lock_of(target, _NO_HOST)).decode(),
        [str(request) for request in target.archs], making.front_mode,
        [(front.virtual.name, front.codes) for front in making.fronts],
        premises.identity, code_digest(),
    )  # fmt: skip


def _tell_of_others(emit: Emit) -> None:
    """Warn about other users who can change what is built here; some share a store on purpose."""
    cache, store = cache_folder(), store_folder()
    for folder in [cache] if store.is_relative_to(cache) else [cache, store]:
        others = others_in(folder)
        if others:
            emit(Note(others))


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
