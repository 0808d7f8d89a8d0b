"""The `docker` engine: capture, shards and assembly each run in a container.

What a container makes comes into a folder of its own on this machine. What a job was asked for is
taken into the store from there (`engines.incoming`), and nothing else: capture and assembling add
nothing. Which containers those are is in `engines.dockerplan`, Docker itself is the business of
`containers`, and what runs inside is `worker.inside`.
"""

from __future__ import annotations

import os
import queue
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..config.model import Download, Package, Target, Toolchain
from ..containers.client import DockerEngine, connect
from ..containers.imagebuild import Image, base_ids, ensure_images
from ..containers.layouts import layout_of, owner
from ..containers.render import FILES
from ..containers.roster import Roster, enrolled, reap
from ..containers.running import Container, Ending
from ..errors import CompileError, EngineError, FatwheelError, OutOfMemoryError
from ..events import Emit, Note, step
from ..machine import cores, free_memory
from ..model import Host, Job, Shard, Unit
from ..provenance.buildlock import Material
from ..shipped import PACKAGE
from ..storage.cache import cache_folder
from ..storage.store import Entry
from ..toolchain.interpreters import build_of, compiler_id
from ..worker.assemble import Lookup, SliceDigests
from ..worker.context import digest
from ..worker.inside import (
    ASSEMBLE,
    BRANCH,
    CAPTURE,
    CAPTURED,
    LEARNED,
    PROJECT,
    SHARD,
    SOURCES,
    WHEEL,
    Message,
)
from .base import (
    Allotment,
    Build,
    Engine,
    Footprint,
    Limits,
    Reports,
    Worker,
    gib,
    log_name,
    shard_purpose,
)
from .conversation import (
    Conversation,
    FailedLine,
    KilledLine,
    Line,
    assemble_line,
    capture_line,
    checked_lookup,
    checked_slices,
    nonsense,
)
from .dockerplan import Station, containers_of, footprint_of, pinned_here, scope_of
from .incoming import LARGEST_WHEEL, take, take_file, take_folder

_ENGINE_KEEPS = 1 << 30  # bytes of the engine's memory that are not for builds


class Docker(Engine):
    name = "docker"
    isolated = True
    uses_images = True

    def obstacle(self, toolchain: Toolchain) -> str:
        if toolchain.installed:
            return "is installed on this machine, and containers do not see it"
        if toolchain.containers is None:
            return "has no container images: its file has no [containers] table"
        return ""

    def answers(self, toolchain: Toolchain) -> bool:
        with suppress(EngineError):
            return connect().os == containers_of(toolchain).os
        return False

    def system(self) -> str:
        # An engine that does not answer is reported once it is needed; a plan needs none.
        with suppress(EngineError):
            return connect().os
        return super().system()

    def files(self, target: Target) -> list[tuple[Package | Download, Path]]:
        pins = (*target.recipe.files, *target.tools.files)
        source = target.recipe.source.package
        return [(pin, cache_folder() / FILES) for pin in pins if pin != source]

    def footprint(
        self, targets: Sequence[Target], shards: Sequence[Shard], allotment: Allotment
    ) -> Footprint:
        return footprint_of(targets, shards, allotment)

    def prepare(self, target: Target, emit: Emit) -> ImageWorkplace:
        """An image of the target's Python and torch, built where the engine has it not.

        Leftovers of builds that were killed are removed. Raises EngineError, and what making images
        does.
        """
        toolchain = target.toolchain
        engine = connect()
        engine.check_os(containers_of(toolchain).os, toolchain.name)
        if owner(engine) is not None:
            # Its containers are somebody else, who must be able to read what is written here.
            os.umask(os.umask(0o077) & ~0o055)
        cache = cache_folder()
        if unknown := reap(engine, cache).note:
            emit(Note(unknown))
        with step(emit, "images", f"{toolchain.name}, Python {target.python}"):
            images = ensure_images(engine, toolchain, target.python, target.torch, cache, emit)
        return ImageWorkplace(
            engine, tuple(images), scope_of(target, pinned_here(target), base_ids(engine))
        )


# -- a target in its image -------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageWorkplace:
    """The images of a target, on an engine; the last is the one that its containers are made
    from."""

    engine: DockerEngine
    images: tuple[Image, ...]
    scope: tuple[Any, ...]

    @property
    def identity(self) -> str:
        return digest(self.images[-1].tag)

    @property
    def materials(self) -> tuple[Material, ...]:
        return tuple(
            Material("image", one.tag, "", "", 0, one.id.removeprefix("sha256:"), "")
            for one in self.images
        )

    @property
    def capacity(self) -> Limits:
        """The smaller of this machine's and the engine's, which is 0 where it gave none."""
        memory = max(self.engine.memory - _ENGINE_KEEPS, self.engine.memory // 2)
        here = Limits(cores(), free_memory())
        return Limits(
            min(here.cpus, self.engine.cpus or here.cpus), min(here.memory, memory or here.memory)
        )

    @contextmanager
    def capture(self, build: Build, emit: Emit) -> Iterator[ImageCapture]:
        emit(Note(f"logs of the containers: {build.logs}"))
        with enrolled(build.logs.name, build.work, self.engine.endpoint) as roster:
            site = self._site(build, roster)
            message = self._message(build, site.station)
            with step(emit, "capture"):
                captured = capture(site, message, build.limits)
            for words in captured.notes:
                emit(Note(words))
            yield captured

    def _site(self, build: Build, roster: Roster) -> Site:
        containers = containers_of(build.target.toolchain)
        for folder in (build.stores.own, *build.stores.trunks):
            folder.mkdir(parents=True, exist_ok=True)
        station = Station(
            image=self.images[-1].tag, os=containers.os, os_build=containers.os_build,
            python=build.target.python, code=PACKAGE, sources=build.work / "sources",
            store=build.stores.own, trunk=build.stores.trunk,
        )  # fmt: skip
        return Site(self.engine, station, build, roster)

    def _message(self, build: Build, station: Station) -> Message:
        toolchain, layout = build.target.toolchain, layout_of(station.os)
        place = station.sources / PROJECT
        project = build.unpack(place)
        pins = build_of(toolchain, build.target.python, build.target.torch)
        return Message(
            task=CAPTURE, name=build.name, project=project.at(project.root.relative_to(place)),
            fronts=build.fronts, units=(), compiler_id=compiler_id(toolchain, pins),
            scope=build.scope, seeded=build.seeded, threads=build.limits.cpus,
            description=layout.description, sources=layout.sources, store=layout.store,
            incoming=layout.incoming, work=layout.work,
            trunk=layout.trunk if build.stores.trunk else "",
        )  # fmt: skip


@dataclass(frozen=True)
class Site:
    """Where a build's containers run, and what of this machine they get.

    roster: where every container is put down, so that leftovers are known.
    """

    engine: DockerEngine
    station: Station
    build: Build
    roster: Roster

    def incoming(self) -> Path:
        """A new folder that a container may write to."""
        parent = self.build.work / "incoming"
        parent.mkdir(exist_ok=True)
        folder = parent / secrets.token_hex(8)
        folder.mkdir()
        user = owner(self.engine)
        if user is not None:
            os.chown(folder, *user)
        return folder

    def container(
        self, purpose: str, incoming: Path, limits: Limits, on_line: Callable[[str], None]
    ) -> Container:
        """A container, not started yet."""
        spec = self.station.container(purpose, incoming, limits)
        return Container(self.engine, spec, self.roster, on_line, self.log(purpose))

    def log(self, purpose: str) -> Path:
        """The file for what a container says."""
        return self.build.logs / log_name(purpose)


@dataclass(frozen=True)
class ImageCapture:
    """What capture found in a container."""

    site: Site
    message: Message
    units: tuple[Unit, ...]
    lookup: Lookup
    host: Host
    notes: tuple[str, ...]

    def look_up(self) -> Lookup:
        return self.lookup

    def open(self, shard: str, limits: Limits, reports: Reports) -> Worker:
        """The worker of a shard: a container that the build talks to."""
        return _ContainerWorker(shard, self, limits, reports)

    def assemble(self, limits: Limits) -> tuple[Path, SliceDigests]:
        """Upstream's wheel, and the digests of the slices in it."""
        site, purpose = self.site, ASSEMBLE
        message = replace(self.message, task=purpose, units=tuple(map(asdict, self.units)))
        incoming, answer = _call(site, purpose, message, limits)
        line = _made(assemble_line, answer, purpose, limits)
        slices = checked_slices(line, self.units, message.fronts)
        wheel = site.build.work / WHEEL / line.wheel
        take_file(incoming, (WHEEL, line.wheel), wheel, LARGEST_WHEEL)
        return wheel, slices


def capture(site: Site, message: Message, limits: Limits) -> ImageCapture:
    """Run upstream's build for the first time; the project lies below the station's sources.

    Raises what the container met, or EngineError where it ended without a word.
    """
    incoming, answer = _call(site, CAPTURE, message, limits)
    line = _made(capture_line, answer, CAPTURE, limits)
    units, lookup, host = checked_lookup(line, message.fronts)
    sources = site.station.sources
    if not take_folder(incoming, SOURCES, sources / CAPTURED):
        raise nonsense("there are sources").within(CAPTURE)
    # What it learned of texts is for the containers of this build alone.
    take_folder(incoming, BRANCH, sources / LEARNED)
    return ImageCapture(site, message, units, lookup, host, line.sentences)


def _call(site: Site, purpose: str, message: Message, limits: Limits) -> tuple[Path, str]:
    """Run one task in a container; returns the incoming folder and the answer."""
    incoming = site.incoming()
    answers: queue.Queue[str | None] = queue.Queue(maxsize=1)  # the first line is the answer
    container = site.container(purpose, incoming, limits, lambda line: _offer(answers, line))
    container.start()
    try:
        # The answer comes before the end, if it comes.
        threading.Thread(target=_tell_end, args=(container, answers), daemon=True).start()
        container.send(message.to_line())
        answer = answers.get()
    finally:
        container.kill()
        ending = container.wait()
    if answer is None:
        raise _silent(site, purpose, ending, limits)
    return incoming, answer


def _made(
    parse: Callable[[str], Line | KilledLine | FailedLine],
    answer: str,
    purpose: str,
    limits: Limits,
) -> Line:
    """What a container made, by its answer. Raises its error if it failed."""
    try:
        line = parse(answer)
        failure = line.error if isinstance(line, FailedLine) else None
    except EngineError as error:
        raise error.within(purpose) from error
    if failure is not None:
        raise failure
    if isinstance(line, KilledLine):
        raise _short_of_memory(purpose, limits)
    assert not isinstance(line, FailedLine)
    return line


def _offer(answers: queue.Queue[str | None], line: str | None) -> None:
    with suppress(queue.Full):
        answers.put_nowait(line)


def _tell_end(container: Container, answers: queue.Queue[str | None]) -> None:
    # Where waiting fails, whoever reads the answers waits once more, and meets the error.
    with suppress(FatwheelError):
        container.wait()
    _offer(answers, None)


class _ContainerWorker:
    """A shard's container; what a job made is in the store before anybody hears of it."""

    def __init__(
        self, shard: str, captured: ImageCapture, limits: Limits, reports: Reports
    ) -> None:
        purpose = shard_purpose(shard)
        site = captured.site
        incoming = site.incoming()
        store = site.build.store

        def collect(job: Job, entries: Sequence[Entry]) -> None:
            take(incoming, entries, job, store)

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
        self._container.send(replace(captured.message, task=SHARD).to_line())
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
            self._talk.lost(_in_words(ending, self._limits), failure)


def _explained(error: FatwheelError, site: Site, purpose: str) -> FatwheelError:
    """A compiler's error without the command to repeat it: its folder went with the container."""
    if not isinstance(error, CompileError):
        return error
    return CompileError(
        error.what,
        where=error.where,
        details=error.details[:-2],
        hint=(
            f"it ran in a container of {site.station.image}; the worker's log: {site.log(purpose)}"
        ),
    )


def _in_words(ending: Ending, limits: Limits) -> str:
    if ending.out_of_memory:
        return _too_much(limits)
    words = f"its container exited with code {ending.code}"
    if ending.last_lines:
        words += ": " + " / ".join(line.strip() for line in ending.last_lines[-3:])
    return words


def _silent(
    site: Site, purpose: str, ending: Ending, limits: Limits
) -> EngineError | OutOfMemoryError:
    if ending.out_of_memory:
        return _short_of_memory(purpose, limits)
    return EngineError(
        f"the container ended without a result (exit code {ending.code})",
        where=purpose,
        details=ending.last_lines,
        hint=f"its log: {site.log(purpose)}",
    )


def _short_of_memory(purpose: str, limits: Limits) -> OutOfMemoryError:
    return OutOfMemoryError(
        _too_much(limits), where=purpose, hint="give the build more memory: --memory"
    )


def _too_much(limits: Limits) -> str:
    return f"its container exceeded its memory limit of {gib(limits.memory)}"
