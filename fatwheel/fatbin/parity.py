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


@dataclass(frozen=True)
class Disagreement:
    """Kernels that two images define with different parameters: which images, and a line for each
    of the kernels and images."""

    what: str
    lines: tuple[str, ...]


def compare(unit: str, images: Iterable[Described]) -> None:
    """Refuse, by the unit's name, images that one host object could not launch alike.

    That only some images define a kernel is no contradiction: see `in_part`.
    """
    for found in disagreements(images):
        raise StitchError(
            found.what,
            where=unit,
            details=shorten(found.lines),
            hint="a host program passes the same parameters to both; the source depends on the "
            "architecture in a way that cannot work",
        )


def disagreements(images: Iterable[Described]) -> Iterator[Disagreement]:
    """Each image that takes other parameters for a kernel than the first cubin that defines it."""
    first: dict[str, tuple[str, Layout | str]] = {}
    for image in images:
        layouts = image.layouts or {}
        differing = [name for name in layouts if name in first and first[name][1] != layouts[name]]
        if differing:
            others = " and ".join(sorted({first[name][0] for name in differing}))
            yield Disagreement(
                f"{others} and {image.title} disagree on kernel parameters",
                tuple(
                    f"{name}: {title} has {layout}"
                    for name in differing
                    for title, layout in (first[name], (image.title, layouts[name]))
                ),
            )
        for name, layout in layouts.items():
            first.setdefault(name, (image.title, layout))


def in_part(images: Sequence[Described]) -> dict[str, tuple[str, ...]]:
    """The kernels that only some of the images define, with the titles of those that do.

    Sources leave kernels out for some architectures (`#if __CUDA_ARCH__ >= 530`), so that this is
    normal; a host program must not launch them elsewhere.
    """
    everywhere = frozenset.intersection(*(image.kernels for image in images)) if images else ()
    found: dict[str, list[str]] = {}
    for image in images:
        for name in image.kernels.difference(everywhere):
            found.setdefault(name, []).append(image.title)
    return {name: tuple(found[name]) for name in sorted(found)}


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
