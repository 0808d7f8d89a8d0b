"""The device code of several files that were built from the same source, put together.

Files with the same host code are parts of one file, and their containers belong together by place.
Where files were linked apart a linker may have changed the order, so that containers go by the
kernels that all files have: of those with the same, the first belongs to the first, the second to
the second. Kernels that only some files have tell nothing, since sources may leave kernels out for
some architectures; a container that has no others goes by its place.

Raises StitchError where files do not belong together, FormatError for images that cannot be read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..decoders import MAX_DECOMPRESSED, Kernels, describe
from ..errors import FormatError, StitchError
from ..fatbin.container import Entry
from ..fatbin.images import Described, compare, in_part, is_readable, only_in, shorten
from ..fatbin.stitch import image_name, nvcc_order
from ..storage.mapped import Reading

_SAME_SOURCE = "stitch files that were built from the same source, with the same options"
_LONGEST_NAME = 4096  # what compilers write is shorter


@dataclass(frozen=True)
class FileContainers:
    """The containers of one file, each as its images; name is what messages call the file."""

    name: str
    containers: tuple[tuple[Entry, ...], ...] = field(repr=False)


@dataclass(frozen=True)
class United:
    """One container for each of the first part's, in its order, with the images of all parts.

    in_part: the kernels that only some of the parts have, with the names of those.
    """

    containers: tuple[tuple[Entry, ...], ...] = field(repr=False)
    in_part: Mapping[str, tuple[str, ...]]


def unite(parts: Sequence[FileContainers], *, same_host: bool = False) -> United:
    """Put the containers of all parts together.

    same_host: whether the files are the same but for their device code. A kernel must have the same
    parameters in every image, and images of the same kind and architecture must be the same, byte
    for byte.
    """
    _check_size(parts)
    known: dict[Any, Any] = {}
    images = [_described(part, known) for part in parts]
    kernels = [[_kernels(found) for found in containers] for containers in images]
    if same_host and len({len(found) for found in kernels}) == 1:
        places = [(number,) * len(parts) for number in range(len(kernels[0]))]
    else:
        places = _belonging(parts, kernels)
    united = []
    reading = Reading()
    for numbers in places:
        title = title_of(_all(kernels[n][place] for n, place in enumerate(numbers)))
        alike = [(part.name, part.containers[n]) for part, n in zip(parts, numbers, strict=True)]
        entries = _unite_containers(title, alike, reading)
        compare(title, (image for n, place in enumerate(numbers) for image in images[n][place]))
        united.append(entries)
    having = [Described(p.name, _all(own), None) for p, own in zip(parts, kernels, strict=True)]
    return United(tuple(united), in_part(having))


def _all(kernels: Iterable[Kernels]) -> Kernels:
    return frozenset().union(*kernels)


def title_of(kernels: Kernels) -> str:
    """What a container is called: the file has no name for it."""
    if not kernels:
        return "the container without kernels"
    more = f" and {len(kernels) - 1} more" if len(kernels) > 1 else ""
    return f"the container of kernel {min(kernels)[:_LONGEST_NAME]}{more}"


def _check_size(parts: Sequence[FileContainers]) -> None:
    for part in parts:
        total = sum(entry.uncompressed for entries in part.containers for entry in entries)
        if total > MAX_DECOMPRESSED:
            raise FormatError(
                f"its images claim {total} bytes uncompressed: too many to read", where=part.name
            )


def _described(part: FileContainers, known: dict[Any, Any]) -> list[list[Described]]:
    """What each image of each container defines. known: see `_once`."""
    found = []
    reading = Reading()
    for number, entries in enumerate(part.containers, 1):
        try:
            found.append(
                [
                    _once(describe(f"{image_name(entry)} of {part.name}", entry), known)
                    for entry in filter(is_readable, nvcc_order(entries))
                ]
            )
        except FormatError as error:
            where = f"{part.name}, container {number} of {len(part.containers)}"
            raise FormatError(error.what, where=where, hint=error.hint) from error
        for entry in entries:
            reading.has_read(entry.raw)
    return found


def _once(image: Described, known: dict[Any, Any]) -> Described:
    """The same with names and layouts that are in memory once, however many images have them."""
    names = {name: known.setdefault(name, name) for name in image.kernels}
    layouts = {
        names.get(name, name): known.setdefault(layout, layout)
        for name, layout in (image.layouts or {}).items()
    }
    kernels = known.setdefault(own := frozenset(names.values()), own)
    return Described(image.title, kernels, None if image.layouts is None else layouts)


def _kernels(images: Iterable[Described]) -> Kernels:
    return _all(image.kernels for image in images)


def _belonging(
    parts: Sequence[FileContainers], kernels: Sequence[Sequence[Kernels]]
) -> list[tuple[int, ...]]:
    """For each container of the first part, in order: its number and those of the others' that
    belong to it."""
    everywhere = frozenset.intersection(*map(_all, kernels))
    common = [[own & everywhere for own in of] for of in kernels]
    if _same_places(parts, common):
        found = [(number,) * len(parts) for number in range(len(kernels[0]))]
    else:
        groups = [_by_kernels(of) for of in common]
        for number in range(1, len(parts)):
            _check_match(parts, kernels, groups, number)
        places: dict[Kernels, int] = Counter()
        found = []
        for own in common[0]:
            found.append(tuple(group[own][places[own]] for group in groups))
            places[own] += 1
    for numbers in found:
        _check_alike(parts, [kernels[n][place] for n, place in enumerate(numbers)])
    return found


def _same_places(parts: Sequence[FileContainers], kernels: Sequence[Sequence[Kernels]]) -> bool:
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


def _check_alike(parts: Sequence[FileContainers], kernels: Sequence[Kernels]) -> None:
    """Refuse containers with kernels of which none is in both: they are of other sources."""
    having = [(part.name, own) for part, own in zip(parts, kernels, strict=True) if own]
    for name, own in having[1:]:
        if own.isdisjoint(having[0][1]):
            raise _other_kernels(having[0][0], having[0][1], name, own)


def _other_kernels(one: str, first: Kernels, other: str, second: Kernels) -> StitchError:
    return StitchError(
        f"{one} and {other} do not have the same kernels",
        details=shorten(only_in(one, first - second) + only_in(other, second - first)),
        hint=_SAME_SOURCE,
    )


def _by_kernels(kernels: Sequence[Kernels]) -> dict[Kernels, list[int]]:
    """The numbers of the containers with each set of kernels, in order."""
    found: dict[Kernels, list[int]] = defaultdict(list)
    for number, own in enumerate(kernels):
        found[own].append(number)
    return found


def _check_match(
    parts: Sequence[FileContainers],
    kernels: Sequence[Sequence[Kernels]],
    groups: Sequence[Mapping[Kernels, list[int]]],
    number: int,
) -> None:
    """Refuse the first file and another whose containers are not the same by their kernels."""
    one, other = parts[0].name, parts[number].name
    count, others = (
        Counter({own: len(numbers) for own, numbers in groups[n].items()}) for n in (0, number)
    )
    if count == others:
        return
    first, second = (_all(kernels[n]) for n in (0, number))
    if first != second:
        raise _other_kernels(one, first, other, second)
    raise StitchError(
        f"{one} and {other} have the same kernels, but not in the same containers",
        details=shorten(
            only_in(one, map(title_of, (count - others).elements()))
            + only_in(other, map(title_of, (others - count).elements()))
        ),
        hint=_SAME_SOURCE,
    )


def _unite_containers(
    title: str, alike: Sequence[tuple[str, Sequence[Entry]]], reading: Reading
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
            else:
                for image in (*united[key], *images):
                    reading.has_read(image.raw)
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
