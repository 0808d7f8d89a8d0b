"""What of a toolchain is here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.config.pinned import Download
from fatwheel.config.toolchain import LockedInterpreter
from fatwheel.containers.render import FILES
from fatwheel.doctor import machine
from fatwheel.doctor.facts import Stock, Trouble
from fatwheel.errors import ToolchainError
from fatwheel.toolchain.homes import MergedCuda

from ...helpers.workstations import GB, LINUX_TOOLCHAIN, package


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_empty_cache(cache: Path) -> None:
    assert machine.ask_stock(LINUX_TOOLCHAIN, "3.11", "process") == Stock(
        present=0, missing=2 * GB + 1000
    )
    assert not cache.exists(), "asking makes nothing"


def test_files_downloaded_or_unpacked_are_present(cache: Path) -> None:
    """By name and size, or as an unpacked folder; a file half there is missing."""
    names = ("a", "b", "c")
    files = [package(name, 5, name * 64) for name in names]
    toolchain = replace(LINUX_TOOLCHAIN, packages=(*files, package("d", 7, "")), builds=())
    for file, content in zip(files, (b"12345", b"123", b""), strict=True):
        folder = cache / "downloads" / file.sha256
        folder.mkdir(parents=True)
        (folder / file.filename).write_bytes(content)
    (cache / "packages" / files[2].sha256).mkdir(parents=True)
    toolchain = replace(toolchain, builds=LINUX_TOOLCHAIN.builds)
    missing = {file.name for file in machine.missing_files(toolchain, "3.11", "process")}
    assert missing == {"b", "d", "torch311"}


def test_archives_are_there_once_they_are_merged(cache: Path) -> None:
    """And an environment needs none of the Pythons that are for images."""
    cuda = Download("cuda_nvcc", "1", "https://x/n.tar.xz", "n.tar.xz", 5, "c" * 64)
    python = Download("cpython", "1", "https://x/p.tgz", "p.tgz", 7, "d" * 64)
    own = (LockedInterpreter("3.11", python),)
    toolchain = replace(LINUX_TOOLCHAIN, cuda_files=(cuda,), interpreters=own)

    def missing(engine: str) -> set[str]:
        return {file.name for file in machine.missing_files(toolchain, "3.11", engine)}

    assert missing("docker") >= {"cuda_nvcc", "cpython"}
    assert "cuda_nvcc" in missing("process")
    assert "cpython" not in missing("process")
    merged = MergedCuda(toolchain.cuda_files, toolchain.nvcc, cache)
    for name in ("bin/nvcc", "bin/ptxas", "nvvm/bin/cicc"):
        (merged.root / name).parent.mkdir(parents=True, exist_ok=True)
        (merged.root / name).touch()
    assert "cuda_nvcc" in missing("process"), "it has not been finished"
    pins = {"archives": [f"cuda_nvcc 1 {cuda.sha256}"], "layout": 1}
    (merged.root / "fatwheel-cuda.json").write_text(json.dumps(pins))
    assert "cuda_nvcc" not in missing("process")
    assert "cuda_nvcc" in missing("docker")


def test_files_for_images_lie_elsewhere(cache: Path) -> None:
    """And a pip is among them, which an environment does not need."""
    pip = replace(package("pip", 3, "e" * 64), role="installer")
    other = package("other", 5, "f" * 64)
    toolchain = replace(LINUX_TOOLCHAIN, packages=(pip, other))
    folder = cache / FILES / other.sha256
    folder.mkdir(parents=True)
    (folder / other.filename).write_bytes(b"12345")

    def missing(engine: str) -> set[str]:
        return {file.name for file in machine.missing_files(toolchain, "3.11", engine)}

    assert missing("docker") == {"pip", "torch311"}
    assert missing("process") == {"other", "torch311"}


def test_the_host_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine.ask_compiler(replace(LINUX_TOOLCHAIN, gcc=(1, 99)))
    assert isinstance(found, str)
    assert found.startswith("g++ ")
    none = machine.ask_compiler(replace(LINUX_TOOLCHAIN, gcc=(98, 99)))
    assert isinstance(none, Trouble)
    assert "98 to 99 is needed" in none.what
    assert isinstance(machine.ask_compiler(replace(LINUX_TOOLCHAIN, gcc=None)), Trouble)


def test_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(python: str) -> object:
        if python == "3.10":
            raise ToolchainError("there is no usable Python 3.10 here", hint="install it")
        return type("Found", (), {"executable": Path("/usr/bin/python3.11")})

    monkeypatch.setattr(machine, "find_interpreter", find)
    assert machine.ask_pythons(LINUX_TOOLCHAIN) == (
        ("3.10", Trouble("there is no usable Python 3.10 here", hint="install it")),
        ("3.11", "/usr/bin/python3.11"),
    )


def test_the_recipes_largest_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """flash-attn's backward units took up to 4.9 GB, so its recipe must say at least that."""
    loads = {load.recipe: load.memory for load in machine.ask_loads()}
    assert loads["flash-attn"] >= 4.9e9
    assert loads["selftest"] < loads["flash-attn"]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "recipe.toml").write_text("no recipe")
    monkeypatch.setattr(machine, "recipe_folders", lambda: (tmp_path,))
    assert machine.ask_loads() == ()
