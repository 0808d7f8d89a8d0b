"""Finds a CPython that can build extension modules, and the build of a toolchain for it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.pinned import Download, Package
from ..config.toolchain import Toolchain, TorchBuild
from ..errors import ToolchainError, UsageError

_TIMEOUT = 30.0  # seconds for an interpreter to say who it is

# In a virtual environment this describes the interpreter that it was made from.
_QUESTION = """
import json, os, platform, sys, sysconfig
print(json.dumps({
    "implementation": platform.python_implementation(),
    "version": platform.python_version(),
    "threads": "t" in getattr(sys, "abiflags", ""),
    "executable": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "include": sysconfig.get_path("include"),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A base interpreter, outside of any virtual environment.

    version is complete (`3.11.7`); include is the folder of its Python.h.
    """

    executable: Path
    version: str
    include: Path


def find_interpreter(python: str) -> Interpreter:
    """A CPython of version `python` (`3.11`): this one, or else one on PATH.

    Only one that runs, is of that version and has its header files is taken. Raises
    ToolchainError that lists what was found instead.
    """
    seen: list[str] = []
    for candidate in _candidates(python):
        answer = _ask(candidate)
        if isinstance(answer, str):
            seen.append(f"{candidate}: {answer}")
        elif _minor(answer.version) != python:
            seen.append(f"{candidate}: is Python {answer.version}")
        elif not (answer.include / "Python.h").is_file():
            seen.append(f"{candidate}: Python {answer.version} without {answer.include}/Python.h")
        else:
            return answer
    raise ToolchainError(
        f"no usable Python {python} found",
        details=["tried:", *(f"  {line}" for line in dict.fromkeys(seen))],
        hint=(
            f"install CPython {python} with its header files and put it on PATH (Debian, Ubuntu: "
            f"python{python} and python{python}-dev; Fedora: python{python}-devel)"
        ),
    )


def is_interpreter_here(python: str) -> bool:
    """Whether `find_interpreter` finds one."""
    try:
        find_interpreter(python)
    except ToolchainError:
        return False
    return True


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _candidates(python: str) -> Iterator[Path]:
    yield Path(sys.executable)
    for name in (f"python{python}", "python3", "python"):
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
            found = shutil.which(name, path=folder) if folder else None
            if found:
                yield Path(found)


def _ask(candidate: Path) -> Interpreter | str:
    """Who the candidate is, or why it is of no use."""
    facts = answer_of(candidate, _QUESTION, _TIMEOUT)
    if isinstance(facts, str):
        return facts
    return Interpreter(Path(facts["executable"]), facts["version"], Path(facts["include"]))


def answer_of(
    python: Path, question: str, timeout: float, variables: Mapping[str, str] | None = None
) -> dict[str, Any] | str:
    """What a plain CPython answers to code that prints a JSON object with at least
    implementation, version and threads; or why it is of no use, as the end of a sentence.

    timeout in seconds. variables: all that it sees, if not those of this process.
    """
    try:
        # Isolated: PYTHONPATH and PYTHONHOME are meant for another interpreter.
        answer = subprocess.run(
            [str(python), "-I", "-c", question],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env=variables,
        )
        facts: dict[str, Any] = json.loads(answer.stdout)
        version, threads = facts["version"], facts["threads"]
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run: {error}"
    except (ValueError, KeyError, TypeError, RecursionError):
        complaint = answer.stderr.strip().splitlines()
        return f"does not run: {complaint[0] if complaint else 'no answer'}"
    if facts["implementation"] != "CPython" or threads:
        kind = "free-threaded" if threads else facts["implementation"]
        return f"is a {kind} {version}; plain CPython is needed"
    return facts


# -- builds of a toolchain -------------------------------------------------------------------------

# One Python with one torch of a toolchain, and what makes its device code what it is.


def build_of(toolchain: Toolchain, python: str, torch: str) -> TorchBuild:
    """The build for a Python (`3.11`) and a torch (`2.11.0`); UsageError where there is none."""
    for build in toolchain.builds:
        if (build.python, build.torch) == (python, torch):
            return build
    served = [f"Python {build.python} with torch {build.torch}" for build in toolchain.builds]
    raise UsageError(
        f"toolchain {toolchain.name} does not support Python {python} with torch {torch}",
        hint="it supports: " + ", ".join(served),
    )


def compiler_id(toolchain: Toolchain, build: TorchBuild) -> str:
    """sha256 over the pins of all that decides device code, wherever it is installed; of a
    machine's own CUDA, over its files."""
    if toolchain.installed:
        return toolchain.installed.compiler_id
    packages = [p for p in (*toolchain.packages, *build.packages) if p.role == "compiler"]
    packages += toolchain.device_packages
    lines = [*pins(packages), *pins(toolchain.cuda_files)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def pins(files: Iterable[Package | Download]) -> list[str]:
    """One line for each file: name, version and sha256, sorted."""
    return sorted(f"{file.name} {file.version} {file.sha256}" for file in files)
