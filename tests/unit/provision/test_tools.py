"""Installed tools against what was pinned; shell scripts stand for them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fatwheel.errors import ToolchainError
from fatwheel.provision.tools import check_nvcc, check_torch, run, same

BANNER = "Cuda compilation tools, release 13.0, V13.0.88"


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_nvcc_of_the_version(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "nvcc", f'[ "$1" = --version ] && echo "{BANNER}"')
    check_nvcc(tmp_path, "13.0.88")
    with pytest.raises(
        ToolchainError, match=r"nvcc is 13\.0\.88, and the toolchain says 13\.0\.8\n"
    ):
        check_nvcc(tmp_path, "13.0.8")


def test_nvcc_of_no_version(tmp_path: Path) -> None:
    script(tmp_path / "bin" / "nvcc", "echo hello")
    with pytest.raises(ToolchainError, match="nvcc is of no version"):
        check_nvcc(tmp_path, "13.0.88")


@pytest.mark.parametrize("version", ["2.1.1", "2.1.1+cu121"])
def test_torch_whatever_its_local_part(tmp_path: Path, version: str) -> None:
    python = script(tmp_path / "python", f'[ "$1" = -I ] && echo {version}')
    check_torch(python, "2.1.1")
    with pytest.raises(ToolchainError, match=r"the installed torch is 2\.1\.1,"):
        check_torch(python, "2.1.2")


def test_what_builds_import_is_imported_too(tmp_path: Path) -> None:
    python = script(tmp_path / "python", f'echo "$3" > {tmp_path}/asked; echo 2.1.1')
    check_torch(python, "2.1.1", warm=True)
    assert "torch.utils.cpp_extension" in (tmp_path / "asked").read_text()
    check_torch(python, "2.1.1")
    assert "cpp_extension" not in (tmp_path / "asked").read_text()


def test_a_tool_that_fails_is_shown_with_its_last_lines(tmp_path: Path) -> None:
    tool = script(tmp_path / "tool", "for n in $(seq 30); do echo line $n >&2; done; exit 3")
    with pytest.raises(ToolchainError, match="tool fails") as caught:
        run([str(tool), "--option"])
    assert caught.value.where == f"{tool} --option"
    assert caught.value.details == tuple(f"line {n}" for n in range(21, 31))


def test_a_tool_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match=r"cannot run .*absent: No such file"):
        run([str(tmp_path / "absent")])


def test_other_libraries_are_kept_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    monkeypatch.setenv("KEPT", "yes")
    code = "import os; print(os.environ.get('LD_LIBRARY_PATH'), os.environ['KEPT'])"
    assert run([sys.executable, "-c", code]) == "None yes\n"


def test_same() -> None:
    same("cl", "1.0", "1.0")
    with pytest.raises(ToolchainError, match=r"cl is 1\.0\.1, and the toolchain says 1\.0"):
        same("cl", "1.0", "1.0.1")
