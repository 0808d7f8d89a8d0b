"""Runs one container: its input, its output as lines and as a log, its memory and how it ended.

Containers run compilers of other people: lines may be cut, endless, or no text at all.
"""

from __future__ import annotations

import calendar
import shutil
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker import errors as docker_errors

from ..errors import EngineError, StoreError
from ..text import clean, size
from .client import FAILURES, DockerEngine, engine_errors
from .layouts import ContainerSpec, create_arguments, ended_for_memory
from .roster import Roster

LONGEST = 16 << 20  # bytes of one line: an answer with everything of a large project has 2 MB
_LOG = 64 << 20  # bytes of one log
_SHOWN = 20  # lines kept for messages
_WIDTH = 2000  # bytes of each of these
_LEFT_OUT = b"\n[fatwheel: this log is full; what followed is left out]\n"


class Lines:
    """Cuts a stream into lines. One that is longer than LONGEST counts as its beginning, which
    is told as soon as it is too long: it may never end. What follows is nobody's."""

    def __init__(self, on_line: Callable[[str], None], rest: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._rest = rest
        self._line = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> None:
        *ended, begun = data.split(b"\n")
        for part in ended:
            self._add(part)
            if not self._too_long:
                self._tell(self._line)
            self._line, self._too_long = bytearray(), False
        self._add(begun)

    def end(self) -> None:
        """End of the stream; an unfinished line means that its writer was killed."""
        if self._line:
            self._rest(bytes(self._line[:_WIDTH]) + b"\n")

    def _add(self, part: bytes) -> None:
        if self._too_long:
            return
        self._line += part
        if len(self._line) > LONGEST:
            beginning, self._line, self._too_long = self._line[:_WIDTH], bytearray(), True
            self._rest(b"[fatwheel: an endless line]\n" + beginning + b"\n")
            self._tell(beginning)

    def _tell(self, line: bytearray) -> None:
        self._on_line(line.decode("utf-8", "replace").removesuffix("\r"))


class Log:
    """A file to which bytes are appended as they come, and the last of their lines.

    A disk that is full ends the log, not the build: its own files will say so.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("ab", buffering=0)
        self._room = _LOG
        self._tail: deque[bytes] = deque(maxlen=_SHOWN)
        self._open = b""  # a line that may go on

    def write(self, data: bytes) -> None:
        if self._room >= 0:
            with suppress(OSError):
                self._stream.write(data[: self._room])
                if len(data) > self._room:
                    self._stream.write(_LEFT_OUT)
            self._room -= len(data)
        *ended, begun = data.split(b"\n")
        for line in ended[:1]:
            self._tail.append((self._open + line)[:_WIDTH])
        self._tail.extend(line[:_WIDTH] for line in ended[1:][-_SHOWN:])
        self._open = (begun if ended else self._open + begun)[:_WIDTH]

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines that are not empty, made safe for a terminal."""
        lines = (line.decode("utf-8", "replace").rstrip() for line in (*self._tail, self._open))
        return tuple(clean(line) for line in lines if line)

    def close(self) -> None:
        with suppress(OSError):
            self._stream.close()


# -- the stream ------------------------------------------------------------------------------------

# The stream between this process and an attached container: a socket, or Windows' named pipe.
#
# The format of frames is the Docker Engine API's, POST /containers/{id}/attach: one byte for the
# stream (1 stdout, 2 stderr), three of zero, a big-endian 32-bit length, and that many bytes.


STDOUT, STDERR = 1, 2
_HEADER = struct.Struct(">BxxxL")
_CHUNK = 1 << 16


class Wire:
    """Both directions of an attached container.

    attached is what the SDK's attach_socket gives: by the way to the engine, a socket, a file
    made of one, or a named pipe. Reading and writing may happen in two threads.
    """

    def __init__(self, attached: Any) -> None:
        self._attached = attached  # keeps the connection open
        self._socket = getattr(attached, "_sock", attached)
        # The client's time limit is for requests; a container may be silent for hours.
        self._socket.settimeout(None)

    def write(self, data: bytes) -> None:
        """Raises OSError where the container or the engine is gone."""
        self._socket.sendall(data)

    def end_input(self) -> None:
        """Let the container read the end of its input; without effect on a named pipe."""
        with suppress(OSError):
            if hasattr(self._socket, "shutdown_write"):  # a channel of ssh
                self._socket.shutdown_write()
            elif not _is_pipe(self._socket):  # a pipe would close in both directions
                self._socket.shutdown(1)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """The container's output in pieces, with their stream, until it ends."""
        while header := self._exactly(_HEADER.size):
            stream, size = _HEADER.unpack(header)
            while size:
                data = self._some(min(size, _CHUNK))
                if not data:
                    return
                size -= len(data)
                yield stream, data

    def close(self) -> None:
        """End both directions, also for who is waiting in one of them."""
        with suppress(Exception):  # named pipes have errors of their own
            if not _is_pipe(self._socket):
                self._socket.shutdown(2)  # closing alone leaves a writer waiting
        with suppress(Exception):
            self._attached.close()

    def _exactly(self, size: int) -> bytes:
        """That many bytes, or none at the end."""
        data = b""
        while len(data) < size:
            more = self._some(size - len(data))
            if not more:
                return b""
            data += more
        return data

    def _some(self, size: int) -> bytes:
        # Not recv: of a named pipe it cannot go on while another thread writes.
        buffer = bytearray(size)
        try:
            count = self._socket.recv_into(buffer)
        except Exception as error:
            if _is_end(error):
                return b""
            raise
        return bytes(buffer[:count])


def _is_pipe(connection: object) -> bool:
    return type(connection).__name__ == "NpipeSocket"


def _is_end(error: Exception) -> bool:
    """Whether this is how a connection ends. 109 is Windows' ERROR_BROKEN_PIPE, 232 and 233 are
    ERROR_NO_DATA and ERROR_PIPE_NOT_CONNECTED: in the errors of pywin32, which are no OSErrors."""
    if isinstance(error, ConnectionError):
        return True
    return type(error).__module__ == "pywintypes" and error.args[:1] in ((109,), (232,), (233,))


# -- a running container ---------------------------------------------------------------------------

# The engine removes a container when it ends, and closes its input when this process ends: so
# nothing stays behind, even after SIGKILL. How it ended is learned from the engine's events, which
# tell a process that was killed for memory from one that was killed by somebody.


_REMOVAL = 60.0  # seconds to wait for the engine to remove what has ended
_AGAIN = (0.2, 1.0, 3.0)  # seconds before the events are asked for again, when they break off
_LOOK_EVERY = 0.5  # seconds between two looks at the disk
_FLOOR = 512 << 20  # bytes that a container must leave free where it writes
_RECENT = 5.0  # seconds: an end that comes later has nothing to do with memory


@dataclass(frozen=True)
class Ending:
    """How a container ended.

    code:          exit code of its program: on Linux, 128 + the signal's number if one ended it.
    out_of_memory: it was killed because it used more than its limit.
    last_lines:    the end of what it wrote to its standard error.
    """

    code: int
    out_of_memory: bool
    last_lines: tuple[str, ...]


class Container:
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

    def end_input(self) -> None:
        """Let it read the end of its input. Has no effect with Windows' named pipes."""
        with self._sending:
            self._wire.end_input()

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
