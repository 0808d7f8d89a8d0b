"""The parts of the benchmark that make whole wheels. Targets are those of docs/performance.md."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

from fatwheel.arch import parse_arch_list
from fatwheel.config.recipe import Target
from fatwheel.engines.local import Tools
from fatwheel.events import Emit, step
from fatwheel.pipeline.source import unpack
from fatwheel.storage.cache import cache_folder
from fatwheel.worker.upstream import Project

from .measure import Run
from .plain import build_plainly
from .report import BYTES, COUNT, PERCENT, RATIO, Figure, Findings, Measurement
from .results import UPSTREAM
from .workbench import Built, CompiledJob, Workbench

EXACT, SHARED = "build --front exact", "build --front shared"
ADDED = "90"  # the architecture that is added to a finished build
JOBS, MEMORY = 4, 3 << 30  # of the build in little memory

Way = Callable[[], Run]


@dataclass
class Session:
    """What the parts share: what is built with what, and a folder for everything."""

    target: Target
    tools: Tools
    folder: Path
    rounds: int
    emit: Emit
    _folders: int = 0

    def new_folder(self) -> Path:
        """The name of a folder that does not exist yet."""
        self._folders += 1
        return self.folder / str(self._folders)

    def project(self) -> Project:
        """The project's sources, unpacked anew."""
        return unpack(self.target.recipe, cache_folder(), self.new_folder(), self.emit)

    @cached_property
    def finished(self) -> tuple[Workbench, Built]:
        """A build with exact fronts from an empty store, and the bench that it was made on."""
        bench = Workbench(self.new_folder())
        with step(self.emit, EXACT, "from an empty store"):
            return bench, bench.build(self.target, "exact")


def measure_builds(session: Session) -> Findings:
    """A wheel from nothing: upstream's way, with exact fronts, with a shared front."""

    def upstream() -> Run:
        project = session.project()
        return build_plainly(project, session.tools, session.target.archs, session.new_folder())

    def exact() -> Run:
        bench = Workbench(session.new_folder())
        built = bench.build(session.target, "exact")
        session.finished = bench, built  # for the parts that go on from a finished build
        return built.run

    def shared() -> Run:
        return Workbench(session.new_folder()).build(session.target, "shared").run

    # fatwheel is first in the first round: what the system still has to read from the disk
    # then counts against fatwheel.
    ways = {EXACT: exact, SHARED: shared, UPSTREAM: upstream}
    runs = take_turns(ways, session.rounds, session.emit)
    medians = {what: median_of("builds", what, runs[what]) for what in (UPSTREAM, EXACT, SHARED)}
    base = medians[UPSTREAM]
    return Findings(
        tuple(medians.values()),
        (
            ratio(medians[EXACT], base, "wall", 1.0),
            ratio(medians[EXACT], base, "cpu", 1.05),
            ratio(medians[SHARED], base, "wall", None),
            ratio(medians[SHARED], base, "cpu", 0.62),
        ),
    )


def measure_again(session: Session) -> Findings:
    """The same build once more; and the same with the finished wheel forgotten."""
    bench, first = session.finished
    with step(session.emit, EXACT, "a second time"):
        again = bench.build(session.target, "exact", sample=True)
    bench.forget_wheels()
    with step(session.emit, EXACT, "from finished slices"):
        assembled = bench.build(session.target, "exact", sample=True)
    share = 100 / first.run.wall
    return Findings(
        (
            _one("again", "first build", first),
            _one("again", "second build", again),
            _one("again", "without the wheel", assembled),
        ),
        (
            Figure("again", "second build: wall, of the first's", again.run.wall * share,
                   PERCENT, 10),
            Figure("again", "second build: compiler calls", again.compiler_calls, COUNT, 0),
            Figure("again", "without the wheel: wall, of the first's",
                   assembled.run.wall * share, PERCENT),
            Figure("again", "without the wheel: compiler calls", assembled.compiler_calls,
                   COUNT, 0),
        ),
    )  # fmt: skip


def measure_added_arch(session: Session) -> Findings:
    """One architecture more than a finished build has."""
    bench, _ = session.finished
    archs = ",".join([*map(str, session.target.archs), ADDED])
    [added] = parse_arch_list(ADDED, session.target.toolchain.archs)
    target = dataclasses.replace(
        session.target, archs=parse_arch_list(archs, session.target.toolchain.archs)
    )
    with step(session.emit, EXACT, f"with {ADDED} added"):
        built = bench.build(target, "exact")
    needless, again = sort_jobs(built, added.arch.sm)
    note = f"{len(built.jobs)} compiler calls"
    if again:
        names = sorted({job.unit for job in again})
        note += f"; compiled again for the list of architectures: {', '.join(names)}"
    return Findings(
        (dataclasses.replace(_one("arch", f"{ADDED} added", built), note=note),),
        (Figure("arch", "calls for other architectures, without need", len(needless), COUNT, 0),),
    )


def sort_jobs(built: Built, added: str) -> tuple[list[CompiledJob], list[CompiledJob]]:
    """The jobs that are not for the image `added`: those without need, and those of units
    that depend on the list of architectures."""
    of_added = {(added,), (added.replace("sm_", "compute_"),)}
    others = [job for job in built.jobs if job.codes not in of_added]
    unnamed = {job.unit for job in others} - built.archlist_units
    needless = unnamed if len(unnamed) > built.archlist_more else set()
    return (
        [job for job in others if job.unit in needless],
        [job for job in others if job.unit not in needless],
    )


def measure_memory(session: Session) -> Findings:
    """A build with more slots than its memory has room for."""
    options = ["--jobs", str(JOBS), "--memory", f"{MEMORY >> 30}GiB"]
    what = " ".join([EXACT, *options])
    with step(session.emit, what):
        built = Workbench(session.new_folder()).build(session.target, "exact", options, sample=True)
    return Findings(
        (_one("memory", what, built),),
        (Figure("memory", "all compilers together", built.run.sampled.peak, BYTES, MEMORY),),
    )


def take_turns(ways: dict[str, Way], rounds: int, emit: Emit) -> dict[str, list[Run]]:
    """Run every way once a round, in alternating order; way → its runs."""
    runs: dict[str, list[Run]] = {what: [] for what in ways}
    for number in range(1, rounds + 1):
        order = list(ways) if number % 2 else list(reversed(ways))
        for what in order:
            with step(emit, what, f"round {number} of {rounds}"):
                runs[what].append(ways[what]())
    return runs


def median_of(part: str, what: str, runs: Iterable[Run]) -> Measurement:
    """The median of wall and CPU time."""
    several = list(runs)
    return Measurement(
        part, what, median(run.wall for run in several), median(run.cpu for run in several)
    )


def _one(part: str, what: str, built: Built) -> Measurement:
    run = built.run
    return Measurement(part, what, run.wall, run.cpu, run.sampled.peak)


def ratio(own: Measurement, base: Measurement, field: str, limit: float | None) -> Figure:
    """What one way took of what upstream's did; field: of a measurement."""
    names = {"wall": "wall", "cpu": "CPU", "memory": "memory"}
    value = getattr(own, field) / getattr(base, field)
    return Figure(own.part, f"{own.what}: {names[field]}, of upstream's", value, RATIO, limit)
