"""Everything before compiling: recipe, toolchain, environment, sources, captured units.

`resolve` finds every mistake in what was asked for before anything is fetched or built;
`prepared` then does the work, and holds the sources' view until its block ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .arch import ArchRequest, parse_arch_list
from .build.context import Context, digest
from .build.upstream import Upstream
from .build.view import Places, compiler_files, shared_sources
from .cache import VARIABLE, cache_folder
from .errors import UsageError
from .events import Emit, StepFinished, StepStarted
from .files import disk_error, locked
from .fronts import archlist
from .load import load_recipe, load_toolchain
from .model import Environment, Front, Recipe, Target, Toolchain, Unit
from .provision.hostcompiler import HostCompiler, find_host_compiler
from .source import unpack
from .store import Store
from .toolchain.environment import ensure_environment

HOME = Path(__file__).resolve().parent.parent
KERNELS = HOME / "kernels"
TOOLCHAINS = HOME / "toolchains"
STORE_LIMIT = 30 << 30  # bytes; `invoke cache --limit` shrinks it for once
_WORK = "build-"
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
    kernel: str, toolchain: str, archs: str | None, pythons: str | None, torch: str | None
) -> Asked:
    """Load and check; raises UsageError or ConfigError before anything is fetched."""
    recipe = load_recipe(kernel, KERNELS)
    tools = load_toolchain(toolchain, TOOLCHAINS)
    listing = ",".join(recipe.archs) if archs is None else archs
    requests = parse_arch_list(listing, tools.archs)
    chosen = _choose_pythons(tools, pythons)
    return Asked(recipe, tools, requests, chosen, _choose_torch(tools, torch, chosen))


def _choose_pythons(toolchain: Toolchain, text: str | None) -> tuple[str, ...]:
    serves = f"{toolchain.name} serves Python {', '.join(toolchain.pythons)}"
    if text is None:
        running = f"{sys.version_info.major}.{sys.version_info.minor}"
        return (running if running in toolchain.pythons else toolchain.pythons[-1],)
    wanted = [item.strip() for item in text.split(",")]
    mistakes = [
        f"{item!r} is not a Python of this toolchain"
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
    """The torch asked for, or the newest; there must be one for every Python."""
    pairs = {(build.torch, build.python) for build in toolchain.builds}
    usable = [t for t in toolchain.torches if all((t, python) in pairs for python in pythons)]
    if text is None and usable:
        return usable[-1]
    if text in usable:
        return text
    wanted = "one torch" if text is None else f"torch {text}"
    raise UsageError(
        f"{toolchain.name} has not {wanted} for Python {', '.join(pythons)}",
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
    """A target's units, captured, and what is needed to compile and to assemble them."""

    target: Target
    tools: Tools
    upstream: Upstream
    units: tuple[Unit, ...]
    places: Places
    scratch: Path

    def context(self, fronts: tuple[Front, ...]) -> Context:
        """The compile context for these fronts: they decide __CUDA_ARCH_LIST__."""
        toolchain = self.target.toolchain
        return Context(
            nvcc="@cuda@/bin/nvcc",
            cxx=str(self.tools.compiler.path),
            device_id=self.tools.environment.compiler_id,
            host_id=self.tools.compiler.id,
            seeded=tuple(map(int, toolchain.cuda.split("."))) >= _SEEDED_SINCE,
            archlist=archlist(fronts),
            places=self.places,
            environment=_compiler_environment(self.upstream.project.epoch),
            scratch=str(self.scratch),
            store_root=str(store_folder()),
            store_limit=STORE_LIMIT,
        )


@contextmanager
def prepared(target: Target, tools: Tools, emit: Emit) -> Iterator[Prepared]:
    """Unpack, capture, and lay out the view; the work folder goes when the block ends."""
    recipe, environment = target.recipe, tools.environment
    with _work_folder() as work:
        with step(emit, "source", f"{recipe.project} {recipe.version}"):
            project = unpack(recipe, downloads_folder(), work / "project", emit)
        compiler = str(tools.compiler.path)
        upstream = Upstream(project, environment, compiler, work / "upstream", sys.executable)
        with step(emit, "capture"):
            units = upstream.capture()
        name = f"{recipe.project}-{recipe.version}"
        files = compiler_files(project.root)
        with shared_sources(name, project.root, files) as source:
            places = Places(
                source=str(source),
                links=(
                    ("site", str(environment.site)),
                    ("env", str(environment.root)),
                    ("cuda", str(environment.cuda_home)),
                    ("python", str(environment.include)),
                ),
                listing=digest(sorted(files)),
            )
            scratch = work / "scratch"
            scratch.mkdir()
            yield Prepared(target, tools, upstream, units, places, scratch)


def open_store() -> Store:
    return Store(store_folder(), STORE_LIMIT)


def store_folder() -> Path:
    return cache_folder() / "store"


def downloads_folder() -> Path:
    return cache_folder() / "downloads"


def code_digest() -> str:
    """Digest of fatwheel's own code: what an older fatwheel made is made again."""
    files = sorted((HOME / "fatwheel").rglob("*.py"))
    return digest([file.read_text(encoding="utf-8") for file in files])


@contextmanager
def step(emit: Emit, name: str, detail: str = "") -> Iterator[None]:
    """Report a step of the pipeline and how long it took."""
    started = time.monotonic()
    emit(StepStarted(name, detail))
    yield
    emit(StepFinished(name, time.monotonic() - started, detail))


def _compiler_environment(epoch: int) -> tuple[tuple[str, str], ...]:
    """What compilers see: nothing of the user's variables but where programs are."""
    return (
        ("PATH", os.environ.get("PATH", os.defpath)),
        ("LC_ALL", "C.UTF-8"),
        ("SOURCE_DATE_EPOCH", str(epoch)),
    )


@contextmanager
def _work_folder() -> Iterator[Path]:
    """A folder of this build's own; those of builds that were killed are removed."""
    parent = cache_folder() / "work"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with locked(parent / "lock"):
            for old in parent.glob(f"{_WORK}*"):
                _remove_if_abandoned(old)
            work = Path(tempfile.mkdtemp(prefix=_WORK, dir=parent))
            held = _hold(work)
    except OSError as error:
        raise disk_error(error, "make a work folder", parent, f"{VARIABLE}=FOLDER") from error
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(held)


def _hold(folder: Path) -> int:
    """Lock a folder for as long as this process lives; BlockingIOError if another one does.

    A process id would not do: the cache may be shared with other machines and containers.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def _remove_if_abandoned(folder: Path) -> None:
    with suppress(BlockingIOError, FileNotFoundError):
        handle = _hold(folder)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)
