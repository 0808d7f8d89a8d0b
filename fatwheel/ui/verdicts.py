"""What `invoke inspect` and `invoke verify` found, for people, to stdout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from .. import text
from . import tables
from .console import out, write, write_cut, write_rows

FINDINGS_SHOWN = 20  # of one check
DETAILS_SHOWN = 12  # of one finding

_STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red", "note": "dim"}
_TITLES = {
    "record": "RECORD: files, hashes and sizes",
    "provenance": "what it says of its own build",
    "names": "names in the file name, METADATA and WHEEL",
    "label": "architectures and CUDA in the version",
    "platform": "platform tags and binaries",
    "binaries": "binaries that can be read",
    "modules": "Python modules",
    "imports": "libraries that are needed",
    "coverage": "GPUs that are served",
    "parity": "kernels and parameters, the same in all images of a unit",
    "compression": "compression that drivers can read",
    "signature": "signature",
    "import": "import in a clean environment",
    "gpu": "this machine's GPU",
}
_MARK = max(map(len, _STYLES)) + 2


def show_inspection(report: Mapping[str, Any]) -> None:
    """`verify.inspect`'s report: its binaries, their units if they are in it, and GPUs."""
    console = out()
    _show_heading(console, report)
    for binary in report["binaries"]:
        _show_binary(console, binary)
    if any(binary["images"] for binary in report["binaries"]):
        _show_coverage(console, report)
    else:
        write(console, "no GPU code")


def show_verification(report: Mapping[str, Any]) -> None:
    """`verify.report`'s report: a line per check, what it found below it, and GPUs."""
    console = out()
    _show_heading(console, report)
    write(console, "")
    for check in report["checks"]:
        mark = f"{check['result']:<{_MARK}}"
        write(console, (mark, _STYLES[check["result"]]), _TITLES[check["name"]])
        findings = check["findings"]
        for finding in findings[:FINDINGS_SHOWN]:
            _show_finding(console, finding)
        _show_rest(console, "", findings[FINDINGS_SHOWN:])
    _show_coverage(console, report)


def _show_heading(console: Console, report: Mapping[str, Any]) -> None:
    write(console, (report["file"], "bold"))
    wheel = report["wheel"]
    if wheel:
        write(console, f"{wheel['name']} {wheel['version']} for {', '.join(wheel['tags'])}")


def _show_coverage(console: Console, report: Mapping[str, Any]) -> None:
    write(console, "")
    write_rows(console, tables.coverage_rows(report["coverage"]))


def _show_binary(console: Console, binary: Mapping[str, Any]) -> None:
    containers = text.count(binary["containers"], "container")
    kernels = text.count(binary["kernels"], "kernel")
    kind = f"{binary['format']}, {binary['machine']}"
    write(console, f"\n{binary['path']}  ({kind}; {containers}, {kernels})")
    write_rows(console, tables.image_rows(binary["images"]))
    for unit in binary.get("units", []):
        write(console, f"\n  {tables.unit_heading(unit)}")
        for kernel in unit["kernels"]:
            write_cut(console, f"    {kernel}")


def _show_finding(console: Console, finding: Mapping[str, Any]) -> None:
    severity = finding["severity"]
    where = f"{finding['where']}: " if finding["where"] else ""
    mark = "" if severity == "note" else f"{severity}: "
    write(console, " " * _MARK, (mark, _STYLES[severity]), f"{where}{finding['what']}")
    for line in finding["details"][:DETAILS_SHOWN]:
        write(console, " " * _MARK, f"  {line}")
    _show_rest(console, "  ", finding["details"][DETAILS_SHOWN:])


def _show_rest(console: Console, indent: str, rest: Sequence[object]) -> None:
    if rest:
        write(console, " " * _MARK, f"{indent}and {len(rest)} more")
