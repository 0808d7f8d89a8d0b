"""A target built in containers: capturing, the workers of shards, assembling.

A container gets a message on its standard input and answers in lines (`worker.inside`). What it
makes comes into a folder of its own on this machine. From there what a job was asked for is taken
into the store (`engines.incoming`), and nothing else: capture and assembling add nothing.
"""

from __future__ import annotations

import os
import queue
import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol

from .. import text
from ..containers.layouts import Ending
from ..errors import CompileError, EngineError, FatwheelError, OutOfMemoryError, UpstreamError
from ..events import Emit, Note, step
from ..model import Host, Job, Unit
from ..storage.store import StoreEntry
from ..worker.assemble import Lookup, SliceDigests
from ..worker.inside import (
    ASSEMBLE,
    BRANCH,
    CAPTURE,
    CAPTURED,
    LEARNED,
    LOOK_UP,
    SHARD,
    SOURCES,
    SURVEY,
    WHEEL,
    Message,
)
from .base import Build, Limits, Reports, Worker, log_name, shard_purpose, with_log
from .conversation import (
    Conversation,
    FailedLine,
    KilledLine,
    Line,
    assemble_line,
    capture_line,
    checked_capture,
    checked_lookup,
    checked_slices,
    look_up_line,
    nonsense,
    survey_line,
)
from .incoming import LARGEST_WHEEL, take, take_file, take_folder

_PIECE = 0.5  # seconds


class Contained(Protocol):
    """What runs one task, apart from the build: see `containers.running`."""

    def start(self) -> None:
        """Raises EngineError where it cannot start."""

    def send(self, text: str) -> None:
        """Write to its standard input. Without effect where it has ended: `wait` says how."""

    def memory(self) -> int:
        """Bytes in use now; 0 is unknown."""

    def wait(self) -> Ending:
        """Wait for its end; all lines have been delivered then."""

    def kill(self) -> None:
        """End it at once, in whatever state it is. Raises nothing."""


class Site(Protocol):
    """Where a build's containers run, and what of this machine they get.

    kind: what they are, in messages: `container`. image: what they are made from. sources: the
    folder with the project, and with what capture found in it.
    """

    @property
    def build(self) -> Build: ...

    @property
    def kind(self) -> str: ...

    @property
    def image(self) -> str: ...

    @property
    def sources(self) -> Path: ...

    def incoming(self) -> Path:
        """A new folder that a container may write to."""

    def addressed(self, message: Message, incoming: Path) -> Message:
        """The message for a container that writes there."""

    def container(
        self, purpose: str, incoming: Path, limits: Limits, on_line: Callable[[str], None]
    ) -> Contained:
        """A container, not started yet. on_line gets the whole lines that it says, in a thread of
        the container's own."""


def new_incoming(build: Build, user: tuple[int, int] | None = None) -> Path:
    """A new folder for what a container makes. user: whose programs write to it, where they are not
    the caller's (see `layouts.owner`)."""
    parent = build.work / "incoming"
    parent.mkdir(exist_ok=True)
    folder = parent / secrets.token_hex(8)
    folder.mkdir()
    if user is not None:
        os.chown(folder, *user)
    return folder


def log_of(build: Build, purpose: str) -> Path:
    """The file to which a container's log goes."""
    return build.logs / log_name(purpose)


@dataclass(frozen=True)
class ImageCapture:
    """What capture found in a container."""

    bounded: ClassVar[bool] = True
    site: Site
    message: Message
    units: tuple[Unit, ...]
    lookup: Lookup
    host: Host
    notes: tuple[str, ...]
    links: tuple[tuple[str, ...], ...]
    wheel: str

    def look_up(self) -> Lookup:
        return self.lookup

    def look_again(self) -> Lookup:
        site = self.site
        message = replace(self.message, task=LOOK_UP, units=tuple(map(asdict, self.units)))
        incoming, line = _call(site, message, site.build.limits, look_up_line)
        learn(site, incoming)
        return checked_lookup(line.lookup, self.units, message.fronts)

    def open(self, shard: str, limits: Limits, reports: Reports) -> Worker:
        """The worker of a shard: a container that the build talks to."""
        return ContainerWorker(shard, self.site, self.message, limits, reports)

    def assemble(self, limits: Limits) -> tuple[Path, SliceDigests]:
        """Upstream's wheel, and the digests of the slices in it."""
        site = self.site
        message = replace(self.message, task=ASSEMBLE, units=tuple(map(asdict, self.units)))
        incoming, line = _call(site, message, limits, assemble_line)
        slices = checked_slices(line, self.units, message.fronts)
        wheel = site.build.work / WHEEL / line.wheel
        take_file(incoming, (WHEEL, line.wheel), wheel, LARGEST_WHEEL)
        return wheel, slices


def capture(site: Site, message: Message, limits: Limits, emit: Emit) -> ImageCapture:
    """Run upstream's build for the first time; the project lies below the station's sources.

    Raises the error that the container reported, or EngineError if it ended without an answer.
    """
    with step(emit, "capture"):
        captured = _captured(site, message, limits)
    for words in captured.notes:
        emit(Note(words))
    return captured


def _captured(site: Site, message: Message, limits: Limits) -> ImageCapture:
    incoming, line = _call(site, message, limits, capture_line)
    units, lookup, host = checked_capture(
        line, message.fronts, message.project.rules, message.project.front_units
    )
    sources = site.sources
    if not take_folder(incoming, SOURCES, sources / CAPTURED):
        raise nonsense("there are sources").within(CAPTURE)
    learn(site, incoming)
    return ImageCapture(
        site, message, units, lookup, host, line.sentences, line.commands, line.wheel
    )


def survey(site: Site, message: Message, limits: Limits) -> dict[str, str]:
    """What a container has, each by its name (see `worker.surroundings`). Raises as `capture`."""
    return _call(site, replace(message, task=SURVEY), limits, survey_line)[1].found


def learn(site: Site, incoming: Path) -> None:
    """Keep what a container learned of texts, for the containers of this build alone."""
    known = len(list(site.sources.glob(f"{LEARNED}*")))
    take_folder(incoming, BRANCH, site.sources / f"{LEARNED}{known}")


def _call(
    site: Site,
    message: Message,
    limits: Limits,
    parse: Callable[[str], Line | KilledLine | FailedLine],
) -> tuple[Path, Line]:
    """Run the one task of a container; returns its incoming folder, and what it made.

    A program that Linux killed for memory meanwhile was perhaps another build's: the task runs once
    more then. Raises its error if it failed.
    """
    for _ in range(2):
        incoming, line = _answered(site, message, limits, parse)
        if isinstance(line, FailedLine):
            raise _failure(line, site, message.task)
        if not isinstance(line, KilledLine):
            return incoming, line
    raise OutOfMemoryError(
        "Linux killed a program for lack of memory, both times that this ran",
        where=message.task,
        hint="give the build more memory (--memory), and this machine less other work",
    )


def _answered(
    site: Site,
    message: Message,
    limits: Limits,
    parse: Callable[[str], Line | KilledLine | FailedLine],
) -> tuple[Path, Line | KilledLine | FailedLine]:
    purpose, incoming = message.task, site.incoming()
    answers: queue.Queue[str | None] = queue.Queue(maxsize=1)  # the first line is the answer
    container = site.container(purpose, incoming, limits, lambda line: _offer(answers, line))
    container.start()
    try:
        # The answer comes before the end, if it comes.
        threading.Thread(target=_tell_end, args=(container, answers), daemon=True).start()
        container.send(site.addressed(message, incoming).to_line())
        answer = _next(answers)
    finally:
        container.kill()
        ending = container.wait()
    if answer is None:
        raise _silent(site, purpose, ending, limits)
    try:
        return incoming, parse(answer)
    except EngineError as error:
        raise error.within(purpose) from error


def _failure(line: FailedLine, site: Site, purpose: str) -> FatwheelError:
    """The error that a container tells of."""
    try:
        failure = line.error
    except EngineError as error:
        return error.within(purpose)
    if isinstance(failure, UpstreamError):
        return with_log(failure, log_of(site.build, purpose))
    return failure


def _next(answers: queue.Queue[str | None]) -> str | None:
    # In pieces: on Windows, Ctrl-C interrupts no waiting that has no end.
    while True:
        with suppress(queue.Empty):
            return answers.get(timeout=_PIECE)


def _offer(answers: queue.Queue[str | None], line: str | None) -> None:
    with suppress(queue.Full):
        answers.put_nowait(line)


def _tell_end(container: Contained, answers: queue.Queue[str | None]) -> None:
    # Where waiting fails, whoever reads the answers waits once more, and meets the error.
    with suppress(FatwheelError):
        container.wait()
    _offer(answers, None)


class ContainerWorker:
    """A shard's container; what a job made is in the store before anybody hears of it."""

    def __init__(
        self, shard: str, site: Site, message: Message, limits: Limits, reports: Reports
    ) -> None:
        """message: of the build, whatever its task."""
        purpose = shard_purpose(shard)
        incoming = site.incoming()
        store = site.build.store

        def collect(job: Job, entries: Sequence[StoreEntry]) -> None:
            take(incoming, entries, job, store)

        self._site = site
        self._limits = limits
        self._talk = Conversation(
            self,
            shard,
            reports,
            self._send,
            limits.memory,
            collect=collect,
            explain=lambda error: _explained(error, site, purpose),
        )
        self._closing = False
        self._container = site.container(purpose, incoming, limits, self._talk.heard)
        self._container.start()
        message = replace(message, task=SHARD)
        self._container.send(site.addressed(message, incoming).to_line())
        threading.Thread(target=self._watch, daemon=True).start()

    def start(self, job: Job) -> None:
        self._talk.start(job)

    def close(self) -> None:
        self._closing = True
        self._container.kill()
        self._container.wait()

    def memory(self) -> int:
        return self._container.memory()

    def _send(self, line: str) -> None:
        self._container.send(line)

    def _watch(self) -> None:
        try:
            ending = self._container.wait()
        except FatwheelError as error:
            self._talk.broken(error)
            return
        if not self._closing:
            failure = OutOfMemoryError if ending.out_of_memory else EngineError
            self._talk.lost(_in_words(ending, self._site, self._limits), failure)


def _explained(error: FatwheelError, site: Site, purpose: str) -> FatwheelError:
    """A compiler's error without the command to repeat it: its folder went with the container."""
    if not isinstance(error, CompileError):
        return error
    return CompileError(
        error.what,
        where=error.where,
        details=error.details[:-2],
        hint=(
            f"it ran in a {site.kind} of {site.image}; the worker's log: "
            f"{log_of(site.build, purpose)}"
        ),
    )


def _in_words(ending: Ending, site: Site, limits: Limits) -> str:
    if ending.out_of_memory:
        return _too_much(site, limits)
    words = f"its {site.kind} exited with code {ending.code}"
    if ending.last_lines:
        words += ": " + " / ".join(line.strip() for line in ending.last_lines[-3:])
    return words


def _silent(
    site: Site, purpose: str, ending: Ending, limits: Limits
) -> EngineError | OutOfMemoryError:
    if ending.out_of_memory:
        return OutOfMemoryError(
            _too_much(site, limits), where=purpose, hint="give the build more memory: --memory"
        )
    return EngineError(
        f"the {site.kind} ended without a result (exit code {ending.code})",
        where=purpose,
        details=ending.last_lines,
        hint=f"its log: {log_of(site.build, purpose)}",
    )


def _too_much(site: Site, limits: Limits) -> str:
    return f"its {site.kind} exceeded its memory limit of {text.size(limits.memory)}"
