"""Servers that hold a remote for real: nginx with WebDAV, moto as an S3 and a GCS, Azurite as an
Azure; and a bad network."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

_NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
  access_log {folder}/access.log; client_body_temp_path {folder}/tmp;
  proxy_temp_path {folder}/tmp; fastcgi_temp_path {folder}/tmp; uwsgi_temp_path {folder}/tmp;
  scgi_temp_path {folder}/tmp;
  server {{
    listen 127.0.0.1:{port}; root {folder}/data; client_max_body_size 0;
    location /dav/ {{ dav_methods PUT; create_full_put_path on; }}
    location /read/ {{ alias {folder}/data/dav/; }}
    location /full/ {{
      alias {folder}/data/dav/;
      if ($request_method = PUT) {{ return 507; }}
    }}
    location /login/ {{
      dav_methods PUT; create_full_put_path on;
      auth_basic team; auth_basic_user_file {folder}/users;
    }}
  }}
}}
"""
USER, PASSWORD = "builder", "hunter2"


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    for _ in range(300):
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), 1)):
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing answers at port {port}")


@contextmanager
def nginx(program: str, folder: Path) -> Iterator[str]:
    """nginx at the URL that this gives: /dav/ takes PUT, /read/ shows the same, /full/ has no room,
    and /login/ asks for USER and PASSWORD."""
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "data").mkdir()
    (folder / "users").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [program, "-e", "stderr", "-c", str(config)], stdout=log, stderr=log
        )
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def requests_of(folder: Path) -> list[str]:
    """What nginx was asked for, as `GET /dav/… 200`."""
    lines = (folder / "access.log").read_text().splitlines()
    asked = [line.split('"') for line in lines]
    return [f"{parts[1].rpartition(' ')[0]} {parts[2].split()[0]}" for parts in asked]


BUCKET = "team"
S3_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": PASSWORD, "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}  # fmt: skip
GCS_VARIABLES = {"GOOGLE_BEARER_TOKEN": PASSWORD, "GOOGLE_ALLOW_HTTP": "true"}


@contextmanager
def s3() -> Iterator[str]:
    """moto, with one bucket; gives its URL.

    It is a GCS as well, of which our requests are those of its XML API, which is made like S3's.
    """
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        urlopen(Request(f"{url}/{BUCKET}", method="PUT")).read()
        yield url
    finally:
        server.stop()


_ACCOUNT, _KEY = "builders", base64.b64encode(PASSWORD.encode()).decode()
AZURE_VARIABLES = {
    "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
    "AZURE_STORAGE_USE_EMULATOR": "true",
}  # fmt: skip


@contextmanager
def azurite(node: str, packages: Path) -> Iterator[str]:
    """Azurite's blobs, with one container; gives its URL. packages: node_modules with it."""
    port = free_port()
    server = subprocess.Popen(
        [
            node, str(packages / "azurite" / "dist" / "src" / "blob" / "main.js"),
            "--inMemoryPersistence", "--silent", "--blobPort", str(port),
        ],
        env={**os.environ, "AZURITE_ACCOUNTS": f"{_ACCOUNT}:{_KEY}"},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for(port)
        url = f"http://127.0.0.1:{port}"
        made = f"{url}/{_ACCOUNT}/{BUCKET}?restype=container&{azure_sas('c')}"
        urlopen(Request(made, method="PUT", data=b"")).read()
        yield url
    finally:
        server.kill()
        server.wait()


def azure_sas(permissions: str) -> str:
    """A shared access signature of the account, as Microsoft describes it: what it signs are these
    values in this order, of which some are empty."""
    service, types, ends, version = "b", "sco", "2099-01-01", "2019-12-12"
    signed = (_ACCOUNT, permissions, service, types, "", ends, "", "", version, "")
    key = base64.b64decode(_KEY)
    signature = hmac.new(key, "\n".join(signed).encode(), hashlib.sha256).digest()
    return urlencode(
        {
            "sv": version, "ss": service, "srt": types, "sp": permissions, "se": ends,
            "sig": base64.b64encode(signature).decode(),
        }
    )  # fmt: skip


class Network:
    """A way to a server that is slow, or breaks.

    delay: seconds before bytes go on. left: bytes of answers until all connections are cut, and no
    new one is taken; None for never.
    """

    def __init__(self, url: str) -> None:
        self.delay = 0.0
        self.left: int | None = None
        self.connections = 0
        self._target = (urlsplit(url).hostname, urlsplit(url).port)
        self._open: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End it all."""
        self._server.close()
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(self._target)
                self.connections += 1
                self._open += [near, far]
                for one, other, back in ((near, far, False), (far, near, True)):
                    threading.Thread(
                        target=self._pump, args=(one, other, back), daemon=True
                    ).start()

    def _pump(self, source: socket.socket, target: socket.socket, back: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                time.sleep(self.delay if back else 0.0)
                if back and self.left is not None:
                    target.sendall(data[: max(0, self.left)])
                    self.left -= len(data)
                    if self.left <= 0:
                        self.cut()
                        return
                else:
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)
