"""Reports what device code a file holds, and which GPUs it supports: `invoke inspect`.

Everything is read from the bytes, never from the file's name. The result's shape is fixed by
`schema/inspect.schema.json`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..arch import CAPABILITIES, Arch, coverage, parse_capability
from ..errors import FormatError
from ..fatbin.binary import HEAD, is_binary
from ..storage.files import map_path
from ..wheels.archive import Wheel, open_wheel
from .contents import Archs, Contents, Image, Unit, read_contents

_ZIP = b"PK\x03\x04"


def inspect_file(path: Path) -> dict[str, Any]:
    """What is in a wheel, library, object, fatbin or cubin, as `--json` prints it.

    UsageError if there is no such file, FormatError if it is none of these or damaged.
    """
    wheel, binaries = _read(path)
    return _report(path, wheel, binaries)


def inspect_units(path: Path) -> dict[str, Any]:
    """The same, and the kernels and images of every container: `--units`."""
    wheel, binaries = _read(path)
    report = _report(path, wheel, binaries)
    for shown, binary in zip(report["binaries"], binaries, strict=True):
        shown["units"] = [_report_unit(unit) for unit in binary.units]
    return report


def coverage_of(binaries: Iterable[Contents]) -> dict[str, str]:
    """Per GPU capability 'native', 'jit' or 'none'; the worst container with kernels decides.

    A program fails as soon as one kernel that it needs has no image, so the best container is of
    no use. Without any kernels, nothing is served.
    """
    units = {(unit.archs, unit.relocatable) for binary in binaries for unit in binary.units}
    ranks = ("none", "jit", "native")
    return {
        capability: min(
            (_coverage(*unit, parse_capability(capability)) for unit in units),
            key=ranks.index,
            default="none",
        )
        for capability in CAPABILITIES
    }


def _coverage(archs: Archs, relocatable: tuple[Archs, ...], gpu: Arch) -> str:
    """How a GPU is served: at worst, a driver links linked code anew, from relocatable PTX."""
    served = coverage(archs.cubins, archs.ptx, gpu)
    if served != "none" or not relocatable:
        return served
    again = {coverage(each.cubins, each.ptx, gpu) for each in relocatable}
    return "jit" if again == {"jit"} else "none"


def report_binary(binary: Contents) -> dict[str, Any]:
    """One item of `binaries` in the reports of inspect and verify."""
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
    }


def report_wheel(wheel: Wheel) -> dict[str, Any]:
    """The metadata of a wheel."""
    return {"name": wheel.name, "version": wheel.version, "tags": list(wheel.tags)}


def _read(path: Path) -> tuple[dict[str, Any] | None, list[Contents]]:
    """What a wheel says of itself, if the file is one, and its binaries or the file itself."""
    data = map_path(path, "a wheel, .so, .pyd, .dll, .o, .obj, .fatbin or .cubin")
    if bytes(data[:4]) == _ZIP:
        with open_wheel(path) as wheel:
            return report_wheel(wheel), list(_read_members(wheel))
    try:
        return None, [read_contents(path.name, data)]
    except FormatError as error:
        raise error.within(str(path)) from error


def _read_members(wheel: Wheel) -> Iterable[Contents]:
    for member in wheel.members:
        if is_binary(wheel.start(member.name, HEAD)):
            with wheel.mapped(member.name) as data:
                try:
                    yield read_contents(member.name, data)
                except FormatError as error:
                    raise error.within(member.name) from error


def _report(
    path: Path, wheel: Mapping[str, Any] | None, binaries: Iterable[Contents]
) -> dict[str, Any]:
    return {
        "file": path.name,
        "wheel": wheel,
        "binaries": [report_binary(binary) for binary in binaries],
        "coverage": coverage_of(binaries),
    }


def _report_unit(unit: Unit) -> dict[str, Any]:
    return {
        "container": unit.container,
        "kernels": list(unit.kernels),
        "images": [
            {
                "kind": image.kind,
                "arch": image.name,
                "bytes": image.size,
                "compression": image.compression,
            }
            for image in unit.images
        ],
    }


def _packed(image: Image) -> bool:
    return bool(image.compression)
