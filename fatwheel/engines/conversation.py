"""Messages from and to workers and containers; everything received is validated.

Every line from there is parsed here and nowhere else. Strangers' builds run beside what writes
them, so anything may come: what is not exactly what our own code would have said is an EngineError.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..arch import Arch
from ..errors import (
    CompileError,
    EngineError,
    FatwheelError,
    FormatError,
    OutOfMemoryError,
    StitchError,
    StoreError,
    ToolchainError,
    UpstreamError,
    UsageError,
    VerifyError,
)
from ..model import Front, Host, Job, Unit
from ..storage.documents import read_object
from ..storage.store import StoreEntry
from ..text import clean, one_line
from ..worker.archs import Rules, codes_of, fronts_of, planned
from ..worker.assemble import Lookup, Reason, SliceDigests, all_jobs
from ..worker.slices import Made
from .base import JobBroken, JobKilled, JobMade, Report, Reports, Said, Worker, WorkerLost

MOST = 100_000  # units of a project, jobs, lines of an error
LONGEST = 16 << 20  # characters of a line
_MOST_KEYS = 1000  # of an object: each mistake costs pydantic 1 KiB; lists end at the first
_IMAGE = re.compile(r"(?:sm|compute)_\d{2,3}[af]?", re.ASCII)
_KEY = re.compile("[0-9a-f]{64}")
_SHOWN = 200  # characters of a line that makes no sense
_SAID = 2000  # characters of a line of a log, or of an error
_MOST_REASONS = 100  # why units are compiled again
_MOST_NOTES = 10  # on what a build compiles
_MOST_DETAILS = 1000  # lines of an error
_ERRORS: dict[str, type[FatwheelError]] = {
    kind.__name__: kind
    for kind in (
        CompileError, EngineError, FatwheelError, FormatError, OutOfMemoryError, StitchError,
        StoreError, ToolchainError, UpstreamError, UsageError, VerifyError,
    )
}  # fmt: skip

T = TypeVar("T")
Line = TypeVar("Line", bound="_Line")
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
_Bytes = Annotated[int, Field(ge=0, le=1 << 50)]
_WheelFile = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+!-]{0,250}\.whl$")]


class _Line(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class SaidLine(_Line):
    """A line of a worker's log."""

    said: str


class MadeLine(_Line):
    """A job is done; entries lists what it put into the store, or into a branch of it."""

    id: int
    outcome: Literal["made"]
    seconds: _Seconds
    cpu: _Seconds
    rss: _Bytes
    taken: bool
    entries: Annotated[list[StoreEntry], Field(max_length=MOST, fail_fast=True)]

    @property
    def made(self) -> Made:
        return Made(self.seconds, self.cpu, self.rss, taken=self.taken)


class KilledLine(_Line):
    """A compiler was killed for memory; a container that does one thing names no job."""

    id: int | None = None
    outcome: Literal["killed"]
    rss: _Bytes


class FailedLine(_Line):
    """A job failed, or the whole task of a worker or container did."""

    id: int | None = None
    outcome: Literal["failed"]
    kind: Annotated[str, Field(alias="class")]
    what: str
    where: str | None
    hint: str | None
    details: Annotated[list[str], Field(max_length=MOST, fail_fast=True)]

    @property
    def error(self) -> FatwheelError:
        """The error as it was raised there, fit for a terminal. Raises EngineError."""
        if self.kind not in _ERRORS:
            raise nonsense(f"class {self.kind}")
        return _ERRORS[self.kind](
            _cut(self.what),
            where=self.where and _cut(self.where),
            hint=self.hint and _cut(self.hint),
            details=[_cut(line) for line in self.details[:_MOST_DETAILS]],
        )


class CapturedLine(_Line):
    """What capture found."""

    outcome: Literal["made"]
    units: Annotated[list[Unit], Field(max_length=MOST, fail_fast=True)]
    notes: Annotated[list[str], Field(max_length=_MOST_NOTES, fail_fast=True)]
    links: Annotated[list[list[str]], Field(max_length=MOST, fail_fast=True)]
    wheel: _WheelFile
    lookup: Lookup
    host: Host

    @property
    def sentences(self) -> tuple[str, ...]:
        """The notes, fit for a terminal."""
        return tuple(map(_cut, self.notes))

    @property
    def commands(self) -> tuple[tuple[str, ...], ...]:
        """The links, fit for a terminal."""
        return tuple(tuple(map(_cut, words)) for words in self.links)


class LookedUpLine(_Line):
    """What the store has by now of what capture found."""

    outcome: Literal["made"]
    lookup: Lookup


class SurveyedLine(_Line):
    """What a container has, each by its name (see `worker.surroundings`)."""

    outcome: Literal["made"]
    found: dict[str, Annotated[str, Field(max_length=200)]]


class UnitLine(_Line):
    """The slices of a unit, by image."""

    name: str
    slices: dict[str, _Digest | None]


class AssembledLine(_Line):
    """The upstream wheel, by its name in the incoming folder. linked: device code that was linked
    from that of units."""

    outcome: Literal["made"]
    wheel: _WheelFile
    slices: Annotated[list[UnitLine], Field(max_length=MOST, fail_fast=True)]
    linked: Annotated[list[UnitLine], Field(max_length=MOST, fail_fast=True)]


WorkerLine = SaidLine | MadeLine | KilledLine | FailedLine
_WORKER: TypeAdapter[WorkerLine] = TypeAdapter(WorkerLine)
_CAPTURE: TypeAdapter[CapturedLine | KilledLine | FailedLine] = TypeAdapter(
    CapturedLine | KilledLine | FailedLine
)
_LOOK_UP: TypeAdapter[LookedUpLine | KilledLine | FailedLine] = TypeAdapter(
    LookedUpLine | KilledLine | FailedLine
)
_ASSEMBLE: TypeAdapter[AssembledLine | KilledLine | FailedLine] = TypeAdapter(
    AssembledLine | KilledLine | FailedLine
)
_SURVEY: TypeAdapter[SurveyedLine | KilledLine | FailedLine] = TypeAdapter(
    SurveyedLine | KilledLine | FailedLine
)


def worker_line(line: str) -> WorkerLine:
    """Parse a line from a shard's worker. Raises EngineError."""
    found = _parsed(_WORKER, line)
    if isinstance(found, SaidLine):
        return SaidLine(said=clean(found.said[:_SAID]))
    return found


def capture_line(line: str) -> CapturedLine | KilledLine | FailedLine:
    """Parse the result of capture. Raises EngineError."""
    return _parsed(_CAPTURE, line)


def look_up_line(line: str) -> LookedUpLine | KilledLine | FailedLine:
    """Parse the result of one more look-up. Raises EngineError."""
    return _parsed(_LOOK_UP, line)


def assemble_line(line: str) -> AssembledLine | KilledLine | FailedLine:
    """Parse the result of assembling. Raises EngineError."""
    return _parsed(_ASSEMBLE, line)


def survey_line(line: str) -> SurveyedLine | KilledLine | FailedLine:
    """Parse the result of a survey. Raises EngineError."""
    return _parsed(_SURVEY, line)


def _parsed(adapter: TypeAdapter[T], line: str) -> T:
    try:
        if not _is_slim(read_object(line.encode(), "", LONGEST)):
            raise nonsense(line)
        return adapter.validate_json(line, strict=True)
    except (FormatError, ValidationError, ValueError, RecursionError) as error:
        raise nonsense(line) from error


def _cut(words: str) -> str:
    return one_line(words[:_SAID])


def _is_slim(found: Any) -> bool:
    """Whether no object in a value has more keys than valid messages have."""
    parts = [found]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            if len(part) > _MOST_KEYS:
                return False
            parts += part.values()
        elif isinstance(part, list):
            parts += part
    return True


def nonsense(line: str) -> EngineError:
    """The error for an invalid message."""
    return EngineError(
        "the worker of the build sent an invalid message",
        details=[clean(line[:_SHOWN])],
        hint=(
            "code of the project ran beside it: does it write to file descriptors that are not "
            "its own?"
        ),
    )


# -- what capture found ---------------------------------------------------------------------------


def checked_capture(
    line: CapturedLine,
    fronts: Sequence[Front],
    rules: Rules = (),
    front_units: Collection[str] = (),
) -> tuple[tuple[Unit, ...], Lookup, Host]:
    """The units, what is left to do of them for these fronts, and the host. Raises EngineError, and
    UpstreamError where units are not for what was asked for."""
    units = tuple(line.units)
    for unit in units:
        _check_unit(unit)
    found = [replace(unit, images=None) for unit in units]
    if planned(found, rules, fronts, front_units) != units:
        raise nonsense("units for other architectures than planned")
    host = line.host
    if not all(_is_plain(word, 200) for word in (host.compiler, host.compiler_id, host.python)):
        raise nonsense(f"host {host}")
    return units, checked_lookup(line.lookup, units, fronts), host


def checked_lookup(found: Lookup, units: Sequence[Unit], fronts: Sequence[Front]) -> Lookup:
    """What is left to do of these units. Raises EngineError."""
    known = set(units)
    jobs = tuple(_checked_job(job, known, fronts) for job in found.pending)
    results = [result for job in jobs for result in _results(job)]
    if len(set(results)) != len(results):
        raise nonsense("the same job twice")
    cuda = [unit for unit in units if unit.kind == "cuda"]
    slices = sum(len(front.codes) for unit in cuda for front in fronts_of(unit, fronts))
    lacking = sum(len(job.front.codes) for job in jobs if job.front)
    left = {job.unit for job in jobs}
    names = {unit.name for unit in left}
    again = tuple(name for name in dict.fromkeys(found.archlist_units) if name in names)
    lookup = Lookup(
        jobs, len(units), slices, max(0, slices - lacking), again, found.passes, found.made,
        found.absent, _checked_reasons(found.reasons, left),
        found.state if found.state.isascii() else "",
    )  # fmt: skip
    if len(found.made) != len(all_jobs(units, fronts)):
        raise nonsense("keys of other jobs than there are")
    _check_keys(lookup)
    return lookup


def _checked_reasons(found: Sequence[Reason], units: Iterable[Unit]) -> tuple[Reason, ...]:
    """Why these units are compiled again, each for one reason; for people, so that it is cut rather
    than refused."""
    untold = Counter(unit.name for unit in units)
    reasons = []
    for reason in found[:_MOST_REASONS]:
        names = []
        for name in reason.units:
            if untold[name] > 0:
                untold[name] -= 1
                names.append(name)
        if names and reason.what:
            reasons.append(Reason(_cut(reason.what[:_SHOWN]), tuple(names)))
    return tuple(reasons)


def _check_keys(lookup: Lookup) -> None:
    """Refuse what is no key of the kinds that are asked for elsewhere."""
    keys = [key for one in lookup.passes for key in (*one.texts, *one.seen)]
    names = {one.name for one in lookup.passes}
    if len(names) != len(lookup.passes) or not all(_is_plain(name, 40) for name in names):
        raise nonsense("passes of no name")
    pairs = [*lookup.absent, *(pair for job in lookup.made for pair in job)]
    if any(kind not in ("text", "seen", "slice", "host") for kind, _ in pairs) or not all(
        map(_KEY.fullmatch, (*keys, *(key for _, key in pairs)))
    ):
        raise nonsense("what is no key of the store")
    if any(kind not in ("slice", "host") for kind, _ in lookup.absent):
        raise nonsense("what is absent is not asked for elsewhere")


def _check_unit(unit: Unit) -> None:
    if unit.kind not in ("cuda", "c++") or not _is_plain(unit.name, 4096):
        raise nonsense(f"{unit.kind} unit {unit.name}")
    if not all(map(_IMAGE.fullmatch, (*unit.own, *(unit.images or ())))):
        raise nonsense(f"images of unit {unit.name}")


def _checked_job(job: Job, known: set[Unit], fronts: Sequence[Front]) -> Job:
    """A job of these units and fronts; this machine estimates its cost, and takes calls apart."""
    if job.unit not in known:
        raise nonsense(f"a job of {job.unit.name}, which is not one of the units")
    if job.front is None:
        sound = job.unit.kind == "c++" and job.host and job.stage == "whole"
    else:
        of_unit = fronts_of(job.unit, fronts) if job.unit.kind == "cuda" else ()
        codes = job.front.codes
        whole = [one.codes for one in of_unit if replace(one, codes=codes) == job.front]
        sound = job.unit.kind == "cuda" and bool(whole) and _is_stage(job)
        sound = sound and set(codes) <= set(whole[0]) and len(set(codes)) == len(codes)
    if not sound:
        raise nonsense(f"a job that was not requested: {job.label}")
    return replace(job, memory=0, seconds=0)


def _is_stage(job: Job) -> bool:
    """Whether a CUDA job is one that a look-up may find: a call, or a stage that needs no front."""
    codes = job.front.codes if job.front else ()
    return {
        "whole": bool(codes),
        "ptxas": len(codes) == 1 and not job.host,
        "host": not codes and job.host,
    }.get(job.stage, False)


def _results(job: Job) -> list[tuple[Unit, Arch | None, str]]:
    """What a job makes: images and a host object; a front runs once at most in a call."""
    virtual = job.front.virtual if job.front else None
    made = [*(job.front.codes if job.front else ()), *(["host"] if job.host else [])]
    return [(job.unit, virtual, name) for name in made]


def checked_slices(
    line: AssembledLine, units: Sequence[Unit], fronts: Sequence[Front]
) -> SliceDigests:
    """The digests of the slices in a wheel: of each unit, all that were asked for; and of what was
    linked, none but those.

    Raises EngineError.
    """
    cuda = [unit for unit in units if unit.kind == "cuda"]
    if [unit.name for unit in line.slices] != [unit.name for unit in cuda]:
        raise nonsense("slices of other units than capture found")
    for unit, found in zip(cuda, line.slices, strict=True):
        if sorted(found.slices) != sorted(codes_of(unit, fronts)):
            raise nonsense(f"other slices of {unit.name} than were asked for")
    cubins = {code for front in fronts for code in front.codes if code.startswith("sm_")}
    for found in line.linked:
        if not (_is_plain(found.name, 4096) and found.slices.keys() <= cubins):
            raise nonsense(f"other linked images of {found.name[:200]} than were asked for")
    return [{"name": one.name, "slices": one.slices} for one in (*line.slices, *line.linked)]


def _is_plain(text: str, most: int) -> bool:
    """Whether a text may be shown and kept as it is."""
    return 0 < len(text) <= most and text.isprintable()


# -- jobs in, outcomes out (see `worker.shard`) ---------------------------------------------------


_WAITING = 10_000  # reports that wait to be read: beyond that, what is only said is left out


def nothing_to_collect(job: Job, entries: Sequence[StoreEntry]) -> None:
    """For workers that write to the store themselves."""


class Conversation:
    """One worker's jobs.

    limit:   the bytes that it may have, 0 for no limit of its own.
    collect: called before a job is reported as made, with what it put into a branch of the
             store. What that raises is how the job failed.
    explain: what an error of the worker means to somebody outside of it.
    """

    def __init__(
        self,
        worker: Worker,
        shard: str,
        reports: Reports,
        send: Callable[[str], None],
        limit: int = 0,
        collect: Callable[[Job, Sequence[StoreEntry]], None] = nothing_to_collect,
        explain: Callable[[FatwheelError], FatwheelError] = lambda error: error,
    ) -> None:
        self._worker = worker
        self._shard = shard
        self._reports = reports
        self._send = send
        self._limit = limit
        self._collect = collect
        self._explain = explain
        self._lock = threading.Lock()  # over what follows
        self._jobs: dict[int, Job] = {}
        self._count = 0
        self._lost: tuple[str, type[FatwheelError]] | None = None
        self._error: FatwheelError | None = None

    def say(self, message: dict[str, Any]) -> None:
        """Send one line; if the worker is gone, its reader reports that."""
        self._send(json.dumps(message) + "\n")

    def start(self, job: Job) -> None:
        """Give the worker a job; report the worker as lost if it is gone."""
        with self._lock:
            self._count += 1
            number = self._count
            self._jobs[number] = job
        self.say({"id": number, "job": asdict(job)})
        if self._lost is not None:
            self.lost(*self._lost)
        elif self._error is not None:
            self.broken(self._error)

    def heard(self, line: str) -> None:
        """An outcome came in, or a line of the worker's log.

        Nonsense ends the conversation: builds of strangers run beside a worker.
        """
        if self._error is not None:
            return
        try:
            self._take(line)
        except FatwheelError as error:
            self.broken(error.within(self._shard))

    def _take(self, line: str) -> None:
        message = worker_line(line)
        if isinstance(message, SaidLine):
            if self._reports.qsize() < _WAITING:
                self._reports.put(Said(self._shard, message.said))
            return
        if message.id is None:  # the worker could not begin
            self.broken(message.error if isinstance(message, FailedLine) else nonsense(line))
            return
        with self._lock:
            job = self._jobs.get(message.id)
        if job is None:
            raise nonsense(line)
        report = self._report(job, message)
        with self._lock:
            there = self._jobs.pop(message.id, None)
        if there is not None:
            self._reports.put(report)

    def broken(self, error: FatwheelError) -> None:
        """Report all jobs of this worker as failed, for one reason."""
        with self._lock:
            self._error = error
            jobs, self._jobs = tuple(self._jobs.values()), {}
        for job in jobs:
            self._reports.put(JobBroken(job, error))

    def lost(self, reason: str, failure: type[FatwheelError] = OutOfMemoryError) -> None:
        """Give back the jobs that were not done, each once."""
        with self._lock:
            self._lost = (reason, failure)
            jobs, self._jobs = tuple(self._jobs.values()), {}
        self._reports.put(WorkerLost(self._worker, self._shard, jobs, reason, failure, self._limit))

    def _report(self, job: Job, message: MadeLine | KilledLine | FailedLine) -> Report:
        if isinstance(message, KilledLine):
            return JobKilled(job, message.rss, self._limit)
        if isinstance(message, FailedLine):
            return JobBroken(job, self._explain(message.error))
        try:
            self._collect(job, message.entries)
        except FatwheelError as error:
            return JobBroken(job, error.within(job.label))
        return JobMade(job, message.made, tuple(message.entries))
