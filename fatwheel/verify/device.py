"""Checks the device code of a wheel: GPU coverage, consistency and the drivers that it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from .. import text
from ..arch import JIT, NATIVE, NONE, parse_arch
from ..fatbin.embedded import EmbeddedCode
from ..provenance.record import RecordedUnit
from .contents import PART, UNKNOWN, Contents, KernelContainer, coverage_of, units_served
from .drivers import Need, in_words, jit_in_words, needs_of, system_of, tables
from .evidence import Evidence, Examined, Finding, note, warning, wrong
from .libraries import runtimes_of
from .papers import BinarySlices

_OF_LINK = "__cudaRegisterLinkedBinary_"
_KINDS = {"elf": "cubin", "ptx": "PTX", "lto": "LTO-IR"}


def coverage_findings(evidence: Evidence) -> Iterator[Finding]:
    """Which GPUs each library serves, images that only some of its containers have, and device code
    that nobody can tell this of."""
    binaries = [binary.contents for binary in evidence.binaries]
    libraries = [one for one in binaries if not one.is_data and (one.units or one.embedded)]
    for binary in evidence.binaries:
        yield from _unlinked_findings(binary)
    data_files = [one for one in binaries if one.is_data and one.images]
    if not libraries and not data_files:
        yield warning("there is no device code in this wheel")
    for contents in libraries:
        yield note(_served(contents), contents.path)
        yield from _partial_findings(contents)
        yield from _unread_findings(contents)
        for place in contents.embedded:
            what = f"{place.title} ({text.size(place.size)}), loaded by the library itself"
            yield note(f"{what}: not known for which GPUs", contents.path, _held(place))
    if data_files:
        yield _data_finding(data_files)


def _unlinked_findings(binary: Examined) -> Iterator[Finding]:
    """Relocatable device code that no nvcc -dlink has linked: nvcc has each source of such code
    call a function of its own (crt/host_runtime.h), which the link defines."""
    names = [one.name for one in binary.asked if one.name.startswith(_OF_LINK)]
    if names:
        what = (
            "it does not load: relocatable device code (nvcc -rdc=true) of "
            f"{text.count(len(names), 'source')} is in it, and was not linked (nvcc -dlink)"
        )
        yield wrong(what, binary.contents.path, [name.removeprefix(_OF_LINK) for name in names])


def _held(place: EmbeddedCode) -> Iterator[str]:
    for images in place.images:
        kind = _KINDS.get(images.kind, "other")
        yield f"{images.name}, {kind}: {images.count:,} ({text.size(images.size)})"


def _data_finding(files: Sequence[Contents]) -> Finding:
    size = text.size(sum(image.size for one in files for image in one.images))
    noun = "file" if len(files) == 1 else "files"
    what = f"{len(files):,} {noun} of device code ({size}), which libraries load by name"
    return note(f"{what}: not known for which GPUs", details=(one.path for one in files))


def parity_findings(evidence: Evidence) -> Iterator[Finding]:
    """Kernels or parameter layouts that differ between the images of one container."""
    for binary in evidence.binaries:
        yield from binary.disparities


def driver_findings(evidence: Evidence) -> Iterator[Finding]:
    """Which drivers the libraries need, GPUs for which a driver has to compile, and images that
    drivers for the same CUDA cannot all read."""
    sentences: dict[str, list[str]] = {}
    for binary in evidence.binaries:
        contents = binary.contents
        needs = needs_of(contents, runtimes_of(binary.imports, evidence.shipped))
        if sentence := in_words(needs):
            sentences.setdefault(sentence, []).append(contents.path)
        yield from _compression_findings(contents, needs)
    for sentence, paths in sentences.items():
        yield note(sentence, *paths) if len(paths) == 1 else note(sentence, details=paths)
    if jit := jit_in_words(_by_jit(evidence)):
        yield note(jit)


def _by_jit(evidence: Evidence) -> list[str]:
    found = coverage_of([binary.contents for binary in evidence.binaries], in_wheel=True)
    return [gpu for gpu, served in found.items() if served.jit]


def _compression_findings(contents: Contents, needs: Mapping[str, Need]) -> Iterator[Finding]:
    for name in dict.fromkeys(image.compression for image in contents.images):
        count = _count([image.name for image in contents.images if image.compression == name])
        need = tables().for_compression(name, system_of(contents))
        decides = need in needs.values() or not needs
        if name == "unknown":
            yield warning(f"{count} compressed in an unknown way", contents.path)
        elif need and decides:
            what = (
                f"{count} compressed with {name}: older drivers than {need.driver} cannot read it"
            )
            yield warning(what, contents.path)


def _served(contents: Contents) -> str:
    """`native on 8.0, 8.6; in part on 9.0 (24 of 30 units); nothing on 7.5`."""
    words = {
        NATIVE: "native on",
        JIT: "by JIT on",
        PART: "in part on",
        NONE: "nothing on",
        UNKNOWN: "not known on",
    }
    found = coverage_of([contents])
    lists = {how: [gpu for gpu in found if found[gpu].how == how] for how in words}
    if lists[PART]:
        lists[PART] = [f"{gpu} ({units_served(found[gpu])})" for gpu in lists[PART]]
    return "; ".join(f"{words[how]} {', '.join(gpus)}" for how, gpus in lists.items() if gpus)


def _partial_findings(contents: Contents) -> Iterator[Finding]:
    units = [
        (unit, {image.name for image in unit.images} | _linked_anew(unit))
        for unit in contents.units
    ]
    count = Counter(name for _, names in units for name in names)
    for name in dict.fromkeys(image.name for image in contents.images):
        without = [unit for unit, names in units if name not in names]
        missing = [unit for unit in without if name not in unit.left_out]
        if count[name] and without:
            what = f"{name} in {count[name]} of {len(units)} units"
            where = [
                f"not in container {unit.container}, that of kernel {unit.kernels[0]}"
                for unit in missing or without
            ]
            if missing:
                yield warning(f"partial coverage: {what}", contents.path, where)
            else:
                yield note(f"{what}: the others are not for it", contents.path, where)


def _linked_anew(unit: KernelContainer) -> set[str]:
    """The PTX of a linked unit: that which all have that it was linked from."""
    found = [archs.ptx for archs in unit.relocatable]
    return {arch.compute for arch in frozenset.intersection(*found)} if found else set()


def _unread_findings(contents: Contents) -> Iterator[Finding]:
    other = [image.name for image in contents.images if image.kind not in ("elf", "ptx")]
    if other:
        yield note(f"{_count(other)} of a kind whose kernels cannot be read", contents.path)


def _count(names: Collection[str]) -> str:
    noun = "image is" if len(names) == 1 else "images are"
    return f"{len(names)} {noun}"


# -- slices ----------------------------------------------------------------------------------------

# The record has the sha256 of each unit's slices as the store kept them, and stitching copies them
# verbatim. A linker may leave a unit out, or bring device code of a library; so a unit that is not
# there at all, or a container that no unit accounts for, may be right. Both together are not, nor
# is a record that accounts for none, or that leaves a slice's digest out. Among the units is what
# was linked of device code; what it was linked from is in the wheel, too.


_Named = frozenset[tuple[str, str]]  # images, and the sha256 of their slices


def slice_findings(
    units: Sequence[RecordedUnit], binaries: Sequence[BinarySlices]
) -> Iterator[Finding]:
    """Where the units' slices are not those of the containers."""
    there = _all_of(binaries)
    named = frozenset(slice_ for unit in units for slice_ in _named(unit))
    absent, in_part = _sorted_out(units, there)
    strange, strange_in_part = _strange(named, binaries)
    untold = [
        f"{unit.name}: {image}" for unit in units for image, sha256 in unit.slices.items()
        if not sha256
    ]  # fmt: skip
    if untold:
        yield wrong("it does not name its slices", details=untold)
    if in_part:
        yield wrong("it names slices that are not in the wheel", details=in_part)
    if strange_in_part:
        yield wrong("units in the wheel have slices that it does not list", details=strange_in_part)
    severity = wrong if strange and (absent or not named) else warning
    if absent:
        yield severity("it names units that are not in the wheel", details=absent)
    if strange:
        yield severity("it does not cover all device code", details=strange)


def _named(unit: RecordedUnit) -> _Named:
    return frozenset((image, sha256) for image, sha256 in unit.slices.items() if sha256)


def _all_of(binaries: Iterable[BinarySlices]) -> _Named:
    return frozenset(
        slice_
        for binary in binaries
        for container in (*binary.containers, *binary.relocatable)
        for slice_ in container.items()
    )


def _sorted_out(units: Iterable[RecordedUnit], there: _Named) -> tuple[list[str], list[str]]:
    """Units of which nothing is there, and those of which only a part is."""
    absent, in_part = [], []
    for unit in units:
        wanted = _named(unit)
        missing = sorted(image for image, _ in wanted - there)
        if missing and wanted & there:
            in_part.append(f"{unit.name}: {', '.join(missing)}")
        elif missing:
            absent.append(unit.name)
    return absent, in_part


def _strange(named: _Named, binaries: Iterable[BinarySlices]) -> tuple[list[str], list[str]]:
    """Containers of no unit, and those of which only a part is of one."""
    whole: list[str] = []
    in_part: list[str] = []
    for binary in binaries:
        for number, container in enumerate(binary.containers):
            slices = frozenset(container.items())
            others = sorted(image for image, _ in slices - named)
            if others:
                place = f"{binary.path}, container {number}: {', '.join(others)}"
                (in_part if slices & named else whole).append(place)
    return whole, in_part


# -- kernels of some architectures -----------------------------------------------------------------

# What a build says of units whose images differ in kernels, by the units' names.


_UNITS_SHOWN = 3
_KERNELS_SHOWN = 3


def in_part_notes(
    evidence: Evidence,
    units: Sequence[RecordedUnit],
    launched: str,
    front_units: Collection[str] = (),
) -> Iterator[str]:
    """One sentence on kernels that not all images have, and one on those that are never launched.

    launched: the image whose kernels the host's code knows, as the build compiled it; in a unit
    that has no such image it is the newest. front_units: the names of the units that this is so of,
    where others have a front for each architecture: then theirs is the newest.
    """
    launched_of = {
        unit.name: _newest(unit)
        for unit in units
        if launched not in unit.slices or (front_units and unit.name not in front_units)
    }
    found = _units_in_part(evidence, units)
    shown = [f"{name} ({_summary(kernels)})" for name, kernels in found.items()]
    if shown:
        yield (
            f"not all architectures have the same kernels in {_some(shown, _UNITS_SHOWN)}. "
            "That is as the source says; invoke verify --all names them"
        )
    lost = [
        (launched_of.get(name, launched), f"{kernel} of {name}")
        for name, kernels in found.items()
        for kernel, images in kernels.items()
        if launched_of.get(name, launched) not in images
    ]
    for image in dict.fromkeys(image for image, _ in lost):
        yield (
            f"host code cannot launch kernels that {image} does not have, since nvcc lists those "
            "of the last architecture for it: "
            f"{_some([kernel for of, kernel in lost if of == image], _KERNELS_SHOWN)}"
        )


def _newest(unit: RecordedUnit) -> str:
    """The first image of its last front."""
    codes = sorted(unit.slices, key=lambda code: (parse_arch(code), code.startswith("sm_")))
    return codes[-1] if codes else ""


def _units_in_part(
    evidence: Evidence, units: Sequence[RecordedUnit]
) -> dict[str, Mapping[str, tuple[str, ...]]]:
    """Units with such kernels, and the images that have each of these."""
    names = {_named(unit): unit.name for unit in reversed(units)}
    slices = {one.path: one.containers for one in evidence.papers.slices}
    found = {}
    for binary in evidence.binaries:
        path = binary.contents.path
        for number, kernels in binary.in_part.items():
            of_unit = slices[path][number] if number is not None and path in slices else {}
            place = f"{path}, container {number}"
            found[names.get(frozenset(of_unit.items()), place)] = kernels
    return found


def _summary(kernels: Mapping[str, tuple[str, ...]]) -> str:
    """`3 only in sm_90, 1 only in sm_80`."""
    count = Counter(", ".join(images) for images in kernels.values())
    return "; ".join(f"{number} only in {images}" for images, number in count.items())


def _some(names: Sequence[str], shown: int) -> str:
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
