"""The task `compare`: whether two wheels are the same, and what is not."""

from __future__ import annotations

from invoke.context import Context
from invoke.tasks import task

from . import ui
from .ui.arguments import file_of
from .ui.ending import reported


@task(
    auto_shortflags=False,
    positional=["one", "other"],
    help={
        "one": "a wheel",
        "other": "the wheel that should be the same",
        "json": "print one JSON document instead of the report",
    },
)
def compare(c: Context, one: str, other: str, json: bool = False) -> None:
    """
    Compare two wheels, from their lists of files down to a kernel's machine code.

    Whoever built them. Says at which level they differ first, and names what differs: pins, files,
    lines of text, sections and functions of a binary, units, images and kernels; or only how the
    archive was packed. The exit code is 0 where the wheels are the same, else 15. Where diffoscope
    is installed, its words on the first file that differs follow.

      invoke compare dist/demo.whl again/demo.whl
      invoke compare dist/demo.whl again/demo.whl --json
    """
    with reported():
        from .compare.report import compare_wheels, refusal

        comparison = compare_wheels(file_of(one), file_of(other))
        show = ui.show_json if json else ui.show_comparison
        show(comparison.to_json())
        if not comparison.identical:
            raise refusal(comparison)
