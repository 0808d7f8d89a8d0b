"""Git repositories made by a few lines, and served by HTTP from this machine.

`smart` is what code hosts run (git http-backend), which gives any commit by its id; `dumb` serves
files, as any web server does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from fatwheel.config.recipe import Commit

SUBMODULE = "160000"  # its mode in a tree
WHO = {"NAME": "A", "EMAIL": "a@example.org", "DATE": "2024-05-06T00:00:00Z"}


def git(folder: Path, *words: str, data: bytes | None = None) -> str:
    """What git says, without settings of whoever runs the tests."""
    variables = {
        f"GIT_{who}_{key}": text for key, text in WHO.items() for who in ("AUTHOR", "COMMITTER")
    }
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "init.defaultBranch=main", *words],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            **variables,
        },
        input=data,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()


class Repositories:
    """A folder of bare repositories. asked: the paths of all requests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.url = ""
        folder.mkdir(parents=True, exist_ok=True)

    def commit(self, name: str, files: Mapping[str, str | bytes], branch: str = "main") -> Commit:
        """A commit with these files alone. `-> x` makes a link, `=> ID` a submodule, and a text
        that begins with `#!` a program."""
        bare = self.folder / name
        if not bare.exists():
            git(self.folder, "init", "--quiet", "--bare", name)
            git(bare, "config", "http.getanyfile", "true")
            git(bare, "config", "uploadpack.allowAnySHA1InWant", "true")
        (bare / "index").unlink(missing_ok=True)
        entries = [_entry(content) for content in files.values()]
        blobs = [data for mode, data in entries if mode != SUBMODULE]
        ids = iter(_written(bare, blobs))
        lines = [
            f"{mode} {data.decode() if mode == SUBMODULE else next(ids)}\t{path}\n"
            for path, (mode, data) in zip(files, entries, strict=True)
        ]
        git(bare, "update-index", "--index-info", data="".join(lines).encode())
        return self.commit_tree(name, git(bare, "write-tree"), branch)

    def commit_tree(self, name: str, tree: str, branch: str = "main") -> Commit:
        bare = self.folder / name
        commit = git(bare, "commit-tree", "-m", "x", tree)
        git(bare, "update-ref", f"refs/heads/{branch}", commit)
        git(bare, "update-server-info")
        return Commit(url=f"{self.url}/{name}", commit=commit, tree=tree)


def _entry(content: str | bytes) -> tuple[str, bytes]:
    """The mode of a file, and what is in it; of a submodule its id."""
    data = content.encode() if isinstance(content, str) else content
    if data.startswith(b"-> "):
        return "120000", data[3:]
    if data.startswith(b"=> "):
        return SUBMODULE, data[3:]
    return "100755" if data.startswith(b"#!") else "100644", data


def _written(bare: Path, blobs: Sequence[bytes]) -> list[str]:
    """The ids of all of them, which one process writes."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, str(number)) for number in range(len(blobs))]
        for path, data in zip(paths, blobs, strict=True):
            path.write_bytes(data)
        words = ["hash-object", "-w", "--no-filters", "--stdin-paths"]
        return git(bare, *words, data="".join(f"{path}\n" for path in paths).encode()).split()


@contextmanager
def served(folder: Path, *, smart: bool = True) -> Iterator[Repositories]:
    """Repositories that can be fetched while the block runs."""
    repositories = Repositories(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            repositories.asked.append(self.path)
            _answer(self, folder, smart)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    repositories.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield repositories
    finally:
        server.shutdown()
        server.server_close()


def _answer(handler: BaseHTTPRequestHandler, folder: Path, smart: bool) -> None:
    url = urlsplit(handler.path)
    if not smart:
        file = folder / url.path.lstrip("/")
        found = file.read_bytes() if file.is_file() else None
        handler.send_response(200 if found is not None else 404)
        handler.end_headers()
        handler.wfile.write(found or b"")
        return
    variables = {
        "GIT_PROJECT_ROOT": str(folder), "GIT_HTTP_EXPORT_ALL": "1", "PATH": os.environ["PATH"],
        "REQUEST_METHOD": handler.command, "PATH_INFO": url.path, "QUERY_STRING": url.query,
        "CONTENT_TYPE": handler.headers.get("Content-Type", ""), "HOME": str(folder),
        "GIT_PROTOCOL": handler.headers.get("Git-Protocol", ""),
        "HTTP_CONTENT_ENCODING": handler.headers.get("Content-Encoding", ""),
    }  # fmt: skip
    sent = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    program = shutil.which("git")
    assert program
    done = subprocess.run(
        [program, "http-backend"], env=variables, input=sent, capture_output=True, check=False
    )
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    lines = [line.partition(": ") for line in head.decode().split("\r\n")]
    status = next((text for name, _, text in lines if name == "Status"), "200")
    handler.send_response(int(status.split()[0]))
    for name, _, text in lines:
        if name != "Status":
            handler.send_header(name, text)
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True
