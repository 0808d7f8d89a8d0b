"""How much smaller files become if they are thinned to one GPU.

What counts is the GPU code that `thin` leaves out, as it lies in the files. A wheel is compressed
besides, so that only making it tells its size (`thin --dry-run`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..arch import Arch
from ..fatbin.container import Entry
from ..fatbin.select import Selection, choose
from ..fatbin.stitch import nvcc_order

# Kind and architecture of each image of a container, in order; many containers have the same.
Shape = tuple[tuple[str, Arch], ...]


@dataclass(frozen=True)
class Weight:
    """What the images of some containers take: bytes in all, and for each shape those of the
    images at each place. Bytes that are in no shape are images that are there twice."""

    total: int
    shapes: Mapping[Shape, Sequence[int]]


def weigh(containers: Iterable[Sequence[Entry]]) -> Weight:
    """The weight of a file's containers, without a look into their images."""
    total = 0
    shapes: dict[Shape, list[int]] = {}
    for entries in containers:
        ordered = nvcc_order(entries)
        total += sum(len(entry.raw) for entry in entries)
        shape = tuple((entry.kind, entry.arch) for entry in ordered)
        sizes = shapes.setdefault(shape, [0] * len(shape))
        for place, entry in enumerate(ordered):
            sizes[place] += len(entry.raw)
    return Weight(total, shapes)


def together(weights: Iterable[Weight]) -> Weight:
    """The weight of several files."""
    total = 0
    shapes: dict[Shape, list[int]] = defaultdict(list)
    for weight in weights:
        total += weight.total
        for shape, sizes in weight.shapes.items():
            known = shapes[shape] or [0] * len(shape)
            shapes[shape] = [one + other for one, other in zip(known, sizes, strict=True)]
    return Weight(total, shapes)


def saved(weight: Weight, gpu: Arch) -> int:
    """Bytes of images that are left out for this GPU."""
    kept = sum(
        sizes[place]
        for shape, sizes in weight.shapes.items()
        for place in _kept(shape, Selection((gpu,)))
    )
    return weight.total - kept


def _kept(shape: Shape, selection: Selection) -> list[int]:
    """The places of the images that a selection keeps."""
    images = [
        Entry(kind, arch, 0, 0, "", 0, 0, memoryview(place.to_bytes(4, "little")))
        for place, (kind, arch) in enumerate(shape)
    ]
    return [int.from_bytes(image.raw, "little") for image in choose(selection, images)]
