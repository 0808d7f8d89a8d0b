"""Prints the results of commands to stdout, one function per result."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from .. import text
from ..errors import FatwheelError
from ..machine import in_words
from . import tables
from .console import (
    Words,
    out,
    show_error,
    show_note,
    write,
    write_name,
    write_pairs,
    write_rows,
    write_sentences,
    write_verbatim,
)
from .reports import show_comparison
from .tables import Row, some_of

if TYPE_CHECKING:
    from ..containers.imagebuild import ContainerImage
    from ..containers.render import Rendered
    from ..events import WheelMade
    from ..pins.compare import PinState
    from ..pins.lock import LockReport
    from ..pins.published import Values
    from ..pipeline.newrecipe import NewRecipe
    from ..pipeline.overview import Overview, ToolchainOffer
    from ..pipeline.proof import Proof
    from ..pipeline.share import ShareMade
    from ..publish.site import Written
    from ..sharing.uses import RemoteReport
    from ..storage.cache import CacheReport


Show = Callable[[Mapping[str, Any]], None]
Add = Callable[[Mapping[str, Any]], None]

NAMES_SHOWN = 10  # of the kernels that differ


def show_json(data: Any) -> None:
    """One JSON document, as a result."""
    write_verbatim(json.dumps(data, indent=2) + "\n")


def report_each(
    paths: Sequence[Path], do: Callable[[Path, Add], None], show: Show, *, as_json: bool
) -> None:
    """Do something with each file that adds a report: shown as it comes, or, as JSON, in one
    document at the end. The document of one file is its report, that of several a list of theirs.

    A single file's failure is raised. Of several, each failure is shown when it happens, the rest
    is done, and the command ends with the exit code of the first.
    """
    reports: list[Mapping[str, Any]] = []

    def add(report: Mapping[str, Any]) -> None:
        if not as_json:
            if reports:
                write(out(), "")
            show(report)
        reports.append(report)

    codes = []
    try:
        for path in paths:
            try:
                do(path, add)
            except FatwheelError as error:
                if len(paths) == 1:
                    raise
                show_error(error)
                codes.append(error.exit_code)
    finally:  # what was found before a failure is shown, too
        if as_json and (reports or len(paths) > 1):
            show_json(reports if len(paths) > 1 else reports[0])
    if codes:
        raise SystemExit(codes[0])


def show_wheels(wheels: Sequence[WheelMade]) -> None:
    """What was made. Names and hashes are long, so this is no table."""
    write_pairs(out(), tables.wheel_rows(wheels))


def show_share(share: ShareMade) -> None:
    """A share of a build: how much of it there is, and where."""
    where = f"{share.file}, {text.size(share.size)}" if share.file else "the remote has it"
    jobs = f"{text.count(share.jobs, 'job')}, {share.compiled} compiled now"
    write(out(), f"share {share.share}: {jobs}; {where}")


def show_edited(report: Mapping[str, Any]) -> None:
    """A file with more device code, or less; to stderr what was lost on the way."""
    for note in report["notes"]:
        show_note(f"{Path(report['file']).name}: {note}")
    write_pairs(out(), [tables.edited_row(report)])


def show_recipe(written: NewRecipe) -> None:
    """A new recipe: what its build compiles, and to stderr what is left to do."""
    from ..pipeline.newrecipe import questions

    found, console = written.findings, out()
    write_rows(console, [{"unit": unit.name, "compiler": unit.kind} for unit in found.units])
    device = sum(unit.kind == "cuda" for unit in found.units)
    if found.units:
        write(console, f"{text.count(len(found.units), 'unit')}, {device} of them with CUDA code")
    write(console, f"written to {written.file}")
    for question in questions(written):
        show_note(question)
    show_note(f"try it: invoke build --kernel {written.file.parent.name} --arch 80")


def show_proof(proof: Proof) -> None:
    """Which ways to compile give the same code, and where that is written."""
    console = out()
    archs = ", ".join(str(arch) for arch in proof.archs)
    compared = f"{text.count(proof.kernels, 'kernel')} in {text.count(len(proof.units), 'unit')}"
    for way in proof.ways:
        different = proof.different(way)
        how = _WAYS_IN_WORDS[way]
        if way in proof.same:
            write(console, (f"same code with {how}", "green"), f" for {archs}: {compared}")
            continue
        write(console, (f"different code with {how}", "yellow"), f" for {archs}: {compared}")
        for name in different[:NAMES_SHOWN]:
            write_name(console, f"  {name}")
        if len(different) > NAMES_SHOWN:
            write(console, f"  and {len(different) - NAMES_SHOWN} more")
        if same := sorted(proof.same_units(way)):
            write(
                console, f"  the same in {some_of(same)}: builds may go this way with these alone"
            )
    write(console, f"written to {proof.path}")


_WAYS_IN_WORDS = {
    "shared": "a shared front",
    "split": "split fronts",
    "both": "a shared front that is split",
}


def show_capture(report: Mapping[str, Any], *, options: bool) -> None:
    """What a project's build would compile and link. options: those of each unit, too."""
    console = out()
    units, cuda = report["units"], [unit for unit in report["units"] if unit["kind"] == "cuda"]
    counted = f"{text.count(len(units), 'unit')}, {len(cuda)} with device code"
    write(console, (f"{report['project']} {report['version']}: {counted}", "bold"))
    write_rows(console, tables.unit_rows(units))
    for unit in units if options else ():
        write(console, "")
        write(console, (unit["name"], "bold"))
        write(console, shlex.join([*unit["preprocessor"], *unit["codegen"], unit["source"]]))
    for words in report["links"]:
        write(console, "")
        write(console, ("link", "bold"))
        write(console, shlex.join(words))
    if report["shares"]:
        write(console, "")
        write_rows(console, tables.share_rows(report["shares"]))


def show_simulation(report: Mapping[str, Any]) -> None:
    """A table of clusters, and what was assumed."""
    console, worker, network = out(), report["worker"], report["network"]
    calls = text.count(report["calls"], "compiler call")
    write(console, (f"{report['project']} {report['version']}", "bold"),
          f" for {', '.join(report['archs'])}: {calls}")  # fmt: skip
    work = text.duration(report["work"])
    least = text.duration(report["critical_path"])
    write(console, f"{work} on one core, at least {least} on any number")
    cores = text.count(worker["cores"], "core")
    write(console, f"a worker: {cores}, {text.size(worker['memory'])}; "
          f"network: {text.size(int(network['bandwidth']))}/s, workers "
          f"{text.size(int(network['of_worker']))}/s")  # fmt: skip
    write_rows(console, tables.simulation_rows(report))


def show_cache(report: CacheReport) -> None:
    """What the cache holds, by kind, and what was found damaged and deleted."""
    console = out()
    total = text.size(sum(item.bytes for item in report.usage))
    write(console, f"{report.folder}: {total}")
    write_rows(console, tables.cache_rows(report.usage))
    for damage in report.damaged:
        write(console, f"deleted {damage.kind} {damage.key}: {damage.reason}")


def show_remote(remote: RemoteReport) -> None:
    """A remote, and what this machine's builds had of it."""
    console, use = out(), remote.use
    write(console, "")
    write(console, remote.in_words)
    write(console, f"it cannot be read: {remote.trouble}" if remote.trouble else "it can be read")
    if use.builds:
        asked = use.found + use.absent + use.refused
        write(
            console,
            f"{text.count(use.builds, 'build')} of this machine asked for "
            f"{text.count(asked, 'parcel')}: {use.found} came ({text.size(use.bytes_in)}), "
            f"{use.refused} refused; {use.written} went there ({text.size(use.bytes_out)})",
        )


# -- toolchains ------------------------------------------------------------------------------------

# What `invoke toolchains` lists, to stdout.


def show_overview(overview: Overview) -> None:
    """Each toolchain that has a name, then what can be composed, by platform; which GPUs that
    reaches."""
    console = out()
    if overview.named:
        write(console, ("With a name", "bold"), ": --toolchain NAME")
        _write_offers(console, overview.named)
    platforms = dict.fromkeys(offer.platform for offer in overview.composed)
    for platform in platforms:
        write(console, "")
        write(console, (f"For {in_words(platform)}", "bold"), ": --cuda, --torch, --python")
        _write_offers(console, [one for one in overview.composed if one.platform == platform])
    from ..verify.contents import gpus

    known = {arch for offer in (*overview.named, *overview.composed) for arch in offer.archs}
    names: dict[str, list[str]] = {}
    for gpu in gpus():
        number = gpu.capability.replace(".", "")
        if number in known:
            names.setdefault(number, []).extend(gpu.names)
    write(console, "")
    write(console, ("GPUs by architecture", "bold"))
    write_sentences(console, ((number, ", ".join(of_one)) for number, of_one in names.items()))


def _write_offers(console: Console, offers: Sequence[ToolchainOffer]) -> None:
    for offer in offers:
        write(console, "")
        title = offer.name or f"CUDA {offer.cuda}"
        write(console, f"  {title}", (f"  nvcc {offer.nvcc}", "dim"))
        write_sentences(console, _facts(offer))


def _facts(offer: ToolchainOffer) -> Iterator[tuple[str, str]]:
    # Neighbours that go with the same Pythons take one line.
    for pythons, builds in groupby(offer.builds, key=lambda one: one.pythons):
        torches = ", ".join(build.torch for build in builds)
        yield "torch", f"{torches} for Python {', '.join(pythons)}"
    yield "archs", " ".join(offer.archs)
    yield "engines", ", ".join(offer.engines) or "none"
    if offer.unlocked:
        yield "to lock", f"{text.count(len(offer.unlocked), 'file')}: {offer.unlocked[0]} …"


# -- index -----------------------------------------------------------------------------------------


def show_site(written: Written) -> None:
    """What a site offers, by channel, and where to look."""
    console = out()
    whole, variants = (
        Counter(one.offer.channel for one in written.wheels if bool(one.variant) == is_variant)
        for is_variant in (False, True)
    )
    write_rows(
        console,
        [
            {"channel": name or "simple", "wheels": str(count)}
            | ({"variants": str(variants[name])} if variants else {})
            for name, count in sorted(whole.items())
        ],
    )
    changes = f"{text.count(len(written.written), 'file')} written"
    if written.removed:
        changes += f", {len(written.removed)} removed"
    write(console, "")
    write(console, f"{changes}: {written.folder / 'index.html'}")
    for note in written.notes:
        show_note(note)


# -- lock ------------------------------------------------------------------------------------------

# What `invoke lock` found, to stdout: a line and a table for each toolchain.


_STATES = {
    "right": "as published",
    "filled": "filled in",
    "open": "not known yet",
    "moved": "moved",
    "unreachable": "not reached",
}


def show_locks(reports: Sequence[LockReport]) -> None:
    """Each toolchain's count of pins by state, and those that are not as published."""
    console = out()
    for report in reports:
        count = ", ".join(
            f"{number} {_STATES[state]}" for state, number in report.count().items() if number
        )
        total = text.count(len(report.findings), "pin")
        write(console, (report.toolchain, "bold"), f": {total}: {count}")
        write_rows(console, lock_rows(report.findings))
        if report.written:
            write(console, f"written to {report.file}")


def lock_rows(findings: Iterable[PinState]) -> list[Row]:
    """A row for each pin that is not as published."""
    return [
        {
            "file": finding.name,
            "state": _STATES[finding.state],
            "pinned": _words(finding.pinned, _of_interest(finding)),
            "found": _words(finding.found, _of_interest(finding)),
            "note": finding.note,
        }
        for finding in findings
        if finding.state != "right"
    ]


def _of_interest(finding: PinState) -> set[str]:
    """The values that are new or differ."""
    return {
        name
        for name, value in finding.found.items()
        if name not in finding.pinned or finding.pinned[name] != value
    }


def _words(values: Values, names: set[str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if name in names)


# -- render, image ---------------------------------------------------------------------------------

# Build contexts and images of toolchains, to stdout.


def show_contexts(made: Sequence[Rendered]) -> None:
    """Build contexts in one table; to stderr what is missing before they can be built."""
    rows: list[Row] = []
    for one in made:
        files = one.context.files
        rows.append(
            {
                "folder": str(one.folder),
                "image": one.context.tag,
                "files": text.count(len(files), "file")
                + f", {text.size(sum(file.size for file in files))}"
                + ("" if one.complete else " (not fetched)"),
            }
        )
    write_rows(out(), rows)
    unlocked = dict.fromkeys(name for one in made for name in one.context.unlocked)
    if unlocked:
        names = ", ".join(unlocked)
        show_note(f"not pinned yet; run `invoke lock` before building these: {names}")


def show_images(images: Sequence[ContainerImage]) -> None:
    """Images on the engine in one table."""
    write_rows(
        out(),
        [
            {
                "image": image.tag,
                "size": text.size(image.size),
                "id": image.id.removeprefix("sha256:")[:12],
                "": "built" if image.built else "already there",
            }
            for image in images
        ],
    )


# -- rebuild ---------------------------------------------------------------------------------------

# What `invoke rebuild` found, for people, to stdout.


def show_rebuild(report: Mapping[str, Any]) -> None:
    """How much of the wheel was made again, whether it is the same, and if not, what differs."""
    console = out()
    slices, compiled = report["slices"], report["compiled"]
    made = f"{text.count(slices, 'slice')}: {compiled} compiled, {slices - compiled} from the store"
    write(console, f"built again, {made}")
    show_comparison(report["comparison"])
    if report["causes"]:
        write(console, "")
        write(console, ("what differed this time", "bold"))
        for cause in report["causes"]:
            write(console, f"  {cause}")


# -- doctor, setup ---------------------------------------------------------------------------------

# What `invoke doctor` and `invoke setup` found and did, for people, to stdout.


_STATUS_STYLES = {
    "ok": "green",
    "warning": "yellow",
    "wrong": "bold red",
    "not applicable": "dim",
    "done": "green",
    "there": "dim",
    "failed": "bold red",
    "left": "yellow",
}
_STATUS_MARK = len("warning") + 2
_TITLE = 24  # columns: the longest title, and a gap
_RIGHTS = " (administrator)"


def show_health(report: Mapping[str, Any]) -> None:
    """`doctor.report`'s report: a line per check, why and what to do below it, and a summary."""
    console = out()
    _show_check_heading(console, report, report["host"])
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
    _show_check_heading(console, preparation)
    write(console, "")
    for step in preparation["steps"]:
        status = step["status"]
        mark = (f"{status:<{_STATUS_MARK}}", _STATUS_STYLES[status])
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
            mark = (f"{item['status']:<{_STATUS_MARK}}", _STATUS_STYLES[item["status"]])
            write(console, mark, f"{item['title']}: {item['found']}")
        _show_fix(console, item, " " * _STATUS_MARK)


def _show_check_heading(console: Console, about: Mapping[str, Any], host: str = "") -> None:
    parts: list[Words] = [(about["toolchain"], "bold")]
    parts.append(f", Python {about['python']}, {about['engine']} engine")
    parts.append(f", on {host}" if host else "")
    write(console, *parts)


def _show_check(console: Console, check: Mapping[str, Any]) -> None:
    status = check["status"]
    mark = (f"{status:<{_STATUS_MARK}}", _STATUS_STYLES[status])
    write(console, mark, f"{check['title']:<{_TITLE}}{check['found']}")
    indent = " " * (_STATUS_MARK + _TITLE)
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
