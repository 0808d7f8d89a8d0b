"""The task `lock`: a toolchain's pins, checked and completed."""

from __future__ import annotations

from invoke.context import Context
from invoke.tasks import task

from . import ui
from .ui.ending import reported


@task(
    auto_shortflags=False,
    help={
        "toolchain": "a file of toolchains/ (default: all of them)",
        "check": "write nothing and fetch no file, only compare",
        "json": "print one JSON document instead of tables",
    },
)
def lock(c: Context, toolchain: str | None = None, check: bool = False, json: bool = False) -> None:
    """
    Compare a toolchain's pins with what is published, and fill in what is not known yet.

    Sizes, sha256 and digests of images that are missing are asked for and written into the
    toolchain's file; comments stay. Where nobody publishes the sha256 of a file, it is fetched
    once, and the table says so. What is pinned and is published otherwise stays as it is, and the
    exit code is 5; it is 4 where something could not be reached.

      invoke lock --toolchain windows-msvc17.8-cuda12.3
      invoke lock --check --json
    """
    with reported():
        from .cache import cache_folder
        from .images.ingredients import FILES
        from .load import list_toolchains
        from .prepare import TOOLCHAINS
        from .toolchain.lock import lock_toolchains, refusal

        names = list_toolchains(TOOLCHAINS) if toolchain is None else (toolchain,)
        with ui.board() as emit:
            reports = lock_toolchains(
                names, TOOLCHAINS, cache_folder() / FILES, emit, write=not check
            )
        if json:
            ui.show_json({"toolchains": [report.to_json() for report in reports]})
        else:
            ui.show_locks(reports)
        trouble = refusal(reports)
        if trouble:
            raise trouble
