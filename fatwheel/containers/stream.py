"""The stream between this process and a container: its frames, the lines in them, the log of them.

Containers run compilers of other people: lines may be cut, endless, or no text at all.

The format of frames is the Docker Engine API's, POST /containers/{id}/attach: one byte for the
stream (1 stdout, 2 stderr), three of zero, a big-endian 32-bit length, and that many bytes.

The SDK attaches, and leaves the rest to a reader of its own (`docker.utils.socket`) that cannot be
used: over TLS it waits for the network although the rest of a frame has arrived and is decrypted,
and a named pipe it reads in a way that keeps another thread from writing to it. It has nothing that
cuts a stream into lines of bounded length.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..text import clean

STDOUT, STDERR = 1, 2
LONGEST = 16 << 20  # bytes of one line: an answer with everything of a large project has 2 MB

_HEADER = struct.Struct(">BxxxL")
_CHUNK = 1 << 16
_LOG = 64 << 20  # bytes of one log
_SHOWN = 20  # lines kept for messages
_WIDTH = 2000  # bytes of each of these
_LEFT_OUT = b"\n[fatwheel: this log is full; what followed is left out]\n"


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


class Lines:
    """Cuts a stream into lines. Of a line that is longer than LONGEST only the beginning is passed
    on, at once, since the line may never end; the rest is dropped."""

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
        """End of the stream. An unfinished line goes to the log: its writer was killed."""
        if self._line:
            self._rest(bytes(self._line[:_WIDTH]) + b"\n")

    def _add(self, part: bytes) -> None:
        if self._too_long:
            return
        self._line += part
        if len(self._line) > LONGEST:
            beginning, self._line, self._too_long = self._line[:_WIDTH], bytearray(), True
            self._rest(b"[fatwheel: this line is too long; it begins:]\n" + beginning + b"\n")
            self._tell(beginning)

    def _tell(self, line: bytearray) -> None:
        self._on_line(line.decode("utf-8", "replace").removesuffix("\r"))


class Log:
    """A file to which bytes are appended as they come, and the last of their lines.

    A full disk ends the log, but not the build: that fails when it writes its own files.
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
