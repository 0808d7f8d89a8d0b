"""What a base image must have; this machine stands for it."""

from __future__ import annotations

import platform
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.errors import ToolchainError
from fatwheel.provision import image
from fatwheel.provision.image import check_base

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
ANY = (1, 99)


@pytest.fixture
def header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Python.h of the Python that runs this."""
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / name))
    (tmp_path / "include").mkdir()
    path = tmp_path / "include" / "Python.h"
    path.touch()
    return path


def test_a_machine_that_has_all_of_it(header: Path, tool: Callable[[str], str]) -> None:
    tool("g++")
    check_base(PYTHON, "13.0", ANY)


def test_another_python(header: Path) -> None:
    with pytest.raises(ToolchainError, match=rf"python2\.7 is Python {PYTHON}$"):
        check_base("2.7", "13.0", ANY)
    assert platform.python_version().startswith(PYTHON)


def test_no_header_files(header: Path) -> None:
    header.unlink()
    with pytest.raises(ToolchainError, match="without its header files") as caught:
        check_base(PYTHON, "13.0", ANY)
    assert caught.value.where == str(header)
    assert f"python{PYTHON}-dev" in str(caught.value.hint)


def test_no_compiler(header: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ToolchainError, match=r"no C\+\+ compiler here that CUDA 13\.0 works with"):
        check_base(PYTHON, "13.0", ANY)


def test_the_range_of_compilers_is_passed_on(header: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(image, "find_host_compiler", lambda *asked_: asked.append(asked_))
    check_base(PYTHON, "12.3", (9, 12))
    assert asked == [("12.3", (9, 12))]
