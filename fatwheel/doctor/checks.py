"""Checks of the machine itself: system, clock, memory, the cache's folder and disk, long paths.

Each is a function of the facts, and touches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from .. import text
from ..containers.render import FILES as IMAGE_FILES
from ..storage.cache import VARIABLE
from . import needs
from .facts import (
    WINDOWS,
    Check,
    EngineView,
    Facts,
    Finding,
    Fix,
    IndexFacts,
    Silence,
    Stock,
    Trouble,
    WindowsHost,
)

MACHINE = Check("machine", "this machine")
CLOCK = Check("clock", "clock")
MEMORY = Check("memory", "memory and cores")
CACHE = Check("cache", "cache folder")
CACHE_DISK = Check("cache-disk", "disk for the cache")
LONG_PATHS = Check("long-paths", "long paths")

_X86 = ("x86_64", "amd64")
_SKEW = 300.0  # seconds that clocks may differ: certificates and logs bear that much
_OLDEST = 1_735_689_600.0  # 2025-01-01: fatwheel is younger than that
_SHARED = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "vboxsf", "drvfs")
_SHORT = 40  # characters of a cache folder, so that what lies in it stays below 260
_STORE = 10 * needs.GB  # for what is compiled


def check_machine(facts: Facts) -> Finding:
    host = facts.host
    found = f"{host.name}{f' build {host.build}' if host.build else ''}, {host.machine}, Python "
    found += f"{host.python}"
    if host.machine.lower() not in _X86:
        return MACHINE.wrong(
            found,
            "compilers and wheels are for x86-64",
            Fix("use an x86-64 machine, or an x86-64 virtual one"),
        )
    if facts.uses_images:
        return MACHINE.ok(found)
    wanted = facts.toolchain.platform
    if f"{host.system}-{host.machine}".lower() != wanted:
        return MACHINE.wrong(
            found,
            f"{facts.toolchain.name} runs on {wanted} where there is no container around it",
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
                f"{package.name} {package.version} wants {' or '.join(tags)}: the C library here "
                "is older, or another",
                Fix("build on a newer system, or in containers", "invoke doctor --engine docker"),
            )
    return MACHINE.ok(found)


def check_clock(facts: Facts) -> Finding:
    """Against the index and the engine, or at least against what cannot be."""
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
    why = "certificates are refused, and times in logs mislead"
    if facts.host.now < _OLDEST:
        return CLOCK.wrong("it is in the past", why, fix)
    far = {name: seconds for name, seconds in others.items() if abs(seconds) > _SKEW}
    if far:
        words = (
            f"{text.duration(abs(seconds))} {'behind' if seconds > 0 else 'ahead of'} {name}"
            for name, seconds in far.items()
        )
        return CLOCK.warning(", ".join(words), why, fix)
    if not others:
        return CLOCK.ok("plausible; nothing to compare it with")
    return CLOCK.ok(f"the same as that of {' and '.join(others)}")


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
            found, f"no recipe's compiler calls fit: they take {text.size(least)} and more", more
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
    """Memory and cores that builds have, and whose they are where not this machine's."""
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
        found += ", not made yet"
    other = Fix("name another folder on a local disk", _name_cache(facts))
    if cache.mistake:
        return CACHE.wrong(f"{cache.folder}: {cache.mistake}", "everything is kept there", other)
    if not cache.runs_programs and not facts.uses_images:
        return CACHE.wrong(
            f"{found}, mounted noexec", "compilers are stored there and must be executable", other
        )
    if cache.filesystem.lower() in _SHARED or cache.folder.startswith("\\\\"):
        return CACHE.warning(
            found, "a shared folder is slow, and not all of them can be locked", other
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
    """Room for what is missing and what becomes of it, and for some compiling."""
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
    """Downloads, and, where it is not images that they go into, what they unpack to."""
    return int(stock.missing * (1 if facts.uses_images else 1 + needs.UNPACKED))


def check_long_paths(facts: Facts) -> Finding:
    if facts.host.system != WINDOWS:
        return LONG_PATHS.skipped("only Windows limits them")
    windows = facts.windows
    if not isinstance(windows, WindowsHost) or windows.long_paths is None:
        known = windows.reason if isinstance(windows, Silence) else "the registry did not say"
        return LONG_PATHS.warning(known, _LONG_WHY, _LONG_FIX)
    if not windows.long_paths:
        return LONG_PATHS.warning("LongPathsEnabled is not set", _LONG_WHY, _LONG_FIX)
    return LONG_PATHS.ok("LongPathsEnabled is set")


_LONG_WHY = "sources of CUDA projects lie deeper than 260 characters"
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


# -- network ---------------------------------------------------------------------------------------

# Checks of the network: proxies, the package index, other places that files come from.


PROXY = Check("proxy", "proxy")
INDEX = Check("index", "package index")
PLACES = Check("places", "other download servers")

_SLOW = 5.0  # seconds for a listing


def check_proxy(facts: Facts) -> Finding:
    """Whether the parts that fetch agree on the way out. A proxy is no fault; half of one is."""
    proxies = facts.proxies
    if isinstance(proxies, Silence):
        return PROXY.warning(
            proxies.reason, "pip's proxy is unknown", Fix("try it", "python -m pip config list")
        )
    variables = dict(proxies.variables)
    ways = [f"{name}={value}" for name, value in variables.items()]
    ways += [f"pip's proxy {proxies.pip}"] if proxies.pip else []
    ways += [f"docker's {proxy}" for proxy in proxies.docker]
    engine = facts.container_engine
    of_engine = engine.proxies if isinstance(engine, EngineView) else ()
    ways += [f"the engine's {proxy}" for proxy in of_engine]
    names = {name.upper() for name in variables}
    if not ways:
        return PROXY.ok("none is set")
    found = ", ".join(ways)
    if "HTTP_PROXY" in names and not names & {"HTTPS_PROXY", "ALL_PROXY"}:
        return PROXY.warning(
            found,
            "indexes are reached by https, for which no proxy is set",
            Fix("set it too", _same_for_https(facts)),
        )
    behind = bool(proxies.pip or names & {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})
    if behind and isinstance(engine, EngineView) and not of_engine:
        return PROXY.warning(
            found, "the engine fetches base images without a proxy", *_engine_proxy(facts, engine)
        )
    return PROXY.ok(found)


def _same_for_https(facts: Facts) -> str:
    """By the variable's name: its value may hold a password."""
    if facts.host.system == WINDOWS:
        return "setx HTTPS_PROXY %HTTP_PROXY%"
    return 'export HTTPS_PROXY="${HTTP_PROXY:-$http_proxy}"'


def _engine_proxy(facts: Facts, engine: EngineView) -> tuple[Fix, ...]:
    if engine.desktop:
        return (Fix("Docker Desktop: Settings, Resources, Proxies: enter it, Apply & restart"),)
    path = facts.daemon_file.path if facts.daemon_file else "the engine's daemon.json"
    say = f'add "proxies": {{"https-proxy": "http://HOST:PORT"}} to {path}, then start it again'
    return (Fix(say, restart_command(facts), administrator=True),)


def restart_command(facts: Facts) -> str:
    """How the engine is started again, on this machine's system."""
    if facts.host.system == WINDOWS:
        return "sc.exe stop docker & timeout /t 5 & sc.exe start docker"
    return "sudo systemctl restart docker"


def check_index(facts: Facts) -> Finding:
    index = facts.index
    look = Fix("check pip's configuration", "python -m pip config list")
    offline = "the toolchain's files come from there"
    if isinstance(index, Silence):
        return INDEX.wrong(index.reason, offline, look)
    if isinstance(index, Trouble):
        hint = [Fix(index.hint)] if index.hint else []
        return INDEX.wrong(f"{index.what}", offline, *hint, look)
    if not index.asked:
        return INDEX.skipped("no file of this toolchain comes from it")
    good = [place for place, trouble in index.sources if not trouble]
    bad = [f"{place}: {trouble}" for place, trouble in index.sources if trouble]
    if not good:
        return INDEX.wrong(
            f"no {index.asked}; {'; '.join(bad)}",
            offline,
            look,
            Fix("use an index that has it", "python -m pip config set global.index-url https://…"),
        )
    found = f"{', '.join(good)} answered in {text.duration(index.seconds)}"
    if bad:
        found += f"; {text.count(len(bad), 'other place')} not"
    if index.seconds > _SLOW:
        return INDEX.warning(found, "slow: fetching will take long", look)
    return INDEX.ok(found)


def check_places(facts: Facts) -> Finding:
    """Hosts other than the index; those whose files are all here do not matter."""
    if not facts.places or facts.images_made:
        return PLACES.skipped("all missing files come from the index")
    bad = [place for place in facts.places if place.trouble]
    good = [place for place in facts.places if not place.trouble]
    answered = f"{', '.join(place.host for place in good)} answered" if good else ""
    if not bad:
        return PLACES.ok(answered)
    folder = IMAGE_FILES if facts.uses_images else "downloads"
    failed = "; ".join(f"{place.host}: {place.trouble}" for place in bad)
    missing = sum(place.missing for place in bad)
    size = f"{text.size(missing)} of the toolchain" if missing else "some files of the toolchain"
    return PLACES.wrong(
        f"{failed}{f'; {answered}' if answered else ''}",
        f"{size} must come from there, once",
        Fix("let the firewall or the proxy allow it (pip's proxy and certificates are used)"),
        Fix(f"or copy {folder} from another machine's cache into this one's", "invoke cache"),
    )


def network_findings(facts: Facts) -> Iterable[Finding]:
    yield check_proxy(facts)
    yield check_index(facts)
    yield check_places(facts)
