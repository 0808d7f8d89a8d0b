"""Commands for this machine: doctor, setup, check, cache, worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.context import Context
from invoke.tasks import task

from .. import text
from .arguments import (
    CUDA,
    LICENSE,
    MANGLED,
    MSVC,
    PLATFORM,
    OptionalTask,
    accept_license,
    count_of,
    reported,
    size_of,
)

if TYPE_CHECKING:
    from rich.console import Console

    from ..check.cures import Symptom
    from ..check.report import Diagnosis


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
    "engine": "where builds would run: process, docker or dask (default: as for build)",
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
        from ..doctor.report import prepare_workstation, refusal
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
        "remote": "also ask whether this remote can be read (default: FATWHEEL_REMOTE)",
        "json": "print one JSON document instead of tables",
    },
)
def cache(
    c: Context,
    clean: bool = False,
    limit: str | None = None,
    check: bool = False,
    remote: str | None = None,
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
        from ..sharing.remote import remote_of
        from ..sharing.uses import look_at
        from ..storage.cache import tend_cache
        from .results import show_cache, show_json, show_remote

        asked = remote_of(remote)
        report = tend_cache(check=check, limit=size_of("--limit", limit), clean=clean)
        found = look_at(asked) if asked else None
        if json:
            show_json({**report.to_json(), "remote": found.to_json() if found else None})
            return
        show_cache(report)
        if found:
            show_remote(found)


@task(
    auto_shortflags=False,
    positional=["address"],
    help={
        "address": "the scheduler's address: tcp://HOST:PORT, or tls://HOST:PORT where it uses "
        "certificates",
        "jobs": "compiler calls to run at the same time (default: one per core)",
        "memory": "memory for all compiler calls together, such as 48GiB (default: what is free, "
        "less a margin)",
        "name": "what the worker is called (default: its address)",
        "engine": "where compilers run: process, or docker (each build's in a container) (default: "
        "process)",
        "unchecked": "start without doctor's checks, as for a service that was checked once",
        **{key: _HELP[key] for key in ("toolchain", "cuda", "torch", "python", "platform")},
        "accept-msvc-license": LICENSE,
    },
)
def worker(
    c: Context,
    address: str,
    jobs: str | None = None,
    memory: str | None = None,
    name: str | None = None,
    engine: str = "process",
    unchecked: bool = False,
    toolchain: str | None = None,
    cuda: str | None = None,
    torch: str | None = None,
    python: str | None = None,
    platform: str | None = None,
    accept_msvc_license: bool = False,
) -> None:
    """
    Lend this machine to builds that use a Dask scheduler: `invoke build --scheduler ADDRESS`.

    First checks, as `doctor` does, whether this machine can build with the toolchain named, or
    with its usual one. Then it compiles what builds send, whatever their toolchain, until Ctrl-C,
    or until the scheduler goes away (exit code 14). It fetches toolchains into its own cache.
    Whoever can connect to the scheduler can run programs here as you: see docs/cluster.md.

      invoke worker tcp://pool:8786
      invoke worker tls://pool:8786 --jobs 8 --memory 24GiB --name anna
      invoke worker tcp://pool:8786 --engine docker
      invoke worker tcp://pool:8786 --platform windows-x86_64 --accept-msvc-license
    """
    with reported():
        from ..doctor.report import diagnose, refusal
        from ..engines.base import Limits
        from ..engines.cluster import address_of, check_toolchain, check_worker, serve
        from ..engines.registry import toolchain_for
        from ..machine import cores, free_memory
        from ..pipeline.resolve import ToolchainRequest, choose_cells
        from .console import show_note
        from .results import show_health

        scheduler = address_of(address, "ADDRESS")
        check_worker(engine)
        accept_license(accept_msvc_license)
        tools = ToolchainRequest(toolchain_for("dask"), toolchain, cuda, torch, python, platform)
        check_toolchain(choose_cells(tools)[0].toolchain, engine)
        asked = Limits(
            count_of("--jobs", jobs) or cores(), size_of("--memory", memory) or free_memory()
        )
        if not unchecked:
            report = diagnose(tools, engine)
            if not report.ok:
                show_health(report.to_json())
                raise refusal(report)
        serve(scheduler, name, asked, engine, show_note)


# -- why an import fails ---------------------------------------------------------------------------


FINDINGS_SHOWN = 5  # beside the one that the verdict goes by, unless everything is asked for
DETAILS_SHOWN = 3  # of a finding, unless everything is asked for

_INDENT = " " * 11
_STYLES = {"wrong": "bold red", "warning": "yellow", "note": "dim"}


@task(
    klass=OptionalTask,
    auto_shortflags=False,
    positional=["what"],
    help={
        "what": "an installed package, a wheel, or the URL of an index: a project's page or a "
        "fatwheel site (default: torch and the driver)",
        "python": "the Python of the environment to check, or its folder (default: the one that "
        "runs fatwheel)",
        "no-import": "only read files: import nothing",
        "seconds": "how long the import may take (default: 300)",
        "all": "show everything that was found, and all of each",
        "mangled": MANGLED,
        "json": "print one JSON document instead of the report",
    },
)
def check(
    c: Context,
    what: str | None = None,
    python: str = "",
    no_import: bool = False,
    seconds: str | None = None,
    all: bool = False,
    mangled: bool = False,
    json: bool = False,
) -> None:
    """
    Find out why an import fails here, and which command cures it.

    In the environment where it fails, or with --python from elsewhere: Python and tags, what is
    installed, torch and its ABI, libraries that are missing, symbols, the driver, code for the GPU.
    Says one cause, the first, and one command. In the end the package is imported, in a process of
    its own, and its code runs as you. Where something is wrong, the exit code is 13.

      python -m fatwheel check flash-attn
      invoke check flash-attn --python .venv
      invoke check flash_attn-2.8.3+cu130torch2.11.sm90-cp311-cp311-linux_x86_64.whl
      invoke check https://ORG.github.io/REPO/
    """
    with reported(mangled):
        from ..check.report import CheckRequest, refusal
        from ..check.report import check as check_all

        limit = count_of("--seconds", seconds) or CheckRequest.seconds
        report = check_all(CheckRequest(what or "", python, not no_import, limit))
        if json:
            from .results import show_json

            show_json(report.to_json())
        else:
            _show(report, everything=all)
        if not report.ok:
            raise refusal(report)


def _show(report: Diagnosis, *, everything: bool) -> None:
    """The verdict and its cure first, then what was found, the worst first."""
    from ..check.cures import in_order
    from .console import out, write

    console = out()
    write(console, (report.title, "bold"), f" in {report.target.prefix}")
    write(console, f"  {', '.join(_environment(report))}")
    write(console, "")
    style = "green" if report.ok else "bold red"
    write(console, ("ok: " if report.ok else "wrong: ", style), _readable(report.verdict))
    decisive = report.decisive
    if decisive:
        _show_details(console, decisive, everything=everything)
    if report.cure:
        ending = ":" if report.cure.command else ""
        write(console, ("cure: ", "cyan"), f"{report.cure.say}{ending}")
        if report.cure.command:
            write(console, (f"  {report.cure.command}", "bold"))
    findings = [
        one
        for one in in_order(report.findings)
        if one is not decisive and one.what != report.verdict
    ]
    grave = [one for one in findings if one.severity != "note"]
    shown = findings if everything else grave[:FINDINGS_SHOWN]
    if shown:
        write(console, "")
    for found in shown:
        _show_finding(console, found, everything=everything)
    if len(shown) < len(findings):
        more = text.count(len(findings) - len(shown), "more finding")
        write(console, "")
        write(console, f"--all shows {more}")


def _environment(report: Diagnosis) -> list[str]:
    target, driver = report.target, report.target.driver
    words = [target.title, report.torch.title if report.torch else "no torch"]
    known = f"CUDA {driver.cuda[0]}.{driver.cuda[1]}" if driver.cuda else ""
    if driver.version or known:
        words.append(f"driver {' '.join(filter(None, [driver.version, known and f'({known})']))}")
    else:
        words.append("no NVIDIA driver that answers")
    return words + [f"{gpu.name} ({gpu.capability})" for gpu in driver.gpus]


def _show_finding(console: Console, found: Symptom, *, everything: bool) -> None:
    from ..check.cures import CAUSES
    from .console import write

    where = f"{found.where}: " if found.where else ""
    mark = f"{found.severity:<{len(_INDENT)}}"
    write(console, (mark, _STYLES[found.severity]), f"{CAUSES[found.cause]}: ",
          _readable(f"{where}{found.what}"))  # fmt: skip
    _show_details(console, found, everything=everything)
    if found.cure and everything:
        write(console, f"{_INDENT}cure: {found.cure.say}")
        if found.cure.command:
            write(console, f"{_INDENT}  {found.cure.command}")


def _show_details(console: Console, found: Symptom, *, everything: bool) -> None:
    from .console import write, write_name

    shown = found.details if everything else found.details[:DETAILS_SHOWN]
    for line in shown:
        write_name(console, f"{_INDENT}{line}")
    if len(shown) < len(found.details):
        write(console, f"{_INDENT}and {len(found.details) - len(shown)} more")


def _readable(words: str) -> str:
    from .kernelnames import readable

    return readable(words)
