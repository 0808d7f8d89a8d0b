"""Plans to show and to check: for Windows and for Linux in containers, and in processes."""

from __future__ import annotations

from fatwheel.pipeline.preview import (
    DEVICE_CODE,
    HOST_CODE,
    PlanDocument,
    PlannedContainer,
    PlannedFront,
    PlannedImage,
    PlannedShard,
    PlannedWheel,
)

GIB = 2**30
_WINDOWS = "fatwheel/windows-msvc17.8-cuda12.3"
_FRONTS = (
    PlannedFront("compute_80", ("sm_80",)),
    PlannedFront("compute_86", ("sm_86",)),
    PlannedFront("compute_89", ("sm_89", "compute_89")),
)
_SHARDS = (
    PlannedShard("1:compute_89", ("sm_89", "compute_89")),
    PlannedShard("2:compute_80", ("sm_80",)),
    PlannedShard("3:compute_86", ("sm_86",)),
)


def _windows_wheel(tag: str) -> PlannedWheel:
    name = f"flash_attn-2.3.6+cu123torch2.1.sm80.sm86.sm89.ptx-{tag}-{tag}-win_amd64.whl"
    return PlannedWheel(name, f"3.{tag[3:]}", f"{_WINDOWS}:{tag}-torch2.1.1-0123456789abcdef")


def _container(
    wheel: PlannedWheel, purpose: str, compiles: str, most: int = 1, memory: int = 20 * GIB
) -> PlannedContainer:
    command = f"docker run --rm {wheel.image} # {purpose}" if most else ""
    return PlannedContainer(
        wheel.python, purpose, compiles, most, 8, memory, wheel.image, command
    )  # fmt: skip


_CP310, _CP311 = _windows_wheel("cp310"), _windows_wheel("cp311")
WINDOWS = PlanDocument(
    kernel="flash-attn",
    project="flash_attn",
    version="2.3.6",
    fetched="flash_attn-2.3.6.tar.gz",
    toolchain="windows-msvc17.8-cuda12.3",
    platform="win-amd64",
    cuda="12.3",
    nvcc="12.3.107",
    compiler="cl 19.38.33130 (Visual Studio 17.8.2)",
    torch="2.1.1",
    archs=("80", "86", "89+ptx"),
    engine="docker",
    front="auto",
    fronts=_FRONTS,
    shards=_SHARDS,
    jobs=8,
    memory=40 * GIB,
    at_once=2,
    wheels=(_CP310, _CP311),
    images=(
        PlannedImage(
            kind="toolchain",
            tag=f"{_WINDOWS}:toolchain-fedcba9876543210",
            base="mcr.microsoft.com/windows/servercore:ltsc2022",
            pythons=("3.10", "3.11"),
            files=17,
            size=1_100_000_000,
            unlocked=("servercore:ltsc2022", "vs_BuildTools.exe"),
            command=f"docker build --tag {_WINDOWS}:toolchain-fedcba9876543210 D:\\fw\\toolchain",
        ),
        PlannedImage(
            kind="env",
            tag=_CP310.image,
            base=f"{_WINDOWS}:toolchain-fedcba9876543210",
            pythons=("3.10",),
            files=14,
            size=60_000_000,
            unlocked=("torch-2.1.1+cu121-cp310-cp310-win_amd64.whl",),
            command=f"docker build --tag {_CP310.image} D:\\fw\\cp310",
        ),
        PlannedImage(
            kind="env",
            tag=_CP311.image,
            base=f"{_WINDOWS}:toolchain-fedcba9876543210",
            pythons=("3.11",),
            files=14,
            size=2_533_900_000,
            unlocked=("torch-2.1.1+cu121-cp311-cp311-win_amd64.whl",),
            command=f"docker build --tag {_CP311.image} D:\\fw\\cp311",
        ),
    ),
    containers=(
        _container(_CP310, "capture", "", memory=40 * GIB),
        *(_container(_CP310, f"shard {shard.name}", DEVICE_CODE) for shard in _SHARDS),
        _container(_CP310, "assemble", "", memory=40 * GIB),
        _container(_CP311, "capture", "", memory=40 * GIB),
        _container(_CP311, "shards", DEVICE_CODE, most=0),
        _container(_CP311, "shards", HOST_CODE, most=3),
        _container(_CP311, "assemble", "", memory=40 * GIB),
    ),
    render="invoke render --fetch --toolchain windows-msvc17.8-cuda12.3 --python 3.10,3.11",
    final_tags=False,
)

_LINUX_WHEEL = PlannedWheel(
    "selftest-1.0+cu130torch2.11.sm80-cp311-cp311-linux_x86_64.whl",
    "3.11",
    "fatwheel/linux-cuda13.0:cp311-torch2.11.0-0123456789abcdef",
)
LINUX = PlanDocument(
    kernel="selftest",
    project="selftest",
    version="1.0",
    fetched="",
    toolchain="linux-cuda13.0",
    platform="linux-x86_64",
    cuda="13.0",
    nvcc="13.0.88",
    compiler="g++ 9 to 15",
    torch="2.11.0",
    archs=("80",),
    engine="docker",
    front="exact",
    fronts=_FRONTS[:1],
    shards=(PlannedShard("1:compute_80", ("sm_80",)),),
    jobs=2,
    memory=6 * GIB,
    at_once=1,
    wheels=(_LINUX_WHEEL,),
    images=(
        PlannedImage(
            kind="env",
            tag=_LINUX_WHEEL.image,
            base="my-bookworm",
            pythons=("3.11",),
            files=40,
            size=2_800_000_000,
            unlocked=(),
            command=f"docker build --tag {_LINUX_WHEEL.image} '/big disk/cp311'",
        ),
    ),
    containers=(
        _container(_LINUX_WHEEL, "capture", "", memory=6 * GIB),
        _container(_LINUX_WHEEL, "shard 1:compute_80", DEVICE_CODE, memory=6 * GIB),
        _container(_LINUX_WHEEL, "assemble", "", memory=6 * GIB),
    ),
    render="invoke render --fetch --toolchain linux-cuda13.0 --python 3.11",
    final_tags=False,
)
PROCESSES = PlanDocument(
    kernel="causal-conv1d",
    project="causal_conv1d",
    version="1.5.2",
    fetched="causal_conv1d-1.5.2.tar.gz",
    toolchain="linux-cuda13.0",
    platform="linux-x86_64",
    cuda="13.0",
    nvcc="13.0.88",
    compiler="g++ 9 to 15",
    torch="2.11.0",
    archs=("80", "86", "89+ptx"),
    engine="process",
    front="shared",
    fronts=(
        PlannedFront("compute_80", ("sm_80", "sm_86", "sm_89")),
        PlannedFront("compute_89", ("compute_89",)),
    ),
    shards=(
        PlannedShard("1:compute_80", ("sm_80", "sm_86", "sm_89")),
        PlannedShard("2:compute_89", ("compute_89",)),
    ),
    jobs=2,
    memory=16 * GIB,
    at_once=2,
    wheels=(
        PlannedWheel(
            "causal_conv1d-1.5.2+cu130torch2.11.sm80.sm86.sm89.ptx-cp311-cp311-linux_x86_64.whl",
            "3.11",
            "",
        ),
    ),
)
EVERY = {"windows": WINDOWS, "linux": LINUX, "processes": PROCESSES}
