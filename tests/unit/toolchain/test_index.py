"""Asking one index: what a listing that is odd or broken becomes, and what is worth another try.

test_fetch.py has whole downloads.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from unearth import Link

from fatwheel.config.pinned import Package
from fatwheel.errors import FetchError
from fatwheel.toolchain import web as web_module
from fatwheel.toolchain.access import LISTED
from fatwheel.toolchain.index import Index
from fatwheel.toolchain.pipconfig import PipConfig, RefusedError, TransientError

from ...helpers.webserver import Server, body, cut_short, status

WHEEL = "demo-1.0-py3-none-any.whl"
JSON = "application/vnd.pypi.simple.v1+json"
PINNED = Package("demo", "1.0", WHEEL, 1, hashlib.sha256(b"x").hexdigest(), "runtime")
Opened = Callable[..., Index]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Makes indexes, which are closed in the end."""
    made: list[Index] = []

    def opened(*indexes: str, **options: Any) -> Index:
        made.append(Index(replace(PipConfig(indexes=indexes, timeout=5.0), **options)))
        return made[-1]

    yield opened
    for index in made:
        index.close()


@pytest.fixture
def index(server: Server, opened: Opened) -> Index:
    return opened(f"{server.url}/simple")


def links(index: Index) -> list[Link]:
    return index.links(index.sources[0], PINNED)


# -- listings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listing", "kind"),
    [
        (b"not JSON", JSON),
        (b"[]", JSON),
        (b'{"files": null}', JSON),
        (b'{"files": ["a.whl"]}', JSON),
        (b'{"files": [{"filename": "a.whl", "url": 5}]}', JSON),
        (b'{"files": [{"url": "/demo-1.0.tar.gz", "upload-time": "noon"}]}', JSON),
        (b"[" * 100_000, JSON),
        (b'<a href="http://[::1/a.whl">a</a>', "text/html"),
        (b"<a href='a.whl'>\xff</a>", "text/html; charset=utf-8"),
    ],
)
def test_a_broken_listing_is_no_reason_to_crash(
    server: Server, index: Index, listing: bytes, kind: str
) -> None:
    server.answers["/simple/demo/"] = body(listing, kind)
    with pytest.raises(RefusedError, match=r"^the listing could not be read: ."):
        links(index)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (408, "408 Request Timeout"),
        (429, "429 Too Many Requests"),
        (503, "503 Service Unavailable"),
        (520, "520"),  # of proxies; no standard has a name for it
    ],
)
def test_what_may_pass_is_transient(server: Server, index: Index, code: int, said: str) -> None:
    server.answers["/simple/demo/"] = server.answers["/file"] = status(code)
    with pytest.raises(TransientError, match=f"^the listing could not be read: {said}$"):
        links(index)
    with (
        pytest.raises(TransientError, match=f"^{said}$"),
        index.opened(Link(f"{server.url}/file"), LISTED),
    ):
        pass


@pytest.mark.parametrize(
    ("code", "said"), [(403, "403 Forbidden"), (410, "410 Gone"), (499, "499"), (599, "599")]
)
def test_what_will_not_pass_is_final(server: Server, index: Index, code: int, said: str) -> None:
    server.answers["/simple/demo/"] = server.answers["/file"] = status(code)
    with pytest.raises(RefusedError, match=f"^no such package here: {said}$"):
        links(index)
    with (
        pytest.raises(RefusedError, match=f"^{said}$"),
        index.opened(Link(f"{server.url}/file"), LISTED),
    ):
        pass


def test_links_that_promise_another_file_come_last(server: Server, index: Index) -> None:
    """Those that promise nothing may be the pinned one."""
    page = "".join(
        f'<a href="/{place}/{WHEEL}{promise}">{WHEEL}</a>'
        for place, promise in [
            ("other", f"#sha256={'0' * 64}"),
            ("silent", ""),
            ("md5", f"#md5={'0' * 32}"),
            ("pinned", f"#sha256={PINNED.sha256}"),
        ]
    )
    server.answers["/simple/demo/"] = body(page.encode(), "text/html")
    found = [link.normalized.partition("#")[0] for link in links(index)]
    assert found[-1] == f"{server.url}/other/{WHEEL}"
    assert sorted(found[:-1]) == [f"{server.url}/{p}/{WHEEL}" for p in ("md5", "pinned", "silent")]


def test_a_name_with_a_plus_is_found_as_indexes_write_it(server: Server, index: Index) -> None:
    """As in the local versions of PyTorch's wheels."""
    name = "demo-1.0+cu130-py3-none-any.whl"
    quoted = name.replace("+", "%2B")
    page = f'<a href="/files/{quoted}">{name}</a>'
    server.answers["/simple/demo/"] = body(page.encode(), "text/html")
    package = Package("demo", "1.0+cu130", name, 1, "0" * 64, "runtime")
    (link,) = index.links(index.sources[0], package)
    assert link.filename == name


def test_the_status_of_one_listing_is_not_told_of_the_next(server: Server, opened: Opened) -> None:
    index = opened(f"{server.url}/simple", find_links=(f"{server.url}/links",))
    server.answers["/simple/demo/"] = status(503)
    server.answers["/links"] = body(b"", "text/html")
    by_place = {source.url.rpartition("/")[2]: source for source in index.sources}
    with pytest.raises(TransientError, match="503"):
        index.links(by_place["simple"], PINNED)
    with pytest.raises(RefusedError, match=r"^not listed here$"):
        index.links(by_place["links"], PINNED)


# -- files ---------------------------------------------------------------------------------------


def test_a_file_comes_as_it_is_stored(server: Server, index: Index) -> None:
    """Not decoded, although a server calls a .tar.gz encoded: its hash is of the stored bytes."""
    packed = bytes.fromhex("1f8b0800000000000003030000000000000000 00")
    asked: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.headers["Accept-Encoding"])
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(packed)))
        handler.end_headers()
        handler.wfile.write(packed)

    server.answers["/file"] = answer
    with index.opened(Link(f"{server.url}/file"), LISTED) as chunks:
        assert b"".join(chunks) == packed
    assert asked == ["identity"]


def test_a_redirect_is_followed(server: Server, index: Index) -> None:
    def away(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"{server.url}/there")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answers["/file"] = away
    server.serve("/there", b"content")
    with index.opened(Link(f"{server.url}/file"), LISTED) as chunks:
        assert b"".join(chunks) == b"content"


def test_a_connection_that_ends_too_early_is_transient(server: Server, index: Index) -> None:
    server.answers["/file"] = cut_short(b"abcdef", 3)
    with (
        index.opened(Link(f"{server.url}/file"), LISTED) as chunks,
        pytest.raises(TransientError, match="RemoteProtocolError"),
    ):
        b"".join(chunks)


def test_a_url_that_cannot_be_is_final(index: Index) -> None:
    link = Link("http://127.0.0.1/a\x01.whl")
    with pytest.raises(RefusedError, match="non-printable"), index.opened(link, LISTED):
        pass


def test_a_silent_server_is_told_with_the_option_that_sets_the_patience(
    server: Server, opened: Opened
) -> None:
    hold = threading.Event()
    server.answers["/file"] = lambda handler: hold.wait(5) and None
    index = opened(server.url, timeout=0.1)
    with (
        pytest.raises(TransientError, match=r"no answer in time .*timeout"),
        index.opened(Link(f"{server.url}/file"), LISTED),
    ):
        pass
    hold.set()


# -- places, tries and certificates --------------------------------------------------------------


def test_places_on_disk_come_first_and_passwords_are_not_shown(
    opened: Opened, tmp_path: Path
) -> None:
    index = opened(
        "https://user:hunter2@one.invalid/simple",
        (tmp_path / "index").as_uri(),
        find_links=("https://two.invalid/links", str(tmp_path / "links")),
    )
    *first, last = [source.shown for source in index.sources]
    assert first == [
        str(tmp_path / "links"),
        (tmp_path / "index").as_uri(),
        "https://two.invalid/links",
    ]
    assert re.fullmatch(r"https://[*]+@one\.invalid/simple", last), last


def test_tries_are_as_many_as_pip_is_told_with_doubled_pauses(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", lambda seconds: pauses.append(seconds))
    assert list(opened("https://index.invalid", retries=3).tries(stop)) == [0, 1, 2, 3]
    assert pauses == [0.25, 0.5, 1.0]
    assert list(opened("https://index.invalid", retries=0).tries(stop)) == [0]


def test_no_try_follows_once_the_work_is_stopped(opened: Opened) -> None:
    stop = threading.Event()
    stop.set()
    assert list(opened("https://index.invalid", retries=3).tries(stop)) == [0]


@pytest.mark.parametrize("option", ["cert", "client_cert"])
def test_certificates_that_are_none_are_named(opened: Opened, tmp_path: Path, option: str) -> None:
    file = tmp_path / "some.pem"
    file.write_text("no certificate")
    with pytest.raises(FetchError, match="certificates that pip is configured with") as caught:
        opened("https://index.invalid", **{option: str(file)})
    assert caught.value.where == str(file)


def test_a_folder_of_certificates_is_taken(opened: Opened, tmp_path: Path) -> None:
    context = web_module._ssl_context(PipConfig(cert=str(tmp_path)))
    assert not isinstance(context, bool)
    assert context.get_ca_certs() == []
