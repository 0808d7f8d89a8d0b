"""The device code of several files that were built from the same source, put together.

Containers that hold the same kernels, in the same order, belong together; one that holds none,
since all of its images were taken out, goes by its place. Where a linker changed the order, it is
told by their kernels: of those with the same, the first belongs to the first, the second to the
second. Raises StitchError where files do not belong together, FormatError for images that
cannot be read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..decoders import MAX_DECOMPRESSED, Kernels, describe, kernels_of
from ..errors import FormatError, StitchError
from ..fatbin.container import Entry
from ..fatbin.parity import compare, is_readable, only_in, shorten
from ..fatbin.stitch import image_name, nvcc_order

_LONGEST_NAME = 4096  # what compilers write is shorter


@dataclass(frozen=True)
class Part:
    """The containers of one file, each as its images; name is what messages call the file."""

    name: str
    containers: tuple[tuple[Entry, ...], ...] = field(repr=False)


def unite(parts: Sequence[Part]) -> tuple[tuple[Entry, ...], ...]:
    """One container for each of the first part's, in its order, with the images of all parts.

    Every kernel must be in every part, with the same parameter layout, and images of the same
    kind and architecture must be the same, byte for byte.
    """
    _check_size(parts)
    kernels = [_kernels(part) for part in parts]
    return tuple(
        _unite_containers(
            title_of(kernels[0][numbers[0]]),
            [(part.name, part.containers[n]) for part, n in zip(parts, numbers, strict=True)],
        )
        for numbers in _belonging(parts, kernels)
    )


def title_of(kernels: Kernels) -> str:
    """What a container is called: the file has no name for it."""
    if not kernels:
        return "the container without kernels"
    more = f" and {len(kernels) - 1} more" if len(kernels) > 1 else ""
    return f"the container of kernel {min(kernels)[:_LONGEST_NAME]}{more}"


def _check_size(parts: Sequence[Part]) -> None:
    for part in parts:
        total = sum(entry.uncompressed for entries in part.containers for entry in entries)
        if total > MAX_DECOMPRESSED:
            raise FormatError(
                f"its images claim {total} bytes uncompressed: too many to read", where=part.name
            )


def _kernels(part: Part) -> list[Kernels]:
    """The kernels of each container."""
    found: list[Kernels] = []
    for number, entries in enumerate(part.containers):
        try:
            found.append(kernels_of(entries))
        except FormatError as error:
            where = f"{part.name}, container {number + 1} of {len(part.containers)}"
            raise FormatError(error.what, where=where, hint=error.hint) from error
    return found


def _belonging(
    parts: Sequence[Part], kernels: Sequence[Sequence[Kernels]]
) -> list[tuple[int, ...]]:
    """For each container of the first part, in order: its number and those of the others' that
    belong to it."""
    if _same_places(parts, kernels):
        return [(number,) * len(parts) for number in range(len(kernels[0]))]
    groups = [_by_kernels(of) for of in kernels]
    for part, group in zip(parts[1:], groups[1:], strict=True):
        _check_match(parts[0].name, groups[0], part.name, group)
    places: dict[Kernels, int] = Counter()
    found = []
    for own in kernels[0]:
        found.append(tuple(group[own][places[own]] for group in groups))
        places[own] += 1
    return found


def _same_places(parts: Sequence[Part], kernels: Sequence[Sequence[Kernels]]) -> bool:
    """Whether containers at the same place hold the same kernels, except where one holds none."""
    if len({len(of) for of in kernels}) > 1:
        return False
    return all(
        len(
            {of[number] for part, of in zip(parts, kernels, strict=True) if part.containers[number]}
        )
        < 2
        for number in range(len(kernels[0]))
    )


def _by_kernels(kernels: Sequence[Kernels]) -> dict[Kernels, list[int]]:
    """The numbers of the containers with each set of kernels, in order."""
    found: dict[Kernels, list[int]] = defaultdict(list)
    for number, own in enumerate(kernels):
        found[own].append(number)
    return found


def _check_match(
    one: str, first: Mapping[Kernels, list[int]], other: str, second: Mapping[Kernels, list[int]]
) -> None:
    """Refuse files whose containers are not the same by their kernels."""
    count = Counter({kernels: len(numbers) for kernels, numbers in first.items()})
    others = Counter({kernels: len(numbers) for kernels, numbers in second.items()})
    if count == others:
        return
    kernels, other_kernels = frozenset().union(*count), frozenset().union(*others)
    hint = "stitch files that were built from the same source, with the same options"
    if kernels != other_kernels:
        raise StitchError(
            f"{one} and {other} do not have the same kernels",
            details=shorten(
                only_in(one, kernels - other_kernels) + only_in(other, other_kernels - kernels)
            ),
            hint=hint,
        )
    raise StitchError(
        f"{one} and {other} have the same kernels, but not in the same containers",
        details=shorten(
            only_in(one, map(title_of, (count - others).elements()))
            + only_in(other, map(title_of, (others - count).elements()))
        ),
        hint=hint,
    )


def _unite_containers(
    title: str, alike: Sequence[tuple[str, Sequence[Entry]]]
) -> tuple[Entry, ...]:
    """The images of containers with the same kernels, one per part."""
    origin: dict[tuple[bytes, str], str] = {}
    united: dict[tuple[bytes, str], tuple[Entry, ...]] = {}
    for name, entries in alike:
        for key, images in _by_kind_and_arch(entries).items():
            if key not in united:
                united[key], origin[key] = images, name
            elif [image.raw for image in united[key]] != [image.raw for image in images]:
                raise _contradiction(title, images[0], origin[key], name)
    described = [
        describe(f"{image_name(image)} of {origin[key]}", image)
        for key, images in united.items()
        for image in filter(is_readable, images)
    ]
    compare(title, described)
    return nvcc_order(image for images in united.values() for image in images)


def _by_kind_and_arch(entries: Sequence[Entry]) -> dict[tuple[bytes, str], tuple[Entry, ...]]:
    """Images by the format's own number of their kind and their architecture."""
    found: dict[tuple[bytes, str], list[Entry]] = defaultdict(list)
    for entry in nvcc_order(entries):
        found[bytes(entry.raw[:2]), entry.arch.name].append(entry)
    return {key: tuple(images) for key, images in found.items()}


def _contradiction(title: str, image: Entry, one: str, other: str) -> StitchError:
    return StitchError(
        f"{one} and {other} hold different images for {image_name(image)}",
        where=title,
        hint="only one of them can be right; leave that architecture out of one of the files: "
        "invoke thin FILE --arch ...",
    )
