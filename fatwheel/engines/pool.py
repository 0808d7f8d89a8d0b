"""The workers of a Dask cluster as one build uses them: who may work, who does which job, and what
becomes of the jobs of a worker that is lost.

A worker is taken in once it has shown that it is the same as this machine in all that decides what
is made (`daskworker.ready`) and has the sources; others are refused, by name, and the build goes on
without. Workers may come and go while it runs.

A job goes to a worker that has the cores and the memory, both by what this build gave it and, since
others may use the cluster as well, as Dask's resources. It is bound to that worker: so Dask never
starts it elsewhere on its own, and what happened to it is known. If the worker is lost, its jobs go
to others; a job that loses a second worker is reported as `WorkerLost`, since it may be to blame.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from ..errors import EngineError, FatwheelError, StoreError, ToolchainError
from ..model import Job
from ..storage.documents import read_object
from ..storage.store import StoreEntry
from ..text import clean
from ..worker.context import Context
from ..worker.preprocess import Texts, pass_of
from ..worker.stages import front_key
from . import bundle, daskworker
from .base import JobBroken, JobKilled, JobMade, Reports, Said, WorkerLost
from .conversation import LONGEST, FailedLine, KilledLine, MadeLine, worker_line
from .daskbench import LEFT, Settlement
from .daskworker import CORES, MEMORY
from .incoming import LIMITS, take_bundle
from .members import (
    ASKED,
    PREPARED,
    READY,
    REFUSED,
    PoolMember,
    check_facts,
    check_identity,
    elsewhere,
    in_words,
    members_of,
    nobody,
    used_by,
)
from .placing import LOOK, PATIENCE, LeftBy, Placement, Task, left_by, lost

if TYPE_CHECKING:
    from distributed import Client, Future

_SILENCE = 10.0  # seconds for which a build waits for its first worker without a word
_FAREWELL = 5.0  # seconds for telling workers that the build is over
_THREADS = 16  # for what jobs need and make, on its way
_LARGEST = 4 * LIMITS["slice"]  # bytes of what one job makes


class Pool:
    """The workers of one build; it ends with the block."""

    def __init__(
        self, client: Client, address: str, build: str, lock: str, identity: Mapping[str, str]
    ) -> None:
        """address: the scheduler's, for people. build: what workers call the build. lock: see
        `daskworker.ready`. identity: what that must answer."""
        self._client = client
        self._address = address
        self._build = build
        self._lock_text = lock
        self._identity = identity
        self._changed = threading.Condition(threading.RLock())  # over all that follows
        self._members: dict[str, PoolMember] = {}
        self._refused: dict[str, str] = {}
        self._placement: Placement[PoolMember] = Placement()
        self._settlement: str | None = None
        self._sources = b""
        self._context: Context
        self._texts: Texts
        self._error: FatwheelError | None = None
        self._said: list[str] = []
        self._numbers = count(1)
        self._closed = False
        self._without_since = time.monotonic()
        self._lost_one = False  # that was not refused
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="fatwheel-dask")

    def __enter__(self) -> Pool:
        self._look()
        threading.Thread(target=self._watch, daemon=True, name="fatwheel-dask-watch").start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._closed = True
            self._placement.waiting.clear()
            members = list(self._members.values())
            futures = [future for member in members for future in member.waits]
            self._changed.notify_all()
        # Who does not hear it notices when no more jobs come.
        farewell = threading.Thread(target=self._leave, args=(futures, members), daemon=True)
        farewell.start()
        farewell.join(_FAREWELL)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _leave(self, futures: Sequence[Future[Any]], members: Sequence[PoolMember]) -> None:
        with suppress(Exception):
            self._client.cancel(futures, force=True)
        known = [member.address for member in members if member.state != ASKED]
        with suppress(Exception):
            if known:
                self._run(daskworker.leave, self._build, workers=known)

    def _run(self, function: Callable[..., Any], *arguments: str, workers: list[str]) -> Any:
        """Run a function on workers at once, beside their jobs; what each returned or raised."""
        return self._client.run(function, *arguments, workers=workers, on_error="return")

    # -- what the build asks for -------------------------------------------------------------------

    def settle(self, settlement: Settlement, sources: bytes, context: Context) -> None:
        """The build is captured: give the sources to all who are prepared, and to who comes."""
        with self._changed:
            self._settlement, self._sources = settlement.to_text(), sources
            self._context, self._texts = context, Texts(context, context.store())
            prepared = [one for one in self._members.values() if one.state == PREPARED]
        for member in prepared:
            threading.Thread(target=self._take_in, args=(member,), daemon=True).start()

    def wait(self, tell: Callable[[str], None]) -> None:
        """Wait until a worker is ready, and tell so if that takes long: it may fetch gigabytes.

        Raises EngineError where none will be.
        """
        told_at = time.monotonic() + _SILENCE
        with self._changed:
            while not any(member.state == READY for member in self._members.values()):
                if self._error:
                    raise self._error
                if self._is_hopeless():
                    raise self._nobody()
                if time.monotonic() > told_at:
                    told_at = math.inf
                    names = [m.name for m in self._members.values() if m.state != REFUSED]
                    tell(f"waiting until a worker has the toolchain: {', '.join(names)}")
                self._changed.wait(LOOK)

    def start(self, job: Job, shard: str, reports: Reports) -> None:
        """Run a job on some worker; its outcome goes to the reports."""
        with self._changed:
            if self._error:
                reports.put(JobBroken(job, self._error))
                return
            self._placement.add(job, shard, reports)
            self._place()

    def drop(self, shard: str) -> None:
        """Forget the jobs of a shard; what runs of them ends with the pool."""
        with self._changed:
            self._placement.drop(shard)

    def too_large(self, job: Job) -> PoolMember | None:
        """The largest worker, where a job is expected to need more memory than it has."""
        largest = self._largest()
        return largest if largest and job.memory > largest.limits.memory else None

    def memory(self, shard: str) -> int:
        """Bytes in use now for a shard's jobs, as workers last said."""
        with self._changed:
            return sum(
                member.used * sum(task.shard == shard for task in member.tasks) // len(member.tasks)
                for member in self._members.values()
                if member.tasks
            )

    def said(self) -> list[str]:
        """Sentences for the user that nobody has heard so far."""
        with self._changed:
            said, self._said = self._said, []
            return said

    # -- who does what -----------------------------------------------------------------------------

    def _ready(self) -> list[PoolMember]:
        return [member for member in self._members.values() if member.state == READY]

    def _largest(self) -> PoolMember | None:
        with self._changed:
            return max(self._ready(), key=lambda one: one.limits.memory, default=None)

    def _place(self) -> None:
        """Send the jobs that wait to the workers that have room for them."""
        for task, member in self._placement.placed(self._ready()):
            self._threads.submit(self._send, task, member, member.tasks[task])

    def _send(self, task: Task, member: PoolMember, need: int) -> None:
        try:
            brought = self._bring(task, member)
            with self._changed:
                if self._closed or task not in member.tasks:
                    return  # the worker was lost meanwhile
            future = self._ask(
                member, daskworker.compile_job, self._build, json.dumps(asdict(task.job)), brought,
                label=task.job.label, resources={CORES: 1, MEMORY: need},
            )  # fmt: skip
        except StoreError as error:
            self._fail(error)
            return
        except Exception as error:  # it was closed, or lost its scheduler
            self._fail(self._gone(error))
            return
        future.add_done_callback(partial(self._hear, member, task))
        task.reports.put(Said(task.shard, f"{task.job.label}: on {member.name}"))

    def _bring(self, task: Task, member: PoolMember) -> Future[Any] | None:
        """Put what a job's front left on its way to a worker that has it not; what the job is to
        wait for, None where that is nothing. Raises StoreError."""
        front = task.front
        if front is None:
            return None
        with member.sending:
            if front in member.fronts:
                on_its_way: Future[Any] | None = member.fronts[front]
                return on_its_way
            left = self._left(task.job)
            if left is None:
                return None
            future = self._ask(member, daskworker.bring, self._build, bundle.pack(left))
            member.fronts[front] = future
            future.add_done_callback(partial(self._arrived, member, front))
            return future

    def _left(self, job: Job) -> dict[str, bytes] | None:
        """What a job's front left, by `KIND/KEY`; None where it is not all here."""
        assert job.front is not None
        context, store, pass_ = self._context, self._context.store(), pass_of(job.front)
        texts = self._texts.on(store)
        text = texts.recorded(job.unit, pass_)
        if text is None:
            return None
        key = front_key(context, job.unit, job.front, text)
        keys = {"text": texts.key(job.unit, pass_), "ptx": key, "stub": key}
        found = {f"{kind}/{keys[kind]}": store.get(kind, keys[kind]) for kind in LEFT}
        left = {name: data for name, data in found.items() if data is not None}
        return left if len(left) == len(found) else None

    def _arrived(self, member: PoolMember, front: LeftBy, future: Future[Any]) -> None:
        """Let go of what was sent: else the scheduler keeps it."""
        with self._changed:
            member.waits.discard(future)
            member.fronts[front] = None

    def _ask(
        self,
        member: PoolMember,
        function: Callable[..., Any],
        *arguments: str | bytes | Future[Any] | None,
        label: str = "",
        resources: dict[str, int] | None = None,
    ) -> Future[Any]:
        """Begin a function on a worker, and there only."""
        number = next(self._numbers)
        future = self._client.submit(
            function, *arguments, key=f"fatwheel-{self._build[:8]}-{number} {label}".strip(),
            workers=[member.address], allow_other_workers=False, resources=resources, pure=False,
            retries=0,
        )  # fmt: skip
        with self._changed:
            member.waits.add(future)
        return future

    def _hear(self, member: PoolMember, task: Task, future: Future[Any]) -> None:
        with suppress(RuntimeError):  # the pool is closed
            self._threads.submit(self._end, member, task, future)

    def _end(self, member: PoolMember, task: Task, future: Future[Any]) -> None:
        """A job ended in some way: report it, and use the room."""
        outcome: Any
        try:
            outcome = future.result()
        except CancelledError:
            # By this pool, or with the scheduler, which is noticed soon.
            time.sleep(3 * LOOK)
            outcome = EngineError("Dask cancelled its job")
        except Exception as error:
            outcome = EngineError(in_words(error))
        with self._changed:
            member.waits.discard(future)
            if task not in member.tasks:
                return  # its worker was lost meanwhile, or refused
        try:
            if isinstance(outcome, Exception):
                raise outcome
            report = self._report(member, task, outcome)
        except StoreError as error:
            report = JobBroken(task.job, error)
        except Exception as error:
            # What it says cannot be used, in a way that is foreseen or not: so it may be of no use.
            self._refuse(member, " ".join(str(error).split()) or type(error).__name__)
            return
        with self._changed:
            if member.tasks.pop(task, None) is None:
                return
            if isinstance(report, JobKilled | WorkerLost):
                self._placement.suspect(task.job)
            if isinstance(report, JobMade) and any(kind == "ptx" for kind, *_ in report.entries):
                member.fronts[left_by(task.job)] = None
            task.reports.put(report)
            self._place()

    def _report(
        self, member: PoolMember, task: Task, outcome: Any
    ) -> JobMade | JobKilled | JobBroken | WorkerLost:
        """What a job ended with. Raises FatwheelError where no worker would have said that."""
        job = task.job
        limit = 0 if task.alone else member.limits.memory
        match outcome:
            case (str(text), bytes(made)):
                found = read_object(text.encode(), "", LONGEST)
            case _:
                raise EngineError("it sent an invalid message")
        if found.get("outcome") == "lost":
            return lost(task, f"{member.name}: {clean(str(found.get('reason')))}", limit)
        line = worker_line(json.dumps({"id": 0, **found}))
        if isinstance(line, KilledLine):
            return JobKilled(job, line.rss, limit)
        if isinstance(line, FailedLine):
            if isinstance(line.error, EngineError | StoreError | ToolchainError):
                raise EngineError(in_words(line.error))  # the worker's fault, not the job's
            return JobBroken(job, elsewhere(line.error, member.name))
        if not isinstance(line, MadeLine):
            raise EngineError("it sent an invalid message")
        self._collect(job, line.entries, made)
        return JobMade(job, line.made, tuple(line.entries))

    def _collect(self, job: Job, entries: Sequence[StoreEntry], made: bytes) -> None:
        context, store = self._context, self._context.store()
        files = bundle.unpack(made, _LARGEST)
        take_bundle(files, entries, job, context, self._texts.on(store), store)

    # -- who is there ------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._closed:
            time.sleep(LOOK)
            try:
                if self._client.status != "running":
                    raise OSError("the connection ended")
                self._look()
            except Exception as error:
                if not self._closed:
                    self._fail(self._gone(error))
                return

    def _look(self) -> None:
        """Compare who is there with who was."""
        info = self._client.scheduler_info(n_workers=-1)
        now = {member.address: member for member in members_of(info)}
        with self._changed:
            for address in set(self._members) - set(now):
                gone = self._members.pop(address)
                self._lost_one |= gone.state != REFUSED
                self._lose(gone, "it is gone")
            for address, member in now.items():
                if address not in self._members:
                    self._members[address] = member
                    # Not one of the threads that serve jobs: it may wait for gigabytes.
                    threading.Thread(target=self._prepare, args=(member,), daemon=True).start()
                self._members[address].used = used_by(info["workers"][address])
            self._check_somebody()
            self._changed.notify_all()

    def _is_hopeless(self) -> bool:
        """Whether nobody is there whom a build could wait for. One that was lost may come back."""
        if any(member.state != REFUSED for member in self._members.values()):
            return False
        return not self._lost_one or time.monotonic() - self._without_since > PATIENCE

    def _check_somebody(self) -> None:
        """Give up where jobs wait and for a while there was nobody who could do them."""
        if any(member.state != REFUSED for member in self._members.values()):
            self._without_since = time.monotonic()
        elif self._placement.waiting and time.monotonic() - self._without_since > PATIENCE:
            self._fail(self._nobody())

    def _prepare(self, member: PoolMember) -> None:
        """Find out whether a new worker fits, and have it get the toolchain."""
        try:
            [answer] = self._run(daskworker.facts, workers=[member.address]).values()
            check_facts(answer)
            found = self._asked(member, daskworker.ready, self._lock_text)
            check_identity(found.get("identity"), self._identity)
        except (Exception, CancelledError) as error:
            self._refuse(member, in_words(error))
            return
        with self._changed:
            member.state = PREPARED
            if self._settlement is None:
                return
        self._take_in(member)

    def _take_in(self, member: PoolMember) -> None:
        """Give the sources to a worker that is prepared."""
        assert self._settlement is not None
        try:
            found = self._asked(member, daskworker.settle, self._settlement, b"")
            if found["outcome"] == "lacks":
                self._asked(member, daskworker.settle, self._settlement, self._sources)
        except (Exception, CancelledError) as error:
            self._refuse(member, in_words(error))
            return
        with self._changed:
            if self._members.get(member.address) is member:
                member.state = READY
                self._place()
            self._changed.notify_all()

    def _asked(
        self, member: PoolMember, function: Callable[..., str], *arguments: str | bytes
    ) -> dict[str, Any]:
        """What a worker answers to one of the functions that return an outcome."""
        future = self._ask(member, function, *arguments)
        try:
            found: dict[str, Any] = read_object(future.result().encode(), "", LONGEST)
        finally:
            with self._changed:
                member.waits.discard(future)
        if found.get("outcome") in ("ready", "lacks"):
            return found
        line = worker_line(json.dumps(found))
        raise line.error if isinstance(line, FailedLine) else EngineError("an invalid message")

    def _refuse(self, member: PoolMember, why: str) -> None:
        """Use a worker no more; its jobs go to others."""
        with self._changed:
            if self._closed or self._members.get(member.address) is not member:
                return
            member.state, member.why = REFUSED, why
            self._refused[member.name] = why
            self._said.append(f"worker {member.name} is not used: {why}")
            self._lose(member, why)
            self._changed.notify_all()

    def _lose(self, member: PoolMember, why: str) -> None:
        """Give a worker's jobs to others."""
        again, given_up = self._placement.lost(member)
        if member.waits:
            futures, member.waits = list(member.waits), set()
            # Whoever cancels waits for the scheduler.
            self._threads.submit(self._client.cancel, futures, force=True)
        if member.state == READY:
            jobs = len(again) + len(given_up)
            self._said.append(f"worker {member.name} was lost, with {jobs} jobs: {why}")
        for task in again:
            task.reports.put(Said(task.shard, f"{task.job.label}: {member.name} was lost"))
        for task in given_up:
            task.reports.put(lost(task, f"{member.name}: {why}"))
        self._place()

    def _fail(self, error: FatwheelError) -> None:
        """Nothing can be done any more."""
        with self._changed:
            self._error = error
            tasks = [task for member in self._members.values() for task in member.tasks]
            for task in [*tasks, *self._placement.waiting]:
                task.reports.put(JobBroken(task.job, error))
            for member in self._members.values():
                member.tasks.clear()
            self._placement.waiting.clear()
            self._changed.notify_all()

    def _gone(self, error: Exception) -> EngineError:
        return EngineError(
            f"the scheduler at {self._address} went away",
            details=[in_words(error)],
            hint="what was compiled is kept: run the same command again when it is back",
        )

    def _nobody(self) -> EngineError:
        return nobody(self._address, [f"{name}: {why}" for name, why in self._refused.items()])
