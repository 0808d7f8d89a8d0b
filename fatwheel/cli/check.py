"""Why an import fails: check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.context import Context
from invoke.tasks import task

from .. import text
from .arguments import MANGLED, OptionalTask, count_of, reported

if TYPE_CHECKING:
    from rich.console import Console

    from ..check.causes import Finding
    from ..check.report import Report

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
    Says one cause, the first, and one command. At last the package is imported in a process of its
    own, and its code runs as you. Where something is wrong, the exit code is 13.

      python -m fatwheel check flash-attn
      invoke check flash-attn --python .venv
      invoke check flash_attn-2.8.3+cu130torch2.11.sm90-cp311-cp311-linux_x86_64.whl
      invoke check https://ORG.github.io/REPO/
    """
    with reported(mangled):
        from ..check.report import Asked, refusal
        from ..check.report import check as check_all

        limit = count_of("--seconds", seconds) or Asked.seconds
        report = check_all(Asked(what or "", python, not no_import, limit))
        if json:
            from .results import show_json

            show_json(report.to_json())
        else:
            _show(report, everything=all)
        if not report.ok:
            raise refusal(report)


def _show(report: Report, *, everything: bool) -> None:
    """The verdict and its cure first, then what was found, the worst first."""
    from ..check.causes import in_order
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
        write(console, f"\n--all shows {more}")


def _environment(report: Report) -> list[str]:
    target, driver = report.target, report.target.driver
    words = [target.title, report.torch.title if report.torch else "no torch"]
    known = f"CUDA {driver.cuda[0]}.{driver.cuda[1]}" if driver.cuda else ""
    if driver.version or known:
        words.append(f"driver {' '.join(filter(None, [driver.version, known and f'({known})']))}")
    else:
        words.append("no NVIDIA driver that answers")
    return words + [f"{gpu.name} ({gpu.capability})" for gpu in driver.gpus]


def _show_finding(console: Console, found: Finding, *, everything: bool) -> None:
    from ..check.causes import CAUSES
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


def _show_details(console: Console, found: Finding, *, everything: bool) -> None:
    from .console import write, write_name

    shown = found.details if everything else found.details[:DETAILS_SHOWN]
    for line in shown:
        write_name(console, f"{_INDENT}{line}")
    if len(shown) < len(found.details):
        write(console, f"{_INDENT}and {len(found.details) - len(shown)} more")


def _readable(words: str) -> str:
    from .names import readable

    return readable(words)
