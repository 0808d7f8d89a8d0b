"""Pins, files, compilers, Pythons and GPUs, as made-up facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fatwheel.config.model import TorchBuild
from fatwheel.doctor.check_toolchain import (
    check_compiler,
    check_files,
    check_gpu,
    check_pins,
    check_pythons,
)
from fatwheel.doctor.facts import Gpu, GpuFacts, Silence, Stock, Trouble

from ...helpers.workstations import (
    GB,
    GIB,
    HEALTHY,
    IN_CONTAINERS,
    LINUX_HOST,
    LINUX_TOOLCHAIN,
    SERVER,
    WINDOWS_TOOLCHAIN,
    commands,
    facts,
    package,
)

LOCK = ["invoke lock --toolchain linux-cuda13.0"]


def test_everything_is_pinned() -> None:
    assert check_pins(HEALTHY).found == "all 4 files have a sha256"


def test_a_file_without_hash_is_wrong() -> None:
    broken = package("a", 5, "")
    toolchain = replace(LINUX_TOOLCHAIN, packages=(broken, *LINUX_TOOLCHAIN.packages))
    found = check_pins(facts(toolchain=toolchain))
    assert found.status == "wrong"
    assert "a-1.0-py3-none-any.whl" in found.found
    assert commands(found) == LOCK


def test_what_only_another_python_needs_is_a_warning() -> None:
    builds = (TorchBuild("2.11.0", "3.10", (package("t", 0, ""),)), *LINUX_TOOLCHAIN.builds[1:])
    found = check_pins(facts(toolchain=replace(LINUX_TOOLCHAIN, builds=builds)))
    assert found.status == "warning"
    assert "none of them for Python 3.11" in found.found


def test_many_files_are_counted() -> None:
    packages = tuple(package(f"p{number}", 0, "") for number in range(5))
    found = check_pins(facts(toolchain=replace(LINUX_TOOLCHAIN, packages=packages)))
    assert found.found.startswith("5 without")
    assert "and 2 more" in found.found


def test_a_base_image_without_digest_matters_to_containers_only() -> None:
    assert check_pins(HEALTHY).status == "ok"
    found = check_pins(facts(IN_CONTAINERS, own_bases=frozenset()))
    assert (found.status, commands(found)) == ("wrong", LOCK)
    assert "python:3.11" in found.found
    assert check_pins(facts(IN_CONTAINERS, own_bases=frozenset(), python="3.10")).status == "ok"
    assert check_pins(facts(IN_CONTAINERS, own_bases=frozenset({"3.11"}))).status == "ok"


def test_archives_and_installers_are_pinned_too() -> None:
    assert check_pins(SERVER).found == "all 5 files have a sha256"
    msvc = WINDOWS_TOOLCHAIN.msvc
    assert msvc
    half = replace(msvc, payloads=(replace(msvc.payloads[0], sha256=""),))
    found = check_pins(facts(SERVER, toolchain=replace(WINDOWS_TOOLCHAIN, msvc=half)))
    assert found.status == "wrong"
    assert "vs.zip" in found.found


def test_files() -> None:
    assert check_files(HEALTHY).status == "ok"
    found = check_files(facts(stock=Stock(present=GIB, missing=3 * GIB)))
    assert found.status == "warning"
    assert "3.0 GiB of 4.0 GiB" in found.found
    assert commands(found) == ["invoke setup --toolchain linux-cuda13.0 --engine process"]
    assert check_files(facts(stock=Silence("x"))).status == "wrong"
    unknown = replace(LINUX_TOOLCHAIN, packages=(package("a", 0),))
    found = check_files(facts(toolchain=unknown, stock=Stock(present=0, missing=GIB)))
    assert found.found.startswith("at least 1.0 GiB"), "the size of one is not known"
    assert check_files(IN_CONTAINERS).found == "in the images"


def test_the_host_compiler() -> None:
    assert check_compiler(HEALTHY).status == "ok"
    assert check_compiler(IN_CONTAINERS).status == "not applicable"
    missing = Trouble("there is no C++ compiler here", "CXX=clang", "install g++ 9 to 15")
    found = check_compiler(facts(compiler=missing))
    assert found.status == "wrong"
    assert found.found.startswith("CXX=clang: ")
    assert "sudo apt-get install g++" in commands(found)
    fedora = replace(LINUX_HOST, name="Fedora Linux 42")
    assert "sudo dnf install gcc-c++" in commands(
        check_compiler(facts(compiler=missing, host=fedora))
    )
    assert check_compiler(facts(compiler=Silence("no answer in 20 s"))).status == "wrong"


def test_pythons() -> None:
    found = check_pythons(HEALTHY)
    assert (found.status, found.found) == ("ok", "3.11 usable; not here: 3.10")
    assert check_pythons(IN_CONTAINERS).status == "not applicable"
    assert check_pythons(facts(pythons=Silence("x"))).status == "wrong"
    none = (("3.10", Trouble("no")), ("3.11", Trouble("no", hint="install it")))
    found = check_pythons(facts(pythons=none))
    assert found.status == "wrong"
    assert found.fixes[0].say == "install it"


def test_another_python_than_the_one_built_for() -> None:
    others = (("3.10", "/usr/bin/python3.10"), ("3.11", Trouble("no")))
    found = check_pythons(facts(pythons=others))
    assert found.status == "warning"
    assert "3.11 unless told otherwise" in found.why


RTX = Gpu("NVIDIA GeForce RTX 4090", (8, 9), 24 * GIB)


def test_no_gpu_is_no_fault() -> None:
    assert check_gpu(facts(gpu=GpuFacts(cards=0))).status == "not applicable"
    assert check_gpu(facts(gpu=GpuFacts(cards=None))).status == "not applicable"


def test_a_gpu_without_driver() -> None:
    found = check_gpu(facts(gpu=GpuFacts(cards=2)))
    assert (found.status, found.found) == ("warning", "2 NVIDIA GPUs, no driver")
    assert commands(found) == ["sudo apt-get install nvidia-driver"]
    ubuntu = replace(LINUX_HOST, name="Ubuntu 24.04.1 LTS")
    assert commands(check_gpu(facts(gpu=GpuFacts(cards=2), host=ubuntu))) == [
        "sudo ubuntu-drivers install"
    ]


@pytest.mark.parametrize(
    ("cuda", "status"), [((12, 9), "warning"), ((13, 0), "ok"), ((13, 2), "ok")]
)
def test_a_driver_must_know_this_major_version_of_cuda(cuda: tuple[int, int], status: str) -> None:
    """CUDA's minor versions are compatible with each other's drivers, its major ones are not."""
    found = check_gpu(facts(gpu=GpuFacts("1.0", cuda, (RTX,))))
    assert found.status == status
    assert "NVIDIA GeForce RTX 4090 (arch 89, 24.0 GiB)" in found.found


def test_a_gpu_that_nvcc_does_not_know() -> None:
    found = check_gpu(facts(gpu=GpuFacts("1.0", (13, 0), (Gpu("New", (12, 0), GB),))))
    assert found.status == "warning"
    assert "arch 120" in found.why
    assert commands(found) == ["invoke build --arch 90+ptx"], "the newest that the toolchain knows"


def test_a_driver_in_trouble() -> None:
    assert check_gpu(facts(gpu=GpuFacts(trouble="nvmlInit_v2 failed"))).status == "warning"
    hanging = check_gpu(facts(SERVER, gpu=Silence("no answer in 10 s")))
    assert hanging.status == "warning"
    assert hanging.fixes[0].administrator
