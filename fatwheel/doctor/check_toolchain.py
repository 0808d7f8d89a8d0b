"""Checks of the toolchain on this machine, and of the GPU beside it: pins, files, the host
compiler, Pythons, the driver.

Each is a function of the facts, and touches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .. import text
from ..config.toolchains import lock_command
from .facts import (
    WINDOWS,
    CacheFacts,
    Check,
    Facts,
    Finding,
    Fix,
    Gpu,
    GpuFacts,
    Silence,
    Trouble,
    files_for,
)

PINS = Check("pins", "the toolchain's pins")
FILES = Check("files", "the toolchain's files")
COMPILER = Check("compiler", "host compiler")
PYTHONS = Check("pythons", "Pythons")
GPU = Check("gpu", "NVIDIA GPU and driver")

_NAMES = 3  # of files in a sentence


def check_pins(facts: Facts) -> Finding:
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


def check_files(facts: Facts) -> Finding:
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


def check_compiler(facts: Facts) -> Finding:
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


def check_pythons(facts: Facts) -> Finding:
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


def check_gpu(facts: Facts) -> Finding:
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


def _check_driver(facts: Facts, gpu: GpuFacts) -> Finding:
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


def toolchain_findings(facts: Facts) -> Iterable[Finding]:
    yield check_pins(facts)
    yield check_files(facts)
    yield check_compiler(facts)
    yield check_pythons(facts)
    yield check_gpu(facts)
