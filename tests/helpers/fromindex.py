"""pip and uv, installing from an index that a test serves."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PIP = [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check"]
UV = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable]


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The URL of a folder's files."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def called(
    command: list[str], target: Path, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """An installer's run, with no configuration but its own arguments and these variables."""
    settings = {
        **{name: value for name, value in os.environ.items() if name[:3] not in ("PIP", "UV_")},
        **variables,
        "PIP_CONFIG_FILE": os.devnull,
        "UV_NO_CONFIG": "1",
        "UV_CACHE_DIR": f"{target}-cache",
    }
    return subprocess.run(
        [*command, "--target", str(target), *arguments],
        capture_output=True, text=True, check=False, timeout=120, env=settings,
    )  # fmt: skip
