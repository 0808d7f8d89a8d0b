"""Simulates a build on clusters of several sizes: how long each takes, against what is possible,
and what it is that keeps it from ending sooner.

For each size, jobs are prepared and run as a build would (`pipeline.compile.prepared`,
`engines.simulation`). What limits it is found by taking the limits away, one after the other: first
no worker is lost, then the machine that builds is never busy, then what travels takes no time, then
memory never ends, then there is a core for each job. What each step gains is that limit's part of
the time, and the last is left: the critical path, a front with the longest of what follows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from ..engines.base import Limits
from ..engines.schedule import critical_path
from ..engines.simulation import Cluster, Load, Losses, Network, Outcome, simulated
from ..errors import EngineError, FatwheelError, UsageError
from ..events import Emit, Note, step
from ..model import Job
from ..text import count, size
from .compile import prepared, summed_up
from .costs import priced
from .workload import Workload, notes_of

MOST_WORKERS = 10_000
# What limits a build, in the order in which it is taken away; at last, the critical path is left.
LOSSES, OVERHEAD, TRANSFERS = "losses", "overhead", "transfers"
MEMORY, CORES, PATH = "memory", "cores", "critical path"
LIMITS = (LOSSES, OVERHEAD, TRANSFERS, MEMORY, CORES, PATH)
_ROUNDING = 1e-6  # of a time: sums of the same numbers in another order


@dataclass(frozen=True)
class Request:
    """workers: the sizes of clusters. each: what one of their workers has. Raises UsageError for
    too many workers."""

    workers: tuple[int, ...]
    each: Limits
    network: Network
    losses: Losses

    def __post_init__(self) -> None:
        if (most := max(self.workers)) > MOST_WORKERS:
            raise UsageError(
                f"{most} workers are too many to simulate",
                where="--workers",
                hint=f"at most {MOST_WORKERS} workers",
            )


@dataclass(frozen=True)
class Row:
    """A build on so many workers.

    jobs: as they were run; stages: whether calls were taken apart. seconds: until all results were
    there. bound: what no build could take less than on so many cores. parts: seconds of it by what
    costs them, in the order of LIMITS. error: why it would fail; then there are no parts, and
    seconds is when it fails.
    """

    workers: int
    cores: int
    jobs: int
    stages: bool
    seconds: float
    bound: float
    busy: float
    sent: int
    received: int
    memory: int
    lost: int
    again: int
    done: int
    parts: tuple[float, ...]
    error: FatwheelError | None

    @property
    def limit(self) -> str:
        """What costs most of the time; '' where it fails."""
        if not self.parts:
            return ""
        return LIMITS[max(range(len(LIMITS)), key=lambda place: self.parts[place])]

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: value for name, value in vars(self).items() if name not in _NOT_AS_IS},
            "limit": self.limit or None,
            "parts": dict(zip(LIMITS, self.parts, strict=True)) if self.parts else None,
            "error": self.error and self.error.what,
        }


_NOT_AS_IS = ("parts", "error")


@dataclass(frozen=True)
class Report:
    """What was simulated. work: seconds of all calls on one core."""

    workload: Workload
    request: Request
    rows: tuple[Row, ...]

    @property
    def failure(self) -> FatwheelError | None:
        """The error of the first cluster on which the build fails."""
        return next((row.error for row in self.rows if row.error), None)

    def to_json(self) -> dict[str, Any]:
        """As `invoke simulate --json` prints it (simulate.schema.json)."""
        load, request = self.workload, self.request
        return {
            "project": load.project,
            "version": load.version,
            "toolchain": load.toolchain,
            "archs": list(load.archs),
            "calls": len(load.calls),
            "measured": load.measured,
            "sized": load.sized,
            "sources": load.source_size,
            "work": sum(job.seconds for job in load.jobs),
            "critical_path": shortest_path(load),
            "worker": {"cores": request.each.cpus, "memory": request.each.memory},
            "network": asdict(request.network),
            "losses": {
                "at": list(request.losses.at),
                "per_hour": request.losses.rate * 3600,
                "replaced_after": request.losses.replaced,
                "seed": request.losses.seed,
            },
            "rows": [row.to_json() for row in self.rows],
        }


def simulate(workload: Workload, request: Request, emit: Emit) -> Report:
    """Simulate a build on each size of a cluster."""
    for words in (*notes_of(workload), *_too_large(workload, request.each.memory)):
        emit(Note(words))
    rows = []
    for number in request.workers:
        cluster = Cluster(number, request.each, request.network, request.losses)
        with step(emit, "simulate", count(number, "worker")):
            rows.append(_row(workload, cluster))
    return Report(workload, request, tuple(rows))


def _too_large(workload: Workload, memory: int) -> Iterator[str]:
    """What is not simulated: a worker's memory that is not enough for one call."""
    needs = [job.memory for job in workload.jobs if job.memory > memory]
    if needs:
        yield (
            f"{len(needs)} of {count(len(workload.jobs), 'call')} may need more memory than a "
            f"worker has, up to {size(max(needs))}: here they get by with all of it, in a build "
            "they may be killed"
        )


def run(workload: Workload, cluster: Cluster) -> tuple[tuple[Job, ...], Outcome]:
    """The jobs of a build as it would run them on a cluster, and what becomes of them."""
    shards = len(workload.archs)
    ready = prepared(workload.jobs, workload, cluster.limits, shards, lend=True, bounded=False)
    load = Load(workload.source_size, workload.left, workload.made)
    outcome = simulated(ready.scheduler, ready.shards, ready.allotment, cluster, load)
    return ready.jobs, outcome


def _row(workload: Workload, cluster: Cluster) -> Row:
    jobs, outcome = run(workload, cluster)
    seconds = outcome.seconds
    error = summed_up(outcome.errors, len(jobs)) if outcome.errors else None
    if error:
        error = EngineError(
            f"on {count(cluster.workers, 'worker')}: {error.what}",
            details=error.details or [f"{outcome.done} of {count(len(jobs), 'job')} were done"],
            hint=error.hint,
        )
    cores = cluster.limits.cpus
    core_time = cores * seconds
    return Row(
        workers=cluster.workers, cores=cores, jobs=len(jobs),
        stages=len(jobs) > len(workload.calls), seconds=seconds, bound=bound_of(workload, cores),
        busy=sum(one.end - one.start for one in outcome.runs) / core_time if core_time else 0.0,
        sent=outcome.sent, received=outcome.received, memory=outcome.memory, lost=outcome.lost,
        again=outcome.again, done=outcome.done,
        parts=() if error else _parts(workload, cluster, seconds), error=error,
    )  # fmt: skip


# -- what is possible, and what limits -------------------------------------------------------------


def _ways(workload: Workload) -> Sequence[Sequence[Job]]:
    """The jobs of a build both ways: in whole calls, and in stages."""
    return workload.jobs, [one for job in workload.jobs for one in priced(job, workload)]


def shortest_path(workload: Workload) -> float:
    """Seconds that a build takes at least, on any number of cores."""
    return min(map(critical_path, _ways(workload)))


def bound_of(workload: Workload, cores: int) -> float:
    """Seconds that no build takes less than on so many cores: its critical path, or all its work
    divided among them, whichever is longer."""
    return min(
        max(critical_path(jobs), sum(job.seconds for job in jobs) / cores)
        for jobs in _ways(workload)
    )


def _parts(workload: Workload, cluster: Cluster, seconds: float) -> tuple[float, ...]:
    """The seconds of a build by what costs them, in the order of LIMITS."""
    times = [seconds]
    for easier in _easier(workload, cluster):
        same = easier == cluster
        found = times[-1] if same else run(workload, easier)[1].seconds
        times.append(min(times[-1], found))
        cluster = easier
    times.append(min(times[-1], shortest_path(workload)))
    gained = [before - after for before, after in pairwise(times)]
    parts = [part if part > seconds * _ROUNDING else 0.0 for part in gained]
    return (*parts, times[-1])


def _easier(workload: Workload, cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with one limit less each time, without losses first; never with more cores."""
    cluster = replace(cluster, losses=Losses())
    yield cluster
    cluster = replace(cluster, network=replace(cluster.network, overhead=0.0))
    yield cluster
    cluster = replace(cluster, network=Network())
    yield cluster
    largest = max(max(job.memory for job in jobs) for jobs in _ways(workload))
    needed = max(1, largest) * (cluster.each.cpus + 1)
    memory = max(cluster.each.memory, needed * 2)
    yield replace(cluster, each=Limits(cluster.each.cpus, memory))
