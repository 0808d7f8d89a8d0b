"""The task `rebuild`: a wheel built again from what it says of itself."""

from __future__ import annotations

from invoke.context import Context
from invoke.tasks import task

from . import ui
from .ui.arguments import count_of, file_of, folder_of, size_of
from .ui.ending import reported


@task(
    auto_shortflags=False,
    positional=["wheel"],
    help={
        "wheel": "a wheel that `invoke build` made",
        "engine": "where the work runs: process or docker (default: as for build; but docker, "
        "where that can be, for a wheel that was not built here)",
        "from-store": "slices: what was compiled before is taken from the store; never: everything "
        "is compiled, with an empty store (default: slices)",
        "yes": "do not ask before code of a wheel that was not built here is run",
        "find": "a folder with pinned files, under whatever name: none that lies there is fetched",
        "shards": "workers to spread the work over (default: one per architecture)",
        "jobs": "compiler calls at a time (default: one per core)",
        "memory": "what all compiler calls together may use, as 48GiB or 800MiB "
        "(default: what is free, less a margin)",
        "out": "folder in which the rebuilt wheel is kept if it is another one (default: rebuilt)",
        "json": "print one JSON document instead of the report",
    },
)
def rebuild(
    c: Context,
    wheel: str,
    engine: str | None = None,
    from_store: str = "slices",
    yes: bool = False,
    find: str | None = None,
    shards: str | None = None,
    jobs: str | None = None,
    memory: str | None = None,
    out: str = "rebuilt",
    json: bool = False,
) -> None:
    """
    Build a wheel again from its own lock, and compare the bytes.

    Recipe, pins and architectures are the wheel's, whatever this checkout would use today; a
    finished wheel in the store is not used, and nothing is written to it. Of a wheel that was not
    built on this machine it says first what would run, and asks. Where the result is another wheel,
    a report says what differs, and the exit code is 15.

      invoke rebuild dist/causal_conv1d-1.5.2+cu130torch2.11.sm86-cp311-cp311-linux_x86_64.whl
      invoke rebuild W.whl --from-store never
      invoke rebuild W.whl --engine docker --json
    """
    with reported():
        from .pipeline import Effort
        from .rebuild import RebuildRequest, refusal
        from .rebuild import rebuild as build_again

        path = file_of(wheel)
        effort = Effort(
            count_of("--shards", shards),
            count_of("--jobs", jobs),
            size_of("--memory", memory),
            folder_of("--out", out),
        )
        place = None if find is None else folder_of("--find", find)
        with ui.board() as emit:
            request = RebuildRequest(path, engine, from_store, place, effort)
            rebuilt = build_again(request, emit, ui.consent(yes))
        show = ui.show_json if json else ui.show_rebuild
        show(rebuilt.to_json())
        if not rebuilt.comparison.identical:
            raise refusal(rebuilt, path)
