"""Where things are in a container and how it is restricted, on Linux and on Windows.

No Docker here: what the engine is told of a container is the body of POST /containers/create, as
the Docker Engine API 1.41 describes it. It is written in the API's own words, not in those of the
SDK's `create_host_config`: `--plan` turns it into `docker run` without an engine and without
loading the SDK. Sizes are bytes.

Windows containers are kept apart from their host in two ways. With process isolation they are
processes of the host's kernel, with Hyper-V isolation each is a small virtual machine. Windows
Server's engine takes the first unless told otherwise, and that of Windows 10 and 11 the second:
there, Microsoft intends process isolation for development and testing alone, and containers fail to
start now and then (docker/for-win#14287). So the engine's own way is taken, unless the user names
one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import EngineError, UsageError


@dataclass(frozen=True)
class Mount:
    """A folder of this machine, seen in a container at target."""

    source: str
    target: str
    writable: bool


@dataclass(frozen=True)
class ContainerSpec:
    """One container of a build.

    purpose:  what it is for, in messages: `capture`, `shard 1:compute_80`, `assemble`.
    image:    tag or id of an image that the engine has.
    cpus, memory: its limits.
    os:       'linux' or 'windows', as an engine's OSType says it.
    os_build: of Windows, the build number of the image's base (20348 for ltsc2022); else 0.
    as_caller: on Linux, its processes are whoever runs fatwheel, also where that is root: for
    pinned programs alone, which write into the caller's folders.
    """

    purpose: str
    image: str
    command: tuple[str, ...]
    mounts: tuple[Mount, ...]
    cpus: int
    memory: int
    os: str
    os_build: int = 0
    variables: tuple[tuple[str, str], ...] = ()
    as_caller: bool = False


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What decides how a container is made; the defaults stand for an engine not asked yet.

    os:        'linux' or 'windows': what its containers are.
    os_build:  of a Windows host, its build number; 0 for Linux or unknown. os_revision: what its
               updates have brought it to, as in 2340 of 20348.2340; 0 is unknown.
    version:   of the engine (`20.10.24`); api_version: of its API (`1.41`).
    system:    the host's operating system, in the engine's words.
    cpus, memory: what containers can use in all; 0 is unknown.
    root:      the folder of its images and containers, on its own machine.
    storage_driver, storage: `overlay2`, and its status as pairs of names and values.
    isolation: of Windows, what containers get that ask for nothing: 'process', 'hyperv' or ''.
    rootless:  its root is an ordinary user; remapped: its users are others than the host's.
    selinux:   mounts are denied to containers that are labelled as such.
    limits:    the limits that its kernel can hold: 'memory', 'swap', 'cpus', 'pids'.
    """

    os: str
    os_build: int = 0
    os_revision: int = 0
    version: str = ""
    api_version: str = ""
    system: str = ""
    cpus: int = 0
    memory: int = 0
    root: str = ""
    storage_driver: str = ""
    storage: tuple[tuple[str, str], ...] = ()
    isolation: str = ""
    rootless: bool = False
    remapped: bool = False
    selinux: bool = False
    limits: frozenset[str] = frozenset({"memory", "swap", "cpus", "pids"})


@dataclass(frozen=True)
class Ending:
    """How a container ended.

    code:          exit code of its program: on Linux, 128 + the signal's number if one ended it.
    out_of_memory: it was killed because it used more than its limit.
    last_lines:    the end of what it wrote to its standard error.
    """

    code: int
    out_of_memory: bool
    last_lines: tuple[str, ...]


# -- layouts ---------------------------------------------------------------------------------------

_NOBODY = 65534
_MOST_PROCESSES = 4096  # of one container, threads counted: far more than compilers start
_LARGEST_FILE = 16 << 30  # bytes; the largest wheels have 4 GB
_TMP = 1 << 30  # bytes; only what insists on /tmp lies there, and it counts as memory
# STATUS_NO_MEMORY, STATUS_INSUFFICIENT_RESOURCES, STATUS_COMMITMENT_LIMIT
_NO_MEMORY = (0xC0000017, 0xC000009A, 0xC000012D)
_BUILD_MEMORY = 8 << 30  # bytes for building an image of Windows: MSVC's installer is large
_ENGINE_KEEPS = 1 << 30  # bytes
_DISK = "127GB"  # of a Windows container; it grows as it is filled. Older engines' default is 20 GB


@dataclass(frozen=True)
class Layout:
    """Where things lie inside of an image, and of a container made from it.

    description: what the image says of itself, JSON.
    code:        where fatwheel is mounted: the folder that holds the package.
    sources:     the unpacked project, or its captured files; read-only.
    store:       the store; read-only. trunk: one more, for builds with a store of their own.
    incoming:    the only writable mount.
    work:        where work folders are made.
    home:        of the image's own files.
    cuda:        of CUDA, where it comes as archives and not as packages.
    msvc:        of the C++ compiler, where it is none of the base image's.
    in_place:    packages are installed into the toolchain's own Pythons, not beside them.
    """

    os: str
    home: str
    description: str
    code: str
    sources: str
    store: str
    trunk: str
    incoming: str
    work: str
    cuda: str
    msvc: str
    in_place: bool

    @property
    def package(self) -> str:
        """Where the folder of the package fatwheel is mounted, so that `code` holds it."""
        return self.code + ("\\" if self.os == "windows" else "/") + "fatwheel"

    def file(self, name: str) -> str:
        """Where an image, while it is built, has a file of its build context."""
        return rf"{self.home}\files\{name}" if self.os == "windows" else f"{self.home}/files/{name}"

    def interpreter_home(self, python: str) -> str:
        """Where an image has a Python that its toolchain installs; python is `3.11`."""
        if self.os == "windows":
            return rf"C:\Python{python.replace('.', '')}"
        return f"{self.home}/python{python}"

    def interpreter_of(self, python: str) -> str:
        """The program of that Python."""
        if self.os == "windows":
            return rf"{self.interpreter_home(python)}\python.exe"
        return f"{self.interpreter_home(python)}/bin/python{python}"

    def python_of(self, python: str) -> str:
        """The interpreter of an image's environment; python is `3.11`."""
        if self.os == "windows":
            return self.interpreter_of(python)
        return f"{self.home}/env/bin/python"


LINUX = Layout(
    os="linux",
    home="/opt/fatwheel",
    description="/opt/fatwheel/environment.json",
    code="/fatwheel/code",
    sources="/fatwheel/sources",
    store="/fatwheel/store",
    trunk="/fatwheel/trunk",
    incoming="/fatwheel/incoming",
    work="/fatwheel/incoming/work",
    # Longer than the path by which compilers see it (`worker.view`), with `bin/..` in it: where the
    # real path of a system header is the shorter one, gcc puts that into texts and objects.
    cuda="/opt/fatwheel/cuda-of-archives",
    msvc="",
    in_place=False,
)
# Short, because command lines and many programs end at 260 characters of a path; and work lies
# on the container's own disk: the compiler hangs where its files lie in a mounted folder.
WINDOWS = Layout(
    os="windows",
    home=r"C:\fatwheel",
    description=r"C:\fatwheel\environment.json",
    code=r"C:\fw\code",
    sources=r"C:\fw\sources",
    store=r"C:\fw\store",
    trunk=r"C:\fw\trunk",
    incoming=r"C:\fw\incoming",
    work=r"C:\b",
    cuda=r"C:\cuda",
    msvc=r"C:\msvc",
    in_place=True,
)


# Of containers with Wine, which are like Linux's: the folder with compilers and Pythons, and the
# script that starts programs of Windows.
TOOLS = "/fatwheel/tools"
RUN_IN_WINDOWS = f"{LINUX.home}/scripts/run-in-windows"


def seen_in_wine(path: str) -> str:
    """A path of a container as programs of Windows know it there."""
    return "Z:" + path.replace("/", "\\")


def layout_of(os_name: str) -> Layout:
    """The layout for an engine's OSType."""
    return {"linux": LINUX, "windows": WINDOWS}[os_name]


def create_arguments(
    spec: ContainerSpec, facts: EngineFacts, labels: Mapping[str, str]
) -> dict[str, Any]:
    """The body of the request that creates a container.

    Its input ends when the process that started it ends, for whatever reason; the engine then
    removes it. Raises EngineError where the host is too old for the image.
    """
    special = _windows if spec.os == "windows" else _linux
    config, host = special(spec, facts)
    return {
        "Image": spec.image,
        "Entrypoint": [],  # the base image may have one
        "Cmd": list(spec.command),
        "Env": [f"{name}={value}" for name, value in _variables(spec)],
        "Labels": {**labels, "fatwheel.purpose": spec.purpose},
        "Tty": False,
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        **config,
        "HostConfig": {
            "AutoRemove": True,
            "NetworkMode": "none",
            "Mounts": [_mount(mount) for mount in spec.mounts],
            "Memory": spec.memory,
            # All output is read as it comes; the engine would keep a second copy on its disk.
            "LogConfig": {"Type": "none", "Config": {}},
            **host,
        },
    }


def build_arguments(facts: EngineFacts, os_build: int) -> dict[str, Any]:
    """What the engine is told of an image's build, besides the context, in the SDK's words.

    os_build: of Windows, the build number of the base. Raises EngineError where the host is too old
    for the base.
    """
    network = {"network_mode": "none", "use_config_proxy": False}
    if facts.os != "windows":
        return network
    memory = max(min(_BUILD_MEMORY, facts.memory - _ENGINE_KEEPS), 0) or _BUILD_MEMORY
    limits = {
        "isolation": isolation(facts.os_build, os_build, facts.isolation),
        "container_limits": {"memory": memory},
    }
    return {**network, **limits}


def owner(facts: EngineFacts) -> tuple[int, int] | None:
    """The user and group, as this machine counts them, that containers write as.

    Writable folders must belong to them, and what is mounted read-only they must be able to read.
    None: it is whoever runs fatwheel.
    """
    if facts.os == "windows" or facts.rootless or os.name == "nt" or os.getuid():
        return None
    return _NOBODY, _NOBODY


def ended_for_memory(os_name: str, code: int, killed: bool) -> bool:
    """Whether a container's exit code means that it needed more memory than it may use.

    killed: the engine said that something in it was killed for memory, just before its end.
    Windows kills nothing; there a program that gets no memory ends by itself, with one of the
    statuses that say so.
    """
    if os_name == "windows":
        return code & 0xFFFFFFFF in _NO_MEMORY
    return killed and code == 128 + 9


# -- Linux ---------------------------------------------------------------------------------------


def _linux(spec: ContainerSpec, facts: EngineFacts) -> tuple[dict[str, Any], dict[str, Any]]:
    host: dict[str, Any] = {
        "Init": True,
        "ReadonlyRootfs": True,
        "Tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={min(_TMP, spec.memory)}"},
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Ulimits": [{"Name": "fsize", "Soft": _LARGEST_FILE, "Hard": _LARGEST_FILE}],
    }
    if "swap" in facts.limits:
        host["MemorySwap"] = spec.memory  # together with memory: no swap
    if "pids" in facts.limits:
        host["PidsLimit"] = _MOST_PROCESSES
    if "cpus" in facts.limits:
        # An engine refuses more than it has.
        host["NanoCpus"] = min(spec.cpus, facts.cpus or spec.cpus) * 10**9
    if facts.remapped:
        host["UsernsMode"] = "host"  # else containers could not write to the caller's folders
    if facts.selinux:
        host["SecurityOpt"] = [*host["SecurityOpt"], "label=disable"]
    return {"User": _user(facts, spec.as_caller)}, host


def _user(facts: EngineFacts, as_caller: bool) -> str:
    """Who a container's processes are."""
    if facts.rootless:
        return "0:0"  # which is the caller; everybody else is nobody on the host
    mine = (not as_caller and owner(facts)) or (
        (os.getuid(), os.getgid()) if os.name != "nt" else (_NOBODY, _NOBODY)
    )
    return f"{mine[0]}:{mine[1]}"


# -- Windows -------------------------------------------------------------------------------------


def _windows(spec: ContainerSpec, facts: EngineFacts) -> tuple[dict[str, Any], dict[str, Any]]:
    host: dict[str, Any] = {
        "Isolation": isolation(facts.os_build, spec.os_build, facts.isolation),
        # Always: under Hyper-V a container gets 1 GB and 2 CPUs unless it asks for more.
        "CpuCount": min(spec.cpus, facts.cpus or spec.cpus),
    }
    if facts.storage_driver in ("", "windowsfilter"):
        host["StorageOpt"] = {"size": _DISK}
    return {}, host


# -- both ----------------------------------------------------------------------------------------


def _variables(spec: ContainerSpec) -> list[tuple[str, str]]:
    """The container's variables; there is no home for a user whom the image does not know."""
    own = {} if spec.os == "windows" else {"HOME": "/tmp"}
    return list({**own, **dict(spec.variables)}.items())


def _mount(mount: Mount) -> dict[str, Any]:
    """A bind mount. Unlike with the older `Binds`, the engine never creates a missing source."""
    return {
        "Type": "bind",
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": not mount.writable,
    }


ISOLATION_VARIABLE = "FATWHEEL_ISOLATION"
PROCESS_ISOLATION, HYPERV, ENGINES_OWN = "process", "hyperv", "default"
# Images of Windows Server 2022 and later run with process isolation on any newer host; older ones
# need a host of exactly their build. Source: Microsoft's page on the compatibility of container
# versions.
_STABLE_SINCE = 20348


def isolation(host_build: int, image_build: int, usual: str) -> str:
    """'process', 'hyperv', or 'default' where it is up to an engine that is not known.

    The builds are numbers as in 20348, and that of the host is 0 where it is unknown. usual: what
    the engine takes unless told otherwise, or ''. Raises EngineError where the host is older than
    the image: neither way works there. Raises UsageError where the user's variable names no way.
    """
    if 0 < host_build < image_build:
        raise EngineError(
            f"the host is too old for the image: it is Windows build {host_build}, and the image "
            f"needs {image_build} or newer",
            hint="use Windows Server 2022 (build 20348), Windows 11 (22000) or newer as the host",
        )
    way = _asked()
    if way != ENGINES_OWN:
        return way
    shares_kernel = host_build in (0, image_build) or image_build >= _STABLE_SINCE
    return HYPERV if usual == PROCESS_ISOLATION and not shares_kernel else usual or ENGINES_OWN


def _asked() -> str:
    """What the user's variable says."""
    way = os.environ.get(ISOLATION_VARIABLE) or ENGINES_OWN
    if way not in (PROCESS_ISOLATION, HYPERV, ENGINES_OWN):
        raise UsageError(
            f"{way!r} is no way to isolate containers",
            where=ISOLATION_VARIABLE,
            hint=f"valid: {PROCESS_ISOLATION}, {HYPERV} or {ENGINES_OWN} (the engine's own)",
        )
    return way
