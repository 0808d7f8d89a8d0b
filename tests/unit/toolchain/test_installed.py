"""What is installed becomes a toolchain, or one message says why it cannot."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.config.toolchain import Toolchain
from fatwheel.errors import ToolchainError
from fatwheel.events import Note
from fatwheel.machine import this_platform
from fatwheel.provision.tools import find_host_compiler
from fatwheel.storage.permissions import PermissionGap
from fatwheel.toolchain.installed import find_installed, ready_installed
from fatwheel.toolchain.interpreters import compiler_id

from ...helpers.installedcuda import write, write_cuda, write_python

Tool = Callable[[str], str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def home(tmp_path: Path, tool: Tool) -> Path:
    tool("g++")
    return write_cuda(tmp_path / "cuda", tool)


def refusal(home: Path | None, python: Path | None) -> str:
    with pytest.raises(ToolchainError) as caught:
        find_installed(home, python)
    return str(caught.value)


def ready(toolchain: Toolchain) -> list[str]:
    """Make it ready; the notes."""
    said: list[str] = []
    compiler = find_host_compiler(toolchain.cuda, toolchain.gcc)

    def emit(event: object) -> None:
        if isinstance(event, Note):
            said.append(event.text)

    ready_installed(toolchain, compiler, emit)
    return said


def test_it_is_a_toolchain(home: Path, tmp_path: Path) -> None:
    python = write_python(tmp_path / "venv")
    toolchain = find_installed(home, python)
    assert (toolchain.name, toolchain.platform) == ("system-cuda13.0", this_platform())
    assert (toolchain.nvcc, toolchain.gcc) == ("13.0.61", (9, 99))
    [build] = toolchain.builds
    assert (build.torch, build.python, build.packages) == ("2.11.0", "3.11", ())
    assert toolchain.files == toolchain.bases == ()
    installed = toolchain.installed
    assert installed is not None
    assert (installed.torch, installed.torch_cuda) == ("2.11.0+cu130", "13.0")
    environment = installed.environment
    assert environment is not None
    assert environment.python == python
    assert environment.site == tmp_path / "venv/site"
    assert environment.cuda_home == home


def test_the_key_of_slices_is_made_of_the_compilers_alone(home: Path, tmp_path: Path) -> None:
    def key(home: Path, **facts: object) -> str:
        toolchain = find_installed(home, write_python(tmp_path / "venv", **facts))
        return compiler_id(toolchain, toolchain.builds[0])

    before = key(home)
    home = home.rename(tmp_path / "elsewhere")
    script = home / "bin/nvcc.sh"
    script.write_text(script.read_text().replace(str(tmp_path / "cuda"), str(home)))
    assert key(home, torch="2.10.0+cu130") == before
    write(home / "bin/cudafe++", "another\n", program=True)
    assert key(home) != before


@pytest.mark.parametrize(
    ("torch", "public"),
    [
        ("2.6.0a0+ecf3bae40a.nv25.01", "2.6.0a0"),
        ("2.12.0.dev20260101+cu130", "2.12.0.dev20260101"),
        ("2.9.1", "2.9.1"),
    ],
)
def test_torch_by_all_the_names_it_goes_by(
    home: Path, tmp_path: Path, torch: str, public: str
) -> None:
    toolchain = find_installed(home, write_python(tmp_path / "venv", torch=torch))
    assert toolchain.torches == (public,)
    assert toolchain.installed
    assert toolchain.installed.torch == torch


def test_a_folder_means_the_python_in_it(home: Path, tmp_path: Path) -> None:
    write_python(tmp_path / "venv")
    toolchain = find_installed(home, tmp_path / "venv")
    assert toolchain.pythons == ("3.11",)


def test_without_torch_from_it_is_the_python_that_runs(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = write_python(tmp_path / "venv", version="3.12.4")
    monkeypatch.setattr(sys, "executable", str(python))
    assert find_installed(home, None).pythons == ("3.12",)


def test_without_cuda_home_it_is_that_of_the_packages(tmp_path: Path, tool: Tool) -> None:
    python = write_python(tmp_path / "venv")
    said = refusal(None, python)
    assert "the packages of this Python have no nvcc" in said
    assert "name a CUDA: --cuda-home" in said
    home = write_cuda(tmp_path / "venv/site/nvidia/cu13", tool)
    installed = find_installed(None, python).installed
    assert installed is not None
    assert installed.cuda_home == home


def test_cuda_home_of_the_environment_is_not_used(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_HOME", str(home))
    assert "have no nvcc" in refusal(None, write_python(tmp_path / "venv"))


# -- refused ---------------------------------------------------------------------------------------


def test_a_torch_for_another_major_version(home: Path, tmp_path: Path) -> None:
    python = write_python(tmp_path / "venv", torch="2.8.0+cu128", cuda="12.8")
    said = refusal(home, python)
    assert "torch 2.8.0+cu128 was built for CUDA 12.8, and this is CUDA 13.0" in said
    assert str(home) in said
    assert str(python) in said


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"missing": "No module named 'torch'"}, "No module named 'torch'"),
        ({"cuda": None}, "its torch '2.11.0+cu130' was built without CUDA"),
        ({"threads": True}, "is a free-threaded 3.11.7; plain CPython is needed"),
        ({"implementation": "PyPy"}, "is a PyPy 3.11.7"),
        ({"include": "/nowhere"}, "there is no /nowhere/Python.h"),
        ({"torch": "a torch"}, "its torch: 'a torch' is not a version"),
        ({"torch": "2.11.0\n"}, "is not a version"),
        ({"torch": "2." + "9" * 5000}, "at most 100 are allowed"),
        ({"torch": "1!2.11.0"}, "has an epoch"),
        ({"cuda": "13.0; x"}, "its cuda: '13.0; x' is not a version"),
        ({"version": "3.11.7\nx"}, "is not a Python's version"),
        ({"site": 5}, "its site is no path"),
        ({"include": "a\0b"}, "its include is no path"),
        ({"prefix": "/a b"}, "must not contain a space or a colon"),
    ],
)
def test_a_python_that_cannot_be_used(
    home: Path, tmp_path: Path, facts: dict[str, object], words: str
) -> None:
    python = write_python(tmp_path / "venv", **facts)
    said = refusal(home, python)
    assert words in said
    assert f"--torch-from {python}" in said


def test_no_python(home: Path, tmp_path: Path) -> None:
    for named, lacks in ((tmp_path / "none", "none"), (tmp_path, "bin/python")):
        said = refusal(home, named)
        assert f"there is no {tmp_path / lacks}" in said
        assert f"--torch-from {named}" in said
    program = write(tmp_path / "python", "#!/bin/sh\necho no >&2; exit 1\n", program=True)
    assert "this Python does not run: no" in refusal(home, program)


def test_the_python_that_runs_has_no_torch(home: Path) -> None:
    """Really asked."""
    try:
        import torch  # noqa: F401
    except ImportError:
        said = refusal(home, None)
        assert "No module named 'torch'" in said
        assert "name one that has: --torch-from PYTHON" in said
    else:
        pytest.skip("this Python has torch")


# -- ready to build --------------------------------------------------------------------------------


def test_it_says_that_the_wheel_cannot_be_rebuilt(home: Path, tmp_path: Path) -> None:
    [said] = ready(find_installed(home, write_python(tmp_path / "venv")))
    assert str(home) in said
    assert "the wheel cannot be rebuilt elsewhere" in said


def test_others_who_can_change_it_are_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gap_of(folder: Path) -> PermissionGap | None:
        inside = folder.is_relative_to(home)
        return PermissionGap(home, "every user of this machine", everybody=True) if inside else None

    monkeypatch.setattr("fatwheel.toolchain.installed.gap_of", gap_of)
    said = ready(find_installed(home, write_python(tmp_path / "venv")))
    assert said[1:] == [
        f"every user of this machine can write to {home}, and so could change what you build"
    ]


def test_a_cuda_home_of_links(home: Path, tmp_path: Path, cache: Path) -> None:
    """The packages of CUDA lack lib64, libcudart.so and the driver's stub."""
    (home / "lib64").rename(home / "lib")
    (home / "lib/libcudart.so").rename(home / "lib/libcudart.so.13")
    write(home / "include/cuda.h", "CUresult cuInit(unsigned flags);\n")
    before = sorted(home.rglob("*"))
    toolchain = find_installed(home, write_python(tmp_path / "venv"))
    assert toolchain.installed
    assert toolchain.installed.environment
    made = toolchain.installed.environment.cuda_home
    assert made.is_relative_to(cache.resolve())
    ready(toolchain)
    assert os.path.samefile(made / "bin/nvcc", home / "bin/nvcc")
    assert os.path.samefile(made / "nvvm/bin/cicc", home / "nvvm/bin/cicc")
    assert os.path.samefile(made / "lib64/libcudart.so", home / "lib/libcudart.so.13")
    assert (made / "lib64/stubs/libcuda.so").is_file()
    assert sorted(home.rglob("*")) == before, "what is the user's was changed"
    ready(toolchain)
    assert [path.name for path in made.parent.parent.iterdir()] == [made.parent.name]
