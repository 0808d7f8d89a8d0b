"""Checks of the machine and of the toolchain.

Each is a function of the facts, and touches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .. import text
from ..config.toolchains import lock_command
from ..machine import platform_of, processor_of
from ..storage.cache import VARIABLE
from .facts import (
    GB,
    UNPACKED,
    WINDOWS,
    Answer,
    CacheFacts,
    EngineView,
    Facts,
    Fix,
    Gpu,
    GpuFacts,
    IndexFacts,
    Silence,
    Stock,
    Topic,
    Trouble,
    WindowsHost,
    files_for,
)

MACHINE = Topic("machine", "this machine")
CLOCK = Topic("clock", "clock")
MEMORY = Topic("memory", "memory and cores")
CACHE = Topic("cache", "cache folder")
CACHE_DISK = Topic("cache-disk", "disk for the cache")
LONG_PATHS = Topic("long-paths", "long paths")

_PROCESSORS = ("x86_64", "aarch64")
_SKEW = 300.0  # seconds that clocks may differ: certificates and logs bear that much
_OLDEST = 1_735_689_600.0  # 2025-01-01: fatwheel is younger than that
_SHARED = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "vboxsf", "drvfs")
_SHORT = 40  # characters of a cache folder, so that what lies in it stays below 260
_STORE = 10 * GB  # for what is compiled


def check_machine(facts: Facts) -> Answer:
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


def _check_wheels(facts: Facts, found: str) -> Answer:
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


def check_clock(facts: Facts) -> Answer:
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


def check_memory(facts: Facts) -> Answer:
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


def check_cache(facts: Facts) -> Answer:
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


def check_cache_disk(facts: Facts) -> Answer:
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
    in_images = facts.uses_images and not facts.by_wine
    return int(stock.missing * (1 if in_images else 1 + UNPACKED))


def check_long_paths(facts: Facts) -> Answer:
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


def machine_findings(facts: Facts) -> Iterable[Answer]:
    yield check_machine(facts)
    yield check_clock(facts)
    yield check_memory(facts)
    yield check_cache(facts)
    yield check_cache_disk(facts)
    yield check_long_paths(facts)


# -- toolchain -------------------------------------------------------------------------------------


PINS = Topic("pins", "the toolchain's pins")
FILES = Topic("files", "the toolchain's files")
COMPILER = Topic("compiler", "host compiler")
PYTHONS = Topic("pythons", "Pythons")
GPU = Topic("gpu", "NVIDIA GPU and driver")

_NAMES = 3  # of files in a sentence


def check_pins(facts: Facts) -> Answer:
    toolchain = facts.toolchain
    files = toolchain.files
    open_files = [file.filename for file in files if not file.locked]
    in_images = facts.uses_images and facts.python not in facts.own_bases
    base = toolchain.base_for(facts.python) if in_images else None
    bases = (base,) if base and not base.digest else ()
    if not open_files and not bases:
        return PINS.ok(f"all {len(files)} files have a sha256")
    names = [*(base.reference for base in bases), *open_files]
    shown = ", ".join(names[:_NAMES])
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    lock = Fix("fill them in, from the indexes", lock_command(toolchain.name))
    why = "files that are not pinned are never used"
    needed = {file.filename for file in files_for(toolchain, facts.python)}
    found = f"{len(names)} without sha256 or digest: {shown}{more}"
    if bases or needed & {*open_files}:
        return PINS.wrong(found, why, lock)
    return PINS.warning(f"{found}; none of them for Python {facts.python}", why, lock)


def check_files(facts: Facts) -> Answer:
    stock = facts.stock
    if isinstance(stock, Silence):
        return FILES.wrong(stock.reason, "builds cannot use a disk that does not respond")
    if facts.images_made:
        return FILES.ok("in the images")
    total = text.size(stock.present + stock.missing)
    whose = f"for Python {facts.python}"
    if not stock.missing:
        return FILES.ok(f"{total} {whose} are here")
    files = files_for(facts.toolchain, facts.python)
    least = "" if all(file.size for file in files) else "at least "
    return FILES.warning(
        f"{least}{text.size(stock.missing)} of {total} {whose} are not here yet",
        "the first build waits for them",
        *_terms(facts),
        Fix("fetch them now", setup_command(facts)),
    )


def _terms(facts: Facts) -> Iterator[Fix]:
    """What whoever fetches MSVC has to accept first."""
    if needs_consent(facts):
        assert facts.toolchain.msvc
        yield Fix(f"Microsoft's terms for MSVC are to be accepted: {facts.toolchain.msvc.license}")


def needs_consent(facts: Facts) -> bool:
    """Whether Microsoft's terms are not accepted yet, and something is fetched under them."""
    msvc, cache = facts.toolchain.msvc, facts.cache
    return bool(msvc and msvc.payloads and isinstance(cache, CacheFacts) and not cache.accepted)


def setup_command(facts: Facts) -> str:
    words = f"invoke setup --toolchain {facts.toolchain.name} --engine {facts.engine}"
    if facts.toolchain.msvc and facts.toolchain.msvc.installed:
        words += " --msvc installed"
    return f"{words} --accept-msvc-license" if needs_consent(facts) else words


def check_compiler(facts: Facts) -> Answer:
    compiler = facts.compiler
    if compiler is None:
        return COMPILER.skipped(_elsewhere(facts))
    if isinstance(compiler, str):
        return COMPILER.ok(compiler)
    why = "nvcc compiles host code with it"
    if isinstance(compiler, Silence):
        return COMPILER.wrong(compiler.reason, why, Fix("try it", "g++ -v"))
    found = f"{compiler.where}: {compiler.what}" if compiler.where else compiler.what
    return COMPILER.wrong(
        found, why, *_hint(compiler), _package(facts, "g++", "gcc-c++"), _containers()
    )


def check_pythons(facts: Facts) -> Answer:
    """The Python to build for must be here; the others are only reported."""
    pythons = facts.pythons
    if pythons is None:
        return PYTHONS.skipped(_elsewhere(facts))
    why = "an environment and extension modules are made with it"
    if isinstance(pythons, Silence):
        return PYTHONS.wrong(pythons.reason, why, Fix("try it", "python3 --version"))
    answers = dict(pythons)
    usable = [python for python, answer in pythons if isinstance(answer, str)]
    others = [python for python, answer in pythons if not isinstance(answer, str)]
    found = f"{', '.join(usable)} usable" if usable else "none is usable"
    if others:
        found += f"; not here: {', '.join(others)}"
    wanted = answers.get(facts.python)
    if not isinstance(wanted, Trouble):
        return PYTHONS.ok(found)
    fixes = (*_hint(wanted), _package(facts, "python3-dev", "python3-devel"))
    if usable:
        return PYTHONS.warning(
            found, f"builds are for {facts.python} unless told otherwise", *fixes
        )
    return PYTHONS.wrong(found, why, *fixes, _containers())


def _elsewhere(facts: Facts) -> str:
    """Where that is which this machine need not have."""
    return f"in the {'images' if facts.uses_images else 'toolchain'}, not on this machine"


def _hint(trouble: Trouble) -> tuple[Fix, ...]:
    return (Fix(trouble.hint),) if trouble.hint else ()


def _package(facts: Facts, debian: str, fedora: str) -> Fix:
    if any(name in facts.host.name for name in ("Fedora", "Red Hat", "Rocky", "Alma", "CentOS")):
        return Fix("for example", f"sudo dnf install {fedora}", administrator=True)
    return Fix("for example", f"sudo apt-get install {debian}", administrator=True)


def _containers() -> Fix:
    return Fix("or run it in containers", "invoke doctor --engine docker")


def check_gpu(facts: Facts) -> Answer:
    """Builds need no GPU; a driver too old for the wheels is a warning."""
    gpu = facts.gpu
    if isinstance(gpu, Silence):
        return GPU.warning(
            gpu.reason, "the driver hangs; wheels cannot be tested here", _driver(facts)
        )
    if gpu.trouble:
        return GPU.warning(gpu.trouble, "wheels cannot be tested here", _driver(facts))
    if not gpu.driver:
        if gpu.cards:
            return GPU.warning(
                f"{text.count(gpu.cards, 'NVIDIA GPU')}, no driver",
                "wheels cannot be tested here",
                _driver(facts),
            )
        return GPU.skipped("none here; builds do not need one")
    return _check_driver(facts, gpu)


def _check_driver(facts: Facts, gpu: GpuFacts) -> Answer:
    newest = ".".join(map(str, gpu.cuda))
    names = ", ".join(
        f"{one.name} (arch {_arch(one)}, {text.size(one.memory)})" for one in gpu.gpus
    )
    found = f"{names or 'no GPU'}; driver {gpu.driver}, for CUDA up to {newest}"
    wanted = facts.toolchain.cuda
    major = int(wanted.partition(".")[0])
    if gpu.cuda[0] < major:
        return GPU.warning(
            found,
            f"wheels of CUDA {wanted} need a driver for CUDA {major}.0 or newer",
            _driver(facts),
        )
    known = {arch.number for arch in facts.toolchain.archs}
    unknown = [_arch(one) for one in gpu.gpus if int(_arch(one)) not in known]
    if unknown:
        return GPU.warning(
            found,
            f"this toolchain's nvcc does not know arch {', '.join(dict.fromkeys(unknown))}; older "
            "machine code or PTX may still run there",
            Fix(
                "embed PTX of an architecture that it knows",
                f"invoke build --arch {max(known)}+ptx",
            ),
        )
    return GPU.ok(found)


def _arch(gpu: Gpu) -> str:
    return f"{gpu.capability[0]}{gpu.capability[1]}"


def _driver(facts: Facts) -> Fix:
    if facts.host.system == WINDOWS:
        return Fix("install NVIDIA's current driver, by its own installer", administrator=True)
    if "Debian" in facts.host.name:
        return Fix(
            "install NVIDIA's driver", "sudo apt-get install nvidia-driver", administrator=True
        )
    if "Ubuntu" in facts.host.name:
        return Fix("install NVIDIA's driver", "sudo ubuntu-drivers install", administrator=True)
    return Fix("install NVIDIA's driver as your distribution does", administrator=True)


def toolchain_findings(facts: Facts) -> Iterable[Answer]:
    yield check_pins(facts)
    yield check_files(facts)
    yield check_compiler(facts)
    yield check_pythons(facts)
    yield check_gpu(facts)
