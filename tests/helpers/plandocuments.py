"""Plans to show and to check: for Windows and for Linux in containers, and in processes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fatwheel.arch import parse_arch, parse_arch_list
from fatwheel.config.pinned import Sdist
from fatwheel.config.recipe import Recipe, SourcePin, Target, UnitArchs
from fatwheel.config.toolchain import LockedMsvc, Toolchain
from fatwheel.engines.base import (
    DEVICE_CODE,
    HOST_CODE,
    Engine,
    Footprint,
    Limits,
    PlannedContainer,
    PlannedImage,
)
from fatwheel.engines.docker import Docker
from fatwheel.engines.process import Processes
from fatwheel.model import Front
from fatwheel.pipeline.compile import Effort
from fatwheel.pipeline.plan import BuildPlan, PlannedWheel

GIB = 2**30
_WINDOWS = "fatwheel/windows-msvc17.8-cuda12.3"
_FRONTS = (
    Front(parse_arch("80"), ("sm_80",)),
    Front(parse_arch("86"), ("sm_86",)),
    Front(parse_arch("89"), ("sm_89", "compute_89")),
)


@dataclass(frozen=True)
class _Docker(Docker):
    """Knows what it would start."""

    known: Footprint

    def footprint(self, *arguments: object) -> Footprint:
        return self.known


def with_footprint(plan: BuildPlan, **changes: Any) -> BuildPlan:
    """The same plan, with something else of what its engine would start."""
    return replace(plan, engine=_Docker(replace(plan.footprint, **changes)))


def _recipe(kernel: str, project: str, version: str, memory: int, fetched: bool = True) -> Recipe:
    sdist = Sdist(project, version, f"{project}-{version}.tar.gz", 7, "ab" * 32, "source")
    return Recipe(
        name=kernel, project=project, version=version, archs=("80",), environment={}, imports=(),
        source=SourcePin(package=sdist) if fetched else SourcePin(folder="src"),
        memory=memory, seconds=1, costs=(), epoch=0, folder=Path(kernel), digest="",
    )  # fmt: skip


def _plan(
    recipe: Recipe, toolchain: Toolchain, torch: str, pythons: tuple[str, ...], archs: str,
    front: str, fronts: tuple[Front, ...], limits: Limits, engine: Engine,
    shards: int | None = None,
) -> BuildPlan:  # fmt: skip
    requests = parse_arch_list(archs, toolchain.archs)
    targets = [Target(recipe, toolchain, python, torch, requests) for python in pythons]
    return BuildPlan(
        tuple(PlannedWheel(target, fronts) for target in targets), front, engine,
        Effort(shards), limits, Path("dist"),
    )  # fmt: skip


def _container(
    python: str,
    image: str,
    purpose: str,
    compiles: str,
    most: int = 1,
    memory: int = 20 * GIB,
    wheel: int = 0,
) -> PlannedContainer:
    command = f"docker run --rm {image} # {purpose}" if most else ""
    return PlannedContainer(wheel, python, purpose, compiles, most, 8, memory, image, command)


_KNOWN = tuple(map(parse_arch, ("80", "86", "89")))
_LINUX_TOOLS = Toolchain(
    name="linux-cuda13.0", platform="linux-x86_64", cuda="13.0", nvcc="13.0.88", archs=_KNOWN,
    gcc=(9, 15), packages=(), builds=(), digest="", default_torch="2.11.0",
)  # fmt: skip
_WINDOWS_TOOLS = Toolchain(
    name="windows-msvc17.8-cuda12.3", platform="win-amd64", cuda="12.3", nvcc="12.3.107",
    archs=_KNOWN, packages=(), builds=(), digest="", default_torch="2.1.1",
    msvc=LockedMsvc("17.8.2", "19.38.33130", "14.38", "https://host/terms", ()),
)  # fmt: skip
_CP310, _CP311 = (f"{_WINDOWS}:cp{tag}-torch2.1.1-0123456789abcdef" for tag in (310, 311))
WINDOWS = _plan(
    _recipe("flash-attn", "flash_attn", "2.3.6", 15 * GIB), _WINDOWS_TOOLS, "2.1.1",
    ("3.10", "3.11"), "80,86,89+ptx", "auto", _FRONTS, Limits(8, 40 * GIB),
    _Docker(
        Footprint(
    images=(
        PlannedImage(
            kind="toolchain",
            tag=f"{_WINDOWS}:toolchain-fedcba9876543210",
            base="mcr.microsoft.com/windows/servercore:ltsc2022",
            pythons=("3.10", "3.11"),
            files=17,
            size=1_100_000_000,
            unlocked=("servercore:ltsc2022", "headers.vsix"),
            command=f"docker build --tag {_WINDOWS}:toolchain-fedcba9876543210 D:\\fw\\toolchain",
        ),
        PlannedImage(
            kind="env",
            tag=_CP310,
            base=f"{_WINDOWS}:toolchain-fedcba9876543210",
            pythons=("3.10",),
            files=14,
            size=60_000_000,
            unlocked=("torch-2.1.1+cu121-cp310-cp310-win_amd64.whl",),
            command=f"docker build --tag {_CP310} D:\\fw\\cp310",
        ),
        PlannedImage(
            kind="env",
            tag=_CP311,
            base=f"{_WINDOWS}:toolchain-fedcba9876543210",
            pythons=("3.11",),
            files=14,
            size=2_533_900_000,
            unlocked=("torch-2.1.1+cu121-cp311-cp311-win_amd64.whl",),
            command=f"docker build --tag {_CP311} D:\\fw\\cp311",
        ),
    ),
    containers=(
        _container("3.10", _CP310, "capture", "", memory=40 * GIB),
        _container("3.10", _CP310, "shard 1:compute_89", DEVICE_CODE),
        _container("3.10", _CP310, "shard 2:compute_80", DEVICE_CODE),
        _container("3.10", _CP310, "shard 3:compute_86", DEVICE_CODE),
        _container("3.10", _CP310, "assemble", "", memory=40 * GIB),
        _container("3.11", _CP311, "capture", "", memory=40 * GIB, wheel=1),
        _container("3.11", _CP311, "shards", DEVICE_CODE, most=0, wheel=1),
        _container("3.11", _CP311, "shards", HOST_CODE, most=3, wheel=1),
        _container("3.11", _CP311, "assemble", "", memory=40 * GIB, wheel=1),
    ),
    image_of=(_CP310, _CP311),
    isolation="default",
    render="invoke render --fetch --toolchain windows-msvc17.8-cuda12.3 --python 3.10,3.11",
    final_tags=False,
        )
    ),
)  # fmt: skip
_LINUX_IMAGE = "fatwheel/linux-cuda13.0:cp311-torch2.11.0-0123456789abcdef"
LINUX = _plan(
    _recipe("selftest", "selftest", "1.0", GIB, fetched=False), _LINUX_TOOLS, "2.11.0", ("3.11",),
    "80", "exact", _FRONTS[:1], Limits(2, 6 * GIB),
    _Docker(
        Footprint(
            images=(
                PlannedImage(
                    kind="env",
                    tag=_LINUX_IMAGE,
                    base="my-bookworm",
                    pythons=("3.11",),
                    files=40,
                    size=2_800_000_000,
                    unlocked=(),
                    command=f"docker build --tag {_LINUX_IMAGE} '/big disk/cp311'",
                ),
            ),
            containers=(
                _container("3.11", _LINUX_IMAGE, "capture", "", memory=6 * GIB),
                _container(
                    "3.11", _LINUX_IMAGE, "shard 1:compute_80", DEVICE_CODE, memory=6 * GIB
                ),
                _container("3.11", _LINUX_IMAGE, "assemble", "", memory=6 * GIB),
            ),
            image_of=(_LINUX_IMAGE,),
            render="invoke render --fetch --toolchain linux-cuda13.0 --python 3.11",
            final_tags=False,
        )
    ),
)  # fmt: skip
_SHARED = (
    Front(parse_arch("80"), ("sm_80", "sm_86", "sm_89")),
    Front(parse_arch("89"), ("compute_89",)),
)
PROCESSES = _plan(
    replace(
        _recipe("causal-conv1d", "causal_conv1d", "1.5.2", GIB),
        unit=(UnitArchs("*_bwd", ("86+ptx",)), UnitArchs("*_sm90", ("90a",))),
    ),
    _LINUX_TOOLS, "2.11.0", ("3.11",),
    "80,86,89+ptx", "shared", _SHARED, Limits(2, 16 * GIB), Processes(), shards=2,
)  # fmt: skip
EVERY = {"windows": WINDOWS, "linux": LINUX, "processes": PROCESSES}
