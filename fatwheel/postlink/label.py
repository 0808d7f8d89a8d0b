"""The architectures in a wheel's version, as its bytes have them.

The local version of a wheel says which architectures are in it (`wheels.name.version_label`):
`sm80` for cubins, `sm89.ptx` for cubins and PTX of one architecture, and here also `ptx80` for
PTX of an architecture without cubins.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ..arch import Arch
from ..wheels.name import canonical_version, with_local

_ARCH_PART = re.compile(r"(?:sm|ptx)[0-9]{2,3}[af]?|ptx")


def arch_labels(cubins: Collection[Arch], ptx: Collection[Arch]) -> tuple[str, ...]:
    """What a version says of these architectures, in ascending order."""
    return tuple(_arch_label(arch, cubins, ptx) for arch in sorted({*cubins, *ptx}))


def without_archs(version: str) -> str:
    """A version whose local part names no architectures any more; CUDA, torch and others stay."""
    public, _, local = canonical_version(version).partition("+")
    kept = [part for part in local.split(".") if part and not _ARCH_PART.fullmatch(part)]
    return with_local(public, ".".join(kept)) if kept else public


def with_archs(version: str, labels: Collection[str]) -> str:
    """The version with these architectures in place of those it may name."""
    base = without_archs(version)
    public, _, local = base.partition("+")
    parts = ".".join(part for part in (local, *labels) if part)
    return with_local(public, parts) if parts else base


def _arch_label(arch: Arch, cubins: Collection[Arch], ptx: Collection[Arch]) -> str:
    if arch not in cubins:
        return f"ptx{arch.name}"
    return f"sm{arch.name}.ptx" if arch in ptx else f"sm{arch.name}"
