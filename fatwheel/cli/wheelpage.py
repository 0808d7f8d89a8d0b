"""The page of `invoke inspect --html`: what is in wheels, from `verify.inspect`'s reports.

What a page shows is bounded, whatever is in the files: the largest are shown, and the rest are
summed up and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import __version__, text
from ..pages import make_page
from . import reports, tables
from .kernelnames import LONGEST, readable

WheelReport = Mapping[str, Any]
Column = tuple[str, str]  # an image's name and its kind: ("sm_80", "elf")

_COLUMNS = 24  # architectures and kinds of a heat map; the rest share one
_FILES = 200  # of one wheel
_CELLS = 200_000  # of all heat maps of units together
_UNITS = 20_000
_NAMES = 2 << 20  # characters of all kernels' names
_SHARE = 4  # names of a unit, as long as there is room at all
_ROWS = 60  # of a table; GPUs and images of all published wheels are fewer
_LINES = 20
_TEXT = 300  # characters of a path or a sentence
_LABEL = 80  # characters of the kernel by which a unit is called

_OTHER: Column = ("others", "")
# How images are compressed, by number on a page; of whole files it may be known only that.
_METHODS = ("", "lz4", "zstd", "compressed", "compressed in part")
_MARKS = {"native": "●", "jit": "◐", "part": "◔", "unknown": "?", "none": "○"}


def wheel_page(found: Sequence[WheelReport]) -> bytes:
    """The page of these files, as `inspect_units` reports them; same reports, same bytes."""
    units = sum(len(binary["units"]) for report in found for binary in report["binaries"])
    room = _Room(units)
    title = _cut(found[0]["file"]) if len(found) == 1 else text.count(len(found), "file")
    return make_page(
        "wheel",
        {"methods": _METHODS, "wheels": [_maps(report, room) for report in found]},
        title=f"GPU code in {title}",
        wheels=[_facts(report) for report in found],
        version=__version__,
    )


# -- what is known without a script ----------------------------------------------------------------


def _facts(report: WheelReport) -> dict[str, Any]:
    """The tables of one file."""
    binaries, wheel = report["binaries"], report["wheel"]
    words = [f"{wheel['name']} {wheel['version']} for {', '.join(wheel['tags'])}"] if wheel else []
    lines = [*tables.driver_lines(report), *reports.place_lines(binaries)]
    if size := tables.not_counted(report):
        lines.append(f"not counted: {text.size(size)} of code that libraries load themselves")
    native = [gpu for gpu, how in report["coverage"].items() if how == "native"]
    return {
        "file": _cut(report["file"]),
        "words": list(map(_cut, words)),
        "size": text.size(report["size_unpacked"]),
        "code": text.size(_code(report)),
        "title": reports.title(binaries),
        "native": ", ".join(native[:_ROWS]),
        "gpus": _first(_gpus(report), _ROWS),
        "images": _first(_images(binaries), _ROWS),
        "lines": _first(list(map(_cut, lines)), _LINES),
    }


def _code(report: WheelReport) -> int:
    return sum(image["bytes"] for one in report["binaries"] for image in one["images"])


def _gpus(report: WheelReport) -> list[dict[str, Any]]:
    """How each GPU is served, as the terminal has it, with a mark, and how much thinning saves."""
    savings = report["thinned"]
    return [
        {
            "row": row,
            "how": how,
            "mark": _MARKS[how],
            "percent": savings.get(row["capability"], {}).get("percent", 0),
        }
        for row, how in zip(tables.coverage_rows(report), report["coverage"].values(), strict=True)
    ]


def _images(binaries: Sequence[WheelReport]) -> list[dict[str, Any]]:
    """Sizes by architecture and kind, with the share of the largest."""
    images = tables.united_images(binaries)
    most = max((image["bytes"] for image in images), default=0)
    return [
        {"row": row, "percent": round(100 * image["bytes"] / most, 1) if most else 0}
        for row, image in zip(tables.image_rows(images), images, strict=True)
    ]


def _first(rows: list[Any], most: int) -> dict[str, Any]:
    return {"shown": rows[:most], "more": len(rows[most:])}


def _cut(words: str) -> str:
    words = text.clean(readable(words))
    return words if len(words) <= _TEXT else f"{words[: _TEXT - 3]}..."


# -- the heat maps ---------------------------------------------------------------------------------


class _Room:
    """What is left of a page's room, for so many units of all its files."""

    def __init__(self, units: int) -> None:
        self._cells, self._units, self._names = _CELLS, _UNITS, _NAMES
        self._share = max(_SHARE, _NAMES // LONGEST // max(1, min(units, _UNITS)))

    def takes_unit(self, columns: int) -> bool:
        if self._units < 1 or self._cells < columns:
            return False
        self._units -= 1
        self._cells -= columns
        return True

    def names(self, kernels: Sequence[str]) -> list[str]:
        """Kernels as people read them, as many of the first as there is room for."""
        found: list[str] = []
        for kernel in kernels[: self._share]:
            if self._names <= 0:
                break
            found.append(_name(kernel, LONGEST))
            self._names -= len(found[-1])
        return found


def _name(kernel: str, longest: int) -> str:
    return text.clean(readable(kernel, longest))[:longest]


def _maps(report: WheelReport, room: _Room) -> dict[str, Any]:
    """The heat maps of one file, as the page's script reads them.

    columns: name and kind. files: path, what it is, cells. units: the number of their file,
    that of their container, how many kernels they have, the kernel that they are called by, some
    of the kernels, cells; kernels that few other units have come first. A cell is the bytes of the
    images in that column and how they are compressed, or null. Each list has its largest first;
    what is left out is counted and summed up.
    """
    binaries = [one for one in report["binaries"] if one["images"]]
    columns = _columns(binaries)
    place = {column: number for number, column in enumerate(columns)}
    files = sorted(range(len(binaries)), key=lambda number: (-_bytes(binaries[number]), number))
    number_of = {number: rank for rank, number in enumerate(files)}
    units = [
        (number_of[number], unit) for number, one in enumerate(binaries) for unit in one["units"]
    ]
    units.sort(key=lambda one: (-_bytes(one[1]), one[0], one[1]["container"] or 0))
    shown = [one for one in units if room.takes_unit(len(columns))]
    uses = Counter(kernel for _, unit in units for kernel in unit["kernels"])
    return {
        "columns": [[name, tables.KINDS.get(kind, "")] for name, kind in columns],
        "files": [
            [_cut(binaries[number]["path"]), _what(binaries[number]),
             _cells(binaries[number]["images"], place, len(columns))]
            for number in files[:_FILES]
        ],
        "units": [
            [file, unit["container"], len(kernels), _name(kernels[0], _LABEL), room.names(kernels),
             _cells(unit["images"], place, len(columns))]
            for file, unit in shown
            for kernels in [sorted(unit["kernels"], key=lambda kernel: (uses[kernel], kernel))]
        ],
        "more_files": _rest([binaries[number] for number in files[_FILES:]]),
        "more_units": _rest([unit for _, unit in units[len(shown) :]]),
    }  # fmt: skip


def _columns(binaries: Iterable[WheelReport]) -> list[Column]:
    """Of all images, in the order of their architectures; those with most bytes if many."""
    sizes: dict[Column, int] = {}
    for image in tables.united_images(list(binaries)):
        column = image["arch"], image["kind"]
        sizes[column] = sizes.get(column, 0) + image["bytes"]
    if len(sizes) <= _COLUMNS:
        return list(sizes)
    largest = sorted(sizes, key=lambda column: -sizes[column])[:_COLUMNS]
    return [*(column for column in sizes if column in largest), _OTHER]


def _cells(
    images: Iterable[WheelReport], place: Mapping[Column, int], count: int
) -> list[list[int] | None]:
    cells: list[list[int] | None] = [None] * count
    for image in images:
        at = place.get((image["arch"], image["kind"]), count - 1)
        method = _method(image)
        size, known = cells[at] or (0, method)
        mixed = _METHODS.index("compressed in part")
        cells[at] = [size + image["bytes"], method if method == known else mixed]
    return cells


def _method(image: WheelReport) -> int:
    """Reports of files say whether images are compressed, those of units say how."""
    if "compressed" in image:
        return _METHODS.index("compressed" if image["compressed"] else "")
    return _METHODS.index(image["compression"].replace("unknown", "compressed"))


def _bytes(one: WheelReport) -> int:
    return sum(image["bytes"] for image in one["images"])


def _what(binary: WheelReport) -> str:
    containers = text.count(binary["containers"], "container")
    kernels = text.count(binary["kernels"], "kernel")
    return f"{binary['format']}, {binary['machine']}; {containers}, {kernels}"


def _rest(left_out: Sequence[WheelReport]) -> list[int]:
    """How many are left out, and their bytes."""
    return [len(left_out), sum(map(_bytes, left_out))]
