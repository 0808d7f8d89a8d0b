"""What `invoke inspect` and `invoke verify` found, for people, to stdout.

A report of `inspect` that nobody would read is replaced by sums and the largest of its files: less
than 60 lines. --all shows everything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import groupby
from typing import Any, Literal, NamedTuple

from rich.console import Console

from .. import text
from . import tables
from .console import out, write, write_cut, write_name, write_rows
from .kernelnames import readable
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
    if not everything and is_long(binaries, report["coverage"]):
        _show_summary(console, binaries)
        gpus = GPUS_SHOWN
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
    write(console, "")
    write(console, title(binaries))
    rows, lines = _image_rows(binaries), binary_lines(binaries)
    write_rows(console, rows[:IMAGES_SHOWN])
    _show_rest(console, "", rows[IMAGES_SHOWN:])
    write(console, "")
    for line in lines[:BINARIES_SHOWN]:
        write(console, line)
    _show_rest(console, "", lines[BINARIES_SHOWN:])
    if places := place_lines(binaries):
        write(console, "")
        for line in places[:PLACES_SHOWN]:
            write(console, line)
        _show_rest(console, "", places[PLACES_SHOWN:])


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
    # Here, because it takes pydantic, and checks in bare environments have none.
    from ..provenance.record import built_how

    write(console, (report["file"], "bold"))
    wheel = report["wheel"]
    if wheel:
        write(console, f"{wheel['name']} {wheel['version']} for {', '.join(wheel['tags'])}")
        for word in wheel.get("unproven", ()):
            write(console, (built_how(word), "yellow"))


def _show_coverage(console: Console, report: Mapping[str, Any], shown: int | None = None) -> None:
    rows = tables.coverage_rows(report)
    write(console, "")
    write_rows(console, rows[:shown])
    _show_rest(console, "", rows[len(rows[:shown]) :])
    size = tables.not_counted(report)
    if size:
        write(console, f"not counted: {text.size(size)} of code that libraries load themselves")


def _show_binary(console: Console, binary: Mapping[str, Any]) -> None:
    write(console, "")
    write(console, tables.binary_heading(binary))
    write_rows(console, tables.image_rows(binary["images"]))
    for key, what in _ELSEWHERE.items():
        for place in binary.get(key, []):
            write(console, tables.place_heading(place, what))
            write_rows(console, tables.image_rows(place["images"]))
    for unit in binary.get("units", []):
        write(console, "")
        write(console, f"  {tables.unit_heading(unit)}")
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
    write(console, "")
    write(console, tables.data_files_heading(files))
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


def _image_rows(binaries: Sequence[Mapping[str, Any]]) -> list[Row]:
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


# -- two wheels ------------------------------------------------------------------------------------


ROWS_SHOWN = 36  # of all files
ROWS_OF_FILE = 16
TOOL_LINES_SHOWN = 16  # of diffoscope

_LISTS = {
    "pins": "likely causes: what went into the wheels",
    "files": "files",
    "modes": "permissions",
    "archive": "the archive",
}

Found = Mapping[str, Any]  # a difference, as the report has it


class DifferenceRow(NamedTuple):
    """A line, indented to its depth.

    Of one that ends with a name, and of what is quoted from a file, a terminal shows as much as it
    has room for. Names in what is quoted stay as they are.
    """

    depth: int
    words: str
    kind: Literal["words", "name", "quoted"] = "words"


def show_comparison(report: Mapping[str, Any]) -> None:
    """`compare.report`'s report: whether two wheels are the same, and what is not."""
    console = out()
    one, other = report["one"], report["other"]
    if report["identical"]:
        write(console, ("identical", "bold green"), f": sha256 {one['sha256']}")
        return
    write(console, ("not the same", "bold red"))
    for which, side in (("first ", one), ("second", other)):
        write(console, f"  {which} {side['file']}, {text.size(side['size'])}")
        write(console, f"         sha256 {side['sha256']}")
    _show_blocks(list(_blocks(report["differences"])))
    write(console, "")
    write(console, _rest(report))
    if report["diffoscope"]:
        _show_tool(report["diffoscope"])


def _show_blocks(blocks: Sequence[tuple[str, list[DifferenceRow]]]) -> None:
    """Each file's rows, or each list's, as far as there is room; the rest is counted."""
    console = out()
    left = ROWS_SHOWN
    for number, (heading, rows) in enumerate(blocks):
        if left <= 0:
            write(console, "")
            write(console, f"and {len(blocks) - number} more: see --json")
            return
        shown = rows[: min(left, ROWS_OF_FILE)]
        left -= len(shown)
        write(console, "")
        write(console, (heading, "bold"))
        for row in shown:
            _show_row(console, row)
        if len(rows) > len(shown):
            write(console, f"  and {text.count(len(rows) - len(shown), 'more line')}: see --json")


def _show_row(console: Console, row: DifferenceRow) -> None:
    line = f"{'  ' * row.depth}{row.words}"
    match row.kind:
        case "name":
            write_name(console, line)
        case "quoted":
            write_cut(console, line)
        case _:
            write(console, readable(line))


def _blocks(differences: Sequence[Found]) -> Iterator[tuple[str, list[DifferenceRow]]]:
    """Headings, with what stands below each."""
    for (heading, listed), some in groupby(differences, _heading):
        rows = _list_rows if listed else _file_rows
        yield heading, list(rows(some))


def _heading(found: Found) -> tuple[str, bool]:
    """What a difference stands below: its file, or the list that its level has."""
    listed = found["level"] in _LISTS
    return (_LISTS[found["level"]] if listed else found["file"]), listed


def _list_rows(differences: Iterable[Found]) -> Iterator[DifferenceRow]:
    for found in differences:
        named = found["file"] is not None and found["level"] != "pins"
        words = f"{found['file']}: {found['what']}" if named else found["what"]
        if found["one"] is not None and found["other"] is not None:
            words = f"{words}: {found['one']} became {found['other']}"
        yield DifferenceRow(1, words)


def _file_rows(differences: Iterable[Found]) -> Iterator[DifferenceRow]:
    """A tree: sections, units and images, kernels and functions, and what differs in each."""
    told: tuple[str, ...] = ()
    for found in differences:
        path = tuple(_path(found))
        fresh = next((n for n, (a, b) in enumerate(zip(path, told, strict=False)) if a != b),
                     min(len(path), len(told)))  # fmt: skip
        for depth, node in enumerate(path[fresh:-1], start=fresh + 1):
            yield DifferenceRow(depth, node)
        yield from _leaf(found, path, fresh < len(path))
        told = path


def _path(found: Found) -> Iterator[str]:
    if found["section"] is not None:
        yield f"section {found['section']}"
    if found["container"] is not None or found["image"] is not None:
        yield ", ".join(filter(None, [_unit(found), found["image"]]))
    if found["symbol"] is not None:
        yield f"{'kernel' if found['image'] else 'function or variable'} {found['symbol']}"


def _unit(found: Found) -> str:
    if found["container"] is None:
        return ""
    place = f"container {found['container']}"
    return f"unit {found['unit']} ({place})" if found["unit"] else place


def _leaf(found: Found, path: Sequence[str], fresh: bool) -> Iterator[DifferenceRow]:
    """What differs, behind the name of where, unless that stands there or may be cut."""
    depth = len(path)
    if path and fresh and found["symbol"] is None:
        yield DifferenceRow(depth, f"{path[-1]}: {found['what']}")
    else:
        if path and fresh:
            yield DifferenceRow(depth, path[-1], "name")
        depth += 1
        yield DifferenceRow(depth, found["what"])
    for sign, line in (("-", found["one"]), ("+", found["other"])):
        if line is not None:
            yield DifferenceRow(depth + 1, f"{sign} {line}", "quoted")


def _rest(report: Mapping[str, Any]) -> str:
    """What is the same, and what must differ."""
    words = [f"the same in both: {text.count(report['same'], 'file')}"]
    if report["follows"]:
        names = ", ".join(name.rpartition("/")[2] for name in report["follows"])
        words.append(f"different only as a consequence: {names}")
    if report["more"]:
        words.append("too many differences: some were not looked for")
    return "; ".join(words)


def _show_tool(said: str) -> None:
    console = out()
    lines = said.splitlines()
    write(console, "")
    write(console, ("diffoscope", "bold"))
    for line in lines[:TOOL_LINES_SHOWN]:
        write_cut(console, f"  {line}")
    if len(lines) > TOOL_LINES_SHOWN:
        rest = text.count(len(lines) - TOOL_LINES_SHOWN, "more line")
        write(console, f"  and {rest}: see --json")
