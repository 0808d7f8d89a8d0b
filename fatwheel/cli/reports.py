"""What `invoke inspect` and `invoke verify` found, for people, to stdout.

A report of `inspect` that nobody would read is replaced by sums and the largest of its files: less
than 60 lines. --all shows everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any

from rich.console import Console

from .. import text
from . import reports, tables
from .console import out, write, write_name, write_rows
from .names import readable
from .tables import Row

FINDINGS_SHOWN = 3  # of one check, the worst first, unless all are asked for
DETAILS_SHOWN = 3  # of one finding
# Of a wheel; of more only what they hold together, unless units or everything are asked for.
DATA_FILES_SHOWN = 5
_SEVERITIES = ("wrong", "warning", "note")

_STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red", "note": "dim"}
_TITLES = {
    "record": "RECORD: files, hashes and sizes",
    "provenance": "records of how it was built",
    "names": "names in the file name, METADATA and WHEEL",
    "label": "architectures and CUDA in the version",
    "platform": "platform tags and binaries",
    "binaries": "readable binaries",
    "modules": "Python modules",
    "imports": "required libraries",
    "abi": "stable ABI of Python and torch",
    "coverage": "supported GPUs",
    "parity": "same parameters of a kernel on all architectures",
    "driver": "NVIDIA drivers that it needs",
    "signature": "signature",
    "import": "import in a clean environment",
    "gpu": "this machine's GPU",
}
_MARK = max(map(len, _STYLES)) + 2
# Device code that no wrapper leads to, by its key in a report.
_ELSEWHERE = {
    "embedded": tables.LOADED,
    "relocatable": "relocatable, what the code above was linked from",
}


def show_inspection(report: Mapping[str, Any], *, everything: bool = False) -> None:
    """`verify.inspect`'s report: its binaries, their units if they are in it, and GPUs.

    everything: all of it, however long, and not a summary.
    """
    console = out()
    _show_heading(console, report)
    data_files = [] if everything else _grouped(report)
    binaries = [one for one in report["binaries"] if not data_files or not _is_data(one)]
    gpus = None
    if not everything and reports.is_long(binaries, report["coverage"]):
        _show_summary(console, binaries)
        gpus = reports.GPUS_SHOWN
    else:
        for binary in binaries:
            _show_binary(console, binary)
    if data_files:
        _show_data_files(console, data_files)
    if any(binary["images"] or "embedded" in binary for binary in report["binaries"]):
        _show_coverage(console, report, gpus)
        for line in tables.driver_lines(report):
            write(console, line)
    else:
        write(console, "no GPU code")


def _show_summary(console: Console, binaries: Sequence[Mapping[str, Any]]) -> None:
    write(console, f"\n{reports.title(binaries)}")
    rows, lines = reports.image_rows(binaries), reports.binary_lines(binaries)
    write_rows(console, rows[: reports.IMAGES_SHOWN])
    _show_rest(console, "", rows[reports.IMAGES_SHOWN :])
    write(console, "")
    for line in lines[: reports.BINARIES_SHOWN]:
        write(console, line)
    _show_rest(console, "", lines[reports.BINARIES_SHOWN :])
    if places := reports.place_lines(binaries):
        write(console, "")
        for line in places[: reports.PLACES_SHOWN]:
            write(console, line)
        _show_rest(console, "", places[reports.PLACES_SHOWN :])


def show_verification(report: Mapping[str, Any], *, everything: bool = False) -> None:
    """`verify.report`'s report: a line per check, what it found below it, and GPUs.

    everything: all findings and their details, and not only the first.
    """
    findings_shown = None if everything else FINDINGS_SHOWN
    details_shown = None if everything else DETAILS_SHOWN
    console = out()
    _show_heading(console, report)
    write(console, "")
    for check in report["checks"]:
        mark = f"{check['result']:<{_MARK}}"
        write(console, (mark, _STYLES[check["result"]]), _TITLES[check["name"]])
        findings = sorted(check["findings"], key=lambda one: _SEVERITIES.index(one["severity"]))
        for number, finding in enumerate(findings[:findings_shown]):
            # What must be mended, and the first of its kind, are shown with what they are about.
            brief = number > 0 and finding["severity"] != "wrong" and len(finding["details"]) > 1
            _show_finding(console, finding, 0 if brief and details_shown else details_shown)
        _show_rest(console, " " * _MARK, findings[len(findings[:findings_shown]) :])
    _show_coverage(console, report)


def _show_heading(console: Console, report: Mapping[str, Any]) -> None:
    write(console, (report["file"], "bold"))
    wheel = report["wheel"]
    if wheel:
        write(console, f"{wheel['name']} {wheel['version']} for {', '.join(wheel['tags'])}")


def _show_coverage(console: Console, report: Mapping[str, Any], shown: int | None = None) -> None:
    rows = tables.coverage_rows(report)
    write(console, "")
    write_rows(console, rows[:shown])
    _show_rest(console, "", rows[len(rows[:shown]) :])
    size = tables.not_counted(report)
    if size:
        write(console, f"not counted: {text.size(size)} of code that libraries load themselves")


def _show_binary(console: Console, binary: Mapping[str, Any]) -> None:
    write(console, f"\n{tables.binary_heading(binary)}")
    write_rows(console, tables.image_rows(binary["images"]))
    for key, what in _ELSEWHERE.items():
        for place in binary.get(key, []):
            write(console, tables.place_heading(place, what))
            write_rows(console, tables.image_rows(place["images"]))
    for unit in binary.get("units", []):
        write(console, f"\n  {tables.unit_heading(unit)}")
        for kernel in unit["kernels"]:
            write_name(console, f"    {kernel}")


def _is_data(binary: Mapping[str, Any]) -> bool:
    from ..verify.contents import DEVICE_ONLY

    return bool(binary["machine"] == DEVICE_ONLY)


def _grouped(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The data files of a wheel, where they are too many to be shown one by one."""
    files = [one for one in report["binaries"] if report["wheel"] and _is_data(one)]
    several = len(files) > DATA_FILES_SHOWN and not any("units" in one for one in files)
    return files if several else []


def _show_data_files(console: Console, files: Sequence[Mapping[str, Any]]) -> None:
    """Files of a wheel that are device code alone: what they hold together."""
    write(console, f"\n{tables.data_files_heading(files)}")
    write_rows(console, tables.image_rows(tables.united_images(files)))


def _show_finding(console: Console, finding: Mapping[str, Any], shown: int | None) -> None:
    severity = finding["severity"]
    where = f"{finding['where']}: " if finding["where"] else ""
    mark = "" if severity == "note" else f"{severity}: "
    details = finding["details"]
    # A line of its own, for each of many findings, would make the report long.
    more = " (--all shows more)" if details and shown == 0 else ""
    sentence = readable(f"{where}{finding['what']}")
    write(console, " " * _MARK, (mark, _STYLES[severity]), f"{sentence}{more}")
    if more:
        return
    for line in details[:shown]:
        write(console, " " * _MARK, f"  {readable(line)}")
    _show_rest(console, " " * (_MARK + 2), details[len(details[:shown]) :])


def _show_rest(console: Console, indent: str, rest: Sequence[object]) -> None:
    if rest:
        write(console, f"{indent}and {len(rest)} more (--all shows them)")


IMAGES_SHOWN = 12  # rows: architectures and kinds
BINARIES_SHOWN = 5
PLACES_SHOWN = 5
GPUS_SHOWN = 24  # rows: compute capabilities

_LONGEST = 55  # lines of a report that is shown as a whole
_HEADING = 3  # lines around the rows of a table, and between tables


def is_long(binaries: Sequence[Mapping[str, Any]], coverage: Sized) -> bool:
    """Whether files and GPUs, as `verify.inspect` reports them, are too many to be shown whole."""
    rows = [len(binary["images"]) + 1 for binary in binaries]
    rows += [len(place["images"]) + 1 for binary in binaries for place in _places(binary)]
    return sum(rows) + _HEADING * (len(binaries) + 1) + len(coverage) > _LONGEST


def title(binaries: Sequence[Mapping[str, Any]]) -> str:
    """`3 files with GPU code (12 containers, 345 images), 14 without`."""
    having = [binary for binary in binaries if _size(binary)]
    images = sum(image["count"] for binary in having for image in binary["images"])
    containers = sum(binary["containers"] for binary in having)
    held = f"{text.count(containers, 'container')}, {text.count(images, 'image')}"
    rest = f", {len(binaries) - len(having)} without" if len(having) < len(binaries) else ""
    return f"{text.count(len(having), 'file')} with GPU code ({held}){rest}"


def image_rows(binaries: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The images of all files together, the most bytes first."""
    images = tables.united_images(binaries)
    return tables.image_rows(sorted(images, key=lambda image: -image["bytes"]))


def binary_lines(binaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each file with GPU code, the largest first."""
    sizes = list(map(_size, binaries))
    ordered = sorted(zip(sizes, range(len(sizes)), strict=True), key=lambda one: (-one[0], one[1]))
    return [
        f"{tables.binary_heading(binaries[place])}: {text.size(size)}"
        for size, place in ordered
        if size
    ]


def place_lines(binaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each place where a library keeps device code that it loads itself."""
    return [
        tables.place_heading(place, f"in {binary['path']}, {tables.LOADED}")
        for binary in binaries
        for place in binary.get("embedded", [])
    ]


def _size(binary: Mapping[str, Any]) -> int:
    """Bytes of its device code."""
    return sum(int(part["bytes"]) for part in [*binary["images"], *_places(binary)])


def _places(binary: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [*binary.get("embedded", []), *binary.get("relocatable", [])]
