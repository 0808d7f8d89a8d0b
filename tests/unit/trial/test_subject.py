"""What a wheel is tried with: its lock's packages, or a toolchain that fits, or a clear refusal."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from fatwheel.config.toolchain import TorchBuild
from fatwheel.errors import ToolchainError
from fatwheel.trial import subject as subject_module
from fatwheel.trial.subject import (
    TriedWheel,
    other_subjects,
    subject_of_installed,
    subject_of_lock,
    subject_of_toolchains,
)
from fatwheel.verify.evidence import Evidence, gather

from ...helpers.cudawheels import Linker
from ...helpers.somelocks import LINUX, WINDOWS, installed_lock, some_lock
from ...helpers.tinywheels import PYTHON, Draft
from ...helpers.toolchains import shipped_toolchain

TOOLCHAINS = [shipped_toolchain(name) for name in (LINUX, "linux-cuda12.3", WINDOWS)]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@pytest.fixture(scope="module")
def linker(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Linker:
    return Linker(tmp_path_factory.mktemp("linker"), tool)


def evidence_of(folder: Path, requires: str = "", **draft: object) -> Evidence:
    lines = "".join(f"Requires-Dist: {one}\n" for one in requires.split(";") if one)
    metadata = f"Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n{lines}"
    return gather(Draft(metadata=metadata, **draft).write(folder))  # type: ignore[arg-type]


def chosen(evidence: Evidence) -> TriedWheel:
    return subject_of_toolchains(Path(evidence.filename), evidence, TOOLCHAINS)


def names(subject: TriedWheel) -> set[str]:
    return {package.name for package in subject.packages}


def test_an_installed_torch_is_looked_for_among_the_toolchains(tmp_path: Path) -> None:
    lock = replace(installed_lock(), torch="2.2.2")
    evidence = evidence_of(tmp_path, "torch", tag="cp310-cp310-linux_x86_64")
    subject = subject_of_installed(tmp_path, evidence, lock, TOOLCHAINS)
    assert (subject.torch, subject.origin) == ("2.2.2", "toolchain linux-cuda12.3")
    with pytest.raises(ToolchainError, match="no toolchain matches this wheel"):
        subject_of_installed(tmp_path, evidence, replace(lock, torch="2.3.0"), TOOLCHAINS)


def test_a_lock_decides(tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path, "torch;einops;ninja", tag="cp310-cp310-linux_x86_64")
    lock = some_lock(kernel="flash-attn")
    subject = subject_of_lock(tmp_path, evidence, lock)
    assert (subject.python, subject.torch) == ("3.10", "2.11.0")
    assert subject.origin == "its own lock"
    assert {"torch", "einops", "nvidia-cublas"} <= names(subject)
    assert "ninja" in names(subject), "a pin that METADATA asks for is installed, whatever its role"
    assert not {"nvidia-cuda-nvcc", "setuptools", "pip"} & names(subject)
    assert len(subject.packages) == len(names(subject)), "one package appears twice"


def test_what_the_recipe_pins_counts_more_than_the_toolchain(tmp_path: Path) -> None:
    lock = some_lock(kernel="flash-attn")
    other = replace(lock.recipe.runtime[0], version="0.9")
    lock = replace(lock, recipe=replace(lock.recipe, runtime=(other,)))
    evidence = evidence_of(tmp_path, tag="cp310-cp310-linux_x86_64")
    [found] = [p for p in subject_of_lock(tmp_path, evidence, lock).packages if p.name == "einops"]
    assert found == other


def test_a_lock_for_windows_is_of_no_use_here(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="built for win-amd64, and this machine is linux-x86"):
        subject_of_lock(tmp_path, evidence_of(tmp_path), some_lock(WINDOWS))


def test_the_newest_torch_that_fits(tmp_path: Path) -> None:
    subject = chosen(evidence_of(tmp_path, "torch"))
    assert (subject.python, subject.torch) == ("3.11", "2.11.0")
    assert subject.origin == "toolchain linux-cuda13.0"


def test_the_torch_that_is_asked_for(tmp_path: Path) -> None:
    subject = chosen(evidence_of(tmp_path, "torch==2.1.1", tag="cp310-cp310-manylinux1_x86_64"))
    assert (subject.python, subject.torch) == ("3.10", "2.1.1")


def test_the_cuda_that_its_binaries_need(tmp_path: Path, linker: Linker) -> None:
    library = linker.library(needs=["libcudart.so.12"])
    subject = chosen(evidence_of(tmp_path, "torch", files={"demo/_C.so": library}))
    assert subject.origin == "toolchain linux-cuda12.3"


@pytest.mark.parametrize("tag", ["py3-none-any", "cp39-abi3-linux_x86_64"])
def test_wheels_for_any_python(tmp_path: Path, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this Python, which is surely here; else with the newest."""
    evidence = evidence_of(tmp_path, tag=tag)
    assert chosen(evidence).python == PYTHON
    monkeypatch.setattr("sys.version_info", SimpleNamespace(minor=77))
    assert chosen(evidence).python == "3.13"


def test_a_wheel_for_a_python_that_no_toolchain_has(tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path, "torch", tag="cp39-cp39-linux_x86_64")
    with pytest.raises(ToolchainError, match="no toolchain matches this wheel") as caught:
        chosen(evidence)
    assert caught.value.details[:4] == ("needed:", "  Python cp39", "  torch", "available:")
    assert "  Python 3.11, torch 2.11.0, CUDA 13.0 (linux-cuda13.0)" in caught.value.details
    assert not [line for line in caught.value.details if "windows" in line]


def test_a_torch_that_no_toolchain_has(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError) as caught:
        chosen(evidence_of(tmp_path, "torch==1.13"))
    assert "  torch==1.13" in caught.value.details


@pytest.mark.parametrize("tag", ["cp311-cp311-win_amd64", "cp311-cp311-manylinux_2_17_aarch64"])
def test_a_wheel_for_another_machine(tmp_path: Path, tag: str) -> None:
    platform = tag.rpartition("-")[2]
    with pytest.raises(ToolchainError, match=f"the wheel is for {platform}, and this machine is"):
        chosen(evidence_of(tmp_path, tag=tag))


# -- stable ABIs ---------------------------------------------------------------------------------

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
TORCHES = ("2.9.0", "2.10.0", "2.11.0", "2.12.0")


def others(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch, here: tuple[str, ...] = PYTHONS
) -> list[tuple[str, str]]:
    """With what else than Python 3.11 and torch 2.11, of a toolchain with all of the above."""
    [toolchain] = [one for one in TOOLCHAINS if one.name == LINUX]
    [build] = [one for one in toolchain.builds if one.python == "3.11"]
    torch = [package for package in build.packages if package.name == "torch"]
    builds = [
        TorchBuild(version, python, tuple(replace(one, version=version) for one in torch))
        for version in TORCHES
        for python in PYTHONS
    ]
    monkeypatch.setattr(subject_module, "is_interpreter_here", lambda python: python in here)
    every = [replace(toolchain, builds=tuple(builds))]
    first = TriedWheel(Path("a.whl"), "3.11", "2.11.0", (), (), "its lock")
    found = other_subjects(first, evidence, every, (torch[0],))
    return [(one.python, one.torch) for one in found]


def stable(folder: Path, tool: Callable[[str], str]) -> bytes:
    """A library that asks torch for a function that it has since 2.10."""
    (folder / "a.c").write_text(
        "void torch_call_dispatcher(void); void f(void) { torch_call_dispatcher(); }"
    )
    (folder / "b.c").write_text("void torch_call_dispatcher(void) {}")
    for command in (
        ["b.c", "-Wl,-soname,libtorch.so", "-o", "libtorch.so"],
        ["a.c", "libtorch.so", "-o", "a.so"],
    ):
        subprocess.run(
            [tool("gcc"), "-shared", "-fPIC", *command], cwd=folder, check=True,
            capture_output=True,
        )  # fmt: skip
    return (folder / "a.so").read_bytes()


def test_stable_abis_are_tried_with_the_oldest_and_the_newest(
    tmp_path: Path, tool: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"demo/_C.abi3.so": stable(tmp_path, tool)}
    both = evidence_of(tmp_path, "torch", tag="cp310-abi3-linux_x86_64", files=files)
    assert others(both, monkeypatch) == [("3.10", "2.10.0"), ("3.13", "2.12.0")]
    assert others(both, monkeypatch, ("3.11", "3.12")) == [("3.11", "2.10.0"), ("3.12", "2.12.0")]
    assert others(both, monkeypatch, ()) == []
    pinned = evidence_of(tmp_path, "torch==2.11.*", tag="cp310-abi3-linux_x86_64", files=files)
    assert others(pinned, monkeypatch) == [("3.10", "2.11.0"), ("3.13", "2.11.0")]
    torch = evidence_of(tmp_path, "torch", tag="cp311-cp311-linux_x86_64", files=files)
    assert others(torch, monkeypatch) == [("3.11", "2.10.0"), ("3.11", "2.12.0")]


def test_what_keeps_to_one_abi_is_tried_with_that_alone(
    tmp_path: Path, linker: Linker, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"demo/_C.so": linker.library(needs=["libtorch.so"])}
    python = evidence_of(tmp_path, "torch", tag="cp312-abi3-linux_x86_64", files=files)
    assert others(python, monkeypatch) == [("3.12", "2.11.0"), ("3.13", "2.11.0")]
    neither = evidence_of(tmp_path, "torch", tag="cp311-cp311-linux_x86_64", files=files)
    assert others(neither, monkeypatch) == []
