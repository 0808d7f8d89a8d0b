"""The stream of an attached container, over sockets and over what stands for Windows' pipes."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from fatwheel.containers.stream import STDERR, STDOUT, Wire

from ...helpers.fakeengine import frame
from ...helpers.tlsserver import NAMES, town


@pytest.fixture
def pair() -> Iterator[tuple[Wire, socket.socket]]:
    """A wire, and the engine's end of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.1)  # as the client's requests have it
        yield Wire(ours), theirs


def read(wire: Wire) -> list[tuple[int, bytes]]:
    """All frames, those of one stream in a row as one."""
    found: list[tuple[int, bytes]] = []
    for stream, data in wire.frames():
        if found and found[-1][0] == stream:
            found[-1] = (stream, found[-1][1] + data)
        else:
            found.append((stream, data))
    return found


def test_frames_in_any_pieces(pair: tuple[Wire, socket.socket]) -> None:
    wire, theirs = pair
    large = bytes(range(256)) * 2000
    sent = frame(1, b"out") + frame(2, b"err") + frame(1, b"") + frame(1, large)

    def send() -> None:
        for at in range(40):
            theirs.sendall(sent[at : at + 1])
        theirs.sendall(sent[40:])
        theirs.close()

    threading.Thread(target=send).start()
    assert read(wire) == [(STDOUT, b"out"), (STDERR, b"err"), (STDOUT, large)]


@pytest.mark.parametrize("end", [0, 3, 8, 10], ids=lambda end: f"after-{end}-bytes")
def test_an_end_in_the_middle(pair: tuple[Wire, socket.socket], end: int) -> None:
    wire, theirs = pair
    theirs.sendall(frame(1, b"abcdef")[:end])
    theirs.close()
    assert read(wire) == ([(STDOUT, b"ab")] if end == 10 else [])


def test_a_container_may_be_silent_for_long(pair: tuple[Wire, socket.socket]) -> None:
    """Longer than the client waits for answers."""
    wire, theirs = pair
    timer = threading.Timer(0.3, lambda: (theirs.sendall(frame(1, b"late")), theirs.close()))
    timer.start()
    assert read(wire) == [(STDOUT, b"late")]


def test_what_is_written_arrives_while_another_thread_reads(
    pair: tuple[Wire, socket.socket],
) -> None:
    wire, theirs = pair
    found: list[tuple[int, bytes]] = []
    reader = threading.Thread(target=lambda: found.extend(wire.frames()))
    reader.start()
    wire.write(b"in")
    assert theirs.recv(10) == b"in"
    theirs.sendall(frame(1, b"answer"))
    theirs.close()
    reader.join()
    assert found == [(STDOUT, b"answer")]


def test_a_frame_over_tls_comes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one record, decrypted as a whole: for its content nothing more comes from the engine,
    which sends nothing else until it is answered."""
    certified = town(tmp_path, ExitStack(), monkeypatch)
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)
    answered: list[bytes] = []

    def serve() -> None:
        with certified.context.wrap_socket(theirs, server_side=True) as engine:
            engine.sendall(frame(1, b"question"))
            with suppress(TimeoutError):
                answered.append(engine.recv(10))

    server = threading.Thread(target=serve)
    server.start()
    trusting = ssl.create_default_context(cafile=str(certified.ca))
    with trusting.wrap_socket(ours, server_hostname=NAMES[0]) as client:
        wire = Wire(client)
        assert next(wire.frames()) == (STDOUT, b"question")
        wire.write(b"answer")
        server.join()
    assert answered == [b"answer"], "the frame came only when the engine gave up waiting"


def test_nobody_reads_any_more(pair: tuple[Wire, socket.socket]) -> None:
    wire, theirs = pair
    theirs.close()
    with pytest.raises(BrokenPipeError):
        wire.write(b"x" * 10_000_000)


class Error(Exception):
    """As pywin32 raises: not an OSError."""


Error.__module__ = "pywintypes"


class NpipeSocket:
    """As the SDK's: it has no half of a connection to close, and ends in an exception."""

    def __init__(self, data: bytes, error: Exception) -> None:
        self.data = data
        self.error = error
        self.timeout: object = 60

    def settimeout(self, value: object) -> None:
        self.timeout = value

    def recv_into(self, buffer: Any) -> int:
        if not self.data:
            raise self.error
        part, self.data = self.data[: len(buffer)], self.data[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def shutdown(self, how: int) -> None:
        raise AssertionError("that would close it in both directions")


def test_a_named_pipe_that_ends() -> None:
    ended = Error(109, "ReadFile", "The pipe has been ended.")
    pipe = NpipeSocket(frame(1, b"out"), ended)
    wire = Wire(pipe)
    assert pipe.timeout is None
    assert read(wire) == [(STDOUT, b"out")]
    wire.close()


def test_a_named_pipe_that_fails() -> None:
    wire = Wire(NpipeSocket(b"", Error(5, "ReadFile", "Access is denied.")))
    with pytest.raises(Error):
        read(wire)
