"""Who is told the user's passwords: servers that write down what they are sent."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from unearth import Link

from fatwheel.config.pinned import Package
from fatwheel.toolchain import access
from fatwheel.toolchain.access import LISTED, PINNED, Way
from fatwheel.toolchain.index import Index
from fatwheel.toolchain.pipconfig import PipConfig, RefusedError, TransientError
from fatwheel.toolchain.web import Web

from ...helpers.tlsserver import Site, Town, got, redirect, town
from ...helpers.webserver import Answer, body, status

WHEEL = "demo-1.0-py3-none-any.whl"
PACKAGE = Package("demo", "1.0", WHEEL, 7, "0" * 64, "runtime")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with ExitStack() as open:
        yield town(tmp_path, open, monkeypatch)


@pytest.fixture
def netrc(tmp_path: Path) -> Callable[[str], None]:
    def write(text: str) -> None:
        (tmp_path / "netrc").write_text(text)
        (tmp_path / "netrc").chmod(0o600)

    return write


@pytest.fixture
def publisher(here: Town) -> Site:
    return here.site("publisher.test")


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def foreign(*sites: Site) -> Way:
    return Way("foreign", frozenset(site.netloc for site in sites))


def guarded(content: bytes, password: str = "hunter2") -> Answer:
    """Only for those who say who they are."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        known = handler.headers["Authorization"] == basic("user", password)
        (body(content) if known else status(401))(handler)

    return answer


def secret(url: str) -> str:
    return url.replace("://", "://user:hunter2@")


# -- netrc ---------------------------------------------------------------------------------------


def test_netrc_s_default_is_told_to_nobody(
    here: Town, publisher: Site, netrc: Callable[[str], None]
) -> None:
    netrc("machine else.test login a password b\ndefault login user password hunter2\n")
    url = publisher.serve("/a", b"content")
    for way in (LISTED, PINNED, foreign(publisher)):
        assert got(here, url, way) == b"content"
    assert got(here, url, LISTED, PipConfig(indexes=(publisher.url,))) == b"content"
    assert publisher.sent == [None] * 4


def test_netrc_s_machine_is_told_over_https_to_whom_the_user_or_a_toolchain_names(
    here: Town, publisher: Site, netrc: Callable[[str], None]
) -> None:
    netrc("machine publisher.test login user password hunter2\n")
    url = publisher.serve("/a", b"content")
    for way in (LISTED, PINNED, foreign(publisher)):
        assert got(here, url, way) == b"content"
    assert publisher.sent == [basic("user", "hunter2")] * 2 + [None], "no lock from elsewhere asks"


def test_a_host_called_default_is_no_machine(
    here: Town, publisher: Site, netrc: Callable[[str], None]
) -> None:
    netrc("default login user password hunter2\n")
    assert access._machines() == {}
    netrc("this is no netrc\n")
    assert got(here, publisher.serve("/a", b"content"), PINNED) == b"content"


def test_netrc_over_plain_http_is_for_the_user_s_own_places(
    here: Town, netrc: Callable[[str], None]
) -> None:
    netrc("machine 127.0.0.1 login user password hunter2\n")
    plain = here.plain()
    url = plain.serve("/a", b"content")
    for way in (PINNED, LISTED):
        assert got(here, url, way) == b"content"
    assert got(here, url, LISTED, PipConfig(indexes=(f"{plain.url}/simple",))) == b"content"
    assert plain.sent == [None, None, basic("user", "hunter2")]


# -- passwords of indexes ------------------------------------------------------------------------


def test_an_index_s_password_goes_to_its_origin_alone(here: Town) -> None:
    index, other = here.site("index.test"), here.site("index.test")
    config = PipConfig(indexes=(f"{secret(index.url)}/simple",))
    mine, another = index.serve("/a", b"content"), other.serve("/a", b"content")
    plain = here.plain("index.test")
    for way in (LISTED, PINNED, foreign(index)):
        assert got(here, mine, way, config) == b"content"
    for way in (LISTED, PINNED, foreign(other)):
        assert got(here, another, way, config) == b"content"
    assert got(here, plain.serve("/a", b"content"), LISTED, config) == b"content"
    assert index.sent == [basic("user", "hunter2")] * 3
    assert other.sent == [None] * 3, "another port is somebody else's"
    assert plain.sent == [None]


def test_a_listing_and_its_files_are_asked_for_with_the_password(here: Town) -> None:
    index, cdn = here.site("index.test"), here.site("cdn.test")
    page = f'<a href="/files/{WHEEL}">x</a> <a href="{cdn.url}/{WHEEL}">x</a>'
    index.serve("/simple/demo/", page.encode(), "text/html")
    index.serve(f"/files/{WHEEL}", b"content")
    cdn.serve(f"/{WHEEL}", b"content")
    asked = Index(
        PipConfig(indexes=(f"{secret(index.url)}/simple",), cert=str(here.ca), timeout=5.0)
    )
    links = asked.links(asked.sources[0], PACKAGE)
    assert len(links) == 2
    for link in links:
        with asked.opened(link, LISTED) as chunks:
            assert b"".join(chunks) == b"content"
    asked.close()
    assert index.sent == [basic("user", "hunter2")] * 2
    assert cdn.sent == [None]


def test_a_page_names_no_file_of_this_machine(here: Town, tmp_path: Path) -> None:
    index = here.site("index.test")
    (tmp_path / WHEEL).write_bytes(b"secret")
    page = f'<a href="{(tmp_path / WHEEL).as_uri()}">x</a>'
    index.serve("/simple/demo/", page.encode(), "text/html")
    asked = Index(PipConfig(indexes=(f"{index.url}/simple",), cert=str(here.ca), timeout=5.0))
    with pytest.raises(RefusedError, match="not this one"):
        asked.links(asked.sources[0], PACKAGE)
    asked.close()


@pytest.mark.parametrize("kind", ["listed", "pinned"])
def test_no_redirect_takes_a_password_along(
    here: Town, kind: str, netrc: Callable[[str], None]
) -> None:
    index, cdn = here.site("index.test"), here.site("cdn.test")
    netrc("machine cdn.test login user password other\n")
    there = cdn.serve("/a", b"content")
    back = index.answer("/b", redirect(there))
    config = PipConfig(indexes=(secret(index.url),))
    way = LISTED if kind == "listed" else PINNED
    assert got(here, index.answer("/a", redirect(back)), way, config) == b"content"
    assert index.sent == [basic("user", "hunter2")] * 2, "it goes on within the index"
    assert cdn.sent == [None]


def test_a_host_that_wants_a_password_after_a_redirect_gets_none(
    here: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(access, "get_keyring_auth", lambda url, user: asked.append(url))
    index, cdn = here.site("index.test"), here.site("cdn.test")
    there = cdn.answer("/a", guarded(b"content"))
    with pytest.raises(RefusedError, match="401"):
        got(here, index.answer("/a", redirect(there)), LISTED, PipConfig(indexes=(index.url,)))
    assert asked == []
    assert cdn.sent == [None]


# -- the keyring ---------------------------------------------------------------------------------


def test_the_keyring_is_asked_once_an_index_wants_a_password(
    here: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []

    def keyring(url: str, user: str | None) -> tuple[str, str] | None:
        asked.append((url, user))
        return ("user", "from the keyring") if url.startswith("https://") else None

    monkeypatch.setattr(access, "get_keyring_auth", keyring)
    index = here.site("index.test")
    url = index.answer("/a", guarded(b"content", "from the keyring"))
    place = f"{index.url.replace('://', '://user@')}/simple"
    config = PipConfig(indexes=(place,), cert=str(here.ca), timeout=5.0)
    web = Web(config)
    for way in (LISTED, PINNED, foreign()):
        with web.opened(Link(url), way) as chunks:
            assert b"".join(chunks) == b"content"
    web.close()
    assert asked == [(f"{place}/", "user")], "what it said is known then"
    tried = basic("user", "")
    assert index.sent == [tried, *[basic("user", "from the keyring")] * 3]


def test_a_user_alone_may_be_a_token(here: Town) -> None:
    index = here.site("index.test")
    place = f"{index.url.replace('://', '://token@')}/simple"
    url = index.serve("/a", b"content")
    assert got(here, url, LISTED, PipConfig(indexes=(place,))) == b"content"
    assert index.sent == [basic("token", "")], "as with pip"


def test_the_keyring_knows_hosts_that_an_index_lists_and_none_that_pins_name(
    here: Town, publisher: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "get_keyring_auth", lambda url, user: ("user", "hunter2"))
    url = publisher.answer("/a", guarded(b"content"))
    for way in (PINNED, foreign(publisher)):
        with pytest.raises(RefusedError, match="401"):
            got(here, url, way)
    assert publisher.sent == [None, None]
    assert got(here, url, LISTED) == b"content", "as with pip"


# -- what is said --------------------------------------------------------------------------------


def test_no_error_shows_a_password(here: Town) -> None:
    for url in ("https://user:hunter2@127.0.0.1:9/a", "https://user:hunter2@host:port/a"):
        with pytest.raises((RefusedError, TransientError)) as caught:
            got(here, url, LISTED)
        assert "hunter2" not in str(caught.value)
        with pytest.raises(RefusedError) as caught:
            got(here, url, PINNED)
        assert "hunter2" not in str(caught.value)
