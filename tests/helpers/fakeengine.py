"""A container engine that exists only as its HTTP API, on a Unix socket.

It says what a test wants it to say, and keeps what it was asked. One container can 'run': it sends
the frames that the test has prepared and ends.
"""

from __future__ import annotations

import json
import re
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

CONTAINER = "c0ffee" + "0" * 58
CREATED = "2024-05-17T08:49:03.372993012Z"  # 1715935743 s, by Python's datetime
STARTED_NS = 1715935744 * 10**9
LINUX_VERSION = {"Version": "24.0.7", "ApiVersion": "1.43", "Os": "linux"}
LINUX_INFO = {
    "OSType": "linux",
    "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
    "KernelVersion": "6.1.0-18-amd64",
    "NCPU": 16,
    "MemTotal": 64 << 30,
    "DockerRootDir": "/var/lib/docker",
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "extfs"], ["Supports d_type", "true"]],
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
    "Isolation": "",
    "MemoryLimit": True,
    "SwapLimit": True,
    "CpuCfsQuota": True,
    "PidsLimit": True,
}
# As Docker Engine on Windows Server 2022 says it; the build twice, in the form of `docker info`.
WINDOWS_VERSION = {
    "Version": "25.0.3",
    "ApiVersion": "1.44",
    "Os": "windows",
    "KernelVersion": "10.0 20348 (20348.1.amd64fre.fe_release.210507-1500)",
}
WINDOWS_INFO = {
    "OSType": "windows",
    "OperatingSystem": "Microsoft Windows Server Version 21H2 (OS Build 20348.2340)",
    "KernelVersion": "10.0 20348 (20348.1.amd64fre.fe_release.210507-1500)",
    "NCPU": 16,
    "MemTotal": 64 << 30,
    "DockerRootDir": r"C:\ProgramData\docker",
    "Driver": "windowsfilter",
    "DriverStatus": [["Windows", ""]],
    "SecurityOptions": None,
    "Isolation": "process",
    "MemoryLimit": True,
    "SwapLimit": True,
}


def frame(stream: int, data: bytes) -> bytes:
    """One frame of an attached container's output: 1 is stdout, 2 is stderr."""
    return struct.pack(">BxxxL", stream, len(data)) + data


def event(action: str, seconds: float, **attributes: str) -> dict[str, Any]:
    """An event of the container, that long after it was started."""
    return {
        "Type": "container",
        "Action": action,
        "Actor": {"ID": CONTAINER, "Attributes": attributes},
        "timeNano": STARTED_NS + int(seconds * 1e9),
    }


@dataclass
class Fake:
    """What the engine says.

    answers: for 'METHOD /path' (without the version), a status and a body, instead of the usual.
    output:  what the container sends once it is started; it ends then.
    events:  what is told each time that somebody asks for events, from the start on.
    requests: what was asked: method, path, body.
    dies:    streams end as they do when the engine is killed, in the middle.
    """

    socket: Path
    info: dict[str, Any] = field(default_factory=lambda: dict(LINUX_INFO))
    version: dict[str, Any] = field(default_factory=lambda: dict(LINUX_VERSION))
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    output: bytes = b""
    events: list[list[dict[str, Any]]] = field(
        default_factory=lambda: [[event("die", 1, exitCode="0"), event("destroy", 1)]]
    )
    samples: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    dies: bool = False
    heard: bytearray = field(default_factory=bytearray)
    started: threading.Event = field(default_factory=threading.Event)

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def asked(self, method: str, path: str) -> list[Any]:
        """The bodies of the requests of one kind."""
        return [body for m, p, body in self.requests if m == method and p.partition("?")[0] == path]


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    fake: Fake

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def address_string(self) -> str:
        return "client"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._handle("GET")

    def do_POST(self) -> None:
        self._handle("POST")

    def do_DELETE(self) -> None:
        self._handle("DELETE")

    def _handle(self, method: str) -> None:
        fake = self.server.fake
        path = re.sub(r"^/v[\d.]+", "", self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"null") if length else None
        fake.requests.append((method, path, body))
        plain = path.partition("?")[0]
        special = fake.answers.get(f"{method} {plain}")
        container = f"/containers/{CONTAINER}"
        if special is not None:
            self._answer(*special)
        elif plain == f"{container}/attach":
            self._attach(fake)
        elif plain == "/events":
            self._stream(fake, fake.events.pop(0) if fake.events else [])
        elif plain == f"{container}/stats":
            self._stream(fake, fake.samples)
        else:
            self._answer(*self._usual(fake, method, plain, container))

    def _usual(self, fake: Fake, method: str, path: str, container: str) -> tuple[int, Any]:
        if path == f"{container}/start":
            fake.started.set()
            return 204, None
        usual: dict[str, tuple[int, Any]] = {
            "GET /version": (200, fake.version),
            "GET /info": (200, fake.info),
            "POST /containers/create": (201, {"Id": CONTAINER, "Warnings": []}),
            f"GET {container}/json": (200, {"Id": CONTAINER, "Created": CREATED}),
            f"POST {container}/kill": (204, None),
            f"DELETE {container}": (204, None),
            "GET /containers/json": (200, []),
        }
        return usual.get(f"{method} {path}", (404, {"message": "page not found"}))

    def _answer(self, status: int, body: Any) -> None:
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, fake: Fake, messages: list[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        fake.started.wait(60)
        for message in messages:
            data = json.dumps(message).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        if not fake.dies:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True

    def _attach(self, fake: Fake) -> None:
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "tcp")
        self.end_headers()
        self.wfile.flush()
        fake.started.wait(60)
        self.wfile.write(fake.output)
        self.wfile.flush()
        self.connection.settimeout(0.2)
        try:
            while data := self.connection.recv(1 << 16):
                fake.heard += data
        except OSError:
            pass
        self.close_connection = True


@contextmanager
def fake_engine(folder: Path) -> Iterator[Fake]:
    """An engine that answers as long as the block lasts."""
    fake = Fake(folder / "engine.sock")
    with _Server(str(fake.socket), _Handler) as server:
        server.fake = fake
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
