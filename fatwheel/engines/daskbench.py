"""One build on a Dask worker: its sources, laid out where compilers see them, and what runs its
compilers: a process, a container (`engines.daskcontainer`) or a program of Windows
(`engines.daskwindows`)."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue
from typing import Any, ClassVar, Protocol

from ..config.recipe import Target
from ..errors import EngineError, ToolchainError
from ..model import Front, Job
from ..storage.cache import Stores, cache_folder, remove_tree
from ..storage.store import Store
from ..worker.context import fronts_from_wire
from ..worker.secondkey import OFF
from ..worker.slices import KilledForMemoryError
from ..worker.surroundings import surroundings_of
from ..worker.upstream import Project
from ..worker.workshop import Order, laid_out
from . import bundle
from .base import (
    Build,
    JobBroken,
    JobKilled,
    JobMade,
    Limits,
    Report,
    Reports,
    Worker,
    WorkerLost,
    name_of,
    new_logs,
)
from .local import Tools
from .process import ProcessWorker

_HEX = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")
_IDLE = 60.0  # seconds without a job after which a build's sources are let go, for other builds
_DOUBT = 2.0  # seconds for which an end of a job that may be none is kept back

_LOGS = Path("logs", "lent")  # in the cache: of programs, for who lends this machine

LEFT = ("text", "ptx", "stub")  # the kinds of entries that a job needs of its front

# What a task ended with, as `worker.shard` writes it; "lost" where its process ended instead.
Outcome = dict[str, Any]


@dataclass(frozen=True)
class Settlement:
    """One build, as its workers get it. Crosses as JSON.

    build: by what it is called. lock: the text that `ready` was given. name, epoch, subdirectory,
    seeded, fronts, scope: see `worker.workshop.Order`. sources: the hash of its sources' files
    (see `bundle.identity`). source, listing: where compilers see them, and which there are (see
    `worker.view.Places`).
    """

    build: str
    lock: str
    name: str
    epoch: int
    subdirectory: str
    seeded: bool
    fronts: tuple[Any, ...]
    scope: str
    sources: str
    source: str
    listing: str

    def to_text(self) -> str:
        return json.dumps(asdict(self))


def read_settlement(text: str) -> Settlement:
    """A settlement from elsewhere, whose names are those of folders here. Raises EngineError."""
    read = json.loads(text)
    found = Settlement(**{**read, "fronts": tuple(read["fronts"])})
    hexadecimal = all(_HEX.fullmatch(name) for name in (found.build, found.sources))
    inside = all(bundle.is_inside(name) for name in (found.name, found.subdirectory or "src"))
    if not hexadecimal or not inside or "/" in found.name:
        raise EngineError("the build has names that cannot be")
    return found


# -- what runs compilers ---------------------------------------------------------------------------


class Equipment(Protocol):
    """A toolchain on this worker, ready to run.

    tells_ends: whether a compiler that was ended by somebody is known to have been.
    """

    @property
    def tells_ends(self) -> bool: ...

    def identity(self) -> dict[str, str]:
        """What of it decides the text of a source and the code that is made of it."""

    def at_work(
        self, what: Settlement, origin: Path, folder: Path, reports: Reports
    ) -> AbstractContextManager[tuple[Worker, Store]]:
        """What runs a build's compilers, and the store where it puts what they make. origin has
        the sources; folder is the build's own. Raises ToolchainError where compilers would see
        other sources than on the build's machine."""


@dataclass(frozen=True)
class ProcessEquipment:
    """Compilers are processes of this user's."""

    tools: Tools
    tells_ends: ClassVar[bool] = True

    def identity(self) -> dict[str, str]:
        return identity_of(self.tools)

    @contextmanager
    def at_work(
        self, what: Settlement, origin: Path, folder: Path, reports: Reports
    ) -> Iterator[tuple[Worker, Store]]:
        order = self._order(what, origin, folder)
        with laid_out(order, origin, fronts_from_wire(list(what.fronts))) as context:
            check_places(context.places.source, context.places.listing, what)
            with closing(ProcessWorker("dask", context, folder / "log", reports)) as worker:
                yield worker, context.store()

    def _order(self, what: Settlement, origin: Path, folder: Path) -> Order:
        return Order(
            name=what.name,
            project=project_of(what, origin),
            environment=self.tools.environment,
            cxx=str(self.tools.compiler.path),
            host_id=self.tools.compiler.id,
            python=sys.executable,
            seeded=what.seeded,
            variables=(),
            store_root=str(folder / "store"),
            store_limit=sys.maxsize,
            store_scope=what.scope,
            store_trunks=(str(folder / "nothing"),),
            work=str(folder),
            refuge=str(cache_folder() / "refuge"),
            audit=OFF,  # what is known of device programs is in the store of the build's machine
        )


def identity_of(tools: Tools) -> dict[str, str]:
    """See `Equipment.identity`."""
    environment, compiler = tools.environment, tools.compiler
    words = f"g++ {compiler.version} {compiler.id}"
    python, include = environment.python_version, environment.include
    return {
        "CUDA compiler": environment.compiler_id,
        **surroundings_of(words, compiler.path, python, include),
    }


def lent_build(
    target: Target, fronts: tuple[Front, ...], scope: str, limits: Limits, folder: Path
) -> Build:
    """What a site must know of a build of which only jobs run here. Raises OSError."""
    logs = new_logs(cache_folder() / _LOGS, name_of(target.recipe))
    return Build(target, fronts, _never, Stores(folder / "store"), scope, limits, folder, logs)


def _never(folder: Path) -> Project:
    """The sources came from elsewhere."""
    raise AssertionError(folder)


def project_of(what: Settlement, origin: Path) -> Project:
    """As much of a project as compilers need."""
    root = origin / what.subdirectory
    return Project(root, "", (), (), what.epoch, subdirectory=what.subdirectory)


def check_places(source: str, listing: str, what: Settlement) -> None:
    """Raise ToolchainError where compilers would see sources elsewhere, EngineError where they are
    others (see `Settlement`)."""
    if source != what.source:
        raise ToolchainError(
            f"compilers would see the sources at {source} here, and see them at {what.source} on "
            "the build's machine",
            hint="the folder is somebody else's on one of the two: remove it",
        )
    if listing != what.listing:
        raise EngineError("the sources are others here than on the build's machine")


# -- a build ---------------------------------------------------------------------------------------


class Bench:
    """One build on this worker: its sources in the view, and what runs its compilers.

    Both are there while there are jobs, and a little longer: while they are, no build of the same
    project from other sources can use the view.
    """

    def __init__(self, what: Settlement, equipment: Equipment, origin: Path, folder: Path) -> None:
        self._what = what
        self._equipment = equipment
        self._origin = origin
        self._folder = folder
        self._lock = threading.RLock()
        self._opened: ExitStack | None = None
        self._worker: Worker
        self._reports: Reports
        self._store: Store
        self._users = 0
        self._closed = False
        self._idler: threading.Timer | None = None
        self._answers: dict[Job, Future[Report]] = {}

    @property
    def idle(self) -> bool:
        return not self._users

    def open(self) -> None:
        """Lay the sources out and start what runs compilers, if they are not there."""
        with self._lock:
            if self._closed:
                raise EngineError("the build is over")
            if self._opened is not None:
                return
            with ExitStack() as stack:
                self._folder.mkdir(parents=True, exist_ok=True)
                reports: Reports = Queue()
                self._worker, self._store = stack.enter_context(
                    self._equipment.at_work(self._what, self._origin, self._folder, reports)
                )
                self._reports = reports
                threading.Thread(target=self._listen, args=(reports,), daemon=True).start()
                self._opened = stack.pop_all()

    def made(self, job: Job) -> tuple[Outcome, bytes]:
        """Run a job to its end. Raises what it failed with."""
        answer: Future[Report] = Future()
        with self._lock:
            self._users += 1
            if self._idler:
                self._idler.cancel()
        try:
            with self._lock:
                self.open()
                self._answers[job] = answer
                self._worker.start(job)
            report = answer.result()
            if not (isinstance(report, JobMade) and self._equipment.tells_ends):
                # Queues and systemd end all processes of a worker, and its compilers may be the
                # first: if this one is next, its build hears that a worker is gone, and no more.
                time.sleep(_DOUBT)
            return self._answered(job, report)
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and not self._closed:
                    self._idler = threading.Timer(_IDLE, self._rest)
                    self._idler.daemon = True
                    self._idler.start()

    def memory(self) -> int:
        """Bytes in use now by its compilers."""
        return self._worker.memory() if self._opened is not None else 0

    def bring(self, files: Mapping[str, bytes]) -> None:
        """Keep what a front left elsewhere: entries of `LEFT`, by `KIND/KEY`. Raises EngineError
        where it is something else."""
        for name, data in files.items():
            kind, _, key = name.partition("/")
            if kind not in LEFT or not _HEX.fullmatch(key):
                raise EngineError(f"{name!r} is not what a front leaves")
            self._store.put(kind, key, data)

    def close(self) -> None:
        """End all compilers, and forget the build."""
        with self._lock:
            self._closed = True
            self._stop("the build is over")
            remove_tree(self._folder)

    def _answered(self, job: Job, report: Report) -> tuple[Outcome, bytes]:
        if isinstance(report, JobKilled):
            raise KilledForMemoryError(report.rss, "")
        if isinstance(report, JobBroken):
            raise report.error
        if isinstance(report, WorkerLost):
            return {"outcome": "lost", "reason": report.reason}, b""
        assert isinstance(report, JobMade)
        found = {f"{kind}/{key}": self._store.get(kind, key) for kind, key, _ in report.entries}
        made = report.made
        outcome = {
            "outcome": "made", "seconds": made.seconds, "cpu": made.cpu, "rss": made.rss,
            "taken": made.taken, "entries": list(report.entries),
        }  # fmt: skip
        return outcome, bundle.pack({name: data for name, data in found.items() if data})

    def _listen(self, reports: Reports) -> None:
        """Give each report to who waits for it, until there are no more."""
        while True:
            report = reports.get()
            if isinstance(report, JobMade | JobKilled | JobBroken):
                self._answer(report.job, report)
            elif isinstance(report, WorkerLost):
                with self._lock:
                    if report.worker is self._worker:
                        self._stop(report.reason)
                for job in report.jobs:
                    self._answer(job, report)
                return

    def _answer(self, job: Job, report: Report) -> None:
        with self._lock:
            waiting = self._answers.pop(job, None)
        if waiting:
            waiting.set_result(report)

    def _rest(self) -> None:
        with self._lock:
            if not self._users:
                self._stop("the build had no jobs")

    def _stop(self, reason: str) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            with suppress(Exception):  # whatever it is, who waits must hear
                opened.close()
            # Who listens gives it to all that still wait, and ends.
            jobs = tuple(self._answers)
            self._reports.put(WorkerLost(self._worker, "dask", jobs, reason))
