"""Every toolchain that can be composed of the shipped parts, on every platform."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.config.compose import Combination, combinations, compose
from fatwheel.config.parts import NVIDIA_PLATFORMS, Parts, release
from fatwheel.config.toolchain import Toolchain
from fatwheel.config.toolchains import find_toolchain
from fatwheel.engines.registry import engine_for
from fatwheel.toolchain.interpreters import compiler_id

TOOLCHAINS = Path(__file__).parents[3] / "toolchains"
PARTS = Parts(TOOLCHAINS)
LINUX, WINDOWS = "linux-x86_64", "win-amd64"


@pytest.fixture(scope="module")
def composed() -> list[tuple[Combination, Toolchain]]:
    return [
        (one, compose(PARTS, one))
        for platform in NVIDIA_PLATFORMS
        for one in combinations(PARTS, platform)
    ]


Composed = list[tuple[Combination, Toolchain]]


def test_what_is_promised_is_there(composed: Composed) -> None:
    for platform, cudas in (
        (LINUX, ("12.4", "12.6", "12.8", "12.9", "13.0")),
        (WINDOWS, ("12.4", "12.6", "12.8", "12.9", "13.0")),
    ):
        found = [one for one, _ in composed if one.platform == platform]
        assert {one.cuda.minor for one in found} >= set(cudas), platform
        assert {one.python for one in found} >= {f"3.{minor}" for minor in range(10, 15)}
        oldest = min(release(one.torch.version) for one in found)
        assert oldest[:2] <= (2, 6), f"{platform}: the oldest torch is {oldest}"


def test_each_has_all_that_a_build_needs(composed: Composed) -> None:
    for one, toolchain in composed:
        what = f"{one.name}, torch {one.torch.version}, Python {one.python}"
        [build] = toolchain.builds
        names = [package.name for package in (*toolchain.packages, *build.packages)]
        assert len(names) == len(set(names)), f"{what}: a package is there twice"
        assert {"torch", "setuptools", "ninja", "wheel", "packaging"} <= set(names), what
        open_ = [package.name for package in build.packages if not package.locked]
        # That of an older torch is still to be asked for.
        assert open_ == [] or (open_ == ["torch"] and release(one.torch.version) < (2, 4)), what
        assert toolchain.archs, what
        if toolchain.platform.startswith("linux-"):
            least, most = toolchain.gcc or (0, 0)
            assert 9 <= least <= 12 <= most, f"{what}: Debian 12's g++ is 12"
        compilers = {package.name for package in toolchain.packages if package.role == "compiler"}
        archives = {archive.name for archive in toolchain.cuda_files}
        assert "nvidia-cuda-nvcc" in compilers or "cuda_nvcc" in archives, what


def test_torch_is_of_the_same_major_version_as_cuda(composed: Composed) -> None:
    for one, toolchain in composed:
        assert one.variant.cuda.split(".")[0] == toolchain.cuda.split(".")[0], one


def test_an_engine_can_build_with_each_for_this_kind_of_machine(composed: Composed) -> None:
    for one, toolchain in composed:
        if one.platform != "linux-aarch64":
            assert engine_for(toolchain, None), one.name


def test_names_lead_back(composed: Composed) -> None:
    for one, toolchain in composed[:: max(1, len(composed) // 6)]:
        found = find_toolchain(one.name, one.torch.version, one.python, TOOLCHAINS)
        assert found == toolchain


def test_compilers_do_not_depend_on_torch_or_python(composed: Composed) -> None:
    """Else device code could not be shared."""
    ids: dict[str, set[str]] = {}
    for one, toolchain in composed:
        ids.setdefault(one.name, set()).add(compiler_id(toolchain, toolchain.builds[0]))
    assert all(len(of_one) == 1 for of_one in ids.values()), ids


def test_what_the_named_toolchain_compiled_serves_the_composed_one() -> None:
    named = find_toolchain("linux-cuda13.0", "2.11.0", "3.11", TOOLCHAINS)
    same = find_toolchain("cuda13.0.2-linux-x86_64", "2.11.0", "3.11", TOOLCHAINS)
    assert compiler_id(named, named.builds[0]) == compiler_id(same, same.builds[0])
