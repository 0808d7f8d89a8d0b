"""What `invoke rebuild` found, for people, to stdout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import text
from .comparisons import show_comparison
from .console import out, write


def show_rebuild(report: Mapping[str, Any]) -> None:
    """How much of the wheel was made again, whether it is the same, and if not, what differs."""
    console = out()
    slices, compiled = report["slices"], report["compiled"]
    made = f"{text.count(slices, 'slice')}: {compiled} compiled, {slices - compiled} from the store"
    write(console, f"built again, {made}")
    show_comparison(report["comparison"])
    if report["causes"]:
        write(console, "\n", ("what was another this time", "bold"))
        for cause in report["causes"]:
            write(console, f"  {cause}")
