"""Everything before compiling: recipe, toolchain, environment, sources, captured units.

`resolve` finds every mistake in what was asked for before anything is fetched or built;
`prepared` then does the work, and holds the sources' view until its block ends.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..arch import ArchRequest, parse_arch_list
from ..config.load import load_recipe, load_toolchain
from ..config.model import Recipe, Target, Toolchain
from ..engines.base import new_logs
from ..errors import FatwheelError, UsageError
from ..events import Emit, Note, StepFinished, StepStarted
from ..model import Environment, Front, Unit
from ..provision.compilers import HostCompiler, find_host_compiler
from ..shipped import PACKAGE, recipe_folders, toolchain_folders
from ..storage.cache import VARIABLE, cache_folder
from ..storage.files import disk_error
from ..storage.store import Branch, Store
from ..storage.workfolder import work_folder
from ..toolchain.environment import ensure_environment
from ..worker.context import Context, digest
from ..worker.upstream import Project, Upstream
from ..worker.workshop import Order, Workshop, laid_out, upstream_of
from .scope import scope_in_processes
from .source import epoch_of, unpack

STORE_VARIABLE = "FATWHEEL_STORE"  # names another folder for the store
STORE_LIMIT = 30 << 30  # bytes; `invoke cache --limit` shrinks it for once
_SEEDED_SINCE = (12, 9)  # the first CUDA whose nvcc has -frandom-seed


@dataclass(frozen=True)
class Asked:
    """What a user asked for, checked: every combination of it can be built."""

    recipe: Recipe
    toolchain: Toolchain
    archs: tuple[ArchRequest, ...]
    pythons: tuple[str, ...]
    torch: str

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(
            Target(self.recipe, self.toolchain, python, self.torch, self.archs)
            for python in self.pythons
        )


def resolve(
    kernel: str,
    toolchain: str,
    archs: str | None,
    pythons: str | None,
    torch: str | None,
    recipes: Path | None = None,
) -> Asked:
    """Load and check; raises UsageError or ConfigError before anything is fetched.

    recipes: a folder in which the kernel is looked for first.
    """
    recipe = load_recipe(kernel, *recipe_folders(recipes))
    recipe = replace(recipe, epoch=epoch_of(recipe))
    tools = load_toolchain(toolchain, *toolchain_folders())
    listing = ",".join(recipe.archs) if archs is None else archs
    requests = parse_arch_list(listing, tools.archs)
    chosen = _choose_pythons(tools, pythons)
    return Asked(recipe, tools, requests, chosen, _choose_torch(tools, torch, chosen))


def choose(
    toolchain: str, pythons: str | None, torch: str | None
) -> tuple[Toolchain, tuple[str, ...], str]:
    """A toolchain by its name, its Pythons and its torch, as `resolve` chooses them."""
    tools = load_toolchain(toolchain, *toolchain_folders())
    chosen = _choose_pythons(tools, pythons)
    return tools, chosen, _choose_torch(tools, torch, chosen)


def pinned_here(name: str) -> Toolchain | None:
    """What this checkout has under a toolchain's name, if that is sound."""
    with suppress(FatwheelError):
        return load_toolchain(name, *toolchain_folders())
    return None


def _choose_pythons(toolchain: Toolchain, text: str | None) -> tuple[str, ...]:
    serves = f"{toolchain.name} supports Python {', '.join(toolchain.pythons)}"
    if text is None:
        running = f"{sys.version_info.major}.{sys.version_info.minor}"
        return (toolchain.usual_python(running),)
    wanted = [item.strip() for item in text.split(",")]
    mistakes = [
        f"{item!r} is not supported by this toolchain"
        for item in dict.fromkeys(wanted)
        if item not in toolchain.pythons
    ]
    mistakes += [f"{item} is named twice" for item in sorted(set(wanted)) if wanted.count(item) > 1]
    if mistakes:
        raise UsageError(
            "unusable list of Pythons", where=f"--python {text}", details=mistakes, hint=serves
        )
    return tuple(wanted)


def _choose_torch(toolchain: Toolchain, text: str | None, pythons: tuple[str, ...]) -> str:
    """The torch asked for, or the toolchain's; there must be one for every Python."""
    usable = toolchain.torches_for(*pythons)
    if text is None and usable:
        return toolchain.usual_torch(*pythons)
    if text in usable:
        return text
    wanted = "torch" if text is None else f"torch {text}"
    raise UsageError(
        f"{toolchain.name} has no {wanted} for Python {', '.join(pythons)}",
        where="--torch" if text is None else f"--torch {text}",
        hint="valid: " + "; ".join(_served(toolchain, torch) for torch in toolchain.torches),
    )


def _served(toolchain: Toolchain, torch: str) -> str:
    pythons = [build.python for build in toolchain.builds if build.torch == torch]
    return f"{torch} for Python {', '.join(pythons)}"


@dataclass(frozen=True)
class Tools:
    """A target's toolchain, ready to run on this machine."""

    environment: Environment
    compiler: HostCompiler


def ready_tools(target: Target, emit: Emit) -> Tools:
    """The host compiler, found, and the environment, made where it does not exist yet."""
    compiler = find_host_compiler(target.toolchain.cuda, target.toolchain.gcc)
    with step(emit, "toolchain", f"{target.toolchain.name}, Python {target.python}"):
        environment = ensure_environment(
            target.toolchain, target.python, target.torch, cache_folder(), emit
        )
    return Tools(environment, compiler)


@dataclass(frozen=True)
class Prepared:
    """A target's units, captured on this machine, and what compiles and assembles them."""

    target: Target
    tools: Tools
    upstream: Upstream
    units: tuple[Unit, ...]
    workshop: Workshop
    scratch: Path

    def context(self, fronts: tuple[Front, ...]) -> Context:
        """The compile context for these fronts: they decide __CUDA_ARCH_LIST__."""
        return self.workshop.context(fronts)


@dataclass(frozen=True)
class Stores:
    """own: the folder of the store that a build writes to. trunk: that of one which it reads
    besides, or None."""

    own: Path
    trunk: Path | None = None

    @property
    def trunks(self) -> tuple[Path, ...]:
        return (self.trunk,) if self.trunk else ()

    def open(self, scope: str = "") -> Store:
        """What belongs to a scope (see `scope`), or, without one, finished wheels."""
        if self.trunk:
            return Branch(self.own, self.trunks, scope)
        return Store(self.own, STORE_LIMIT, scope)


def users_stores() -> Stores:
    """What builds use: the store of this user alone."""
    return Stores(store_folder())


@contextmanager
def prepared(
    target: Target, tools: Tools, emit: Emit, stores: Stores | None = None
) -> Iterator[Prepared]:
    """Unpack, capture, and lay out the view; the work folder goes when the block ends.

    stores: the user's unless others are named.
    """
    recipe, stores = target.recipe, stores or users_stores()
    with work_folder() as work:
        project = unpacked(recipe, work / "project", emit)
        order = Order(
            name=project_name(recipe),
            project=project,
            environment=tools.environment,
            cxx=str(tools.compiler.path),
            host_id=tools.compiler.id,
            python=sys.executable,
            seeded=is_seeded(target.toolchain),
            variables=(),
            store_root=str(stores.own),
            store_limit=STORE_LIMIT,
            store_scope=scope_in_processes(recipe),
            store_trunks=tuple(map(str, stores.trunks)),
            work=str(work),
            refuge=str(cache_folder() / "refuge"),
        )
        upstream = upstream_of(order)
        with step(emit, "capture"):
            units = upstream.capture()
        with laid_out(order, project.root) as workshop:
            if workshop.note:
                emit(Note(workshop.note))
            yield Prepared(target, tools, upstream, units, workshop, work)


def unpacked(recipe: Recipe, folder: Path, emit: Emit) -> Project:
    """The recipe's source in a folder, fetched first where it is an sdist."""
    with step(emit, "source", f"{recipe.project} {recipe.version}"):
        return unpack(recipe, downloads_folder(), folder, emit)


def project_name(recipe: Recipe) -> str:
    """What the project's folder is called in the view."""
    return f"{recipe.project}-{recipe.version}"


def is_seeded(toolchain: Toolchain) -> bool:
    """Whether a toolchain's nvcc has -frandom-seed."""
    return tuple(map(int, toolchain.cuda.split("."))) >= _SEEDED_SINCE


def open_store() -> Store:
    """The user's store of finished wheels; what belongs to a scope is not seen through it."""
    return users_stores().open()


def store_folder() -> Path:
    named = os.environ.get(STORE_VARIABLE)
    return Path(named).absolute() if named else cache_folder() / "store"


def downloads_folder() -> Path:
    return cache_folder() / "downloads"


def log_folder(target: Target) -> Path:
    """A new folder for what the workers of a target's build say."""
    parent = cache_folder() / "logs"
    try:
        return new_logs(parent, f"{project_name(target.recipe)}-{target.python}")
    except OSError as error:
        raise disk_error(error, "keep logs", parent, f"{VARIABLE}=FOLDER") from error


def code_digest() -> str:
    """Digest of fatwheel's own code: what an older fatwheel made is made again."""
    files = sorted(PACKAGE.rglob("*.py"))
    return digest([file.read_text(encoding="utf-8") for file in files])


@contextmanager
def step(emit: Emit, name: str, detail: str = "") -> Iterator[None]:
    """Report a step of the pipeline and how long it took."""
    started = time.monotonic()
    emit(StepStarted(name, detail))
    yield
    emit(StepFinished(name, time.monotonic() - started, detail))
