"""Environments from wheels of a few bytes: made once, checked, shared, mended, remade."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

import pytest

from fatwheel.config.pinned import Download
from fatwheel.config.toolchain import LockedInterpreter, Toolchain
from fatwheel.errors import StoreError, ToolchainError, UsageError
from fatwheel.events import Event, Note, Progress, silent
from fatwheel.model import Environment
from fatwheel.toolchain import environment as environment_module
from fatwheel.toolchain.environment import MARKER, ensure_environment
from fatwheel.toolchain.pipconfig import PipConfig
from fatwheel.toolchain.unpack import alone

from ...helpers.tinywheels import PYTHON, nvcc_wheel, tiny_toolchain, torch_wheel, write_wheel

YEAR_2020 = 1577836800  # date -u -d 2020-01-01 +%s
TORCH = "2.11.0"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]) -> Path:
    """A folder of wheels, which is the only place where pip is told to look."""
    tool("g++")
    folder = tmp_path / "wheels"
    config = PipConfig(find_links=(str(folder),))
    monkeypatch.setattr("fatwheel.toolchain.download.read_pip_config", lambda: config)
    monkeypatch.setattr("os.sync", lambda: None)  # slow on a busy machine, and of no effect here
    monkeypatch.delenv("CXX", raising=False)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def make(toolchain: Toolchain, cache: Path) -> Environment:
    return ensure_environment(toolchain, PYTHON, TORCH, cache, silent)


def parts(cache: Path) -> list[Path]:
    """Whatever is half-made."""
    return [*cache.rglob(".*.part"), *(cache / "downloads" / "incoming").glob("*")]


def test_it_works_and_says_what_it_is(wheels: Path, cache: Path) -> None:
    toolchain = tiny_toolchain(wheels)
    events: list[Event] = []

    made = ensure_environment(toolchain, PYTHON, TORCH, cache, events.append)

    assert made.root.parent == cache / "envs"
    assert made.site == made.root / "lib" / f"python{PYTHON}" / "site-packages"
    assert made.cuda_home == made.site / "nvidia" / "cu13"
    assert (made.include / "Python.h").is_file()
    assert (made.python_version, made.torch) == (platform.python_version(), TORCH)
    nvcc = toolchain.packages[0]
    line = f"{nvcc.name} {nvcc.version} {nvcc.sha256}"
    assert made.compiler_id == hashlib.sha256(line.encode()).hexdigest(), (
        "compiler_id must cover the packages with the role compiler and nothing else"
    )
    done = subprocess.run(
        [made.python, "-c", "import sys, torch; print(sys.prefix, torch.__file__)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(made.root), str(made.site / "torch" / "__init__.py")]
    labels = {event.label for event in events if isinstance(event, Progress)}
    assert labels == {"download", "unpack", "install"}


def test_scripts_run_under_the_final_path(wheels: Path, cache: Path) -> None:
    made = make(tiny_toolchain(wheels), cache)
    done = subprocess.run(
        [made.root / "bin" / "torch-script"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(made.root)
    for path in (made.root / "pyvenv.cfg", *(made.root / "bin").iterdir()):
        if not path.is_symlink():
            assert ".part" not in path.read_text(), f"{path} names the folder it was made in"


def test_pip_finds_it_consistent(wheels: Path, cache: Path) -> None:
    made = make(tiny_toolchain(wheels), cache)
    pip = [sys.executable, "-m", "pip", "--python", str(made.python), "--disable-pip-version-check"]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*pip, "check"], capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {item.name: item.version for item in distributions(path=[str(made.site)])}
    assert found == {"nvidia_cuda_nvcc": "13.0.88", "torch": TORCH}


def test_installed_files_have_one_time_and_what_wheels_lack(wheels: Path, cache: Path) -> None:
    made = make(tiny_toolchain(wheels), cache)
    late = [
        path
        for path in made.site.rglob("*")
        if not path.is_dir() and "__pycache__" not in path.parts
        if path.lstat().st_mtime != YEAR_2020
    ]
    assert late == []
    assert (made.cuda_home / "lib" / "libcudart.so").readlink() == Path("libcudart.so.13")
    assert (made.cuda_home / "lib64").readlink() == Path("lib")
    assert (made.cuda_home / "lib" / "stubs" / "libcuda.so").is_file()


def test_a_second_time_nothing_is_done(
    wheels: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolchain = tiny_toolchain(wheels)
    first = make(toolchain, cache)
    shutil.rmtree(wheels)
    # Neither a compiler nor a lock is needed for what is there.
    monkeypatch.setattr(environment_module, "find_host_compiler", pytest.fail)
    monkeypatch.setattr(environment_module, "alone", pytest.fail)
    assert make(toolchain, cache) == first


def test_wheels_are_kept_once_unpacked_and_shared_by_environments(
    wheels: Path, cache: Path
) -> None:
    one = make(tiny_toolchain(wheels), cache)
    assert [path for path in (cache / "downloads").rglob("*") if path.is_file()] == []
    extra = write_wheel(wheels, "extra", "1.0", {"extra.py": ""})
    (wheels / torch_wheel(wheels).filename).unlink()  # must not be fetched again

    two = make(dataclasses.replace(
        tiny_toolchain(wheels), packages=(nvcc_wheel(wheels), extra)
    ), cache)  # fmt: skip

    assert two.root != one.root
    assert (two.site / "extra.py").is_file()
    assert (one.site / "torch/__init__.py").samefile(two.site / "torch/__init__.py")
    assert two.compiler_id == one.compiler_id, "the compiler is the same"


def test_the_name_covers_packages_and_interpreter(
    wheels: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolchain = tiny_toolchain(wheels)
    first = make(toolchain, cache)
    found = environment_module.find_interpreter(PYTHON)
    other = dataclasses.replace(found, version=f"{PYTHON}.999")
    monkeypatch.setattr(environment_module, "find_interpreter", lambda _: other)
    second = make(toolchain, cache)
    assert second.root != first.root
    assert second.python_version == f"{PYTHON}.999"


def lose_the_marker(made: Environment) -> None:
    (made.root / MARKER).unlink()


def lose_nvcc(made: Environment) -> None:
    (made.cuda_home / "bin" / "nvcc").unlink()


def lose_the_base_interpreter(made: Environment) -> None:
    for path in (made.root / "bin").glob("python*"):
        path.unlink()
        path.symlink_to("/nowhere/python")


def overwrite_the_marker(made: Environment) -> None:
    (made.root / MARKER).write_text("{")


@pytest.mark.parametrize(
    "damage", [lose_the_marker, lose_nvcc, lose_the_base_interpreter, overwrite_the_marker]
)
def test_a_damaged_environment_is_made_again(
    wheels: Path, cache: Path, damage: Callable[[Environment], None]
) -> None:
    toolchain = tiny_toolchain(wheels)
    first = make(toolchain, cache)
    damage(first)
    second = make(toolchain, cache)
    assert second == first
    subprocess.run([second.python, "-c", "import torch"], check=True)
    assert (second.cuda_home / "bin" / "nvcc").exists()
    assert parts(cache) == []


def test_a_damaged_package_is_fetched_again(wheels: Path, cache: Path) -> None:
    toolchain = tiny_toolchain(wheels)
    made = make(toolchain, cache)
    torch = toolchain.builds[0].packages[0]
    (cache / "packages" / torch.sha256 / "torch" / "__init__.py").unlink()
    lose_the_marker(made)
    made = make(toolchain, cache)
    assert (made.site / "torch" / "__init__.py").is_file()


def test_what_a_killed_run_left_is_deleted(wheels: Path, cache: Path) -> None:
    for folder in ("envs", "packages"):
        left = cache / folder / ".0123456789abcdef.part" / "deep"
        left.mkdir(parents=True)
        (left / "file").write_text("half")
    make(tiny_toolchain(wheels), cache)
    assert parts(cache) == []


def test_only_one_makes_it_and_the_others_wait(
    wheels: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolchain = tiny_toolchain(wheels)
    waiting = threading.Event()
    runs: list[int] = []
    real = environment_module._make

    def slow(*arguments: object) -> None:
        runs.append(1)
        assert waiting.wait(60), "the second run did not say that it waits"
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(environment_module, "_make", slow)

    def emit(event: Event) -> None:
        if isinstance(event, Note) and "waiting" in event.text:
            waiting.set()

    results: list[Environment] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(ensure_environment(toolchain, PYTHON, TORCH, cache, emit))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(results) == 2
    assert results[0] == results[1]
    assert runs == [1]


def test_a_cache_made_of_links(wheels: Path, cache: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("envs", "packages", "downloads"):
        (cache / name).mkdir()
        (linked / name).symlink_to(cache / name)
    toolchain = tiny_toolchain(wheels)
    assert make(toolchain, linked) == make(toolchain, cache)


@pytest.mark.parametrize("shared", ["envs", "packages", "downloads", "cuda", "msvc", "systems"])
def test_caches_with_a_folder_in_common_wait_for_each_other(
    cache: Path, tmp_path: Path, shared: str
) -> None:
    """Also where all else is their own: nobody deletes what somebody is still writing."""
    other = tmp_path / "other"
    other.mkdir()
    (cache / shared).mkdir()
    (other / shared).symlink_to(cache / shared)
    half = cache / shared / ".0123456789abcdef.part"
    waits = threading.Event()

    def make_too() -> None:
        with alone(other, lambda event: waits.set()):
            pass

    second = threading.Thread(target=make_too)
    with alone(cache, silent):
        half.mkdir()
        second.start()
        assert waits.wait(60), "the second did not say that it waits"
        assert half.exists()
    second.join(60)
    assert not half.exists(), "nobody writes it now"


def test_folders_that_are_one_are_locked_once(cache: Path) -> None:
    (cache / "homes").mkdir()
    for name in ("cuda", "systems"):
        (cache / name).symlink_to(cache / "homes")
    with alone(cache, lambda event: pytest.fail(f"it waits for itself: {event}")):
        assert (cache / "homes" / "lock").exists()


class Wrong(NamedTuple):
    python: str = PYTHON
    torch: str = TORCH


@pytest.mark.parametrize("wrong", [Wrong(python="2.7"), Wrong(torch="1.0")])
def test_what_is_not_served_is_refused_with_what_is(
    wheels: Path, cache: Path, wrong: Wrong
) -> None:
    toolchain = tiny_toolchain(wheels)
    with pytest.raises(UsageError) as caught:
        ensure_environment(toolchain, wrong.python, wrong.torch, cache, silent)
    assert f"does not support Python {wrong.python} with torch {wrong.torch}" in str(caught.value)
    assert f"it supports: Python {PYTHON} with torch {TORCH}" in str(caught.value)


def test_a_python_for_images_is_not_for_environments(wheels: Path, cache: Path) -> None:
    plain = make(tiny_toolchain(wheels), cache)
    file = Download("cpython", "1", "https://host.invalid/c-1.tgz", "c-1.tgz", 1, "0" * 64)
    own = (LockedInterpreter(PYTHON, file),)
    assert make(dataclasses.replace(tiny_toolchain(wheels), interpreters=own), cache) == plain


def test_pip_is_for_images_alone(wheels: Path, cache: Path) -> None:
    """With it or without it the environment is the same, by name too: nothing is made anew."""
    plain = make(tiny_toolchain(wheels), cache)
    pip = write_wheel(wheels, "pip", "25.3", {"pip/__init__.py": ""}, role="installer")
    assert make(tiny_toolchain(wheels, pip), cache) == plain
    assert not (plain.site / "pip").exists()


def test_another_platform_is_refused(wheels: Path, cache: Path) -> None:
    toolchain = dataclasses.replace(tiny_toolchain(wheels), platform="windows-amd64")
    with pytest.raises(ToolchainError, match="tiny is for windows-amd64"):
        make(toolchain, cache)


def test_wheels_for_a_newer_system_are_refused_before_any_download(
    wheels: Path, cache: Path
) -> None:
    tag = "cp311-cp311-manylinux_9_99_x86_64"
    newer = write_wheel(wheels, "newer", "1.0", {}, tag=tag)
    with pytest.raises(ToolchainError, match=r"newer 1\.0 does not run here") as caught:
        make(tiny_toolchain(wheels, newer), cache)
    assert "manylinux_9_99_x86_64" in str(caught.value)
    assert not (cache / "downloads").exists()


def test_no_compiler_is_told_before_any_download(
    wheels: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")
    with pytest.raises(ToolchainError, match="no such program"):
        make(tiny_toolchain(wheels), cache)
    assert not (cache / "downloads").exists()


def test_too_little_space_is_told_before_any_download(
    wheels: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(cache)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1))
    with pytest.raises(StoreError, match=r"0\.0 GB are free") as caught:
        make(tiny_toolchain(wheels), cache)
    assert str(cache) in str(caught.value)
    assert "FATWHEEL_CACHE" in str(caught.value)
    assert not (cache / "downloads").exists()


def test_a_disk_that_fills_up_leaves_nothing_half_made(
    wheels: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fatwheel.toolchain.environment.mend_home", full)
    with pytest.raises(StoreError, match="No space left on device"):
        make(tiny_toolchain(wheels), cache)
    assert parts(cache) == []
    assert [path.name for path in (cache / "envs").iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\necho 'release 12.9, V12.9.41'\n", "the installed nvcc is 12.9.41"),
        ("#!/bin/sh\necho nothing\n", "nvcc is of no version"),
        ("#!/bin/sh\necho no libstdc++ >&2\nexit 1\n", "no libstdc"),
        ("#!/nowhere/interpreter\n", "cannot run"),
    ],
)
def test_an_nvcc_that_is_not_the_pinned_one(
    wheels: Path, cache: Path, script: str, words: str
) -> None:
    toolchain = tiny_toolchain(wheels, nvcc=nvcc_wheel(wheels, script))
    with pytest.raises(ToolchainError, match=words):
        make(toolchain, cache)
    assert parts(cache) == []
    assert [path.name for path in (cache / "envs").iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("__version__ = '2.10.0'", "the installed torch is 2.10.0"),
        ("import ctypes; ctypes.CDLL('libnowhere.so')", "libnowhere.so"),
    ],
)
def test_a_torch_that_is_not_the_pinned_one(
    wheels: Path, cache: Path, code: str, words: str
) -> None:
    toolchain = tiny_toolchain(wheels, torch=torch_wheel(wheels, code))
    with pytest.raises(ToolchainError, match=words):
        make(toolchain, cache)
    assert parts(cache) == []


def test_foreign_variables_do_not_leak_into_the_checks(
    wheels: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("__version__ = '0.1'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    says = '#!/bin/sh\n[ -z "$LD_LIBRARY_PATH" ] && echo V13.0.88\n'
    made = make(tiny_toolchain(wheels, nvcc=nvcc_wheel(wheels, says)), cache)
    assert os.path.isdir(made.root)
