"""The stream between this process and an attached container: a socket, or Windows' named pipe.

The format of frames is the Docker Engine API's, POST /containers/{id}/attach: one byte for the
stream (1 stdout, 2 stderr), three of zero, a big-endian 32-bit length, and that many bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

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
