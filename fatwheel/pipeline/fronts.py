"""Which fronts make which images: exact ones or shared ones.

A front (one run of cicc) may serve several architectures of one family: those with the same
major number and without an a or f suffix. Its PTX is then that of the lowest of them. That
halves the work, and gives the same machine code for some projects and not for others: `auto`
shares only what a proof covers (see `pipeline.plan` and `pipeline.prove`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..arch import Arch, ArchRequest
from ..model import Front

Covers = Callable[[Arch, frozenset[Arch]], bool]  # front, architectures → is sharing proven?


def exact_fronts(archs: Iterable[ArchRequest]) -> tuple[Front, ...]:
    """One front for each architecture, as nvcc's own -gencode flags would have it."""
    return tuple(
        Front(request.arch, (request.arch.sm, *([request.arch.compute] if request.ptx else [])))
        for request in archs
    )


def shared_fronts(archs: Iterable[ArchRequest], covers: Covers) -> tuple[Front, ...]:
    """One front for each family for which `covers` allows it, exact ones for the rest."""
    fronts: list[Front] = []
    for family in _families(archs):
        lowest = family[0].arch
        if len(family) == 1 or not covers(lowest, frozenset(r.arch for r in family)):
            fronts += exact_fronts(family)
        else:
            fronts += _share(family)
    return tuple(sorted(fronts, key=lambda front: front.virtual))


def _families(archs: Iterable[ArchRequest]) -> list[list[ArchRequest]]:
    families: dict[tuple[int, str, int], list[ArchRequest]] = {}
    for request in sorted(archs, key=lambda request: request.arch):
        arch = request.arch
        # Code with a suffix is its own family: its front knows other instructions.
        key = (arch.major, arch.suffix, arch.number if arch.suffix else 0)
        families.setdefault(key, []).append(request)
    return list(families.values())


def _share(family: list[ArchRequest]) -> list[Front]:
    lowest = family[0]
    codes = [lowest.arch.sm]
    if lowest.ptx:
        codes.append(lowest.arch.compute)
    codes += [request.arch.sm for request in family[1:]]
    # PTX of a higher architecture can only come from a front of its own.
    own = [Front(r.arch, (r.arch.compute,)) for r in family[1:] if r.ptx]
    return [Front(lowest.arch, tuple(codes)), *own]
