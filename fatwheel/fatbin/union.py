"""Whether images belong together: one host program must be able to launch the kernels of all.

Raises FormatError for images that cannot be read, StitchError for those that do not agree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import FormatError, StitchError
from .container import DECODERS, Decoder, Entry, payload
from .cubin import Layout, kernel_names_of_ptx, kernels_of_cubin
from .stitch import image_name, nvcc_order

# Enough to see what is wrong; the rest is counted.
_DETAILS_SHOWN = 12


@dataclass(frozen=True)
class Described:
    """What can be compared of an image.

    title:   what messages call it: `sm_80`, `sm_80 of a.whl`.
    kernels: the names of those it defines.
    layouts: how they take their parameters, by name; None for PTX, whose text is not read so far.
    """

    title: str
    kernels: frozenset[str]
    layouts: Mapping[str, Layout] | None


def check_parity(
    unit: str, entries: Iterable[Entry], decoders: Mapping[str, Decoder] = DECODERS
) -> None:
    """Refuse, by the unit's name, images that one host object could not launch alike.

    All cubins must define the same kernels with the same parameter layouts, and all PTX the same
    entries as those. Other images hold nothing that could be compared.
    """
    readable = (entry for entry in entries if is_readable(entry))
    compare(unit, [describe(image_name(entry), entry, decoders) for entry in readable])


def is_readable(entry: Entry) -> bool:
    """Whether an image is of a kind whose kernels can be told."""
    return entry.kind in ("elf", "ptx")


def describe(title: str, entry: Entry, decoders: Mapping[str, Decoder]) -> Described:
    """What a cubin or PTX defines."""
    data = payload(entry, decoders)
    if entry.kind == "elf":
        layouts = kernels_of_cubin(data)
        return Described(title, frozenset(layouts), layouts)
    return Described(title, frozenset(kernel_names_of_ptx(data)), None)


def compare(unit: str, images: Sequence[Described]) -> None:
    """Refuse, by the unit's name, images that differ in kernels or in their layouts."""
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


# -- the device code of several files that were built from the same source, put together -----------

# Containers that hold the same kernels, in the same order, belong together; one that holds none,
# since all of its images were taken out, goes by its place. Where a linker changed the order, it is
# told by their kernels: of those with the same, the first belongs to the first, the second to the
# second. Raises StitchError where files do not belong together, FormatError for images that
# cannot be read.


# Decompressed bytes of all images together: four times the largest library known (torch), so
# that a bomb ends in time.
MAX_DECOMPRESSED = 16 << 30
_NAME_SHOWN = 100

Kernels = frozenset[str]


@dataclass(frozen=True)
class Part:
    """The containers of one file, each as its images; name is what messages call the file."""

    name: str
    containers: tuple[tuple[Entry, ...], ...] = field(repr=False)


def unite(
    parts: Sequence[Part], decoders: Mapping[str, Decoder] = DECODERS
) -> tuple[tuple[Entry, ...], ...]:
    """One container for each of the first part's, in its order, with the images of all parts.

    Every kernel must be in every part, with the same parameter layout, and images of the same
    kind and architecture must be the same, byte for byte.
    """
    _check_size(parts)
    kernels = [_kernels(part, decoders) for part in parts]
    return tuple(
        _unite_containers(
            title_of(kernels[0][numbers[0]]),
            [(part.name, part.containers[n]) for part, n in zip(parts, numbers, strict=True)],
            decoders,
        )
        for numbers in _belonging(parts, kernels)
    )


def kernels_of(entries: Sequence[Entry], decoders: Mapping[str, Decoder] = DECODERS) -> Kernels:
    """The names of the kernels of a container, by the first image that can tell: a cubin, if
    there is one, or PTX."""
    readable = sorted(filter(is_readable, entries), key=lambda entry: entry.kind)
    return describe("", readable[0], decoders).kernels if readable else frozenset()


def title_of(kernels: Kernels) -> str:
    """What a container is called: the file has no name for it."""
    if not kernels:
        return "the container without kernels"
    more = f" and {len(kernels) - 1} more" if len(kernels) > 1 else ""
    name = min(kernels)
    if len(name) > _NAME_SHOWN:  # C++ templates make names of thousands of letters
        name = name[: _NAME_SHOWN - 3] + "..."
    return f"the container of kernel {name}{more}"


def _check_size(parts: Sequence[Part]) -> None:
    for part in parts:
        total = sum(entry.uncompressed for entries in part.containers for entry in entries)
        if total > MAX_DECOMPRESSED:
            raise FormatError(
                f"its images claim {total} bytes uncompressed: too many to read", where=part.name
            )


def _kernels(part: Part, decoders: Mapping[str, Decoder]) -> list[Kernels]:
    """The kernels of each container."""
    found: list[Kernels] = []
    for number, entries in enumerate(part.containers):
        try:
            found.append(kernels_of(entries, decoders))
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
    title: str, alike: Sequence[tuple[str, Sequence[Entry]]], decoders: Mapping[str, Decoder]
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
        describe(f"{image_name(image)} of {origin[key]}", image, decoders)
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
