"""Workstations as the doctor's facts describe them: made up, of both systems."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fatwheel.arch import parse_arch
from fatwheel.config.pinned import Download, Package
from fatwheel.config.toolchain import (
    Base,
    Containers,
    DebianPackage,
    LockedInterpreter,
    LockedMsvc,
    Toolchain,
    TorchBuild,
    WineImage,
)
from fatwheel.containers.layouts import EngineFacts
from fatwheel.doctor.facts import (
    Answer,
    CacheFacts,
    EngineTrouble,
    EngineView,
    Facts,
    FileHost,
    Gpu,
    GpuFacts,
    ImageFacts,
    IndexFacts,
    Load,
    Machine,
    ProxyFacts,
    Stock,
    Trouble,
    WindowsHost,
)

GIB, GB = 1 << 30, 10**9
SHA = "ab" * 32
ARCHS = tuple(parse_arch(name) for name in ("80", "86", "89", "90", "90a"))


def package(name: str, size: int, sha256: str = SHA, url: str = "", tag: str = "any") -> Package:
    return Package(name, "1.0", f"{name}-1.0-py3-none-{tag}.whl", size, sha256, "build", url)


def download(name: str, size: int, sha256: str = SHA) -> Download:
    return Download(name, "1.0", f"https://files.example/{name}.zip", f"{name}.zip", size, sha256)


LINUX_TOOLCHAIN = Toolchain(
    name="linux-cuda13.0",
    platform="linux-x86_64",
    cuda="13.0",
    nvcc="13.0.88",
    archs=ARCHS,
    gcc=(9, 15),
    packages=(package("nvcc", GB, tag="manylinux2014_x86_64"), package("ninja", 1000)),
    builds=(
        TorchBuild("2.11.0", "3.10", (package("torch310", GB),)),
        TorchBuild("2.11.0", "3.11", (package("torch311", GB),)),
    ),
    digest=SHA,
    default_torch="2.11.0",
    containers=Containers(
        "linux",
        0,
        (Base("python:3.10", f"sha256:{SHA}", ("3.10",)), Base("python:3.11", "", ("3.11",))),
    ),
)
WINDOWS_TOOLCHAIN = Toolchain(
    name="windows-msvc17.8-cuda12.3",
    platform="win-amd64",
    cuda="12.3",
    nvcc="12.3.107",
    archs=ARCHS,
    gcc=None,
    packages=(package("ninja", 1000),),
    builds=(TorchBuild("2.1.1", "3.11", (package("torch", 2 * GB),)),),
    digest=SHA,
    default_torch="2.1.1",
    cuda_files=(download("cuda_nvcc", GB),),
    interpreters=(LockedInterpreter("3.11", download("python", 30_000_000)),),
    msvc=LockedMsvc("17.8.2", "19.38.33130", "14.38", "https://t", (download("vs", 4_000_000),)),
    containers=Containers("windows", 20348, (Base("servercore:ltsc2022", f"sha256:{SHA}", ()),)),
)

LINUX_HOST = Machine(
    system="Linux",
    name="Debian GNU/Linux 12 (bookworm)",
    machine="x86_64",
    build=0,
    python="3.11.2",
    cores=16,
    memory=64 * GIB,
    free_memory=48 * GIB,
    wheel_platforms=frozenset({"manylinux2014_x86_64", "manylinux_2_17_x86_64", "linux_x86_64"}),
    now=1_790_000_000.0,  # 2026-09-21
)
WINDOWS_HOST = replace(
    LINUX_HOST,
    system="Windows",
    name="Windows 11",
    machine="AMD64",
    build=22631,
    wheel_platforms=frozenset({"win_amd64"}),
)

LINUX_ENGINE = EngineView(
    facts=EngineFacts(
        os="linux",
        version="27.3.1",
        system="Debian GNU/Linux 12 (bookworm)",
        cpus=16,
        memory=64 * GIB,
        root="/var/lib/docker",
    ),
    endpoint="unix:///var/run/docker.sock",
    architecture="x86_64",
    free=200 * GIB,
    local=True,
    proxies=(),
    clock=0.4,
    images={},
)
WINDOWS_ENGINE = replace(
    LINUX_ENGINE,
    facts=EngineFacts(
        os="windows",
        os_build=20348,
        version="27.3.1",
        system="Microsoft Windows Server Version 21H2",
        cpus=16,
        memory=64 * GIB,
        root=r"C:\ProgramData\docker",
        isolation="process",
    ),
    endpoint="npipe:////./pipe/docker_engine",
)
DAEMON_JSON = r"C:\ProgramData\docker\config\daemon.json"

# A Linux machine that builds in processes, with all there is to it.
HEALTHY = Facts(
    toolchain=LINUX_TOOLCHAIN,
    engine="process",
    python="3.11",
    host=LINUX_HOST,
    windows=None,
    cache=CacheFacts("/home/ada/.cache/fatwheel", True, "", 100 * GIB, "ext4", True, True, False),
    stock=Stock(present=2 * GB, missing=0),
    loads=(Load("causal-conv1d", 2 * GIB), Load("flash-attn", 4 * GIB)),
    container_engine=None,
    daemon_file="",
    images=None,
    proxies=ProxyFacts((), "", ()),
    index=IndexFacts("ninja-1.0-py3-none-any.whl", (("https://index.example", ""),), 0.4, 1.0),
    places=(),
    compiler="g++ 12.2.0 (/usr/bin/g++)",
    pythons=(("3.10", Trouble("none")), ("3.11", "/usr/bin/python3.11")),
    gpu=GpuFacts("580.65.06", (13, 0), (Gpu("NVIDIA H200", (9, 0), 140 * GIB),), cards=1),
)
# The same, building in containers, all images there.
IN_CONTAINERS = replace(
    HEALTHY,
    engine="docker",
    container_engine=LINUX_ENGINE,
    daemon_file="/etc/docker/daemon.json",
    images=ImageFacts(
        ("fatwheel/l:toolchain-1", "fatwheel/l:env-1"),
        ("fatwheel/l:toolchain-1", "fatwheel/l:env-1"),
    ),
    compiler=None,
    pythons=None,
    own_bases=frozenset({"3.11"}),
)
# A Linux machine that builds for Windows by Wine, and has made nothing for it yet.
_WINE = WineImage(
    version="8.0",
    base=Base("debian:12", f"sha256:{SHA}", ()),
    packages=(DebianPackage("pool/main/w/wine/libwine_8.0~repack-4_amd64.deb", 100_000_000, SHA),),
)
IN_WINE = replace(
    IN_CONTAINERS,
    toolchain=replace(WINDOWS_TOOLCHAIN, wine=_WINE),
    images=ImageFacts(("fatwheel/l:wine-1",), ()),
    own_bases=frozenset(),
)
# A Windows Server that has all it needs.
SERVER = replace(
    IN_CONTAINERS,
    toolchain=WINDOWS_TOOLCHAIN,
    host=replace(WINDOWS_HOST, name="Windows 2022Server", build=20348),
    windows=WindowsHost(True, True, True, "ServerStandard"),
    cache=CacheFacts(r"D:\fw", True, "", 300 * GIB, "NTFS", True, False, True),
    container_engine=WINDOWS_ENGINE,
    daemon_file=DAEMON_JSON,
    own_bases=frozenset(),
)
# A Windows 11 machine on which hardly anything is as it should be.
BROKEN = replace(
    SERVER,
    host=replace(WINDOWS_HOST, memory=16 * GIB, free_memory=9 * GIB),
    windows=WindowsHost(False, False, False, "Professional"),
    cache=CacheFacts(
        r"C:\Users\Ada L\AppData\Local\fatwheel\Cache", False,
        "its path must not contain a space or a colon", 30 * GIB, "NTFS", True, True, False,
    ),
    stock=Stock(present=0, missing=3 * GB),
    container_engine=replace(
        WINDOWS_ENGINE,
        facts=replace(WINDOWS_ENGINE.facts, os_build=22631, version="20.10.24", isolation="hyperv"),
        free=30 * GIB,
        clock=-4000.0,
    ),
    images=ImageFacts(("fatwheel/w:toolchain-1", "fatwheel/w:env-1"), ()),
    proxies=ProxyFacts((("HTTP_PROXY", "http://ada:****@proxy.example:3128"),), "", ()),
    index=IndexFacts(
        "ninja-1.0-py3-none-any.whl",
        (("https://index.example", "no answer in time (pip's option timeout sets how long)"),),
        10.0,
        None,
    ),
    places=(
        FileHost("files.example", GB, "no connection: refused"), FileHost("other.example", 9, ""),
    ),
    gpu=GpuFacts("531.14", (12, 1), (Gpu("NVIDIA GeForce RTX 5090", (12, 0), 32 * GIB),)),
)  # fmt: skip
NO_ENGINE = EngineTrouble("absent", Trouble("cannot reach the container engine", "unix:///x"))


def facts(base: Facts = HEALTHY, **changes: Any) -> Facts:
    return replace(base, **changes)


def commands(finding: Answer) -> list[str]:
    return [fix.command for fix in finding.fixes]
