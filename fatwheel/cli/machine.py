"""Commands for this machine: doctor, setup, cache."""

from __future__ import annotations

from invoke.context import Context
from invoke.tasks import task

from .arguments import CUDA, LICENSE, MSVC, PLATFORM, accept_license, reported, size_of

_HELP = {
    "toolchain": (
        "compilers and libraries: a file of toolchains/ (default: the one for this "
        "machine, or for the container engine)"
    ),
    "cuda": CUDA,
    "torch": "torch of the toolchain, such as 2.8 (default: as for build)",
    "python": "Python to build for, such as 3.11 (default: as for build)",
    "platform": PLATFORM,
    "msvc": MSVC,
    "engine": "where builds would run: process or docker (default: as for build)",
    "json": "print one JSON document instead of the report",
}


@task(auto_shortflags=False, help=_HELP)
def doctor(
    c: Context,
    toolchain: str | None = None,
    cuda: str | None = None,
    torch: str | None = None,
    python: str | None = None,
    platform: str | None = None,
    msvc: str | None = None,
    engine: str | None = None,
    json: bool = False,
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
        from ..doctor.report import diagnose, refusal
        from ..pipeline.resolve import ToolchainRequest
        from .results import show_health, show_json

        asked = ToolchainRequest("", toolchain, cuda, torch, python, platform, msvc=msvc)
        report = diagnose(asked, engine)
        show = show_json if json else show_health
        show(report.to_json())
        if not report.ok:
            raise refusal(report)


@task(auto_shortflags=False, help={**_HELP, "accept-msvc-license": LICENSE})
def setup(
    c: Context,
    toolchain: str | None = None,
    cuda: str | None = None,
    torch: str | None = None,
    python: str | None = None,
    platform: str | None = None,
    msvc: str | None = None,
    engine: str | None = None,
    accept_msvc_license: bool = False,
    json: bool = False,
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
        from ..doctor.report import refusal
        from ..doctor.setup import prepare_workstation
        from ..pipeline.resolve import ToolchainRequest
        from .progress import board
        from .results import show_json, show_setup

        asked = ToolchainRequest("", toolchain, cuda, torch, python, platform, msvc=msvc)
        accept_license(accept_msvc_license)
        with board() as emit:
            done = prepare_workstation(asked, engine, emit)
        show = show_json if json else show_setup
        show(done.to_json())
        if done.failure:
            raise done.failure
        if not done.report.ok:
            raise refusal(done.report)


@task(
    auto_shortflags=False,
    help={
        "clean": "empty the store: the next build compiles everything again",
        "limit": (
            "delete the least recently used entries until the store is no larger than this, "
            "such as 20GiB"
        ),
        "check": "read every entry of the store and delete those that are damaged",
        "json": "print one JSON document instead of tables",
    },
)
def cache(
    c: Context,
    clean: bool = False,
    limit: str | None = None,
    check: bool = False,
    json: bool = False,
) -> None:
    """
    Show what the cache holds; check it, shrink it or clean it.

    It lies in the user's cache directory, or where FATWHEEL_CACHE says. The store in it keeps
    what was compiled; it stays below a limit by itself. Everything in the cache can be made
    again: to be rid of downloads and environments too, delete the folder while nothing builds.

      invoke cache
      invoke cache --limit 20GiB
      FATWHEEL_CACHE=/big/disk invoke cache --clean
    """
    with reported():
        from ..storage.cache import tend_cache
        from .results import show_cache, show_json

        report = tend_cache(check=check, limit=size_of("--limit", limit), clean=clean)
        if json:
            show_json(report.to_json())
        else:
            show_cache(report)
