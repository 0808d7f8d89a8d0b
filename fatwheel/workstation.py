"""The tasks of a team's workstation: check it, prepare it.

Like tasks.py, whose part this is: arguments and help only; each task makes one call.
"""

from __future__ import annotations

from invoke.context import Context
from invoke.tasks import task

from . import ui
from .ui.ending import reported

_HELP = {
    "toolchain": "compilers and libraries: a file of toolchains/ (default: that of this machine, "
    "or of the container engine)",
    "engine": "where builds would run: process or docker (default: process where the toolchain "
    "can, else docker)",
    "json": "print one JSON document instead of the report",
}


@task(auto_shortflags=False, help=_HELP)
def doctor(
    c: Context, toolchain: str | None = None, engine: str | None = None, json: bool = False
) -> None:
    """
    Check whether this machine can build, and say what to do where it can't.

    Changes nothing, and waits for nothing longer than half a minute. Where something is wrong the
    exit code is 6; warnings and a missing GPU are no failure.

      invoke doctor
      invoke doctor --engine docker
      invoke doctor --toolchain windows-msvc17.8-cuda12.3 --json
    """
    with reported():
        from .doctor.report import diagnose, refusal

        report = diagnose(toolchain, engine)
        show = ui.show_json if json else ui.show_health
        show(report.to_json())
        if not report.ok:
            raise refusal(report)


@task(auto_shortflags=False, help=_HELP)
def setup(
    c: Context, toolchain: str | None = None, engine: str | None = None, json: bool = False
) -> None:
    """
    Prepare this machine for building, as far as that needs no administrator.

    Makes the cache's folder, fetches the toolchain and installs it: as an environment, or as
    images for the container engine. What is left, and needs an administrator or a decision, is
    printed with its commands. Run it again at any time: what is there stays.

      invoke setup
      invoke setup --engine docker --json
    """
    with reported():
        from .doctor.report import refusal
        from .doctor.setup import prepare_workstation

        with ui.board() as emit:
            done = prepare_workstation(toolchain, engine, emit)
        show = ui.show_json if json else ui.show_setup
        show(done.to_json())
        if done.failure:
            raise done.failure
        if not done.report.ok:
            raise refusal(done.report)
