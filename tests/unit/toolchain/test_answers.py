"""Answers that would never end, or fill the memory."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from unearth import Link

from fatwheel.config.pinned import Package
from fatwheel.toolchain import web
from fatwheel.toolchain.access import PINNED
from fatwheel.toolchain.index import Index
from fatwheel.toolchain.pipconfig import PipConfig, RefusedError, TransientError

from ...helpers.webserver import Answer, Server, status

PACKAGE = Package("demo", "1.0", "demo-1.0.tar.gz", 1, "0" * 64, "runtime")
PAGE = b'<a href="demo-1.0.tar.gz">demo-1.0.tar.gz</a>'


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def index(server: Server) -> Iterator[Index]:
    index = Index(PipConfig(indexes=(f"{server.url}/simple",), timeout=5.0))
    yield index
    index.close()


def sent(chunks: Iterator[bytes], *headers: tuple[str, str], code: int = 200) -> Answer:
    """An answer of these chunks, as long as somebody listens."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Type", "text/html")
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
        handler.close_connection = True
        try:
            for chunk in chunks:
                handler.wfile.write(chunk)
        except OSError:
            pass

    return answer


def links(index: Index) -> int:
    return len(index.links(index.sources[0], PACKAGE))


def test_a_listing_without_end(server: Server, index: Index) -> None:
    server.answers["/simple/demo/"] = sent(itertools.repeat(b" " * (1 << 20)))
    with pytest.raises(RefusedError, match="larger than 64 MiB"):
        links(index)


@pytest.mark.parametrize("code", [302, 401, 404])
def test_what_comes_with_a_refusal_has_an_end_too(server: Server, index: Index, code: int) -> None:
    endless = sent(itertools.repeat(b" " * (1 << 20)), ("Location", "/b"), code=code)
    server.answers["/simple/demo/"] = endless
    with pytest.raises(RefusedError):
        links(index)


def test_a_listing_with_links_without_end(server: Server, index: Index) -> None:
    some = b"<a href=x>" * 1000
    server.answers["/simple/demo/"] = sent(itertools.repeat(some, 201))
    with pytest.raises(RefusedError, match="more than 200,000 links"):
        links(index)
    server.answers["/simple/demo/"] = sent(iter([some * 20, PAGE]))
    assert links(index) == 1, "the largest listings that there are"


def test_a_listing_that_comes_packed_is_unpacked(server: Server, index: Index) -> None:
    """Some servers have their pages packed, and send them so to everybody."""
    packed = gzip.compress(PAGE)
    server.answers["/simple/demo/"] = sent(iter([packed]), ("Content-Encoding", "gzip"))
    assert links(index) == 1


def test_a_bomb_is_not_unpacked(server: Server, index: Index) -> None:
    bomb = gzip.compress(b" " * (100 << 20))
    server.answers["/simple/demo/"] = sent(iter([bomb]), ("Content-Encoding", "gzip"))
    with pytest.raises(RefusedError, match="larger than 64 MiB"):
        links(index)


@pytest.mark.parametrize("said", ["br", "zstd", "gzip, gzip"])
def test_packed_as_nobody_asked_for(server: Server, index: Index, said: str) -> None:
    server.answers["/simple/demo/"] = sent(iter([PAGE]), ("Content-Encoding", said))
    with pytest.raises(RefusedError, match=f"encoded as {said}"):
        links(index)


def test_what_is_not_packed_as_it_says(server: Server, index: Index) -> None:
    server.answers["/simple/demo/"] = sent(iter([PAGE]), ("Content-Encoding", "gzip"))
    with pytest.raises(RefusedError, match="cannot be unpacked"):
        links(index)


def test_headers_without_end(server: Server, index: Index) -> None:
    server.answers["/file"] = sent(iter(()), *((f"X-{n}", "x" * 1000) for n in range(1000)))
    file = Link(f"{server.url}/file")
    with pytest.raises((TransientError, RefusedError)), index.opened(file, PINNED):
        pass


def test_a_file_that_drips_for_ever(
    server: Server, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_WINDOW", 0.0)
    server.answers["/file"] = sent(itertools.repeat(b"x" * 100))
    file = Link(f"{server.url}/file")
    monkeypatch.setattr(web, "_LEAST", 1 << 30)
    with (
        pytest.raises(TransientError, match=r"too slow: \d+ bytes in 0 seconds"),
        index.opened(file, PINNED) as chunks,
    ):
        list(chunks)
    monkeypatch.setattr(web, "_LEAST", 1)
    with index.opened(file, PINNED) as chunks:
        assert len(list(itertools.islice(chunks, 100))) == 100, "what comes steadily may take long"


def test_refusals_stay_what_they_are(server: Server, index: Index) -> None:
    server.answers["/simple/demo/"] = status(404)
    with pytest.raises(RefusedError, match="404"):
        links(index)
