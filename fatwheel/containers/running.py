"""Runs one container: its input, its output as lines and as a log, its memory and how it ended.

The engine removes a container when it ends, and closes its input when this process ends: so
nothing stays behind, even after SIGKILL. How it ended is learned from the engine's events: a
container that is gone cannot be asked, and only they tell one that was killed for memory from one
that was killed by somebody.
"""

from __future__ import annotations

import calendar
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from docker import errors as docker_errors

from ..errors import EngineError, StoreError
from ..text import clean, size
from .client import FAILURES, DockerEngine, engine_errors
from .layouts import ContainerSpec, Ending, create_arguments, ended_for_memory
from .roster import Roster
from .stream import STDOUT, Lines, Log, Wire

_REMOVAL = 60.0  # seconds to wait for the engine to remove what has ended
_AGAIN = (0.2, 1.0, 3.0)  # seconds before the events are asked for again, when they break off
_LOOK_EVERY = 0.5  # seconds between two looks at the disk
_FLOOR = 512 << 20  # bytes that a container must leave free where it writes
_RECENT = 5.0  # seconds: an end that comes later has nothing to do with memory


class RunningContainer:
    """A container, which several threads may use; `wait` and `kill` may come in any order.

    on_line gets the whole lines of its standard output, in a thread of the container's own.
    Everything else that it writes is appended to the file `log`.
    """

    def __init__(
        self,
        engine: DockerEngine,
        spec: ContainerSpec,
        roster: Roster,
        on_line: Callable[[str], None],
        log: Path,
    ) -> None:
        self.spec = spec
        self.id = ""
        self.warnings: tuple[str, ...] = ()
        self._engine = engine
        self._roster = roster
        self._name = ""
        self._on_line = on_line
        self._log_path = log
        self._end = _End(engine)
        self._reader = self._thread("output", self._read)
        self._sampler = self._thread("statistics", self._sample)
        self._sending = threading.Lock()
        self._unsampled = threading.Lock()  # taken for good by the first who asks for memory
        self._memory = 0
        self._killed = False
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Make it and start it. Raises EngineError, and OSError if log or roster fail."""
        doing = f"start the container for {self.spec.purpose}"
        body = create_arguments(self.spec, self._engine, self._roster.labels)
        self._name = self._roster.announce()
        self._log = Log(self._log_path)
        api: Any = self._engine.api
        with engine_errors(doing, self.spec.image):
            made = api.create_container_from_config(body, self._name)
        self.id = made["Id"]
        self.warnings = tuple(made.get("Warnings") or ())
        try:
            self._roster.made(self._name, self.id)
            with engine_errors(doing, self.spec.image):
                self._attach()
                self._engine.api.start(self.id)
        except BaseException:
            self._remove()
            self._log.close()
            raise
        self._reader.start()
        self._thread("disk", self._watch_disk).start()
        if self._killed:  # too early to have had an effect
            self.kill()

    def _attach(self) -> None:
        """Listen before it starts, so that nothing is missed."""
        api = self._engine.api
        created = _seconds(api.inspect_container(self.id)["Created"])
        asked = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        self._wire = Wire(api.attach_socket(self.id, params=asked))
        self._thread("events", lambda: self._end.watch(self.id, created)).start()

    def send(self, text: str) -> None:
        """Write to its standard input. Without effect where it has ended: `wait` says how."""
        with self._sending, suppress(OSError):
            self._wire.write(text.encode())

    def memory(self) -> int:
        """Bytes in use now by its processes, without files cached for them; 0 is unknown.

        The engine tells once a second, beginning with the first call.
        """
        if self._unsampled.acquire(blocking=False):
            self._sampler.start()
        return self._memory

    def wait(self) -> Ending:
        """Wait until it has ended and is removed. All lines have been delivered then.

        Raises EngineError where the engine went away meanwhile, and what `on_line` raised.
        """
        self._reader.join()
        if not self._end.removed.wait(_REMOVAL):
            self._remove()
        self._memory = 0
        code = self._end.code
        if code is not None:
            self._roster.ended(self._name)
        if self._failure is not None:
            raise self._failure
        if code is None:
            raise self._end.lost(self.spec.purpose)
        memory = not self._killed and ended_for_memory(self.spec.os, code, self._end.short)
        return Ending(code, memory, self._log.last_lines)

    def kill(self) -> None:
        """End it at once, in whatever state it is. Raises nothing; `wait` tells how it ended."""
        self._killed = self._killed or self._end.code is None
        if self.id:
            with suppress(*FAILURES):
                self._engine.api.kill(self.id)

    def _read(self) -> None:
        lines = Lines(self._on_line, self._log.write)
        try:
            for stream, data in self._wire.frames():
                if stream == STDOUT:
                    lines.feed(data)
                else:
                    self._log.write(data)
            lines.end()
        except BaseException as error:
            # The engine's end is known from the events; the rest is on_line's.
            if not isinstance(error, OSError):
                self._failure = error
                self.kill()
        finally:
            self._log.close()
            self._wire.close()

    def _sample(self) -> None:
        with suppress(*FAILURES):
            for sample in self._engine.api.stats(self.id, decode=True):
                self._memory = _in_use(sample)

    def _watch_disk(self) -> None:
        """End it before it fills a disk of this machine."""
        places = [mount.source for mount in self.spec.mounts if mount.writable]
        while not self._end.removed.wait(_LOOK_EVERY):
            for place in places:
                with suppress(OSError):
                    free = shutil.disk_usage(place).free
                    if free < _FLOOR:
                        self._failure = _full(self.spec.purpose, place, free)
                        self.kill()
                        return

    def _remove(self) -> None:
        with suppress(*FAILURES):
            self._engine.api.remove_container(self.id, force=True, v=True)
            self._roster.ended(self._name)

    def _thread(self, does: str, target: Callable[[], None]) -> threading.Thread:
        name = f"{does} of {self.spec.purpose}"
        return threading.Thread(target=target, name=name, daemon=True)


class _End:
    """What the engine's events say of a container's end."""

    def __init__(self, engine: DockerEngine) -> None:
        self.removed = threading.Event()
        self.code: int | None = None
        self._api: Any = engine.api
        self._endpoint = engine.endpoint
        self._out_of_memory = 0
        self._ended = 0
        self._error: Exception | None = None

    @property
    def short(self) -> bool:
        """Whether something in it was killed for memory, just before its end."""
        return bool(self._out_of_memory) and self._ended - self._out_of_memory < _RECENT * 1e9

    def watch(self, container: str, created: int) -> None:
        """Follow the events until the container is removed, or the engine is gone.

        created is when it was, in seconds by the engine's clock: what happened since is told again.
        """
        for pause in (*_AGAIN, None):
            try:
                if self._follow(container, created):
                    break
                self._api.inspect_container(container)  # is it still there?
            except docker_errors.NotFound:
                break
            except FAILURES as error:
                self._error = error
            if pause is not None:
                time.sleep(pause)
        self.removed.set()

    def _follow(self, container: str, created: int) -> bool:
        """Whether the events went on until it was removed."""
        filters = {"container": container}
        for event in self._api.events(since=created, decode=True, filters=filters):
            action = event.get("Action", "")
            if action == "oom":
                self._out_of_memory = event["timeNano"]
            elif action == "die":
                self._ended = event["timeNano"]
                self.code = int(event["Actor"]["Attributes"]["exitCode"])
            elif action == "destroy":
                return True
        return False

    def lost(self, purpose: str) -> EngineError:
        """The error for a container whose state is unknown."""
        return EngineError(
            f"lost the container for {purpose}: the connection to the engine was lost",
            where=self._endpoint,
            details=[clean(str(self._error))] if self._error is not None else [],
            hint=(
                "make sure the engine is running, and run the same command again: finished work "
                "is kept"
            ),
        )


def _full(purpose: str, place: str, free: int) -> StoreError:
    return StoreError(
        f"the container for {purpose} was stopped before it filled the disk: {size(free)} left",
        where=place,
        hint=f"free some space: {size(_FLOOR)} must stay free; or use a folder on another disk: "
        "FATWHEEL_CACHE=FOLDER",
    )


def _seconds(when: str) -> int:
    """Whole seconds since 1970 of a time as the engine writes it: `2024-05-17T08:49:03.372993Z`."""
    return calendar.timegm(time.strptime(when[:19], "%Y-%m-%dT%H:%M:%S"))


def _in_use(sample: Mapping[str, Any]) -> int:
    """Bytes, as `docker stats` counts them: without the files cached that can go at any time."""
    memory = sample.get("memory_stats") or {}
    if "privateworkingset" in memory:  # Windows
        return int(memory["privateworkingset"])
    cached = memory.get("stats") or {}
    spare = cached.get("total_inactive_file", cached.get("inactive_file", 0))
    return max(0, int(memory.get("usage", 0)) - int(spare))
