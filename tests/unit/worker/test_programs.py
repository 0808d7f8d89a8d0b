"""By which names a build finds compilers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fatwheel.worker.programs import compiler_names


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of compilers as Debian has them; PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("x86_64-linux-gnu-g++-12", "x86_64-linux-gnu-gcc-12", "g++-11", "clang-14",
                 "gcc-ar", "c89-gcc", "ccache"):  # fmt: skip
        (folder / name).write_text("")
        (folder / name).chmod(0o755)
    for link, to in (
        ("g++-12", "x86_64-linux-gnu-g++-12"), ("g++", "g++-12"), ("c++", "g++"),
        ("x86_64-linux-gnu-g++", "x86_64-linux-gnu-g++-12"),
        ("gcc", "x86_64-linux-gnu-gcc-12"), ("cc", "gcc"), ("clang++", "clang-14"),
    ):  # fmt: skip
        (folder / link).symlink_to(to)
    monkeypatch.setenv("PATH", f"/nowhere{os.pathsep}{folder}")
    return folder


def test_a_compiler_is_found_by_every_name_that_it_has(programs: Path) -> None:
    assert compiler_names(str(programs / "g++")) == {
        "g++": "g++", "c++": "g++", "g++-12": "g++", "x86_64-linux-gnu-g++": "g++",
        "x86_64-linux-gnu-g++-12": "g++", "gcc": "gcc", "cc": "gcc",
        "x86_64-linux-gnu-gcc-12": "gcc", "clang++": "clang++", "clang-14": "clang-14",
    }  # fmt: skip


def test_usual_names_are_there_whatever_the_system_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert compiler_names(str(tmp_path / "g++")) == {
        "gcc": "gcc", "cc": "gcc", "g++": "g++", "c++": "g++",
    }  # fmt: skip


def test_a_program_that_goes_by_its_name_is_no_compiler(programs: Path) -> None:
    """ccache, behind links with the names of compilers."""
    (programs / "g++").unlink()
    for name in ("g++", "g++-13", "python3-gcc"):
        (programs / name).symlink_to("ccache")
    assert set(compiler_names(str(programs / "g++"))) == {
        "gcc", "cc", "g++", "c++", "clang++", "clang-14", "x86_64-linux-gnu-gcc-12",
    }  # fmt: skip
