"""The machine itself, as made-up facts: every branch, of both systems."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fatwheel.config.toolchain import TorchBuild
from fatwheel.doctor.checks import (
    check_cache,
    check_cache_disk,
    check_clock,
    check_compiler,
    check_files,
    check_gpu,
    check_long_paths,
    check_machine,
    check_memory,
    check_pins,
    check_pythons,
)
from fatwheel.doctor.facts import (
    CacheFacts,
    Facts,
    Gpu,
    GpuFacts,
    IndexFacts,
    Load,
    Silence,
    Stock,
    Trouble,
    WindowsHost,
)

from ...helpers.workstations import (
    BROKEN,
    GB,
    GIB,
    HEALTHY,
    IN_CONTAINERS,
    IN_WINE,
    LINUX_ENGINE,
    LINUX_HOST,
    LINUX_TOOLCHAIN,
    SERVER,
    WINDOWS_TOOLCHAIN,
    commands,
    facts,
    package,
)

CACHE = HEALTHY.cache
assert isinstance(CACHE, CacheFacts)


@pytest.mark.parametrize("machine", ["riscv64", "ppc64le", "aarch64"])
def test_another_processor_is_wrong(machine: str) -> None:
    found = check_machine(facts(host=replace(LINUX_HOST, machine=machine)))
    assert found.status == "wrong"
    assert machine in found.found
    assert found.fixes


def test_aarch64_is_as_good_for_its_own_toolchains() -> None:
    host = replace(LINUX_HOST, machine="aarch64")
    toolchain = replace(HEALTHY.toolchain, platform="linux-aarch64", packages=())
    assert check_machine(facts(host=host, toolchain=toolchain)).status == "ok"


@pytest.mark.parametrize("base", [HEALTHY, IN_CONTAINERS, SERVER, BROKEN])
def test_x86_64_by_any_name_is_fine(base: Facts) -> None:
    assert check_machine(base).status == "ok"


def test_windows_names_its_build() -> None:
    assert "build 22631" in check_machine(BROKEN).found


def test_a_toolchain_of_another_system_needs_containers() -> None:
    found = check_machine(replace(HEALTHY, host=BROKEN.host))
    assert found.status == "wrong"
    assert commands(found) == ["invoke doctor --engine docker"]


def test_a_c_library_older_than_the_wheels_is_wrong_for_processes_only() -> None:
    old = replace(LINUX_HOST, wheel_platforms=frozenset({"musllinux_1_2_x86_64"}))
    found = check_machine(facts(host=old))
    assert found.status == "wrong"
    assert "nvcc 1.0 needs manylinux2014_x86_64" in found.why
    assert check_machine(facts(IN_CONTAINERS, host=old)).status == "ok"


def test_a_clock_in_the_past() -> None:
    found = check_clock(facts(host=replace(LINUX_HOST, now=86_400.0)))
    assert found.status == "wrong"
    assert commands(found) == ["timedatectl set-ntp true"]
    assert found.fixes[0].administrator


@pytest.mark.parametrize(
    ("skew", "words"), [(301.0, "5 min 01 s behind the package"), (-7200.0, "2 h 00 min ahead of")]
)
def test_a_clock_that_differs(skew: float, words: str) -> None:
    index = HEALTHY.index
    assert isinstance(index, IndexFacts)
    found = check_clock(facts(index=replace(index, clock=skew)))
    assert found.status == "warning"
    assert words in found.found


def test_the_engines_clock_counts_too() -> None:
    found = check_clock(facts(IN_CONTAINERS, container_engine=replace(LINUX_ENGINE, clock=400.0)))
    assert found.status == "warning"
    assert "container engine" in found.found
    assert "package index" not in found.found


def test_a_clock_without_company_is_plausible() -> None:
    assert check_clock(facts(index=Silence("no answer in 30 s"))).status == "ok"


def test_windows_has_its_own_way_to_set_the_clock() -> None:
    assert commands(check_clock(BROKEN)) == ["w32tm /resync"]


def test_memory_for_all_cores_needs_no_word() -> None:
    """16 cores and 64 GiB; flash-attn takes 4 GiB a call."""
    found = check_memory(HEALTHY)
    assert (found.status, found.found) == (
        "ok",
        "64.0 GiB and 16 cores, 48.0 GiB of it free for builds now",
    )


def test_memory_for_some_cores_says_for_how_many() -> None:
    found = check_memory(facts(host=replace(LINUX_HOST, memory=15 * GIB)))
    assert found.status == "ok"
    assert found.found.endswith("room for 3 compiler calls of flash-attn at a time")


def test_memory_for_no_recipe_is_wrong() -> None:
    found = check_memory(facts(host=replace(LINUX_HOST, memory=GIB)))
    assert found.status == "wrong"
    assert "2.0 GiB" in found.why


def test_memory_for_some_recipes_is_a_warning_that_names_the_others() -> None:
    found = check_memory(facts(host=replace(LINUX_HOST, memory=3 * GIB)))
    assert found.status == "warning"
    assert "flash-attn (4.0 GiB)" in found.why
    assert "causal-conv1d" not in found.why


def test_an_engine_in_a_virtual_machine_has_its_own_memory() -> None:
    view = replace(
        LINUX_ENGINE,
        facts=replace(LINUX_ENGINE.facts, system="Docker Desktop", memory=GIB, cpus=2),
    )
    found = check_memory(facts(IN_CONTAINERS, container_engine=view))
    assert found.status == "wrong"
    assert found.found == "1.0 GiB and 2 cores for the container engine"
    assert "Docker Desktop: Settings" in found.fixes[0].say


def test_no_recipes_no_judgement() -> None:
    assert check_memory(facts(loads=())).status == "ok"
    assert check_memory(facts(loads=(Load("x", GIB),))).status == "ok"


def test_a_cache_that_cannot_be_used() -> None:
    found = check_cache(facts(cache=replace(CACHE, mistake="no permission to write there")))
    assert found.status == "wrong"
    assert "no permission" in found.found
    assert commands(found) == ["export FATWHEEL_CACHE=/path/to/folder"]
    assert commands(check_cache(BROKEN)) == [r"setx FATWHEEL_CACHE C:\fw"]


def test_a_cache_that_is_not_made_yet_is_fine() -> None:
    found = check_cache(facts(cache=replace(CACHE, exists=False)))
    assert (found.status, "does not exist yet" in found.found) == ("ok", True)


def test_a_noexec_cache_is_wrong_where_programs_run_from_it() -> None:
    noexec = replace(CACHE, runs_programs=False)
    assert check_cache(facts(cache=noexec)).status == "wrong"
    assert check_cache(facts(IN_CONTAINERS, cache=noexec)).status == "ok"


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "9p"])
def test_a_cache_on_a_share_is_a_warning(kind: str) -> None:
    assert check_cache(facts(cache=replace(CACHE, filesystem=kind))).status == "warning"


def test_windows_wants_short_paths_and_no_share() -> None:
    long = replace(CACHE, folder="C:\\" + "a" * 40, filesystem="NTFS")
    assert check_cache(facts(SERVER, cache=long)).status == "warning"
    share = replace(CACHE, folder=r"\\server\fw", filesystem="")
    assert check_cache(facts(SERVER, cache=share)).status == "warning"
    assert check_cache(SERVER).status == "ok"


def test_a_disk_that_does_not_answer() -> None:
    hanging = facts(cache=Silence("no answer in 10 s"), stock=Silence("no answer in 10 s"))
    assert check_cache(hanging).status == "wrong"
    assert check_cache_disk(hanging).status == "not applicable"
    assert check_cache_disk(facts(stock=Silence("x"))).status == "wrong"


@pytest.mark.parametrize(
    ("free", "status"), [(28 * GB, "wrong"), (30 * GB, "warning"), (40 * GB, "ok")]
)
def test_disk_for_files_and_what_they_unpack_to(free: int, status: str) -> None:
    """10 GB to fetch, which become 19 GB; and 10 GB are recommended for compiling."""
    found = check_cache_disk(
        facts(cache=replace(CACHE, free=free), stock=Stock(present=GB, missing=10 * GB))
    )
    assert found.status == status
    assert "27.0 GiB needed" in found.found  # 29 GB


def test_files_for_images_are_not_unpacked_in_the_cache() -> None:
    stock = Stock(present=0, missing=10 * GB)
    found = check_cache_disk(facts(IN_CONTAINERS, cache=replace(CACHE, free=28 * GB), stock=stock))
    assert found.status == "ok"


def test_tools_for_wine_are_unpacked_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The image has none of them."""
    monkeypatch.setattr("fatwheel.containers.contexts.this_platform", lambda: "linux-x86_64")
    found = check_cache_disk(facts(IN_WINE, stock=Stock(present=0, missing=10 * GB)))
    assert "27.0 GiB needed" in found.found  # 29 GB


def test_long_paths() -> None:
    assert check_long_paths(HEALTHY).status == "not applicable"
    assert check_long_paths(SERVER).status == "ok"
    found = check_long_paths(BROKEN)
    assert found.status == "warning"
    assert "LongPathsEnabled /t REG_DWORD /d 1" in found.fixes[0].command
    assert found.fixes[0].administrator
    unknown = WindowsHost(None, None, None)
    assert check_long_paths(facts(SERVER, windows=unknown)).status == "warning"
    assert check_long_paths(facts(SERVER, windows=Silence("x"))).found == "x"


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
