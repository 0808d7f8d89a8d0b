"""The CUDA home in which compilers for Linux stand in for those of Windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fatwheel.engines import windows
from fatwheel.engines.registry import engine_named
from fatwheel.engines.wine import make_cuda_home
from fatwheel.errors import ToolchainError
from fatwheel.toolchain import windows as tools_module
from fatwheel.toolchain.windows import windows_tools

from ...helpers.somelocks import device_from_linux_lock
from ...helpers.workstations import WINDOWS_TOOLCHAIN

SYSTEM: Any = SimpleNamespace(path=lambda path: "Z:" + str(path).replace("/", "\\"))
FILES = (
    "bin/nvcc.exe", "bin/ptxas.exe", "bin/nvcc.profile", "nvvm/bin/cicc.exe",
    "nvvm/libdevice/libdevice.10.bc", "include/cuda.h",
)  # fmt: skip


def environment(folder: Path) -> Any:
    for name in (*FILES, "site/setuptools/cli-64.exe"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return SimpleNamespace(cuda_home=folder, site=folder / "site")


def test_all_but_two_programs_are_windows_own(tmp_path: Path) -> None:
    real = environment(tmp_path / "real")
    programs = {"cicc": Path("/linux/cicc"), "ptxas": Path("/linux/ptxas")}
    home = tmp_path / "home"
    for _ in range(2):  # a build that failed left one
        make_cuda_home(home, real, programs, "C:\\b\\a-1\\env\\python.exe", SYSTEM)
    for name in set(FILES) - {"bin/ptxas.exe", "nvvm/bin/cicc.exe"}:
        assert (home / name).read_text() == name
        assert (home / name).resolve() == (tmp_path / "real" / name).resolve()
    for name, place in (("cicc", "nvvm/bin"), ("ptxas", "bin")):
        assert (home / place / f"{name}.exe").read_text() == "site/setuptools/cli-64.exe"
        assert not (home / place / f"{name}.exe").is_symlink()
        script = (home / place / f"{name}-script.py").read_text()
        assert script.startswith('#!"C:\\b\\a-1\\env\\python.exe" -I\n')
        told = [name, SYSTEM.path(tmp_path / "real" / place / f"{name}.exe"), f"/linux/{name}"]
        assert f"= {[*told, SYSTEM.path(home / 'compared')]!r}\n" in script
    assert (tmp_path / "real" / "bin" / "ptxas.exe").read_text() == "bin/ptxas.exe"


def test_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    toolchain = device_from_linux_lock().toolchain
    for name, here, said in (
        ("docker", "linux-x86_64", "which works in processes only"),
        ("process", "win-amd64", "and this is Windows"),
    ):
        monkeypatch.setattr(windows, "this_platform", lambda here=here: here)
        monkeypatch.setattr(windows, "windows_build", lambda: 22631)
        assert said in engine_named(name).obstacle(toolchain)
        assert said not in engine_named(name).obstacle(replace(toolchain, device_packages=()))


def test_programs_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [package] = device_from_linux_lock().toolchain.device_packages
    toolchain = replace(WINDOWS_TOOLCHAIN, device_packages=(package,))
    [build, *_] = toolchain.builds
    tools = windows_tools(toolchain, build.python, build.torch, tmp_path)
    cuda = tmp_path / "packages" / package.sha256 / "nvidia" / "cu13"
    for name in ("nvvm/bin/cicc", "bin/ptxas"):
        (cuda / name).parent.mkdir(parents=True)
        (cuda / name).write_text("#!/bin/sh\necho Cuda compilation tools, release 9.1, V9.1.2\n")
        (cuda / name).chmod(0o755)
    with pytest.raises(ToolchainError) as caught:
        tools.programs_of_linux()
    assert "ptxas" in caught.value.what
    monkeypatch.setattr(tools_module, "check_ptxas", lambda *asked: None)
    assert tools.programs_of_linux() == {
        "cicc": cuda / "nvvm/bin/cicc", "ptxas": cuda / "bin/ptxas",
    }  # fmt: skip
    (cuda / "nvvm/bin/cicc").unlink()
    with pytest.raises(ToolchainError) as caught:
        tools.programs_of_linux()
    assert "have 0 cicc, not one" in caught.value.what


def test_other_toolchains_have_none(tmp_path: Path) -> None:
    [build, *_] = WINDOWS_TOOLCHAIN.builds
    tools = windows_tools(WINDOWS_TOOLCHAIN, build.python, build.torch, tmp_path)
    assert tools.programs_of_linux() == {}
