"""An HTTP server on this machine that behaves as well, or as badly, as a test wants."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers each path by its function, and counts requests; it ends with the block."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []  # by GET
        self.heads: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                outer.answers.get(self.path, status(404))(self)

            def do_HEAD(self) -> None:
                outer.heads.append(self.path)
                outer.answers.get(self.path, status(404))(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def serve(self, path: str, content: bytes) -> None:
        self.answers[path] = body(content)

    def list(self, package: str, *filenames: str) -> None:
        """A PEP 503 page for a package."""
        page = "".join(f'<a href="/files/{name}">{name}</a>\n' for name in filenames)
        self.answers[f"/simple/{package}/"] = body(page.encode(), "text/html")

    def asked_for(self, path: str) -> int:
        return self.requests.count(path)


def body(content: bytes, kind: str = "application/octet-stream") -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)

    return answer


def ranged(content: bytes, sent: int) -> Answer:
    """Sends at most so many bytes, from where it is asked to begin, and hangs up."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        start = int(handler.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        handler.wfile.write(content[start : start + sent])
        handler.close_connection = True

    return answer


def ranges(content: bytes) -> Answer:
    """Sends what is asked for, whole or a range of it (RFC 9110, 14)."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", handler.headers.get("Range", ""))
        first, end = 0, len(content)
        if asked and asked[1]:
            first, end = int(asked[1]), min(end, int(asked[2] or end) + 1)
        elif asked:
            first = max(0, end - int(asked[2]))
        handler.send_response(206 if asked else 200)
        handler.send_header("Accept-Ranges", "bytes")
        if asked:
            handler.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(content)}")
        handler.send_header("Content-Length", str(end - first))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content[first:end])

    return answer


def without_length(content: bytes) -> Answer:
    """Sends all and hangs up: only the end tells the size."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)
        handler.close_connection = True

    return answer


def status(code: int) -> Answer:
    return lambda handler: handler.send_error(code)


def cut_short(content: bytes, sent: int) -> Answer:
    """Announces all bytes, sends some, and hangs up."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[:sent])
        handler.close_connection = True

    return answer


def in_turn(*answers: Answer) -> Answer:
    """The first answer first; the last one for ever."""
    left = list(answers)
    return lambda handler: (left.pop(0) if len(left) > 1 else left[0])(handler)
