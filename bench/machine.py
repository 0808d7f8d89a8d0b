"""The part of the benchmark that sets one whole wheel, built upstream's way, beside fatwheel's, on
whatever machine this is, and what is kept of it: files in bench/results, of which the table and
the picture of docs/performance.md are made (`bench.results`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from fatwheel.config.recipe import Target
from fatwheel.errors import UsageError

from .measure import Run
from .parts import Session, median_of, ratio, take_turns
from .plain import build_plainly
from .report import BenchReport, Findings, Measurement
from .results import OWN, UPSTREAM, MachineResult, Subject, Way
from .workbench import Workbench

PART = "machine"


def measure_machine(session: Session, find: Path | None, front: str) -> Findings:
    """A wheel from nothing, both ways in turn, with the compilers' memory sampled.

    find: a folder with pinned files. front: as `build --front` takes it. The part has no targets of
    its own.
    """
    more = [] if find is None else ["--find", str(find.absolute())]

    def upstream() -> Run:
        return build_plainly(
            session.project(), session.tools, session.target.archs, session.new_folder(),
            sample=True,
        )  # fmt: skip

    def own() -> Run:
        bench = Workbench(session.new_folder())
        return bench.build(session.target, front, more, sample=True).run

    # fatwheel comes first: it fetches the source for both, and the disk's first reads count
    # against it.
    runs = take_turns({OWN: own, UPSTREAM: upstream}, session.rounds, session.emit)
    medians = {
        what: replace(
            median_of(PART, what, several), memory=max(run.sampled.peak for run in several)
        )
        for what, several in runs.items()
    }
    figures = [ratio(medians[OWN], medians[UPSTREAM], field, None) for field in ("wall", "cpu")]
    if medians[UPSTREAM].memory:
        figures.append(ratio(medians[OWN], medians[UPSTREAM], "memory", None))
    return Findings((medians[UPSTREAM], medians[OWN]), tuple(figures))


def result_of(report: BenchReport, target: Target, front: str, when: date) -> MachineResult:
    """What is kept of a run of this part."""
    found = {item.what: item for item in report.measurements if item.part == PART}
    return MachineResult(
        when=when.isoformat(),
        subject=Subject(
            target.recipe.project, target.recipe.version, tuple(map(str, target.archs)), front
        ),
        machine=report.machine,
        rounds=report.rounds,
        upstream=_way(found[UPSTREAM]),
        own=_way(found[OWN]),
    )


def _way(measured: Measurement) -> Way:
    return Way(round(measured.wall, 1), round(measured.cpu, 1), measured.memory)


def check_place(path: Path, parts: Sequence[str]) -> None:
    """Raise UsageError where a result cannot be kept at a path, or there will be none."""
    if PART not in parts:
        raise UsageError(
            f"only what the part {PART!r} finds is kept", where="--keep", hint=f"add --part {PART}"
        )
    if path.suffix != ".json" or not path.absolute().parent.is_dir():
        raise UsageError(
            f"{path.name!r} cannot be written there",
            where=f"--keep {path}",
            hint="valid: a file in a folder that exists, as in bench/results/NAME.json",
        )
