"""A Dask cluster that is only computed: how long a build would take on so many workers.

Time is a number here, and nothing is compiled or sent. What decides is what decides in a real
build: `engines.run.JobRun` and its scheduler say which job is next and what follows where one is
lost, `engines.placing.Placement` which worker does it. So what is computed differs from a real
build in what is said to take time, and in nothing else:

- A worker begins when it has the sources; all get them at once, through the machine that builds.
- That machine is busy with each job for a while (`overhead`), one after the other.
- A stage that follows its front waits until its worker has what that left. What jobs make comes
  back. Everything passes the link of the worker and that of the machine that builds, each of which
  carries one thing after the other, in each direction.
- A core is taken from when a job is given to its worker until its results are here, as in `Pool`.
- A lost worker is noticed at the next look. Its compilers' work is lost with it.

Times are seconds, sizes bytes.
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from queue import Queue

from .. import text
from ..errors import EngineError, FatwheelError
from ..events import silent
from ..model import Job, Shard
from ..worker.slices import Made
from .base import Allotment, JobBroken, JobMade, Limits, Report, Reports, Worker
from .placing import LOOK, PATIENCE, LeftBy, Member, Placement, Task, left_by, lost
from .run import JobRun
from .schedule import Scheduler

_MOST_LOST = 100  # times as many workers as there were at first: such a build goes on for ever


@dataclass(frozen=True)
class Network:
    """bandwidth: bytes a second of the machine that builds, with the scheduler and the store, in
    each direction; of_worker: those of a worker. latency: from one machine to the next. overhead:
    of each job, for the machine that builds."""

    bandwidth: float = math.inf
    of_worker: float = math.inf
    latency: float = 0.0
    overhead: float = 0.0


@dataclass(frozen=True)
class Losses:
    """at: when a worker is lost, any of those there are. rate: expected losses of a worker in a
    second. replaced: how long after that another is there; None: none comes. seed: decides which
    are lost, and when by the rate."""

    at: tuple[float, ...] = ()
    rate: float = 0.0
    replaced: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Cluster:
    """Workers of one size. Together they have what the build may use."""

    workers: int
    each: Limits
    network: Network = Network()
    losses: Losses = Losses()

    @property
    def limits(self) -> Limits:
        return Limits(self.workers * self.each.cpus, self.workers * self.each.memory)


@dataclass(frozen=True)
class Load:
    """What travels: the sources, to each worker; what a front left; what a job makes."""

    sources: int = 0
    left: Callable[[LeftBy], int] = lambda front: 0
    made: Callable[[Job], int] = lambda job: 0


@dataclass(frozen=True)
class Ran:
    """A job on a worker, from when its compiler began to when it ended, or was lost. need: bytes
    that were taken for it."""

    job: Job
    worker: int
    start: float
    end: float
    need: int
    lost: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a build. seconds: until its last result was there. sent, received: bytes, from
    the machine that builds and to it. lost: workers. errors: what failed, as a build raises it."""

    seconds: float
    runs: tuple[Ran, ...]
    sent: int
    received: int
    lost: int
    errors: tuple[FatwheelError, ...]

    @property
    def memory(self) -> int:
        """The most bytes that were taken at a time by running compilers."""
        ends = [(run.end, -run.need) for run in self.runs]
        changes = sorted([*ends, *((run.start, run.need) for run in self.runs)])
        now = most = 0
        for _, change in changes:
            now += change
            most = max(most, now)
        return most

    @property
    def done(self) -> int:
        """Jobs that were done; some of them more than once."""
        return len({run.job for run in self.runs if not run.lost})

    @property
    def again(self) -> int:
        """Runs of compilers that were lost with their workers."""
        return sum(run.lost for run in self.runs)


def simulated(
    scheduler: Scheduler,
    shards: tuple[Shard, ...],
    allotment: Allotment,
    cluster: Cluster,
    load: Load,
) -> Outcome:
    """Run the jobs of all shards on a computed cluster; uses the scheduler up."""
    clock = _Clock()
    pool = _Pool(clock, cluster, load)
    run = JobRun(
        pool, shards, allotment, scheduler, pool.told, silent, clock=lambda: clock.now,
        reports=_Mail(clock),
    )  # fmt: skip
    try:
        run.run()
    except EngineError as error:  # no worker was there when one was wanted
        run.errors.append(error)
    end = clock.now if run.errors else pool.ended
    return Outcome(end, tuple(pool.runs), pool.sent, pool.received, pool.lost, tuple(run.errors))


# -- time ------------------------------------------------------------------------------------------


class _Clock:
    """What happens at which time; `now` goes from one to the next."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()  # what is to happen at one time happens in its order

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.at(self.now + seconds, what)

    def advance(self) -> None:
        """Go to the next event."""
        self.now, _, what = heapq.heappop(self._events)
        what()


class _Mail(Queue[Report]):
    """Reports; who waits for one lets time pass."""

    def __init__(self, clock: _Clock) -> None:
        super().__init__()
        self._clock = clock

    def get(self, block: bool = True, timeout: float | None = None) -> Report:
        while self.empty():
            self._clock.advance()
        return super().get(block=False)


class _Line:
    """A link, or somebody who is busy: serves one after the other."""

    def __init__(self) -> None:
        self._free = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """When it is done with what comes now and takes so long."""
        self._free = max(now, self._free) + seconds
        return self._free


# -- the cluster -----------------------------------------------------------------------------------


@dataclass(eq=False)
class _Member(Member):
    """A computed worker. `fronts` has when what a front left is there."""

    number: int
    inward: _Line = field(default_factory=_Line)
    outward: _Line = field(default_factory=_Line)
    used: bool = False
    gone: bool = False
    began: dict[Task, float] = field(default_factory=dict)


def _number(member: _Member) -> int:
    return member.number


class _Pool:
    """What `engines.pool.Pool` does, at computed times."""

    def __init__(self, clock: _Clock, cluster: Cluster, load: Load) -> None:
        self.runs: list[Ran] = []
        self.sent = self.received = self.lost = 0
        self.ended = 0.0
        self._clock = clock
        self._cluster = cluster
        self._load = load
        self._placement: Placement[_Member] = Placement()
        self._members: list[_Member] = []
        # Those that are ready, in the order of their numbers: that had a job, and that had none.
        self._used: list[_Member] = []
        self._fresh: list[_Member] = []
        self._numbers = count(1)
        self._desk, self._outward, self._inward = _Line(), _Line(), _Line()
        self._chance = random.Random(cluster.losses.seed)
        self._error: EngineError | None = None
        self._without_since = 0.0
        for _ in range(cluster.workers):
            self._join()
        for when in cluster.losses.at:
            clock.at(when, self._lose_any)

    # -- what the build asks for -------------------------------------------------------------------

    def open(self, shard: str, limits: Limits, reports: Reports) -> Worker:
        """As a real cluster, wait for the first worker. Raises EngineError where none will be."""
        while self._error or not (self._used or self._fresh):
            if self._error or not self._members:
                raise self._error or self._nobody()
            self._clock.advance()
        return _ShardsWorker(shard, self, reports)

    def start(self, job: Job, shard: str, reports: Reports) -> None:
        if not self._members and self._clock.now >= self._without_since + PATIENCE:
            self._error = self._error or self._nobody()
        if self._error:
            reports.put(JobBroken(job, self._error))
            return
        self._placement.add(job, shard, reports)
        self._place()

    def drop(self, shard: str) -> None:
        self._placement.drop(shard)

    def told(self, report: JobMade) -> None:
        """A job's results are here."""
        self.ended = self._clock.now

    # -- jobs --------------------------------------------------------------------------------------

    def _place(self) -> None:
        # One that had no job is like another: no more of them are looked at than there are jobs.
        fresh = self._fresh[: len(self._placement.waiting)]
        ready = sorted([*self._used, *fresh], key=_number) if fresh else self._used
        for task, member in self._placement.placed(ready):
            if not member.used:
                member.used = True
                self._fresh.remove(member)
                self._used = sorted([*self._used, member], key=_number)
            done = self._desk.serve(self._clock.now, self._cluster.network.overhead)
            self._clock.at(done, partial(self._send, task, member))

    def _send(self, task: Task, member: _Member) -> None:
        if task not in member.tasks:
            return  # the worker was lost meanwhile
        arrives = self._clock.now + self._cluster.network.latency
        if (front := task.front) is not None:
            if front not in member.fronts:
                member.fronts[front] = self._bring(self._load.left(front), member)
            arrives = max(arrives, member.fronts[front])
        self._clock.at(arrives, partial(self._begin, task, member))

    def _bring(self, size: int, member: _Member) -> float:
        """Send something to a worker; when it is there."""
        network = self._cluster.network
        self.sent += size
        passed = self._outward.serve(self._clock.now, size / network.bandwidth)
        return member.inward.serve(passed, size / network.of_worker) + network.latency

    def _begin(self, task: Task, member: _Member) -> None:
        if task in member.tasks and not member.gone:
            member.began[task] = self._clock.now
            self._clock.after(task.job.seconds, partial(self._compiled, task, member))

    def _compiled(self, task: Task, member: _Member) -> None:
        if task not in member.began:
            return  # it was lost with the worker
        self._note(task, member, lost=False)
        network, size = self._cluster.network, self._load.made(task.job)
        left = member.outward.serve(self._clock.now, size / network.of_worker)
        self._clock.at(left, partial(self._leave, task, member, size))

    def _leave(self, task: Task, member: _Member, size: int) -> None:
        """A job's results have left its worker."""
        if member.gone:
            return
        network = self._cluster.network
        self.received += size
        here = self._inward.serve(self._clock.now, size / network.bandwidth) + network.latency
        self._clock.at(here, partial(self._take, task, member))

    def _take(self, task: Task, member: _Member) -> None:
        if member.tasks.pop(task, None) is None:
            return  # the worker was lost meanwhile, and another does it
        job = task.job
        if job.stage == "front":
            member.fronts[left_by(job)] = self._clock.now
        task.reports.put(JobMade(job, Made(job.seconds, job.seconds, job.memory)))
        self._place()

    def _note(self, task: Task, member: _Member, lost: bool) -> None:
        began, need = member.began.pop(task), member.tasks[task]
        self.runs.append(Ran(task.job, member.number, began, self._clock.now, need, lost))

    # -- who is there ------------------------------------------------------------------------------

    def _join(self) -> None:
        """A worker comes, and gets the sources."""
        member = _Member(self._cluster.each, next(self._numbers))
        self._members.append(member)
        self._clock.at(self._bring(self._load.sources, member), partial(self._take_in, member))
        if rate := self._cluster.losses.rate:
            self._clock.after(self._chance.expovariate(rate), partial(self._lose, member))

    def _take_in(self, member: _Member) -> None:
        if not member.gone:
            insort(self._fresh, member, key=_number)
            self._place()

    def _lose_any(self) -> None:
        there = [member for member in self._members if not member.gone]
        if there:
            self._lose(self._chance.choice(there))

    def _lose(self, member: _Member) -> None:
        """A worker ends, with what it does; nobody knows yet."""
        if member.gone:
            return
        member.gone = True
        self.lost += 1
        if self.lost > _MOST_LOST * (self._cluster.workers + 10) and not self._error:
            self._fail(self._never())
        for task in list(member.began):
            self._note(task, member, lost=True)
        if self._cluster.losses.replaced is not None:
            self._clock.after(self._cluster.losses.replaced, self._join)
        self._clock.after(LOOK, partial(self._notice, member))

    def _notice(self, member: _Member) -> None:
        self._members.remove(member)
        for ready in (self._used, self._fresh):
            if member in ready:
                ready.remove(member)
        if not self._members:
            self._without_since = self._clock.now
            self._clock.after(PATIENCE, self._check_somebody)
        _, given_up = self._placement.lost(member)
        for task in given_up:
            task.reports.put(lost(task, f"worker {member.number} was lost"))
        self._place()

    def _check_somebody(self) -> None:
        """Give up where jobs wait and for a while there was nobody who could do them."""
        patient = self._clock.now < self._without_since + PATIENCE
        if self._members or patient or not self._placement.waiting:
            return
        self._fail(self._nobody())

    def _fail(self, error: EngineError) -> None:
        """Nothing can be done any more."""
        self._error = error
        running = [task for member in self._members for task in member.tasks]
        for task in [*running, *self._placement.waiting]:
            task.reports.put(JobBroken(task.job, error))
        for member in self._members:
            member.tasks.clear()
            member.began.clear()
        self._placement.waiting.clear()

    def _never(self) -> EngineError:
        """Workers are lost sooner than they are ready, or have done a job."""
        return EngineError(
            f"the build would not end: after {text.duration(self._clock.now)}, {self.lost} workers "
            "are lost",
            hint="see that workers live longer than the longest job",
        )

    def _nobody(self) -> EngineError:
        after = text.duration(self._without_since)
        lost = "the one that there was is lost" if self.lost == 1 else f"all {self.lost} are lost"
        return EngineError(
            f"no worker is left after {after}: {lost}",
            hint="take more workers, or have others take their places soon: --replaced-after 10s",
        )


class _ShardsWorker:
    """A shard's jobs on the workers of a computed cluster."""

    def __init__(self, shard: str, pool: _Pool, reports: Reports) -> None:
        self._shard = shard
        self._pool = pool
        self._reports = reports

    def start(self, job: Job) -> None:
        self._pool.start(job, self._shard, self._reports)

    def close(self) -> None:
        self._pool.drop(self._shard)

    def memory(self) -> int:
        return 0
