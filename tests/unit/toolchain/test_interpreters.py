"""Finding an interpreter: real ones, and shell scripts that pretend."""

from __future__ import annotations

import json
import os
import platform
import sys
import sysconfig
from pathlib import Path

import pytest

from fatwheel.errors import ToolchainError
from fatwheel.toolchain.interpreters import find_interpreter

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


def pretend(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def answering(folder: Path, **facts: object) -> str:
    """The body of a script that says it is a Python 3.7."""
    (folder / "include").mkdir(exist_ok=True)
    (folder / "include" / "Python.h").touch()
    answer = {
        "implementation": "CPython",
        "version": "3.7.5",
        "threads": False,
        "executable": str(folder / "base"),
        "include": str(folder / "include"),
        **facts,
    }
    return f"echo '{json.dumps(answer)}'"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_the_running_interpreter_is_preferred(path: Path) -> None:
    pretend(path / f"python{RUNNING}", "exit 1")
    found = find_interpreter(RUNNING)
    assert found.version == platform.python_version()
    assert found.include == Path(sysconfig.get_path("include"))
    assert found.executable.is_file()
    assert not found.executable.is_symlink()
    assert not found.executable.is_relative_to(sys.prefix) or sys.prefix == sys.base_prefix, (
        "a virtual environment's own python was taken for the base interpreter"
    )


def test_one_on_path_that_runs_is_taken(path: Path) -> None:
    pretend(path / "python3.7", answering(path))
    found = find_interpreter("3.7")
    assert (found.version, found.executable) == ("3.7.5", path / "base")


def test_a_shim_that_fails_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shims, real = tmp_path / "shims", tmp_path / "real"
    shims.mkdir()
    real.mkdir()
    pretend(shims / "python3.7", "echo 'shim: python3.7: command not found' >&2; exit 127")
    pretend(real / "python3.7", answering(real))
    monkeypatch.setenv("PATH", f"{shims}{os.pathsep}{real}")
    assert find_interpreter("3.7").executable == real / "base"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"version": "3.6.9"}, "is Python 3.6.9"),
        ({"implementation": "PyPy"}, "is a PyPy 3.7.5"),
        ({"threads": True}, "is a free-threaded 3.7.5"),
        ({"include": "/nowhere"}, "without /nowhere/Python.h"),
    ],
)
def test_what_does_not_fit_is_listed(path: Path, facts: dict[str, object], words: str) -> None:
    pretend(path / "python3.7", answering(path, **facts))
    with pytest.raises(ToolchainError) as caught:
        find_interpreter("3.7")
    line = next(line for line in caught.value.details if f"{path}/python3.7: " in line)
    assert words in line
    assert f"{sys.executable}: is Python {platform.python_version()}" in str(caught.value)
    assert "python3.7-dev" in str(caught.value), "the error must say what to install"


def test_what_does_not_run_is_listed_with_its_words(path: Path) -> None:
    pretend(path / "python3.7", "echo 'no such version' >&2; exit 1")
    (path / "python3").write_text("not a program")
    (path / "python3").chmod(0o755)
    with pytest.raises(ToolchainError) as caught:
        find_interpreter("3.7")
    assert f"{path}/python3.7: does not run: no such version" in str(caught.value)
    assert f"{path}/python3: does not run" in str(caught.value)
