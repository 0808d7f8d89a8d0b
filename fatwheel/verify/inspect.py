"""Reports what device code a file holds, and which GPUs it supports: `invoke inspect`.

Everything is read from the bytes, never from the file's name. The result's shape is fixed by
`schemas/inspect.schema.json`.

It also says how much smaller files become if they are thinned to one GPU. What counts is the GPU
code that `thin` leaves out, as it lies in the files. A wheel is compressed besides, so that only
making it tells its size (`thin --dry-run`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..arch import NONE, Arch, parse_capability
from ..errors import FormatError
from ..fatbin.binary import HEAD, imports_of, is_binary, read_binary
from ..fatbin.container import Entry
from ..fatbin.embedded import Bound, EmbeddedCode
from ..fatbin.images import Selection, choose
from ..fatbin.stitch import nvcc_order
from ..provenance.record import FILE as RECORD_FILE
from ..provenance.record import Plans, plans_of, unproven
from ..storage.mapped import map_path
from ..wheels.archive import Wheel, open_wheel
from .contents import Contents, Image, KernelContainer, coverage_of, read_contents
from .drivers import needs_of
from .evidence import Evidence
from .libraries import runtimes_of
from .papers import read_inside, slices_of_binary, with_plans

_ZIP = b"PK\x03\x04"


def inspect_file(path: Path) -> dict[str, Any]:
    """What is in a wheel, library, object, fatbin or cubin, as `--json` prints it.

    UsageError if there is no such file, FormatError if it is none of these or damaged.
    """
    return _report(_read(path))


def inspect_units(path: Path) -> dict[str, Any]:
    """The same, and the kernels and images of every container: `--units`."""
    read = _read(path)
    report = _report(read)
    for shown, binary in zip(report["binaries"], read.binaries, strict=True):
        shown["units"] = [_report_unit(unit) for unit in binary.contents.units]
    return report


def without_units(report: Mapping[str, Any]) -> dict[str, Any]:
    """What `inspect_file` reports, of what `inspect_units` reports."""
    binaries = [
        {key: value for key, value in binary.items() if key != "units"}
        for binary in report["binaries"]
    ]
    return {**report, "binaries": binaries}


def report_binary(binary: Contents, runtimes: Collection[str]) -> dict[str, Any]:
    """One item of `binaries` in the reports of inspect and verify.

    runtimes: the major versions of the CUDA runtimes that it asks for.
    """
    count: Counter[tuple[str, str, bool]] = Counter()
    size: Counter[tuple[str, str, bool]] = Counter()
    for image in sorted(binary.images, key=lambda image: (image.arch, image.kind, _packed(image))):
        key = image.kind, image.name, _packed(image)
        count[key] += 1
        size[key] += image.size
    return {
        "path": binary.path,
        "format": binary.format,
        "machine": binary.machine,
        "containers": binary.containers,
        "kernels": len(set().union(*(unit.kernels for unit in binary.units))),
        "images": [
            {
                "kind": kind,
                "arch": name,
                "count": count[kind, name, packed],
                "bytes": size[kind, name, packed],
                "compressed": packed,
            }
            for kind, name, packed in count
        ],
        **_report_places("embedded", binary.embedded),
        **_report_places("relocatable", binary.relocatable),
        **report_coverage([binary], in_wheel=False),
        "drivers": {gpu: asdict(need) for gpu, need in needs_of(binary, runtimes).items()},
    }


def report_coverage(binaries: Collection[Contents], *, in_wheel: bool) -> dict[str, Any]:
    """By compute capability: how a GPU of it is served, and how many containers with kernels."""
    found = coverage_of(binaries, in_wheel=in_wheel)
    return {
        "coverage": {capability: served.how for capability, served in found.items()},
        "units_served": {
            capability: {"native": served.native, "jit": served.jit, "none": served.none}
            for capability, served in found.items()
        },
    }


def report_wheel(wheel: Wheel | Evidence, record: bytes | None) -> dict[str, Any]:
    """The metadata of a wheel, and what its record says that nobody proved."""
    found = unproven(record)
    return {
        "name": wheel.name,
        "version": wheel.version,
        "tags": list(wheel.tags),
        **({"unproven": list(found)} if found else {}),
    }


@dataclass(frozen=True)
class _Read:
    """A file: its name, what a wheel says of itself, its size when unpacked, and its binaries.

    shipped: the names of a wheel's files without their folders, in lower case.
    """

    name: str
    wheel: Mapping[str, Any] | None
    size: int
    binaries: Sequence[_Binary]
    shipped: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Binary:
    """What a binary holds, what its images weigh, and the libraries that it asks for."""

    contents: Contents
    weight: Weight
    imports: tuple[str, ...]


def _read(path: Path) -> _Read:
    """A wheel and its binaries, or a binary itself."""
    data = map_path(path, "a wheel, .so, .pyd, .dll, .o, .obj, .fatbin or .cubin")
    if bytes(data[:4]) == _ZIP:
        with open_wheel(path) as wheel:
            size = sum(member.size for member in wheel.members)
            shipped = frozenset(m.name.rpartition("/")[2].lower() for m in wheel.members)
            record = read_inside(wheel).get(RECORD_FILE)
            binaries = list(_read_members(wheel, plans_of(record)))
            return _Read(path.name, report_wheel(wheel, record), size, binaries, shipped)
    try:
        return _Read(path.name, None, len(data), [_read_binary(path.name, data, Bound())])
    except FormatError as error:
        raise error.within(str(path)) from error


def _read_members(wheel: Wheel, plans: Plans) -> Iterable[_Binary]:
    bound = Bound()
    for member in wheel.members:
        if is_binary(wheel.start(member.name, HEAD)):
            with wheel.mapped(member.name) as data:
                try:
                    found = _read_binary(member.name, data, bound)
                    if plans.codes:
                        slices = slices_of_binary(member.name, data)
                        found = replace(found, contents=with_plans(found.contents, slices, plans))
                    yield found
                except FormatError as error:
                    raise error.within(member.name) from error


def _read_binary(name: str, data: memoryview, bound: Bound) -> _Binary:
    binary = read_binary(data)
    weight = weigh(container.entries for container in binary.containers)
    return _Binary(read_contents(name, data, binary, bound), weight, imports_of(data))


def _report(read: _Read) -> dict[str, Any]:
    binaries = [binary.contents for binary in read.binaries]
    return {
        "file": read.name,
        "wheel": read.wheel,
        "size_unpacked": read.size,
        "binaries": [
            report_binary(binary.contents, runtimes_of(binary.imports, read.shipped))
            for binary in read.binaries
        ],
        **report_coverage(binaries, in_wheel=read.wheel is not None),
        "thinned": _report_savings(read),
    }


def _report_places(key: str, places: Sequence[EmbeddedCode]) -> dict[str, Any]:
    return {key: list(map(_report_place, places))} if places else {}


def _report_place(place: EmbeddedCode) -> dict[str, Any]:
    return {
        "place": place.name,
        "containers": place.containers,
        "cubins": place.cubins,
        "bytes": place.size,
        "images": [
            {
                "kind": images.kind,
                "arch": images.name,
                "count": images.count,
                "bytes": images.size,
                "compressed": images.compressed,
            }
            for images in place.images
        ],
    }


def _report_savings(read: _Read) -> dict[str, Any]:
    """By compute capability, of the GPUs that are served: what thinning to it would save."""
    weight = together(binary.weight for binary in read.binaries)
    found = coverage_of([binary.contents for binary in read.binaries])
    saving = {
        capability: saved(weight, parse_capability(capability))
        for capability, served in found.items()
        if served.how != NONE and weight.total
    }
    return {
        capability: {"saves": size, "percent": round(100 * size / read.size, 1)}
        for capability, size in saving.items()
    }


def _report_unit(unit: KernelContainer) -> dict[str, Any]:
    return {
        "container": unit.container,
        "kernels": list(unit.kernels),
        "images": [
            {
                "kind": image.kind,
                "arch": image.name,
                "bytes": image.size,
                "compression": image.compression,
                "version": ".".join(map(str, image.version)) if image.version else None,
            }
            for image in unit.images
        ],
    }


def _packed(image: Image) -> bool:
    return bool(image.compression)


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
