"""The plan of a build: what `invoke build --plan` prints and `pipeline.build` executes.

It is made without starting or asking anything. So what only capturing tells, a project's units and
what the store has of them, is left open; and where containers are used, processors and memory are
this machine's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ..arch import ArchRequest
from ..compilers.nvcc import PARTS
from ..config.recipe import Recipe, Target
from ..config.toolchain import Toolchain
from ..engines.base import DEVICE_CODE, Allotment, Engine, Footprint, Limits
from ..engines.registry import engine_for, toolchain_for
from ..errors import UsageError
from ..machine import cores, free_memory
from ..model import Front, Job, Shard, Unit
from ..provenance.checks import check_locked, check_pinned, read_lock_file
from ..provenance.lock import BuildLock, lock_of
from ..provenance.record import FAST, FRONTS
from ..sharing.remote import Remote
from ..sharing.shares import files_in
from ..shipped import recipe_folders
from ..toolchain.interpreters import build_of, compiler_id
from ..verify.contents import Contents, coverage_of
from ..verify.drivers import needs_of, planned
from ..wheels.name import WheelName, version_label
from ..worker.archs import ruled
from ..worker.secondkey import OFF
from .compile import Effort, divide
from .proof import find_proofs, shown_by
from .resolve import LINUX, ToolchainRequest, check_nothing_beside, resolve
from .share import ShareOrder

KERNEL = "flash-attn"


@dataclass(frozen=True)
class BuildRequest:
    """What `invoke build` was asked for; None means the default. memory is in bytes.

    locked: a lock, or a wheel with one, beyond which nothing may be used. find: a folder in which
    pinned files may lie. sign: a private key. recipes: a folder in which the kernel is looked for
    first. cuda, platform: what a toolchain is composed of, where none is named. cuda_home,
    torch_from: what is installed on this machine, to be used instead; msvc: the same, of MSVC.
    device_from: LINUX where its compilers are to make device code for Windows.
    stop_after: seconds after which no more jobs are started. remote: where machines leave what
    they made for each other. order: the one share of the jobs that is to be made. shares: a folder
    with those that other machines made. audit: one of AUDITS.
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
    front: str | None
    out: Path
    fast: bool = False
    locked: Path | None = None
    find: Path | None = None
    sign: Path | None = None
    recipes: Path | None = None
    cuda: str | None = None
    platform: str | None = None
    cuda_home: Path | None = None
    torch_from: Path | None = None
    msvc: str | None = None
    stop_after: float | None = None
    remote: Remote | None = None
    order: ShareOrder | None = None
    shares: Path | None = None
    audit: str = "off"
    device_from: str | None = None

    def toolchains(self, default: str) -> ToolchainRequest:
        """What of it says which toolchains."""
        return ToolchainRequest(
            default, self.toolchain, self.cuda, self.torch, self.pythons, self.platform,
            self.cuda_home, self.torch_from, self.msvc, self.device_from,
        )  # fmt: skip


@dataclass(frozen=True)
class PlannedWheel:
    """One wheel to make, and the runs of nvcc's front end that make its images.

    front_units: the names of the units that the fronts are for, where a proof speaks of them alone:
    others have an exact front for each architecture. () where the fronts are for all units.
    """

    target: Target
    fronts: tuple[Front, ...]
    front_units: tuple[str, ...] = ()

    @property
    def name(self) -> WheelName:
        """What it will be called if its extension modules are for one Python, as is usual."""
        recipe, toolchain = self.target.recipe, self.target.toolchain
        tag = f"cp{self.target.python.replace('.', '')}"
        platform = toolchain.platform.replace("-", "_")
        return self.named(WheelName(recipe.project, recipe.version, "", tag, tag, platform))

    @property
    def images(self) -> Contents:
        """What each unit with kernels will hold: by it GPUs and drivers are told."""
        toolchain = self.target.toolchain
        codes = [code for front in self.fronts for code in front.codes]
        return planned(codes, toolchain.cuda, toolchain.platform)

    def named(self, upstream: WheelName, torch: str | None = None) -> WheelName:
        """The name of the wheel that is made from one that upstream's build called so.

        torch: the oldest that it works with, where that is not only the target's own.
        """
        target = self.target
        label = version_label(target.toolchain.cuda, torch or target.torch, target.archs)
        return upstream.labelled(label)


@dataclass(frozen=True)
class BuildPlan:
    """What a build does. Its wheels are of one recipe.

    front: how fronts were chosen, one of FRONTS or FAST. limits: of the whole build; the engine may
    have less, unless the user said how much. out: the folder for wheels. lock: what nothing may be
    used beyond, from the file `locked`. find: a folder in which pinned files may lie. sign: a
    private key. remote: what is shared with other machines. order: a share to make, instead of
    wheels. shares: a folder with those that others made.
    """

    wheels: tuple[PlannedWheel, ...]
    front: str
    engine: Engine
    effort: Effort
    limits: Limits
    out: Path
    lock: BuildLock | None = None
    locked: Path | None = None
    find: Path | None = None
    sign: Path | None = None
    remote: Remote | None = None
    order: ShareOrder | None = None
    shares: Path | None = None

    @property
    def first(self) -> Target:
        """The target whose device code is compiled; others find it in the store."""
        return self.wheels[0].target

    @property
    def fronts(self) -> tuple[Front, ...]:
        return self.wheels[0].fronts

    @cached_property
    def _division(self) -> tuple[tuple[Shard, ...], Allotment]:
        count = self.effort.shards or len(self.first.archs)
        return divide(_typical_jobs(self.first.recipe, self.fronts, count), count, self.limits)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """How the fronts are divided if each has as many units, all of one size, as there are
        shards. A build divides the jobs that are left to do."""
        return self._division[0]

    @property
    def at_once(self) -> int:
        """Workers of shards that are open at a time."""
        return self._division[1].at_once if self.footprint.containers else len(self.shards)

    @cached_property
    def footprint(self) -> Footprint:
        """The images and containers of the engine."""
        targets = [wheel.target for wheel in self.wheels]
        return self.engine.footprint(targets, *self._division)

    @property
    def device_containers(self) -> list[int]:
        """How many containers compile device code, of each wheel."""
        found = [0 for _ in self.wheels]
        for group in self.footprint.containers:
            found[group.wheel] += group.most if group.compiles == DEVICE_CODE else 0
        return found

    def device_code_of(self, wheel: PlannedWheel) -> PlannedWheel:
        """The first wheel whose device code this one has, too: that of the same toolchain and
        torch. (What is equal in others is found in the store as well, but nobody knows yet.)"""

        def of(one: PlannedWheel) -> tuple[str, str]:
            return one.target.toolchain.name, one.target.torch

        return next(one for one in self.wheels if of(one) == of(wheel))

    def to_json(self) -> dict[str, Any]:
        """As `invoke build --plan --json` prints it (plan.schema.json)."""
        recipe, toolchain, footprint = self.first.recipe, self.first.toolchain, self.footprint
        no_images = ("",) * len(self.wheels)
        return {
            "kernel": recipe.name,
            "project": recipe.project,
            "version": recipe.version,
            "fetched": fetched(recipe),
            "toolchain": toolchain.name,
            "platform": toolchain.platform,
            "cuda": toolchain.cuda,
            "nvcc": toolchain.nvcc,
            "compiler": host_compiler(toolchain),
            "torch": self.first.torch,
            "archs": list(map(str, self.first.archs)),
            "jit": [gpu for gpu, how in coverage_of([self.wheels[0].images]).items() if how.jit],
            "engine": self.engine.name,
            "isolated": self.engine.isolated,
            "front": self.front,
            "fronts": [
                {
                    "front": front.virtual.compute,
                    "codes": list(front.codes),
                    **({"split": front.split} if front.split else {}),
                }
                for front in self.fronts
            ],
            "front_units": list(self.wheels[0].front_units),
            "units": [
                {"units": pattern, "codes": list(codes)}
                for pattern, codes in ruled(recipe.rules, self.fronts)
            ],
            "shards": [
                {"name": shard.name, "codes": list(codes_of(shard))} for shard in self.shards
            ],
            "jobs": self.limits.cpus,
            "memory": self.limits.memory,
            "at_once": self.at_once,
            "wheels": [
                {
                    "file": wheel.name.filename,
                    "python": wheel.target.python,
                    "torch": wheel.target.torch,
                    "cuda": wheel.target.toolchain.cuda,
                    "toolchain": wheel.target.toolchain.name,
                    "drivers": {g: asdict(need) for g, need in needs_of(wheel.images).items()},
                    "image": image,
                }
                for wheel, image in zip(self.wheels, footprint.image_of or no_images, strict=True)
            ],
            "images": [asdict(image) for image in footprint.images],
            "containers": [asdict(container) for container in footprint.containers],
            "isolation": footprint.isolation or None,
            "render": footprint.render,
            "final_tags": footprint.final_tags,
            "unlocked": footprint.unlocked,
        }


def fetched(recipe: Recipe) -> str:
    """The file or the commit that has the source, or ''."""
    source = recipe.source
    return source.git.vcs_url if source.git else source.file.filename if source.file else ""


def host_compiler(toolchain: Toolchain) -> str:
    """The compiler of a toolchain's host code, for people."""
    if toolchain.msvc:
        return f"cl {toolchain.msvc.cl} (Visual Studio {toolchain.msvc.visual_studio})"
    return "g++ {} to {}".format(*toolchain.gcc) if toolchain.gcc else "g++"


def codes_of(shard: Shard) -> tuple[str, ...]:
    """The images that a shard makes, each once."""
    return tuple(dict.fromkeys(code for job in shard.jobs if job.front for code in job.front.codes))


def _typical_jobs(recipe: Recipe, fronts: Iterable[Front], units: int) -> list[Job]:
    """The jobs of so many units. What each costs is known when they were captured."""
    largest = max([recipe.memory, *(cost.memory for cost in recipe.costs)])
    return [
        Job(Unit(f"unit {number}", "cuda", "", (), ()), front, False, largest, len(front.codes))
        for front in fronts
        for number in range(units)
    ]


# -- from a request to its plan --------------------------------------------------------------------


def plan_build(request: BuildRequest) -> BuildPlan:
    """Raises UsageError, ConfigError or LockError for what cannot be built; ToolchainError for what
    is installed and cannot be used."""
    mode = mode_of(request.front, fast=request.fast)
    targets, lock = _targets_of(request)
    if (request.order or request.shares) and len(targets) > 1:
        raise UsageError(
            "shares are of one wheel",
            where="--only-shard" if request.order else "--from-shares",
            hint="name one Python, one torch and one CUDA",
        )
    if request.shares:
        files_in(request.shares, "--from-shares")
    until = None if request.stop_after is None else time.monotonic() + request.stop_after
    audit = audit_of(request.audit)
    effort = Effort(request.shards, request.jobs, request.memory, until, audit)
    return BuildPlan(
        wheels=tuple(planned_wheel(one, mode) for one in targets),
        front=mode,
        engine=_engine_for(targets, request.engine),
        effort=effort,
        limits=effort.limits(Limits(cores(), free_memory())),
        out=request.out,
        lock=lock,
        locked=request.locked,
        find=request.find,
        sign=request.sign,
        remote=request.remote,
        order=request.order,
        shares=request.shares,
    )


def _engine_for(targets: Sequence[Target], asked: str | None) -> Engine:
    """One engine for all targets. Raises UsageError where one of them cannot be built with it."""
    engine = engine_for(targets[0].toolchain, asked)
    for target in targets[1:]:
        engine_for(target.toolchain, engine.name)
    return engine


def _targets_of(request: BuildRequest) -> tuple[tuple[Target, ...], BuildLock | None]:
    """The targets of a request; with --locked, options left out are taken from the lock.

    Raises LockError where the recipe or the toolchain is not what the lock says.
    """
    if request.locked is None:
        asked = request.toolchains(toolchain_for(request.engine))
        return resolve(_given(request.kernel, KERNEL), asked, request.archs, request.recipes), None
    asked = request.toolchains("")
    if asked.is_installed:
        check_nothing_beside(asked, **{"--locked": request.locked})
    if asked.msvc is not None:
        raise UsageError(
            "--msvc beside --locked, which says with what MSVC to build",
            where=f"--locked {request.locked} --msvc {asked.msvc}",
            hint="leave one of them out",
        )
    lock = read_lock_file(request.locked, *recipe_folders(request.recipes))
    check_pinned(lock, request.locked)
    asked = replace(
        request.toolchains(lock.toolchain.name),
        torches=_given(request.torch, lock.torch),
        pythons=_given(request.pythons, lock.python),
        device_from=request.device_from or (LINUX if lock.toolchain.device_packages else None),
    )
    if request.cuda is None and request.platform is None:
        asked = replace(asked, toolchain=_given(request.toolchain, lock.toolchain.name))
    targets = resolve(
        _given(request.kernel, lock.recipe.name), asked, request.archs, request.recipes
    )
    for target in targets:
        check_locked(lock, lock_of(target, lock.host), request.locked)
    return targets, lock


def _given(option: str | None, default: str) -> str:
    """Whether an option was given; an empty one counts, and is refused later."""
    return default if option is None else option


# How often code that could be taken over by its device program is compiled all the same.
AUDITS = {"some": 50, "all": 1, "none": 0, "off": OFF}


def audit_of(mode: str) -> int:
    """One in how many `--audit` mode compiles. Raises UsageError for an unknown mode."""
    if mode not in AUDITS:
        raise UsageError(
            f"{mode!r} is not a valid choice", where="--audit", hint=f"valid: {', '.join(AUDITS)}"
        )
    return AUDITS[mode]


# -- fronts ----------------------------------------------------------------------------------------

# A front (one run of cicc) may serve several architectures of one family: those with the same
# major number and without an a or f suffix. Its PTX is then that of the lowest of them. That
# halves the work. And a front may be split: nvcc's optimisers, its own and those of ptxas, then
# divide the code of a unit among threads. Either gives the same machine code for some projects and
# not for others: `auto` does only what a proof shows (see `pipeline.proof`); what one shows of some
# units, it does with these alone. FAST does both, whatever that gives.

# Units by name of which something was shown; None: all of the project.
Shown = frozenset[str] | None


def mode_of(front: str | None, *, fast: bool) -> str:
    """How fronts are to be chosen, by `--front` and `--fast`. Raises UsageError."""
    if front is not None and front not in FRONTS:
        raise UsageError(
            f"{front!r} is not a valid choice", where="--front", hint=f"valid: {', '.join(FRONTS)}"
        )
    if fast and front is not None:
        raise UsageError(
            "--fast chooses the fronts itself: shared, and split",
            where=f"--fast --front {front}",
            hint="leave one of them out",
        )
    return FAST if fast else front or "auto"


def planned_wheel(target: Target, mode: str) -> PlannedWheel:
    """A target with its fronts; mode: one of FRONTS, or FAST."""
    archs = target.archs
    if mode == "exact":
        return PlannedWheel(target, exact_fronts(archs))
    if mode == "shared":
        return PlannedWheel(target, shared_fronts(archs))
    if mode == "split":
        return PlannedWheel(target, split_fronts(exact_fronts(archs)))
    if mode == FAST:
        return PlannedWheel(target, split_fronts(shared_fronts(archs)))
    build = build_of(target.toolchain, target.python, target.torch)
    proofs = find_proofs(target.recipe, compiler_id(target.toolchain, build))
    return PlannedWheel(target, *proven_fronts(archs, partial(shown_by, proofs)))


def proven_fronts(
    archs: Iterable[ArchRequest], shown: Callable[[Front], Shown]
) -> tuple[tuple[Front, ...], tuple[str, ...]]:
    """The fronts that cost least of those that make what exact ones make, and the names of the
    units that they are for, () for all (see `PlannedWheel`).

    shown: for which units a front that is shared, or split, was shown to do so.
    """
    fronts: list[Front] = []
    units: Shown = None
    for family in _families(archs):
        chosen, of_it = _cheapest(family, shown)
        if of_it is not None and units is not None and not units & of_it:
            chosen, of_it = exact_fronts(family), None  # nothing is for these units and those
        fronts += chosen
        units = _both(units, of_it)
    return tuple(sorted(fronts, key=lambda front: front.virtual)), tuple(sorted(units or ()))


def _cheapest(
    family: list[ArchRequest], shown: Callable[[Front], Shown]
) -> tuple[Iterable[Front], Shown]:
    """The fronts of a family, and for which units: what is shown of all comes first."""
    own, shared = exact_fronts(family), _share(family)
    ways = (_split_cubins(shared), shared)
    known = [(fronts, _shown_of_all(fronts, shown)) for fronts in ways]
    for fronts, units in known:
        if units is None:
            return fronts, units
    fronts, most = max(known, key=lambda way: len(way[1] or ()))
    if most:
        return fronts, most
    splits = _split_cubins(own)
    if some := _shown_of_all(splits, shown):
        return splits, some
    pairs = zip(own, splits, strict=True)
    alone = (split if _shown_of_all([split], shown) is None else front for front, split in pairs)
    return list(alone), None


def _shown_of_all(fronts: Iterable[Front], shown: Callable[[Front], Shown]) -> Shown:
    """The units for which each of these makes what exact ones make."""
    units: Shown = None
    for front in fronts:
        if not _is_exact(front):
            units = _both(units, shown(front))
    return units


def _both(units: Shown, others: Shown) -> Shown:
    if units is None or others is None:
        return others if units is None else units
    return units & others


def _split_cubins(fronts: Iterable[Front]) -> tuple[Front, ...]:
    """The same, split but for those that make PTX, which no proof covers."""
    return tuple(
        front if front.virtual.compute in front.codes else replace(front, split=PARTS)
        for front in fronts
    )


def _is_exact(front: Front) -> bool:
    """Whether it makes what nvcc by itself makes of one architecture."""
    return not front.split and {front.virtual.sm, front.virtual.compute}.issuperset(front.codes)


def exact_fronts(archs: Iterable[ArchRequest]) -> tuple[Front, ...]:
    """One front for each architecture, as nvcc's own -gencode flags would have it."""
    return tuple(
        Front(request.arch, (request.arch.sm, *([request.arch.compute] if request.ptx else [])))
        for request in archs
    )


def shared_fronts(archs: Iterable[ArchRequest]) -> tuple[Front, ...]:
    """One front for each family."""
    fronts = [front for family in _families(archs) for front in _share(family)]
    return tuple(sorted(fronts, key=lambda front: front.virtual))


def split_fronts(fronts: Iterable[Front]) -> tuple[Front, ...]:
    """The same, each split."""
    return tuple(replace(front, split=PARTS) for front in fronts)


def _families(archs: Iterable[ArchRequest]) -> list[list[ArchRequest]]:
    families: dict[tuple[int, str, int], list[ArchRequest]] = {}
    for request in sorted(archs, key=lambda request: request.arch):
        arch = request.arch
        # Code with a suffix is its own family: its front knows other instructions.
        key = (arch.major, arch.suffix, arch.number if arch.suffix else 0)
        families.setdefault(key, []).append(request)
    return list(families.values())


def _share(family: list[ArchRequest]) -> list[Front]:
    lowest = family[0]
    codes = [lowest.arch.sm]
    if lowest.ptx:
        codes.append(lowest.arch.compute)
    codes += [request.arch.sm for request in family[1:]]
    # PTX of a higher architecture can only come from a front of its own.
    own = [Front(r.arch, (r.arch.compute,)) for r in family[1:] if r.ptx]
    return [Front(lowest.arch, tuple(codes)), *own]
