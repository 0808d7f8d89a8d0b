"""What `invoke doctor` and `invoke setup` found and did, for people, to stdout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from .console import Part, out, write

_STYLES = {
    "ok": "green",
    "warning": "yellow",
    "wrong": "bold red",
    "not applicable": "dim",
    "done": "green",
    "there": "dim",
    "failed": "bold red",
    "left": "yellow",
}
_MARK = len("warning") + 2
_TITLE = 24  # columns: the longest title, and a gap
_RIGHTS = " (administrator)"


def show_health(report: Mapping[str, Any]) -> None:
    """`doctor.report`'s report: a line per check, why and what to do below it, and a summary."""
    console = out()
    _show_heading(console, report, report["host"])
    write(console, "")
    for check in report["checks"]:
        if check["status"] != "not applicable":
            _show_check(console, check)
    skipped = [check["title"] for check in report["checks"] if check["status"] == "not applicable"]
    if skipped:
        write(console, "")
        write(console, ("not applicable: ", "dim"), ", ".join(skipped))
    counts = (f"{number} {status}" for status, number in report["summary"].items() if number)
    write(console, "")
    write(console, (", ".join(counts), "bold"))


def show_setup(preparation: Mapping[str, Any]) -> None:
    """`doctor.setup`'s result: what was done, and what is left to do, with its commands."""
    console = out()
    _show_heading(console, preparation)
    write(console, "")
    for step in preparation["steps"]:
        status = step["status"]
        mark = (f"{status:<{_MARK}}", _STYLES[status])
        write(console, mark, f"{step['name']:<{_TITLE}}{step['what']}")
    if not preparation["left"]:
        write(console, "")
        write(console, ("nothing is left to do", "bold"))
        return
    write(console, "")
    write(console, ("left to do:", "bold"))
    last = None
    for item in preparation["left"]:
        if item["check"] != last:
            last = item["check"]
            mark = (f"{item['status']:<{_MARK}}", _STYLES[item["status"]])
            write(console, mark, f"{item['title']}: {item['found']}")
        _show_fix(console, item, " " * _MARK)


def _show_heading(console: Console, about: Mapping[str, Any], host: str = "") -> None:
    parts: list[Part] = [(about["toolchain"], "bold")]
    parts.append(f", Python {about['python']}, {about['engine']} engine")
    parts.append(f", on {host}" if host else "")
    write(console, *parts)


def _show_check(console: Console, check: Mapping[str, Any]) -> None:
    status = check["status"]
    mark = (f"{status:<{_MARK}}", _STYLES[status])
    write(console, mark, f"{check['title']:<{_TITLE}}{check['found']}")
    indent = " " * (_MARK + _TITLE)
    if check["why"]:
        write(console, indent, ("why: ", "dim"), check["why"])
    for fix in check["fixes"]:
        _show_fix(console, fix, indent)


def _show_fix(console: Console, fix: Mapping[str, Any], indent: str) -> None:
    """What to do; its command on a line of its own, so that it can be copied."""
    rights = (_RIGHTS, "yellow") if fix["administrator"] else ""
    write(console, indent, ("fix: ", "cyan"), fix["say"], rights)
    if fix["command"]:
        write(console, indent, f"     {fix['command']}")
