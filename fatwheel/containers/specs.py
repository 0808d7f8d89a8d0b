"""What a container is asked to be, and what an engine says of itself. No Docker here.

Sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass


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


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What decides how a container is made; the defaults stand for an engine not asked yet.

    os:        'linux' or 'windows': what its containers are.
    os_build:  of a Windows host, its build number; 0 for Linux or unknown.
    version:   of the engine (`20.10.24`); api_version: of its API (`1.41`).
    system:    the host's operating system, in the engine's words.
    cpus, memory: what containers can use in all; 0 is unknown.
    root:      the folder of its images and containers, on its own machine.
    storage_driver, storage: `overlay2`, and its status as pairs of names and values.
    isolation: of Windows, what containers get that ask for nothing: 'process' or 'hyperv'.
    rootless:  its root is an ordinary user; remapped: its users are others than the host's.
    selinux:   mounts are denied to containers that are labelled as such.
    limits:    the limits that its kernel can hold: 'memory', 'swap', 'cpus', 'pids'.
    """

    os: str
    os_build: int = 0
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
