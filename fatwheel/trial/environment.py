"""Makes a clean environment, runs Python in it, and tests the import of a wheel."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FormatError, ToolchainError, VerifyError
from ..events import Emit, Progress
from ..provision.compilers import run
from ..storage import files
from ..storage.cache import VARIABLE
from ..toolchain.interpreters import find_interpreter
from ..toolchain.unpack import ensure_unpacked, folder_of, link_into, unpack
from ..verify.evidence import Finding, note, warning, wrong
from . import import_script as trial_script
from .subject import Subject, unmet

LAST = 12  # lines that are shown of what it said
_SAID = 1 << 20  # bytes that are read of it, from its end
_MOST = 64 << 20  # bytes of results that are read


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code (None: it took too long), seconds, what it said last."""

    code: int | None
    seconds: float
    said: tuple[str, ...]

    @property
    def how(self) -> str:
        """`exit code 1`, `ended by SIGSEGV`, `not done after 900 s`."""
        if self.code is None:
            return f"not done after {self.seconds:.0f} s"
        if self.code < 0:
            return f"ended by {_signal_name(-self.code)}"
        return f"exit code {self.code}"

    @property
    def last(self) -> tuple[str, ...]:
        return self.said[-LAST:]


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
    begun = time.perf_counter()
    with output.open("wb") as stream:
        try:
            code: int | None = subprocess.run(
                command, cwd=clean.empty, env={**clean.variables, **variables},
                stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, timeout=limit,
                check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = None
    return Ended(code, time.perf_counter() - begun, _last_lines(output))


def results_of(file: Path) -> list[dict[str, Any]]:
    """The JSON lines that a child wrote; those it could not finish are left out.

    FormatError where there is more than any child of ours writes.
    """
    if not file.exists():
        return []
    if file.stat().st_size > _MOST:
        raise FormatError("its report is too long")
    found: list[dict[str, Any]] = []
    for line in file.read_bytes().splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _last_lines(output: Path) -> tuple[str, ...]:
    size = output.stat().st_size
    with output.open("rb") as stream:
        stream.seek(max(0, size - _SAID))
        text = stream.read().decode("utf-8", "replace")
    return tuple(line for line in text.splitlines() if line.strip())


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# -- the environment -------------------------------------------------------------------------------

# A clean environment for one wheel: its Python, torch and what they need, and nothing else.
#
# It is mostly hard links into <cache>/packages, and goes when it has been used. What runs in it is
# the wheel's own code, with the user's rights: it does not see the user's packages, and is not
# locked up.


LABEL = "install"
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
def clean_environment(subject: Subject, work: Path, cache: Path, emit: Emit) -> Iterator[Clean]:
    """Install a wheel below `work`, an empty folder on the cache's file system.

    Emits Progress over bytes. Raises ToolchainError (no such Python), VerifyError where the wheel
    cannot be installed, StoreError, and what `fetch` raises.
    """
    interpreter = find_interpreter(subject.python)
    ensure_unpacked(subject.packages, cache, emit)
    root = work / "clean"
    try:
        run([str(interpreter.executable), "-I", "-m", "venv", "--without-pip", str(root)])
        _install_packages(subject, root, cache, emit)
        _install_wheel(subject, root, work / "wheel")
        yield _described(root, work, interpreter.version)
    except OSError as error:
        raise files.disk_error(
            error, "make a clean environment", work, f"{VARIABLE}=FOLDER"
        ) from error


def _install_packages(subject: Subject, root: Path, cache: Path, emit: Emit) -> None:
    total, done = sum(package.size for package in subject.packages), 0
    for package in subject.packages:
        _link(subject, folder_of(package, cache), root, package.name)
        done += package.size
        emit(Progress(LABEL, done, total))


def _install_wheel(subject: Subject, root: Path, folder: Path) -> None:
    """The wheel itself, each file against RECORD."""
    try:
        unpack(subject.wheel, folder, lambda count: None)
        _link(subject, folder, root, "wheel")
    except ToolchainError as error:
        raise VerifyError(
            "the wheel cannot be installed",
            where=subject.wheel.name,
            details=[error.what, *error.details],
        ) from error


def _link(subject: Subject, folder: Path, root: Path, name: str) -> None:
    site = str(_site(root, subject.python))
    schemes = {
        "purelib": site,
        "platlib": site,
        "headers": str(root / "include" / "site" / name),
        "scripts": str(_python(root).parent),
        "data": str(root),
    }
    link_into(folder, schemes, _python(root), "win-amd64" if sys.platform == "win32" else "posix")


if sys.platform == "win32":  # as `venv` lays environments out

    def _python(root: Path) -> Path:
        return root / "Scripts" / "python.exe"

    def _site(root: Path, python: str) -> Path:
        return root / "Lib" / "site-packages"

else:

    def _python(root: Path) -> Path:
        return root / "bin" / "python"

    def _site(root: Path, python: str) -> Path:
        return root / "lib" / f"python{python}" / "site-packages"


def _described(root: Path, work: Path, version: str) -> Clean:
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
    return Clean(root, _python(root), version, empty, variables)


def _driver_folders() -> list[str]:
    """Of LD_LIBRARY_PATH what has the GPU's driver; no other CUDA libraries are to be used."""
    named = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    return [folder for folder in named if folder and Path(folder, _DRIVER).exists()]


# -- imports ---------------------------------------------------------------------------------------

# Whether a wheel's modules can be imported where it is installed, and how long that takes.


_LIMIT = 900.0  # seconds


@dataclass(frozen=True)
class Trial:
    """Modules imported one after another, and perhaps the GPU used once.

    seconds: of each module that could be imported. failed: Python's last words for each other.
    first_use: seconds that the GPU's first use took after that; None where it came to none.
    unfinished: what was being done when the process ended, or ''. outside: CUDA's libraries that
    were loaded from this machine, and not from the environment.
    """

    ended: Ended
    torch: str
    seconds: Mapping[str, float]
    failed: Mapping[str, tuple[str, ...]]
    first_use: float | None
    unfinished: str
    outside: tuple[str, ...]


def try_modules(
    clean: Clean, modules: Sequence[str], *, gpu: str = "none", mode: str = ""
) -> Trial:
    """Import modules in a process of their own.

    gpu: 'gpu' to use it once, afterwards. mode: CUDA_MODULE_LOADING, or ''.
    """
    results = clean.root / "trial.json"
    results.unlink(missing_ok=True)
    variables = {"CUDA_MODULE_LOADING": mode} if mode else {}
    script = str(Path(trial_script.__file__).resolve())
    ended = run_python(clean, [script, str(results), gpu, *modules], variables, _LIMIT)
    return _read(ended, results_of(results))


def _read(ended: Ended, said: Sequence[Mapping[str, Any]]) -> Trial:
    seconds = {str(one["module"]): float(one["seconds"]) for one in said if "module" in one}
    failed = {str(one["failed"]): tuple(one["lines"]) for one in said if "failed" in one}
    begun = [str(one["start"]) for one in said if "start" in one]
    first_use = next((float(one["first_use"]) for one in said if "first_use" in one), None)
    done = {*seconds, *failed} | ({"the GPU"} if first_use is not None else set())
    return Trial(
        ended=ended,
        torch=next((str(one["torch"]) for one in said if "torch" in one), ""),
        seconds=seconds,
        failed=failed,
        first_use=first_use,
        unfinished=next((name for name in begun if name not in done), ""),
        outside=next((tuple(map(str, one["outside"])) for one in said if "outside" in one), ()),
    )


def import_findings(subject: Subject, clean: Clean, trial: Trial) -> Iterator[Finding]:
    """What was tried with what, how long it took, and all that went wrong."""
    torch = f", torch {trial.torch}" if trial.torch else ""
    yield note(f"with Python {clean.version}{torch}: those of {subject.origin}")
    lacking = unmet(subject.requirements, subject.packages)
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
        yield wrong(f"import {name} fails", details=lines)
    if trial.unfinished:
        doing = trial.unfinished
        what = f"using {doing}" if doing == "the GPU" else f"import {doing}"
        yield wrong(f"{what}: Python crashed: {trial.ended.how}", details=trial.ended.last)
    elif trial.ended.code not in (0, 1):
        what = f"Python did not exit cleanly after the import: {trial.ended.how}"
        yield wrong(what, details=trial.ended.last)


def figures_of(trial: Trial) -> list[dict[str, Any]]:
    """For the report: each module and the seconds that its import took; None where it failed."""
    names = (*trial.seconds, *trial.failed)
    return [{"module": name, "seconds": trial.seconds.get(name)} for name in names]
