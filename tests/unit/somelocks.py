"""Locks of real toolchains and recipes for tests, and what is to be seen in them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from fatwheel.arch import ArchRequest, parse_arch
from fatwheel.load import list_toolchains, load_recipe, load_toolchain
from fatwheel.model import Host, Target
from fatwheel.provenance.buildlock import BuildLock, lock_of

ROOT = Path(__file__).resolve().parents[2]
TOOLCHAINS = list_toolchains(ROOT / "toolchains")
LINUX, WINDOWS = "linux-cuda13.0", "windows-msvc17.8-cuda12.3"
GXX = Host("g++ 12.2.0", "c0" * 32, "3.11.7")
CL = Host("cl 19.38.33130", "c1" * 32, "3.11.9")


@lru_cache
def some_lock(toolchain: str = LINUX, kernel: str = "causal-conv1d") -> BuildLock:
    """That of a build of this recipe for the toolchain's default torch and its first Python."""
    chain = load_toolchain(toolchain, ROOT / "toolchains")
    build = next(one for one in chain.builds if one.torch == chain.default_torch)
    recipe = load_recipe(kernel, ROOT / "kernels")
    archs = (ArchRequest(parse_arch("80")),)
    target = Target(recipe, chain, build.python, build.torch, archs)
    return lock_of(target, CL if chain.msvc else GXX)
