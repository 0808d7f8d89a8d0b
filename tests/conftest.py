"""What tests of real tools need: a missing tool fails the test in CI, and skips it elsewhere."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from fatwheel.errors import FatwheelError
from fatwheel.events import silent
from fatwheel.model import Environment
from fatwheel.storage.cache import cache_folder
from fatwheel.toolchain.environment import ensure_environment

from .helpers.toolchains import shipped_toolchain

ROOT = Path(__file__).resolve().parent.parent
TOOLCHAIN = "linux-cuda13.0"

# How long an example takes says nothing where builds run beside it. All else is as it was.
settings.register_profile(
    "beside-builds", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("beside-builds")


def pytest_configure() -> None:
    # A process that was started in the background ignores Ctrl-C, and so do its children: builds
    # that tests interrupt would go on.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    gc.disable()  # nothing of what is collected goes away
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    # Ten thousand tests and their modules last until the end: without this, each full run of the
    # garbage collector would go through them again, an eighth of the time of tests in memory.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    # Else libraries tell at the end what they take for leaks.
    gc.unfreeze()


# The files whose tests take longest, in about this order: they come first, so that no worker of
# pytest's begins one when the others have ended. The first four do not wait for each other: one
# needs the environment, one images, one Wine. What needs both comes when both are there.
LONGEST = (
    "test_exact.py",
    "test_docker_builds.py",
    "test_windows_builds.py",
    "test_fuzz.py",
    "test_rebuild.py",
    "test_bad_input.py",
    "test_kills.py",
    "test_xformers.py",
    "test_images.py",
    "test_windows_images.py",
    "test_windows_inside.py",
    "test_reproducible_engines.py",
    "test_published.py",
    "test_older_nvcc.py",
    "test_builds.py",
    "test_installed.py",
    "test_reproducible.py",
    "test_hostile_project.py",
    "test_signing.py",
    "test_kills_containers.py",
)


def _mark_long(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("long_for"):
            assert isinstance(item, pytest.Function), f"{item}: long_for is for functions"
            params = item.callspec.params if hasattr(item, "callspec") else {}
            if all(params.get(name) in values for name, values in mark.kwargs.items()):
                item.add_marker("long")


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    _mark_long(items)
    places = {name: place for place, name in enumerate(LONGEST)}

    def place(item: pytest.Item) -> tuple[int, bool]:
        real = bool({"integration", "fuzz"} & set(item.path.parts))
        return places.get(item.path.name, len(places)) if real else len(places), not real

    items.sort(key=place)


# Files whose tests share a Windows: one worker runs them, and makes it once.
WITH_WINE = re.compile(r"tests/integration/test_(?:windows_\w+|check|coff|divided|pe_wine)\.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        """By files, as --dist loadfile."""

        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "with Wine" if WITH_WINE.fullmatch(file) else file

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def missing(what: str) -> NoReturn:
    """End a test that cannot run here."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} (a failure because CI=true)", pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Gives the path of a program that a test calls."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            missing(f"{name} is not installed: scripts/install-test-tools installs it on Debian")
        return path

    return find


@pytest.fixture(scope="session")
def environment() -> Environment:
    """The environment that builds use, for this Python if the toolchain serves it."""
    toolchain = shipped_toolchain(TOOLCHAIN)
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = running if running in toolchain.pythons else "3.11"
    try:
        return ensure_environment(toolchain, python, toolchain.torches[0], cache_folder(), silent)
    except FatwheelError as error:
        missing(f"no CUDA toolchain: {error}")


@pytest.fixture(scope="session")
def cuda_home(request: pytest.FixtureRequest) -> Path:
    """CUDA_HOME with nvcc and cuobjdump; FATWHEEL_TEST_CUDA_HOME names another one."""
    named = os.environ.get("FATWHEEL_TEST_CUDA_HOME")
    if named:
        return Path(named)
    found: Environment = request.getfixturevalue("environment")
    return found.cuda_home
