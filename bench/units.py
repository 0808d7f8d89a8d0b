"""The part of the benchmark that compares single units: one plain nvcc call for all
architectures beside fatwheel's jobs with the fronts of `--front auto`.

It is for projects that take too long to be built both ways.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from fatwheel.arch import ArchRequest
from fatwheel.config.recipe import Target
from fatwheel.engines.local import LocalWorkplace, Tools
from fatwheel.engines.process import ProcessWorker
from fatwheel.errors import CompileError, UsageError
from fatwheel.events import Emit, step
from fatwheel.fatbin.stitch import image_name, slices_of
from fatwheel.model import Front, Job, Unit
from fatwheel.pipeline.capture import captured
from fatwheel.pipeline.costs import estimated
from fatwheel.pipeline.plan import planned_wheel
from fatwheel.pipeline.proof import UnitProof, Way, compare, select_units
from fatwheel.storage.cache import users_stores
from fatwheel.worker.assemble import jobs_of, object_of
from fatwheel.worker.context import Context
from fatwheel.worker.preprocess import Texts, lay_out
from fatwheel.worker.processes import run_measured
from fatwheel.worker.slices import run_job

from .measure import kill_descendants
from .plain import gencodes
from .report import COUNT, RATIO, Figure, Findings, Measurement

KILL_EVERY = 0.2  # seconds, while ending


@dataclass(frozen=True)
class Task:
    """Something to run that needs so many bytes of memory."""

    memory: int
    run: Callable[[], None]


@dataclass
class Side:
    """One way of compiling a unit: the seconds that it took, and the object."""

    wall: float = 0.0
    cpu: float = 0.0
    rss: int = 0
    data: bytes = b""

    def add(self, wall: float, cpu: float, rss: int) -> None:
        self.wall += wall
        self.cpu += cpu
        self.rss = max(self.rss, rss)


@dataclass
class Pair:
    """A unit compiled both ways."""

    unit: Unit
    plain: Side = field(default_factory=Side)
    own: Side = field(default_factory=Side)


def measure_units(
    target: Target, tools: Tools, patterns: str, folder: Path, emit: Emit
) -> Findings:
    """Compile the units that match the patterns both ways, side by side, and compare.

    folder: for a store of its own. Raises UsageError where no unit matches.
    """
    wheel = planned_wheel(target, "auto")
    workplace = LocalWorkplace(tools, ProcessWorker)
    limits = workplace.capacity
    with captured(wheel, workplace, limits, users_stores(), emit) as (_, capture):
        units = select_units(capture.units, patterns)
        if not units:
            raise UsageError("no unit has such a name", where=f"--units {patterns}")
        context = dataclasses.replace(capture.context, store_root=str(folder))
        pairs = [Pair(unit) for unit in units]
        tasks = [
            task
            for number, pair in enumerate(pairs)
            for task in _tasks(pair, context, wheel.fronts, target, plain_first=number % 2 == 0)
        ]
        with step(emit, "units both ways", f"{len(units)} units"):
            run_in_order(tasks, limits.cpus, limits.memory)
        with step(emit, "compare"):
            proofs = [_compare(pair, context, wheel.fronts) for pair in pairs]
    return _findings(pairs, proofs)


def run_in_order(tasks: Iterable[Task], slots: int, memory: int) -> None:
    """Run tasks in their order, so many at a time, while their memory fits; a task that needs
    more than all of it runs alone. The first error ends everything that runs."""
    running: dict[Future[None], Task] = {}
    with ThreadPoolExecutor(slots) as pool:
        try:
            for task in tasks:
                while running and not _fits(task, running.values(), slots, memory):
                    _collect(running)
                running[pool.submit(task.run)] = task
            while running:
                _collect(running)
        except BaseException:
            while wait(running, timeout=KILL_EVERY).not_done:
                kill_descendants()
            raise


def _fits(task: Task, running: Iterable[Task], slots: int, memory: int) -> bool:
    needs = [other.memory for other in running]
    return len(needs) < slots and sum(needs) + task.memory <= memory


def _collect(running: dict[Future[None], Task]) -> None:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        del running[future]
        future.result()


def _tasks(
    pair: Pair, context: Context, fronts: Sequence[Front], target: Target, *, plain_first: bool
) -> list[Task]:
    """Both ways of a unit, next to each other, so that they run under the same conditions."""
    store = context.store()
    jobs = [estimated(job, store, target.recipe) for job in jobs_of(pair.unit, fronts)]
    plain = Task(
        max(job.memory for job in jobs),
        lambda: _compile_plainly(pair, context, target.archs),
    )
    own = [Task(job.memory, _own_task(pair, context, job)) for job in jobs]
    return [plain, *own] if plain_first else [*own, plain]


def _compile_plainly(pair: Pair, context: Context, archs: Sequence[ArchRequest]) -> None:
    """One nvcc call for all architectures, with nothing of fatwheel's but the places."""
    unit, view = pair.unit, context.places.in_view
    arguments = [view(argument) for argument in (*unit.preprocessor, *unit.codegen)]
    with tempfile.TemporaryDirectory(prefix="plain-", dir=context.scratch) as scratch:
        folder = Path(scratch)
        lay_out(context, unit, folder)
        started = time.monotonic()
        usage = run_measured(
            [view(context.nvcc), "-ccbin", context.cxx, *arguments, *gencodes(archs),
             "-c", view(unit.source), "-o", "output"],
            folder, dict(context.environment),
        )  # fmt: skip
        if usage.returncode != 0:
            raise CompileError(
                f"nvcc failed with exit code {usage.returncode}",
                where=f"{unit.name}, without fatwheel",
                details=usage.output.splitlines(),
            )
        pair.plain.add(time.monotonic() - started, usage.cpu, usage.rss)
        pair.plain.data = (folder / "output").read_bytes()


def _own_task(pair: Pair, context: Context, job: Job) -> Callable[[], None]:
    def run() -> None:
        before = time.thread_time()
        store = context.store()
        made = run_job(context, store, Texts(context, store), job)
        own_work = time.thread_time() - before
        pair.own.add(made.seconds, made.cpu + own_work, made.rss)

    return run


def _compare(pair: Pair, context: Context, fronts: Sequence[Front]) -> UnitProof:
    """Stitch the unit's object, which counts as fatwheel's work, and compare the kernels.

    Kernels go by name. Those of anonymous namespaces in units without an external symbol have
    another name in each run of plain nvcc, so they count as different.
    """
    started, before = time.monotonic(), time.thread_time()
    pair.own.data = object_of(context, context.store(), pair.unit, fronts)
    pair.own.add(time.monotonic() - started, time.thread_time() - before, 0)
    plain, own = (
        {image_name(entry): entry for entry in slices_of(side.data)}
        for side in (pair.plain, pair.own)
    )
    codes = [code for front in fronts for code in front.codes if code.startswith("sm_")]
    way: Way = "shared" if len(codes) > len(fronts) else "split"
    return compare(
        pair.unit.name, {code: plain[code] for code in codes}, {way: {c: own[c] for c in codes}}
    )


def _findings(pairs: Sequence[Pair], proofs: Sequence[UnitProof]) -> Findings:
    measurements = []
    for pair in pairs:
        for what, side in (("one nvcc call", pair.plain), ("fatwheel", pair.own)):
            what = f"{pair.unit.name.rpartition('/')[2]}: {what}"
            measurements.append(Measurement("units", what, side.wall, side.cpu, side.rss))
    plain = sum(pair.plain.cpu for pair in pairs)
    own = sum(pair.own.cpu for pair in pairs)
    kernels = sum(proof.kernels * len(proof.sass) for proof in proofs)
    different = sum(len(found) for proof in proofs for found in proof.different.values())
    return Findings(
        tuple(measurements),
        (
            Figure("units", "CPU of all units, of plain nvcc's", own / plain, RATIO, 0.52),
            Figure("units", "kernels compared, once per architecture", kernels, COUNT),
            Figure("units", "kernels with other machine code", different, COUNT, 0),
        ),
    )
