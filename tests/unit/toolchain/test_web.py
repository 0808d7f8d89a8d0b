"""The HTTP client: sizes, parts of files, small documents, and who is not there.

test_index.py has statuses and certificates, test_fetch.py downloads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from unearth import Link

from fatwheel.toolchain import web as web_module
from fatwheel.toolchain.access import PINNED
from fatwheel.toolchain.pipconfig import NoConnectionError, PipConfig, RefusedError, TransientError
from fatwheel.toolchain.web import Web

from ...helpers.webserver import Server, body, ranged, status, without_length


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(web_module, "_FIRST_PAUSE", 0.001)
    web = Web(PipConfig(timeout=5.0, retries=2))
    yield web
    web.close()


def test_a_size_is_asked_without_fetching(server: Server, web: Web) -> None:
    server.serve("/file", b"12345")
    assert web.length(f"{server.url}/file") == 5
    assert server.requests == []


def test_a_server_that_does_not_say_sizes(server: Server, web: Web) -> None:
    server.answers["/file"] = without_length(b"12345")
    assert web.length(f"{server.url}/file") is None


@pytest.mark.parametrize("code", [403, 405, 501])
def test_a_server_that_answers_no_head_is_asked_by_get(server: Server, web: Web, code: int) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        (status(code) if handler.command == "HEAD" else body(b"12345"))(handler)

    server.answers["/file"] = answer
    assert web.length(f"{server.url}/file") == 5


def test_an_encoded_answer_s_length_is_not_the_file_s(server: Server, web: Web) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", "3")
        handler.end_headers()

    server.answers["/file"] = answer
    assert web.length(f"{server.url}/file") is None


def test_sizes_of_what_is_not_there(server: Server, web: Web) -> None:
    with pytest.raises(RefusedError, match="404"):
        web.length(f"{server.url}/nothing")
    server.answers["/busy"] = status(503)
    with pytest.raises(TransientError, match="503"):
        web.length(f"{server.url}/busy")


@pytest.mark.parametrize("host", [f"{64 * 'a'}.example", "a..example"])
def test_a_redirect_to_a_name_that_no_host_can_have(server: Server, web: Web, host: str) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"https://{host}/")
        handler.end_headers()

    server.answers["/file"] = answer
    with pytest.raises(RefusedError, match="idna"):
        web.read(f"{server.url}/file")


def test_the_rest_of_a_file(server: Server, web: Web) -> None:
    server.answers["/file"] = ranged(b"0123456789", sent=10)
    with web.resumed(Link(f"{server.url}/file"), 4, PINNED) as rest:
        assert (rest.start, rest.whole, b"".join(rest.chunks)) == (4, 10, b"456789")


def test_a_server_that_knows_no_parts_begins_anew(server: Server, web: Web) -> None:
    server.serve("/file", b"0123456789")
    with web.resumed(Link(f"{server.url}/file"), 4, PINNED) as all_:
        assert (all_.start, all_.whole, b"".join(all_.chunks)) == (0, 10, b"0123456789")


def test_a_file_of_which_the_server_does_not_say_the_size(server: Server, web: Web) -> None:
    server.answers["/file"] = without_length(b"0123")
    with web.resumed(Link(f"{server.url}/file"), 0, PINNED) as all_:
        assert (all_.start, all_.whole, b"".join(all_.chunks)) == (0, 0, b"0123")


def test_a_part_of_which_nobody_says_where_it_begins(server: Server, web: Web) -> None:
    server.answers["/file"] = status(206)
    with (
        pytest.raises(RefusedError, match="without saying which"),
        web.resumed(Link(f"{server.url}/file"), 4, PINNED),
    ):
        pass


def test_a_document_has_an_end(server: Server, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    server.serve("/page", b"page")
    assert web.read(f"{server.url}/page") == b"page"
    monkeypatch.setattr(web_module, "_LONGEST", 3)
    with pytest.raises(RefusedError, match="it is larger than"):
        web.read(f"{server.url}/page")


def test_nobody_there_is_told_from_a_refusal(server: Server, web: Web) -> None:
    nobody = "http://127.0.0.1:9/file"
    with pytest.raises(NoConnectionError, match="no connection"):
        web.length(nobody)
    with pytest.raises(RefusedError, match=r"no connection.*\(3 tries\)") as caught:
        web.patiently(lambda: web.length(nobody), threading.Event())
    assert caught.value.unreachable
    server.answers["/busy"] = status(503)
    with pytest.raises(RefusedError, match=r"503 Service Unavailable \(3 tries\)") as caught:
        web.patiently(lambda: web.length(f"{server.url}/busy"), threading.Event())
    assert not caught.value.unreachable
    assert server.heads == ["/busy"] * 3


def test_an_answer_of_any_status_without_the_credentials_for_the_index(server: Server) -> None:
    seen: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Authorization"])
        status(401)(handler)

    server.answers["/v2/"] = server.answers["/file"] = answer
    secret = server.url.replace("http://", "http://user:secret@")
    web = Web(PipConfig(indexes=(f"{secret}/",)))
    assert web.ask("GET", f"{server.url}/v2/", {}).status_code == 401
    assert web.ask("GET", f"{server.url}/v2/", {"Authorization": "Bearer x"}).status_code == 401
    assert seen == [None, "Bearer x"]
    with pytest.raises(RefusedError, match="401"):
        web.read(f"{server.url}/file")
    assert seen[-1] is not None
    assert seen[-1].startswith("Basic "), "files of the index are asked for with them"
    web.close()
