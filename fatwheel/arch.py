"""GPU architectures: parse, order, and which GPU runs which image.

Names are nvcc's: `80`, `90a`, `120f`; `80+ptx` also embeds compute_80 PTX. What a GPU loads
follows the CUDA C++ Programming Guide, "Application Compatibility" and "Family-Specific
Features": see `runs_natively` and `runs_by_jit`.

Standard library only: this module is imported inside build containers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import total_ordering

from .errors import UsageError

_NAME = re.compile(r"(?:sm_|compute_)?(\d{2,3})([af]?)", re.ASCII)

# What numbers architectures can have: compute capability 1.0, and all that names have room for.
NUMBERS = range(10, 1000)

# How a GPU is served by images.
NATIVE, JIT, NONE = "native", "jit", "none"

# How projects spell a list of architectures in variables of their own. A recipe names the spelling,
# and the separator where that is no semicolon: `{archs}`, `{archs:capability}`, `{archs:number:,}`.
SPELLINGS = ("nvcc", "number", "capability", "cmake", "sm", "torch")
SEPARATORS = (";", ",", " ")
PLACEHOLDER = re.compile(r"\{archs(?::([^{}:]*))?(?::([^{}]*))?\}")


@total_ordering
@dataclass(frozen=True)
class Arch:
    """One architecture: its number (capability times ten) and suffix '', 'a' or 'f'."""

    number: int
    suffix: str = ""

    @property
    def name(self) -> str:
        """As users write it: `80`, `90a`."""
        return f"{self.number}{self.suffix}"

    @property
    def sm(self) -> str:
        """The real architecture, as nvcc names a cubin's: `sm_80`."""
        return f"sm_{self.name}"

    @property
    def compute(self) -> str:
        """The virtual architecture, as nvcc names a front's: `compute_80`."""
        return f"compute_{self.name}"

    @property
    def major(self) -> int:
        return self.number // 10

    @property
    def minor(self) -> int:
        return self.number % 10

    @property
    def capability(self) -> str:
        """`8.6` for 86, `12.0` for 120."""
        return f"{self.major}.{self.minor}"

    def __lt__(self, other: Arch) -> bool:
        return (self.number, self.suffix) < (other.number, other.suffix)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ArchRequest:
    """One item of `--arch`: an architecture, and whether its PTX is embedded too."""

    arch: Arch
    ptx: bool = False

    @property
    def label(self) -> str:
        """As in a wheel's version label: `sm80`, `sm90a`, `sm89.ptx`."""
        return f"sm{self.arch.name}" + (".ptx" if self.ptx else "")

    def __str__(self) -> str:
        return self.arch.name + ("+ptx" if self.ptx else "")


def parse_arch(text: str) -> Arch:
    """Read `80`, `90a`, `sm_86` or `compute_120f`; UsageError for anything else."""
    match = _NAME.fullmatch(text.strip())
    if not match:
        raise UsageError(
            f"{text!r} is not a GPU architecture",
            hint="valid: a number as nvcc writes it, with an optional a or f: 80, 86, 90a, 120f",
        )
    return Arch(int(match[1]), match[2])


def parse_arch_list(text: str, known: Sequence[Arch]) -> tuple[ArchRequest, ...]:
    """Read `--arch`'s value: comma-separated, at least one, each once, each in `known`.

    The result is in ascending order. Raises UsageError naming every mistake.
    """
    listing = "this toolchain's nvcc knows: " + ", ".join(str(a) for a in sorted(known))
    unknown = "an architecture this toolchain's nvcc does not know"
    return _parse_list(text, lambda arch: arch in known, unknown, listing)


def parse_gpu_list(text: str) -> tuple[ArchRequest, ...]:
    """The same where no compiler is needed: any architecture, also of GPUs that are yet to come."""
    listing = "compute capability 8.9 is 89; `invoke inspect` lists capabilities of GPUs"
    return _parse_list(text, lambda arch: arch.number in NUMBERS, "not an architecture", listing)


def _parse_list(
    text: str, is_known: Callable[[Arch], bool], unknown: str, listing: str
) -> tuple[ArchRequest, ...]:
    items = [item.strip() for item in text.split(",")] if text.strip() else []
    if not items:
        raise UsageError("no architecture given", where="--arch", hint=listing)
    requests: dict[Arch, ArchRequest] = {}
    mistakes: list[str] = []
    for item in items:
        base, plus, extra = item.partition("+")
        match = _NAME.fullmatch(base)
        if not match or (plus and extra != "ptx"):
            mistakes.append(f"{item!r} is not an architecture (valid: 80, 90a, 120f, 80+ptx)")
            continue
        arch = Arch(int(match[1]), match[2])
        if not is_known(arch):
            mistakes.append(f"{item!r} is {unknown}")
        elif arch in requests:
            mistakes.append(f"{item!r} names {arch} a second time")
        else:
            requests[arch] = ArchRequest(arch, ptx=bool(plus))
    if mistakes:
        raise UsageError(
            "unusable architecture list", where=f"--arch {text}", details=mistakes, hint=listing
        )
    return tuple(requests[arch] for arch in sorted(requests))


def parse_capability(text: str) -> Arch:
    """`8.6` as the plain architecture 86."""
    major, _, minor = text.partition(".")
    return Arch(int(major) * 10 + int(minor))


def same_family(image: Arch, gpu: Arch) -> bool:
    """Whether code with the `f` suffix for `image` runs on `gpu`: same family, not older.

    Families (CUDA 12.9 and later): capabilities that share the major number.
    """
    return image.major == gpu.major and image.minor <= gpu.minor


def runs_natively(image: Arch, gpu: Arch) -> bool:
    """Whether a GPU of plain capability `gpu` loads a cubin built for `image`."""
    if image.suffix == "a":
        return image.number == gpu.number
    return image.major == gpu.major and image.minor <= gpu.minor


def runs_by_jit(image: Arch, gpu: Arch) -> bool:
    """Whether a driver for `gpu` can compile PTX of virtual architecture `image`."""
    if image.suffix == "a":
        return image.number == gpu.number
    if image.suffix == "f":
        return same_family(image, gpu)
    return image.number <= gpu.number


def coverage(cubins: Iterable[Arch], ptx: Iterable[Arch], gpu: Arch) -> str:
    """How one container serves `gpu`: 'native', 'jit' or 'none'."""
    if any(runs_natively(image, gpu) for image in cubins):
        return NATIVE
    if any(runs_by_jit(image, gpu) for image in ptx):
        return JIT
    return NONE
