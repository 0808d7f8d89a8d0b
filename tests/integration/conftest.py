"""Real builds for the integration tests: `invoke build` in caches of their own.

The environment (5 GB) is shared with the user's own cache; the store never is.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from fatwheel.arch import parse_arch_list
from fatwheel.engines.local import LocalCapture
from fatwheel.engines.process import local_workplace
from fatwheel.events import silent
from fatwheel.model import Environment, Front
from fatwheel.pipeline.capture import captured
from fatwheel.pipeline.plan import PlannedWheel, exact_fronts
from fatwheel.pipeline.resolve import ToolchainRequest, resolve
from fatwheel.storage.cache import cache_folder, users_stores
from fatwheel.worker.context import Context

from ..helpers.nuchecker import NuChecker
from ..helpers.preloaded import run_command
from .engine import LentEngine, docker_engine
from .once import once
from .shortened import shortened_selftest
from .slim import TOOLCHAIN as SLIM_TOOLCHAIN
from .slim import Slim, make_slim
from .windows import cuobjdump_exe, windows_python, wine
from .windowshost import host

__all__ = ["cuobjdump_exe", "docker_engine", "host", "windows_python", "wine"]  # fixtures

ROOT = Path(__file__).resolve().parents[2]
ARCHS = "80,86,89"
# What builds build where their project does not matter: small units, no torch.
SAMPLE = "tests/data/sample"
CONTAINED_ARCHS = "80,89"  # of the sample that is built in containers
UNITS, CPP_UNITS = 3, 2  # of CUDA and of C++ in it


@pytest.fixture(scope="session")
def nu(
    tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Iterable[Path]], list[str]]:
    """What the W3C's checker says of HTML pages; nothing is best."""
    return once(tmp_path_factory, "nu", lambda folder: NuChecker(folder, tool)).messages


@dataclass(frozen=True)
class Outcome:
    """How a run of invoke ended."""

    code: int
    out: str
    err: str
    wheels: tuple[Path, ...]

    def wheel(self) -> Path:
        assert self.code == 0, f"the build failed with {self.code}:\n{self.err}"
        assert len(self.wheels) == 1, f"not one wheel: {self.wheels}\n{self.err}"
        return self.wheels[0]


class Workbench:
    """A cache of its own that shares environments and downloads with the user's.

    slim: a toolchain for containers, which its builds use. tools: another cache with which it
    shares them.
    """

    def __init__(
        self, folder: Path, store: Path | None = None, *, slim: Slim | None = None,
        tools: Path | None = None,
    ) -> None:  # fmt: skip
        self.cache = folder / "cache"
        self.out = folder / "dist"
        self.slim = slim
        self.cache.mkdir(parents=True)
        shared = tools or cache_folder()
        for name in ("envs", "downloads", "packages", "image-files", *(["msvc"] if tools else [])):
            (shared / name).mkdir(exist_ok=True)
            lent = slim.files if slim and name == "image-files" else shared / name
            (self.cache / name).symlink_to(lent)
        if store is not None:
            shutil.copytree(store, self.cache / "store")

    def keep_apart(self, envs: Path) -> None:
        """From now on its environments and new files are its own; of packages and sdists, it has
        links to those that are there already. envs: a new folder for the former; large ones belong
        on the disk of the cache."""
        envs.mkdir()
        (self.cache / "envs").unlink()
        (self.cache / "envs").symlink_to(envs)
        for name in ("downloads", "packages"):
            shared = (self.cache / name).resolve()
            (self.cache / name).unlink()
            (self.cache / name).mkdir()
            for path in shared.iterdir():
                # A wheel among the downloads is just being unpacked by somebody, and then deleted.
                if len(path.name) == 64 and not list(path.glob("*.whl")):  # a sha256
                    (self.cache / name / path.name).symlink_to(path)

    @property
    def store(self) -> Path:
        return self.cache / "store"

    @property
    def home(self) -> Path:
        """Where commands run: toolchains and recipes are looked for there, too."""
        return self.slim.folder if self.slim else ROOT

    def command(self, *arguments: str) -> list[str]:
        where = ["--search-root", str(ROOT)] if self.slim else []
        return [sys.executable, "-m", "invoke", *where, *arguments]

    def build_command(self, *arguments: str, kernel: str = SAMPLE) -> list[str]:
        """`invoke build` of a kernel into this bench's folder, exact fronts unless asked."""
        options = ["--kernel", kernel, "--out", str(self.out), *arguments]
        if self.slim:
            options[1] = "sample" if kernel == SAMPLE else kernel
            options += ["--toolchain", SLIM_TOOLCHAIN]
        if not {"--front", "--fast"}.intersection(options):
            options += ["--front", "exact"]
        return self.command("build", *options)

    def variables(self, **more: str) -> dict[str, str]:
        return {**os.environ, "FATWHEEL_CACHE": str(self.cache), "CI": "true", **more}

    def invoke(self, *arguments: str, **variables: str) -> Outcome:
        """Run invoke to its end."""
        return self.run(self.command(*arguments), **variables)

    def build(self, *arguments: str, kernel: str = SAMPLE, **variables: str) -> Outcome:
        """Build a kernel to its end."""
        return self.run(self.build_command(*arguments, kernel=kernel), **variables)

    def run(self, command: list[str], **variables: str) -> Outcome:
        done = run_command(command, self.home, self.variables(**variables))
        return Outcome(done.returncode, done.stdout, done.stderr, self.wheels())

    def wheel_in(self, out: Path, *arguments: str) -> Path:
        """The wheel that a task other than build writes into a folder of its own."""
        done = self.invoke(*arguments, "--out", str(out))
        assert done.code == 0, f"{' '.join(arguments)} ended with {done.code}:\n{done.err}"
        found = sorted(out.glob("*.whl"))
        assert len(found) == 1, f"not one wheel: {found}\n{done.err}"
        return found[0]

    def wheels(self) -> tuple[Path, ...]:
        return tuple(sorted(self.out.glob("*.whl"))) if self.out.is_dir() else ()

    def forget_wheels(self) -> None:
        """Make the next build assemble again: finished wheels leave store and folder."""
        for kind in ("wheel", "built"):
            shutil.rmtree(self.store / "refs" / kind, ignore_errors=True)
        shutil.rmtree(self.out, ignore_errors=True)


@pytest.fixture(scope="session")
def on_disk() -> Iterator[Path]:
    """A folder on the disk of the user's cache, for what is large, such as other names of the
    cache's files. Folders that pytest makes may be in memory."""
    with tempfile.TemporaryDirectory(prefix="fatwheel-tests-", dir=cache_folder().parent) as folder:
        yield Path(folder)


@pytest.fixture
def trier(environment: Environment, on_disk: Path) -> Workbench:
    """For `verify --import`, which makes an environment of links to the cache's files."""
    return Workbench(Path(tempfile.mkdtemp(dir=on_disk)))


@pytest.fixture(scope="module")
def browser(tool: Callable[[str], str]) -> Iterator[Any]:
    """Chromium."""
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=tool("chromium"),
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--in-process-gpu"],
        )


@pytest.fixture
def bench(environment: Environment, tmp_path: Path) -> Workbench:
    """A workbench with an empty store."""
    return Workbench(tmp_path / "bench")


@dataclass(frozen=True)
class Contained:
    """A build in containers, and what the engine started for it.

    purposes: of its containers, in the order in which they were started.
    """

    bench: Workbench
    lent: LentEngine
    outcome: Outcome
    purposes: tuple[str, ...]


def build_in_containers(
    bench: Workbench, lent: LentEngine, *arguments: str, kernel: str = SAMPLE
) -> Contained:
    """Build a kernel in containers, and ask the engine what was started meanwhile."""
    client = lent.client()
    started = _seconds(client.info()["SystemTime"])
    outcome = bench.build("--engine", "docker", *arguments, kernel=kernel, **lent.variables)
    until = _seconds(client.info()["SystemTime"])
    filters = {"type": "container", "event": "start", "label": [f"fatwheel.cache={bench.cache}"]}
    events = client.events(since=started, until=until, filters=filters, decode=True)
    purposes = tuple(event["Actor"]["Attributes"]["fatwheel.purpose"] for event in events)
    return Contained(bench, lent, outcome, purposes)


def _seconds(when: str) -> float:
    """Seconds since 1970 of a time as the engine writes it, cut off to whole microseconds."""
    seconds, _, fraction = when.rstrip("Z").partition(".")  # without the zeros at its end
    return datetime.fromisoformat(f"{seconds}+00:00").timestamp() + float(f"0.{fraction or 0}")


@pytest.fixture(scope="session")
def slim(docker_engine: LentEngine, tmp_path_factory: pytest.TempPathFactory) -> Slim:
    """The toolchain without torch, whose images are made in half a minute."""
    return once(tmp_path_factory, "slim", make_slim)


@pytest.fixture(scope="session")
def contained(
    docker_engine: LentEngine, slim: Slim, tmp_path_factory: pytest.TempPathFactory
) -> Contained:
    """The sample, built once from nothing in slim containers for two Pythons; not built on."""
    asked = ("--arch", CONTAINED_ARCHS, "--python", "3.11,3.13")

    def make(folder: Path) -> Contained:
        return build_in_containers(Workbench(folder / "bench", slim=slim), docker_engine, *asked)

    return once(tmp_path_factory, "contained", make)


@pytest.fixture(scope="session")
def contained_selftest(
    docker_engine: LentEngine, tmp_path_factory: pytest.TempPathFactory
) -> Contained:
    """The shortened selftest, built once from nothing in containers of the real toolchain, for one
    architecture and one Python; not to be built on."""
    asked = ("--arch", "80", "--python", "3.11")

    def make(folder: Path) -> Contained:
        bench, kernel = Workbench(folder / "bench"), shortened_selftest(folder / "selftest")
        return build_in_containers(bench, docker_engine, *asked, kernel=str(kernel))

    return once(tmp_path_factory, "contained-selftest", make)


def _built(factory: pytest.TempPathFactory, kernel: str) -> tuple[Workbench, Outcome]:
    def make(folder: Path) -> tuple[Workbench, Outcome]:
        bench = Workbench(folder / "bench")
        outcome = bench.build("--arch", ARCHS, kernel=kernel)
        outcome.wheel()
        return bench, outcome

    return once(factory, Path(kernel).name, make)


@pytest.fixture(scope="session")
def selftest(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workbench, Outcome]:
    """selftest, built once from nothing for 80,86,89; its bench must not be built on."""
    return _built(tmp_path_factory, "selftest")


@pytest.fixture(scope="session")
def sample(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workbench, Outcome]:
    """The sample, built once from nothing for 80,86,89; its bench must not be built on."""
    return _built(tmp_path_factory, SAMPLE)


def _warm(built: tuple[Workbench, Outcome], folder: Path) -> Workbench:
    bench = Workbench(folder / "warm", built[0].store)
    bench.forget_wheels()
    return bench


@pytest.fixture
def warm(sample: tuple[Workbench, Outcome], tmp_path: Path) -> Workbench:
    """A workbench whose store has everything of the sample but the finished wheel."""
    return _warm(sample, tmp_path)


@pytest.fixture
def warm_selftest(selftest: tuple[Workbench, Outcome], tmp_path: Path) -> Workbench:
    """The same of selftest."""
    return _warm(selftest, tmp_path)


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Captured]]:
    """Captures a kernel's units in a bench's cache, as a build would."""
    opened: list[object] = []

    def open_(bench: Workbench, kernel: str, archs: str = ARCHS) -> Captured:
        monkeypatch.setenv("FATWHEEL_CACHE", str(bench.cache))
        target = resolve(kernel, ToolchainRequest("linux-cuda13.0"), archs)[0]
        fronts = exact_fronts(parse_arch_list(archs, target.toolchain.archs))
        workplace = local_workplace(target, silent)
        limits, stores = workplace.capacity, users_stores()
        block = captured(PlannedWheel(target, fronts), workplace, limits, stores, silent)
        opened.append(block)
        _, ready = block.__enter__()
        return Captured(ready, fronts, ready.context)

    yield open_
    for block in opened:
        block.__exit__(None, None, None)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Captured:
    """A kernel's units and the context in which builds compile them."""

    ready: LocalCapture
    fronts: tuple[Front, ...]
    context: Context


def record_of(wheel: Path) -> dict[str, object]:
    """fatwheel.json of a wheel."""
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith(".dist-info/fatwheel.json")]
        found: dict[str, object] = json.loads(archive.read(name))
    return found
