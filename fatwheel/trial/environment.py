"""Makes a clean environment, runs Python in it, and tests the import of a wheel."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ToolchainError, VerifyError
from ..events import Emit
from ..machine import this_platform
from ..provision.tools import run
from ..storage import files
from ..storage.cache import VARIABLE
from ..toolchain.interpreters import find_interpreter
from ..toolchain.unpack import InstallScheme, ensure_unpacked, link_into, link_packages, unpack
from ..verify.evidence import Finding, note, warning, wrong
from .children import SCRIPT, Ended, Trial, results_of, run_to_end, trial_of
from .subject import TriedWheel, unmet


def run_python(
    clean: Clean, arguments: Sequence[str], variables: Mapping[str, str], limit: float
) -> Ended:
    """Run the environment's Python, isolated, in an empty folder, for at most `limit` seconds.

    What it compiles of Python is kept in the environment. Raises OSError.
    """
    output = clean.root / "output"
    command = [
        str(clean.python), "-I", "-u", "-X", f"pycache_prefix={clean.root / 'pycache'}", *arguments,
    ]  # fmt: skip
    return run_to_end(command, clean.empty, {**clean.variables, **variables}, output, limit)


# -- the environment -------------------------------------------------------------------------------

# A clean environment for one wheel: its Python, torch and what they need, and nothing else.
#
# It is mostly hard links into <cache>/packages, and goes when it has been used. What runs in it is
# the wheel's own code, with the user's rights: it does not see the user's packages, and is not
# locked up.


_DRIVER = "libcuda.so.1"
# Of the user's own variables only these are seen inside: what finds programs and the GPU.
_KEPT = (
    "PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER",
    # Without these, Windows starts nothing.
    "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT",
)  # fmt: skip


@dataclass(frozen=True)
class Clean:
    """An environment with one wheel installed.

    root: the folder that goes. python: its interpreter; version: `3.11.7`. empty: a folder to run
    in, with nothing in it. variables: all that a child process gets.
    """

    root: Path
    python: Path
    version: str
    empty: Path
    variables: Mapping[str, str]


@contextmanager
def clean_environment(subject: TriedWheel, work: Path, cache: Path, emit: Emit) -> Iterator[Clean]:
    """Install a wheel below `work`, an empty folder on the cache's file system.

    Emits Progress over bytes. Raises ToolchainError (no such Python), VerifyError where the wheel
    cannot be installed, StoreError, and what `fetch` raises.
    """
    interpreter = find_interpreter(subject.python)
    ensure_unpacked(subject.packages, cache, emit)
    root = work / "clean"
    try:
        run([str(interpreter.executable), "-I", "-m", "venv", "--without-pip", str(root)])
        into = _folders(root, subject.python)
        link_packages(subject.packages, cache, into, this_platform(), emit)
        for number, one in enumerate(subject.neighbours):
            _install_wheel(one.wheel, into, work / f"neighbour-{number}")
        _install_wheel(subject.wheel, into, work / "wheel")
        yield _described(root, into.python, work, interpreter.version)
    except OSError as error:
        raise files.disk_error(
            error, "make a clean environment", work, f"{VARIABLE}=FOLDER"
        ) from error


def _install_wheel(wheel: Path, into: InstallScheme, folder: Path) -> None:
    """The wheel itself, or a neighbour, each file against RECORD."""
    try:
        unpack(wheel, folder, lambda count: None)
        link_into(folder, folder.name, into, this_platform())
    except ToolchainError as error:
        raise VerifyError(
            "the wheel cannot be installed",
            where=wheel.name,
            details=[error.what, *error.details],
        ) from error


def _folders(root: Path, python: str) -> InstallScheme:
    """As `venv` lays environments out."""
    headers = root / "include" / "site"
    if sys.platform == "win32":
        scripts, site = root / "Scripts", root / "Lib" / "site-packages"
        return InstallScheme(scripts / "python.exe", site, headers, scripts, root)
    scripts, site = root / "bin", root / "lib" / f"python{python}" / "site-packages"
    return InstallScheme(scripts / "python", site, headers, scripts, root)


def _described(root: Path, python: Path, work: Path, version: str) -> Clean:
    empty, home, temporary = (work / name for name in ("empty", "home", "tmp"))
    for folder in (empty, home, temporary):
        folder.mkdir()
    variables = {name: os.environ[name] for name in _KEPT if name in os.environ}
    variables |= {
        **dict.fromkeys(("HOME", "USERPROFILE"), str(home)),
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary)),
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": os.pathsep.join(_driver_folders()),
        # The driver keeps what it compiled: here, and not among the user's own.
        "CUDA_CACHE_PATH": str(home / "jit"),
        "CUDA_CACHE_MAXSIZE": str(4 << 30),
    }
    return Clean(root, python, version, empty, variables)


def _driver_folders() -> list[str]:
    """Of LD_LIBRARY_PATH what has the GPU's driver; no other CUDA libraries are to be used."""
    named = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    return [folder for folder in named if folder and Path(folder, _DRIVER).exists()]


# -- imports ---------------------------------------------------------------------------------------

# Whether a wheel's modules can be imported where it is installed, and how long that takes.


_LIMIT = 900.0  # seconds
_MISSING = re.compile(r"ModuleNotFoundError: No module named '(\w+)'")


def try_modules(
    clean: Clean, modules: Sequence[str], *, gpu: str = "none", mode: str = ""
) -> Trial:
    """Import modules in a process of their own.

    gpu: 'gpu' to use it once, afterwards. mode: CUDA_MODULE_LOADING, or ''.
    """
    results = clean.root / "trial.json"
    results.unlink(missing_ok=True)
    variables = {"CUDA_MODULE_LOADING": mode} if mode else {}
    ended = run_python(clean, [str(SCRIPT), str(results), gpu, *modules], variables, _LIMIT)
    return trial_of(ended, results_of(results))


def import_findings(subject: TriedWheel, clean: Clean, trial: Trial) -> Iterator[Finding]:
    """What was tried with what, how long it took, and all that went wrong."""
    torch = f", torch {trial.torch}" if trial.torch else ""
    yield note(f"with Python {clean.version}{torch}: those of {subject.origin}")
    if subject.neighbours:
        names = (f"{one.name} {one.version}" for one in subject.neighbours)
        yield note(f"beside {', '.join(names)}")
    lacking = unmet(subject.requirements, (*subject.packages, *subject.neighbours))
    if lacking:
        yield warning("its requirements that nothing pins are not installed", details=lacking)
    if not (trial.seconds or trial.failed or trial.unfinished):
        yield warning("there is no module in it to import")
    for name, seconds in trial.seconds.items():
        yield note(f"import {name}: {seconds:.1f} s")
    if trial.outside:
        yield warning(
            "it uses CUDA libraries of this machine, and fails where they are not installed",
            details=[*trial.outside, "no package that it requires brings them"],
        )
    for name, lines in trial.failed.items():
        yield wrong(f"import {name} fails", details=[*lines, *_advice(lines)])
    if trial.unfinished:
        doing = trial.unfinished
        what = f"using {doing}" if doing == "the GPU" else f"import {doing}"
        yield wrong(f"{what}: Python crashed: {trial.ended.how}", details=trial.ended.last)
    elif trial.ended.code not in (0, 1):
        what = f"Python did not exit cleanly after the import: {trial.ended.how}"
        yield wrong(what, details=trial.ended.last)


def _advice(lines: Sequence[str]) -> Iterator[str]:
    """What to do about a module that is not there."""
    if lines and (match := _MISSING.fullmatch(lines[-1])):
        yield (
            f"if {match[1]} is a package of its own: [[runtime]] in the recipe pins one of the "
            "package index; --beside FILE.whl installs any other"
        )


def figures_of(trial: Trial) -> list[dict[str, Any]]:
    """For the report: each module and the seconds that its import took; None where it failed."""
    names = (*trial.seconds, *trial.failed)
    return [{"module": name, "seconds": trial.seconds.get(name)} for name in names]
