"""Decides which job runs next, within memory limits, to finish early. No processes, no clock.

What an nvcc call does may be several jobs: its front, and the stages that need what that leaves.
These are blocked until the front is done, and are never run if it failed for good.

The job with the longest path goes first, its own time and that of the longest job that needs it:
whatever is long and starts late would make the end late. A job fits if a slot is free and the
estimates of all running jobs stay within the memory.

A job that waits for memory must not wait until all smaller ones are done. So they may pass it
only in the room that it leaves: all that passed must fit beside it. Then it starts at the latest
when the jobs that ran before it came to the head have ended. Only a longer job that a front
released may come before it, of which there are so many and no more.

A job larger than the whole memory, or killed for memory beside others, runs alone, after all
others: what they made is kept even if it fails.

A slot may be lent. Jobs of 110, 110, 110, 22, 11, 11, 11, 3, 3 and 3 seconds on 2 cores end after
220 s: the third long job starts at 110 s, and one core idles from 174 s on. With a third slot the
long jobs share both cores, all three end at 165 s, the short ones fill the rest, and everything
is done after about 198 s, for 394 s of work on 2 cores 197 s at best. The system shares cores
well, so this costs only the third job's memory.

Memory is bytes, times are seconds. Standard library only.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..arch import Arch
from ..model import Job, Unit

Fits = Callable[[Job, int], bool]  # a job and the bytes that it is taken to need

# Why a core has no job: the next needs more memory than is left for it, by the build or by where it
# would run; all that is left needs a front that is running; a job runs alone, or waits to; or no
# job is left to start.
MEMORY, FRONTS, ALONE, LAST = "memory", "fronts", "alone", "last"

# Lend a slot only if it brings the end nearer by more than estimates are worth.
_WORTH_LENDING = 0.98


def _anywhere(job: Job, need: int) -> bool:
    return True


@dataclass(frozen=True)
class _Claim:
    """A job and the memory in bytes that it is expected to need."""

    job: Job
    need: int


class Scheduler:
    """The jobs of one build, each in turn blocked, pending, running and gone.

    slots:  jobs that may run at a time, at least 1: the cores.
    memory: what they may use together.
    lend:   whether one slot more may be used where that ends the build sooner.

    `oversized` are the jobs that need more than the whole memory: they run, alone.
    """

    def __init__(self, jobs: Sequence[Job], slots: int, memory: int, lend: bool) -> None:
        if slots < 1:
            raise ValueError("a build needs at least one slot")
        self._cores = slots
        self._slots = slots
        self._memory = memory
        self._needs = fronts_needed(jobs)
        self._path = _paths(jobs, self._needs)
        first_to_last = sorted(jobs, key=self._rank)
        self.oversized = tuple(job for job in first_to_last if job.memory > memory)
        self._queue: list[_Claim] = []  # in the order of `_rank`
        self._blocked: dict[Job, list[_Claim]] = {}  # by the front that they need
        self._alone: list[Job] = []
        for job in first_to_last:
            claim = _Claim(job, job.memory)
            if front := self._needs.get(job):
                self._blocked.setdefault(front, []).append(claim)
            else:
                self._admit(claim)
        self._running: dict[Job, int] = {}  # and what each is taken to need
        self._had_company: set[Job] = set()
        self._waiting: Job | None = None
        self._passers: dict[Job, int] = {}
        self._lonely: Job | None = None
        if lend:
            self._lend_if_worth_it(jobs)

    @property
    def slots(self) -> int:
        """Jobs that may run at a time, with the one that is lent."""
        return self._slots

    @property
    def pending(self) -> tuple[Job, ...]:
        """The jobs that were not started, in the order in which they would like to be."""
        blocked = [claim.job for claims in self._blocked.values() for claim in claims]
        queued = (claim.job for claim in self._queue)
        return (*queued, *sorted(blocked, key=self._rank), *self._alone)

    @property
    def running(self) -> tuple[Job, ...]:
        return tuple(self._running)

    def idle(self) -> bool:
        """Whether nothing is running or left to run."""
        return not (self._running or self._queue or self._blocked or self._alone)

    @property
    def cores(self) -> int:
        return self._cores

    def idle_cores(self) -> tuple[int, str]:
        """How many cores have no job when `next` has no more to start, and why: MEMORY, FRONTS,
        ALONE, LAST, or '' where all have one."""
        idle = max(0, self._cores - len(self._running))
        if not idle:
            return 0, ""
        if self._queue:
            return idle, MEMORY
        if any(front in self._blocked for front in self._running):
            return idle, FRONTS
        return idle, ALONE if self._alone or self._lonely in self._running else LAST

    def next(self, fits: Fits = _anywhere) -> Job | None:
        """A job to start now, which counts as running from here on; None: wait for an end.

        fits says whether a job, taken to need so many bytes, may start where it would run; a
        job that is to run alone is not asked about.
        """
        if not self._queue:
            return self._start_alone()
        if len(self._running) >= self._slots:
            return None
        free = self._memory - sum(self._running.values())
        head = self._queue[0]
        if head.need <= free and fits(head.job, head.need):
            return self._start(0)
        if head.job is not self._waiting:
            self._waiting, self._passers = head.job, {}
        return self._start_passer(min(free, self._room_beside(head)), fits)

    def stop(self) -> tuple[Job, ...]:
        """Start nothing any more; the jobs that this leaves undone."""
        left = self.pending
        self._queue, self._blocked, self._alone = [], {}, []
        return left

    def need(self, job: Job) -> int:
        """The bytes that a running job is taken to need."""
        return self._running[job]

    def is_alone(self, job: Job) -> bool:
        """Whether a running job was started to run alone."""
        return self._lonely is job

    def finished(self, job: Job) -> None:
        """A running job is done: what needed it may run."""
        self._end(job)
        for claim in self._take_blocked(job):
            self._admit(claim)

    def failed(self, job: Job) -> tuple[Job, ...]:
        """A running job failed with an error; it is not run again. The jobs that need it, which
        are not run either."""
        self._end(job)
        return self.without(job)

    def without(self, job: Job) -> tuple[Job, ...]:
        """Give up the jobs that need one that failed for good, and name them."""
        return tuple(claim.job for claim in self._take_blocked(job))

    def killed_for_memory(self, job: Job, rss: int, limit: int = 0) -> bool:
        """A running job was killed when it used `rss` bytes (0: not known).

        limit: the bytes that it could have where it ran, 0 for all that there are. True: it will
        run again, alone. False: it had everything to itself, so there is no more to try, and what
        needs it is for `without`. The pending jobs that do the same for its unit are taken to need
        as much from here on.
        """
        self._end(job)
        self._expect(job, rss)
        can_have_more = job in self._had_company or 0 < limit < self._memory
        self._had_company.discard(job)
        if can_have_more:
            self._alone.append(job)
        return can_have_more

    def _lend_if_worth_it(self, jobs: Sequence[Job]) -> None:
        plain = Scheduler(jobs, self._cores, self._memory, lend=False)
        more = Scheduler(jobs, self._cores + 1, self._memory, lend=False)
        seconds = simulate(plain, self._cores)
        if simulate(more, self._cores) < seconds * _WORTH_LENDING:
            self._slots += 1

    def _room_beside(self, head: _Claim) -> int:
        """Memory for one more job to pass `head`, so that all who passed fit beside it.

        A slot is left for it anyway: that of the job it waits for.
        """
        return self._memory - head.need - sum(self._passers.values())

    def _start_passer(self, room: int, fits: Fits) -> Job | None:
        for place, claim in enumerate(self._queue):
            if claim.need <= room and fits(claim.job, claim.need):
                self._passers[claim.job] = claim.need
                return self._start(place)
        return None

    def _start(self, place: int) -> Job:
        claim = self._queue.pop(place)
        if self._running:
            self._had_company.update(self._running, [claim.job])
        self._running[claim.job] = claim.need
        return claim.job

    def _start_alone(self) -> Job | None:
        if self._running or not self._alone:
            return None
        job = self._lonely = self._alone.pop(0)
        self._running[job] = self._memory
        return job

    def _end(self, job: Job) -> None:
        del self._running[job]
        self._passers.pop(job, None)

    def _rank(self, job: Job) -> tuple[float, int]:
        """Sorts jobs by who is first to start."""
        return -self._path[job], -job.memory

    def _admit(self, claim: _Claim) -> None:
        """A job that needs no other, or none any more, may run."""
        if claim.need > self._memory:
            self._alone.append(claim.job)
        else:
            insort(self._queue, claim, key=lambda one: self._rank(one.job))

    def _take_blocked(self, by: Job) -> list[_Claim]:
        """The jobs that a job keeps from running; it does not any more."""
        return self._blocked.pop(by, [])

    def _expect(self, killed: Job, memory: int) -> None:
        """Expect the pending jobs that do the same for a unit to need at least this much memory."""

        def raised(claim: _Claim) -> _Claim:
            alike = (claim.job.unit, claim.job.stage) == (killed.unit, killed.stage)
            return _Claim(claim.job, max(claim.need, memory)) if alike else claim

        for claims in self._blocked.values():
            claims[:] = map(raised, claims)
        queue, self._queue = self._queue, []
        for claim in queue:
            self._admit(raised(claim))


def fronts_needed(jobs: Sequence[Job]) -> dict[Job, Job]:
    """The jobs that need the front of another one, and which that is."""
    fronts = {_place(job): job for job in jobs if job.stage == "front"}
    return {
        job: fronts[_place(job)]
        for job in jobs
        if job.stage in ("ptxas", "host") and _place(job) in fronts
    }


def _place(job: Job) -> tuple[Unit, Arch | None]:
    return job.unit, job.front.virtual if job.front else None


def _paths(jobs: Sequence[Job], needs: Mapping[Job, Job]) -> dict[Job, float]:
    """Seconds from each job's start to the end of the last one that needs it."""
    after: dict[Job, float] = {}
    for job, front in needs.items():
        after[front] = max(after.get(front, 0.0), job.seconds)
    return {job: job.seconds + after.get(job, 0.0) for job in jobs}


def critical_path(jobs: Sequence[Job]) -> float:
    """Seconds that jobs take at least, on any number of cores."""
    return max(_paths(jobs, fronts_needed(jobs)).values(), default=0.0)


def simulate(scheduler: Scheduler, cores: int) -> float:
    """Seconds that a build takes if all estimates are right; uses the scheduler up.

    More jobs than cores share the cores evenly.
    """
    now = 0.0
    left: dict[Job, float] = {}  # what the running jobs still need
    while True:
        while job := scheduler.next():
            left[job] = job.seconds
        if not left:
            return now
        step = min(left.values())
        now += step * max(1.0, len(left) / cores)
        for job in [job for job, seconds in left.items() if seconds <= step]:
            del left[job]
            scheduler.finished(job)
        for job in left:
            left[job] -= step
