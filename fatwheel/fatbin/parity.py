"""Whether images belong together: one host program must be able to launch the kernels of all.

Raises StitchError for those that do not agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import StitchError
from .container import Entry
from .cubin import Layout

# Enough to see what is wrong; the rest is counted.
_DETAILS_SHOWN = 12


@dataclass(frozen=True)
class Described:
    """What can be compared of an image.

    title:   what messages call it: `sm_80`, `sm_80 of a.whl`.
    kernels: the names of those it defines.
    layouts: how they take their parameters, by name, or what messages say of that; None for PTX,
             whose text is not read so far.
    """

    title: str
    kernels: frozenset[str]
    layouts: Mapping[str, Layout] | Mapping[str, str] | None


def is_readable(entry: Entry) -> bool:
    """Whether an image is of a kind whose kernels can be told."""
    return entry.kind in ("elf", "ptx")


def compare(unit: str, images: Sequence[Described]) -> None:
    """Refuse, by the unit's name, images that one host object could not launch alike.

    All cubins must define the same kernels with the same parameter layouts, and all PTX the same
    entries as those.
    """
    cubins = [image for image in images if image.layouts is not None]
    ptx = [image for image in images if image.layouts is None]
    for image in cubins[1:]:
        _compare_names(unit, cubins[0], image)
        _compare_layouts(unit, cubins[0], image)
    for image in ptx:
        _compare_names(unit, (cubins or ptx)[0], image)


def shorten(lines: Iterable[str]) -> list[str]:
    """The first of many lines for `details`, and how many more there are."""
    shown: list[str] = []
    iterator: Iterator[str] = iter(lines)
    for line in iterator:
        if len(shown) == _DETAILS_SHOWN:
            return [*shown, f"... and {1 + sum(1 for _ in iterator)} more"]
        shown.append(line)
    return shown


def only_in(title: str, names: Iterable[str]) -> list[str]:
    return [f"only in {title}: {name}" for name in sorted(names)]


def _compare_layouts(unit: str, one: Described, other: Described) -> None:
    layouts, others = one.layouts or {}, other.layouts or {}
    differing = [name for name in layouts if layouts[name] != others[name]]
    if differing:
        raise StitchError(
            f"{one.title} and {other.title} disagree on kernel parameters",
            where=unit,
            details=shorten(
                f"{name}: {title} has {table[name]}"
                for name in differing
                for title, table in ((one.title, layouts), (other.title, others))
            ),
            hint="a host program passes the same parameters to both; the source depends on the "
            "architecture in a way that cannot work",
        )


def _compare_names(unit: str, one: Described, other: Described) -> None:
    if one.kernels != other.kernels:
        raise StitchError(
            f"{one.title} and {other.title} do not have the same kernels",
            where=unit,
            details=shorten(
                only_in(one.title, one.kernels - other.kernels)
                + only_in(other.title, other.kernels - one.kernels)
            ),
            hint="were the slices made from the same source, with the same __CUDA_ARCH_LIST__ "
            "and module id?",
        )
