"""Checks of the machine itself: processor, clock, memory, cache folder and disk.

Each is a function of the facts, and touches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from .. import text
from ..machine import platform_of, processor_of
from ..storage.cache import VARIABLE
from .facts import (
    GB,
    UNPACKED,
    WINDOWS,
    Check,
    EngineView,
    Facts,
    Finding,
    Fix,
    IndexFacts,
    Silence,
    Stock,
    WindowsHost,
)

MACHINE = Check("machine", "this machine")
CLOCK = Check("clock", "clock")
MEMORY = Check("memory", "memory and cores")
CACHE = Check("cache", "cache folder")
CACHE_DISK = Check("cache-disk", "disk for the cache")
LONG_PATHS = Check("long-paths", "long paths")

_PROCESSORS = ("x86_64", "aarch64")
_SKEW = 300.0  # seconds that clocks may differ: certificates and logs bear that much
_OLDEST = 1_735_689_600.0  # 2025-01-01: fatwheel is younger than that
_SHARED = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "vboxsf", "drvfs")
_SHORT = 40  # characters of a cache folder, so that what lies in it stays below 260
_STORE = 10 * GB  # for what is compiled


def check_machine(facts: Facts) -> Finding:
    host = facts.host
    found = f"{host.name}{f' build {host.build}' if host.build else ''}, {host.machine}, Python "
    found += f"{host.python}"
    processor = processor_of(host.machine)
    if processor not in _PROCESSORS:
        return MACHINE.wrong(
            found,
            "compilers and wheels are for x86-64 and aarch64",
            Fix("use such a machine, or a virtual one"),
        )
    if facts.uses_images:
        return MACHINE.ok(found)
    wanted = facts.toolchain.platform
    if platform_of(host.system, host.machine) != wanted:
        if facts.toolchain.brings_all and processor == "x86_64":
            return MACHINE.ok(f"{found}, with Wine for {wanted}")
        return MACHINE.wrong(
            found,
            f"{facts.toolchain.name} runs only on {wanted} unless it is in a container",
            Fix("run it in containers", "invoke doctor --engine docker"),
        )
    return _check_wheels(facts, found)


def _check_wheels(facts: Facts, found: str) -> Finding:
    """Whether the toolchain's wheels run on this system's C library."""
    for package in facts.toolchain.packages:
        if not package.filename.endswith(".whl"):
            continue
        tags = package.filename.removesuffix(".whl").rpartition("-")[2].split(".")
        if not {*tags} & {*facts.host.wheel_platforms, "any"}:
            return MACHINE.wrong(
                found,
                f"{package.name} {package.version} needs {' or '.join(tags)}: the C library here "
                "is older, or a different one",
                Fix("build on a newer system, or in containers", "invoke doctor --engine docker"),
            )
    return MACHINE.ok(found)


def check_clock(facts: Facts) -> Finding:
    """Compares it with the index and the engine, or at least with what is possible at all."""
    others = {}
    if isinstance(facts.index, IndexFacts) and facts.index.clock is not None:
        others["the package index"] = facts.index.clock
    engine = facts.container_engine
    if isinstance(engine, EngineView) and engine.clock is not None:
        others["the container engine"] = engine.clock
    windows = facts.host.system == WINDOWS
    fix = Fix(
        "set the clock, and synchronize it over the network",
        "w32tm /resync" if windows else "timedatectl set-ntp true",
        administrator=True,
    )
    why = "certificates are rejected, and times in logs are misleading"
    if facts.host.now < _OLDEST:
        return CLOCK.wrong("it is set to a date before 2025", why, fix)
    far = {name: seconds for name, seconds in others.items() if abs(seconds) > _SKEW}
    if far:
        words = (
            f"{text.duration(abs(seconds))} {'behind' if seconds > 0 else 'ahead of'} {name}"
            for name, seconds in far.items()
        )
        return CLOCK.warning(", ".join(words), why, fix)
    if not others:
        return CLOCK.ok("plausible; nothing to compare it with")
    return CLOCK.ok(f"agrees with {' and '.join(others)}")


def check_memory(facts: Facts) -> Finding:
    """How many compiler calls fit at a time, by the recipes' figures."""
    memory, cores, whose = _capacity(facts)
    found = f"{text.size(memory)} and {text.count(cores, 'core')}{whose}"
    free = facts.host.free_memory
    if not whose:
        found += f", {text.size(free)} of it free for builds now"
    too_large = [load for load in facts.loads if load.memory > memory]
    more = Fix(_more_memory(facts))
    if facts.loads and len(too_large) == len(facts.loads):
        least = min(load.memory for load in facts.loads)
        return MEMORY.wrong(
            found, f"no recipe's compiler calls fit: they need {text.size(least)} or more", more
        )
    if too_large:
        names = ", ".join(f"{load.recipe} ({text.size(load.memory)})" for load in too_large)
        return MEMORY.warning(found, f"one compiler call does not fit: {names}", more)
    hungriest = max(facts.loads, key=lambda load: load.memory, default=None)
    if hungriest and memory // hungriest.memory < cores:
        calls = text.count(memory // hungriest.memory, "compiler call")
        found += f"; room for {calls} of {hungriest.recipe} at a time"
    return MEMORY.ok(found)


def _capacity(facts: Facts) -> tuple[int, int, str]:
    """Memory and cores for builds, and whose they are if not this machine's."""
    host, engine = facts.host, facts.container_engine
    if isinstance(engine, EngineView) and engine.facts.memory:
        cpus = engine.facts.cpus or host.cores
        if not engine.local or engine.facts.memory < host.memory * 0.95:
            return engine.facts.memory, cpus, " for the container engine"
    return host.memory, host.cores, ""


def _more_memory(facts: Facts) -> str:
    engine = facts.container_engine
    if isinstance(engine, EngineView) and engine.desktop:
        return "Docker Desktop: Settings, Resources, Memory: give it more"
    return "use a machine with more memory, or add some; swap does not help compilers"


def check_cache(facts: Facts) -> Finding:
    cache = facts.cache
    if isinstance(cache, Silence):
        return CACHE.wrong(cache.reason, "builds cannot use a disk that does not respond")
    found = f"{cache.folder} ({cache.filesystem or 'file system unknown'})"
    if not cache.exists:
        found += ", does not exist yet"
    other = Fix("name another folder on a local disk", _name_cache(facts))
    if cache.mistake:
        return CACHE.wrong(
            f"{cache.folder}: {cache.mistake}",
            "downloads, environments and compiled code are kept there",
            other,
        )
    if not cache.runs_programs and not facts.uses_images:
        return CACHE.wrong(
            f"{found}, mounted noexec", "compilers are kept there and must be executable", other
        )
    if cache.filesystem.lower() in _SHARED or cache.folder.startswith("\\\\"):
        return CACHE.warning(
            found, "shared folders are slow, and some do not support file locks", other
        )
    if facts.host.system == WINDOWS and len(cache.folder) > _SHORT:
        return CACHE.warning(
            found, f"longer than {_SHORT} characters: paths in it may break", other
        )
    return CACHE.ok(found)


def _name_cache(facts: Facts) -> str:
    if facts.host.system == WINDOWS:
        return rf"setx {VARIABLE} C:\fw"
    return f"export {VARIABLE}=/path/to/folder"


def check_cache_disk(facts: Facts) -> Finding:
    """Room for what must be fetched and unpacked, and for what is compiled."""
    cache, stock = facts.cache, facts.stock
    if isinstance(cache, Silence):
        return CACHE_DISK.skipped("the cache folder does not respond")
    if facts.images_made:
        stock = Stock(present=0, missing=0)
    if isinstance(stock, Silence):
        return CACHE_DISK.wrong(stock.reason, "builds cannot use a disk that does not respond")
    needed = _cache_need(facts, stock)
    need = f"about {text.size(needed)} needed" if needed else "nothing more to fetch"
    found = f"{text.size(cache.free)} free, {need}"
    if cache.free < needed:
        return CACHE_DISK.wrong(
            found,
            "the toolchain's files would not fit",
            Fix("see what the cache holds", "invoke cache"),
            Fix("or use a folder on another disk", _name_cache(facts)),
        )
    if cache.free < needed + _STORE:
        return CACHE_DISK.warning(
            found,
            f"little is left for what is compiled: {text.size(_STORE)} are recommended",
            Fix("or use a folder on another disk", _name_cache(facts)),
        )
    return CACHE_DISK.ok(found)


def _cache_need(facts: Facts, stock: Stock) -> int:
    """Bytes of downloads and, unless they go into images, of what they unpack to."""
    return int(stock.missing * (1 if facts.uses_images else 1 + UNPACKED))


def check_long_paths(facts: Facts) -> Finding:
    if facts.host.system != WINDOWS:
        return LONG_PATHS.skipped("only Windows limits the length of paths")
    windows = facts.windows
    if not isinstance(windows, WindowsHost) or windows.long_paths is None:
        known = windows.reason if isinstance(windows, Silence) else "the registry does not tell"
        return LONG_PATHS.warning(known, _LONG_WHY, _LONG_FIX)
    if not windows.long_paths:
        return LONG_PATHS.warning("LongPathsEnabled is not set", _LONG_WHY, _LONG_FIX)
    return LONG_PATHS.ok("LongPathsEnabled is set")


_LONG_WHY = "paths of CUDA sources can be longer than 260 characters"
_LONG_FIX = Fix(
    "allow long paths, then sign in again",
    r"reg.exe add HKLM\SYSTEM\CurrentControlSet\Control\FileSystem /v LongPathsEnabled "
    "/t REG_DWORD /d 1 /f",
    administrator=True,
)


def machine_findings(facts: Facts) -> Iterable[Finding]:
    yield check_machine(facts)
    yield check_clock(facts)
    yield check_memory(facts)
    yield check_cache(facts)
    yield check_cache_disk(facts)
    yield check_long_paths(facts)
