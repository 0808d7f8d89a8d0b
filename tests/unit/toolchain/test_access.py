"""Which URLs may be asked, by who named them; and real redirects, between servers with names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from fatwheel.config.pinned import Package
from fatwheel.toolchain.access import (
    LISTED,
    PINNED,
    AccessRules,
    RequestContext,
    Way,
    origin_of,
    way_of,
)
from fatwheel.toolchain.pipconfig import PipConfig, RefusedError

from ...helpers.tlsserver import Site, Town, got, redirect, town

FOREIGN = Way("foreign", frozenset({"publisher.test"}))
PUBLIC = "https://publisher.test/a"
FILE = Package("demo", "1.0", "demo.tar.gz", 1, "0" * 64, "runtime")


def refusal(way: Way, *urls: str, config: PipConfig | None = None) -> str:
    """What is said where the first URL leads to the others; '' where it may."""
    rules, context = AccessRules(config or PipConfig()), RequestContext(way)
    for url in urls:
        request = httpx2.Request("GET", url, extensions=context.extensions)
        try:
            rules.admit(request)
        except RefusedError as error:
            return str(error)
    return ""


# -- where a pin may lie -------------------------------------------------------------------------


@pytest.mark.parametrize("way", [PINNED, FOREIGN], ids=["own", "foreign"])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://publisher.test/a", ""),
        ("http://publisher.test/a", "plain http"),
        ("file:///etc/passwd", "a file: URL"),
        ("ftp://publisher.test/a", "a ftp: URL"),
        ("https://user:secret@publisher.test/a", "no user or password"),
    ],
)
def test_pins_lie_at_https_urls(way: Way, url: str, said: str) -> None:
    found = refusal(way, url)
    assert bool(found) == bool(said)
    assert said in found
    assert "secret" not in found


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "169.254.169.254", "0.0.0.0",
        "10.0.0.1.", "2130706433", "0x7f.1", "127.1", "017700000001", "[::ffff:10.0.0.1]",
        "[fd00:ec2::254]", "[fe80::1]", "[fe80::1%25eth0]", "[::]", "metadata.localhost",
    ],
)  # fmt: skip
def test_addresses_inside_of_networks_are_for_those_who_configured_them(host: str) -> None:
    url = f"https://{host}/a"
    mine = Way("foreign", frozenset({origin_of(url).name}))
    for found in (refusal(PINNED, url), refusal(mine, url), refusal(PINNED, PUBLIC, url)):
        assert "a local or private address" in found
    named = PipConfig(indexes=(f"https://{host}/simple",))
    assert refusal(PINNED, url, config=named) == ""
    assert refusal(LISTED, url) == "", "as for pip, what is configured is right"


@pytest.mark.parametrize("host", ["8.8.8.8", "[2606:4700::1111]", "files.example.org", "a.1b.org"])
def test_addresses_that_anybody_can_reach_are_as_good_as_names(host: str) -> None:
    assert refusal(PINNED, f"https://{host}/a") == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_this_machine_may_serve_a_toolchain_s_files_and_no_stranger_s(host: str) -> None:
    for url in (f"http://{host}:8000/a", f"https://{host}:8000/a"):
        assert refusal(PINNED, url) == ""
        assert refusal(Way("foreign", frozenset({f"{host}:8000"})), url) != ""
        assert refusal(PINNED, "https://publisher.test/a", url) != "", "no redirect leads here"
    assert refusal(PINNED, f"http://{host}:8000/a", f"http://{host}:9000/b") == ""


def test_a_lock_from_elsewhere_names_hosts_that_are_known_here() -> None:
    assert "no toolchain or recipe here fetches anything from stranger.test" in refusal(
        FOREIGN, "https://stranger.test/a"
    )
    assert refusal(FOREIGN, "https://publisher.test:8443/a") != "", "another port is another host"
    own = PipConfig(indexes=("https://stranger.test/simple",))
    assert refusal(FOREIGN, "https://stranger.test/a", config=own) == "", "the user's index"
    assert refusal(FOREIGN, "http://stranger.test/a", config=own) != ""


def test_the_way_of_a_pin() -> None:
    assert way_of(FILE) == LISTED
    pinned = replace(FILE, url="https://publisher.test/a")
    assert way_of(pinned) == PINNED
    foreign = replace(pinned, hosts=FOREIGN.hosts)
    assert way_of(foreign) == FOREIGN
    assert foreign == pinned, "where it comes from is no part of what it is"
    assert AccessRules(PipConfig()).may_name(foreign)
    for url in ("https://stranger.test/a", "https://[::1/", "https://\x01/", "nothing"):
        assert not AccessRules(PipConfig()).may_name(replace(foreign, url=url))


# -- redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [LISTED, PINNED, FOREIGN], ids=["listed", "own", "foreign"])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://cdn.test/a", ""),
        ("http://cdn.test/a", "it redirects from https to http, at cdn.test"),
        ("file:///etc/passwd", "it redirects to a file: URL"),
        ("https://169.254.169.254/latest/meta-data", "a local or private address"),
        ("https://127.0.0.1/", "a local or private address"),
    ],
)
def test_redirects_are_held_to_the_same_rules(way: Way, url: str, said: str) -> None:
    found = refusal(way, "https://publisher.test/a", url)
    assert bool(found) == bool(said)
    assert said in found


def test_an_index_may_send_its_user_on_inside_of_a_company() -> None:
    assert refusal(LISTED, "https://index.corp/a", "https://10.1.2.3/a") == ""
    assert refusal(LISTED, "http://index.corp/a", "http://10.1.2.3/a") == ""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    with ExitStack() as open:
        yield town(tmp_path, open, monkeypatch)


@pytest.fixture
def publisher(here: Town) -> Site:
    return here.site("publisher.test")


@pytest.fixture(params=["own", "foreign"])
def way(request: pytest.FixtureRequest, publisher: Site) -> Way:
    return PINNED if request.param == "own" else Way("foreign", frozenset({publisher.netloc}))


def test_a_publisher_s_files_may_lie_elsewhere(here: Town, publisher: Site, way: Way) -> None:
    there = here.site("cdn.test").serve("/a", b"content")
    assert got(here, publisher.answer("/a", redirect(there)), way) == b"content"


def test_nothing_is_asked_where_a_redirect_must_not_lead(
    here: Town, publisher: Site, way: Way, tmp_path: Path
) -> None:
    plain = here.plain("cdn.test")
    (tmp_path / "file").write_text("secret")
    for url in (plain.serve("/a", b"content"), here.plain().url, (tmp_path / "file").as_uri()):
        with pytest.raises(RefusedError, match="it redirects"):
            got(here, publisher.answer("/a", redirect(url)), way)
    assert plain.server.requests == []


def test_a_foreign_host_is_not_even_connected_to(here: Town, publisher: Site) -> None:
    stranger = here.site("stranger.test")
    url = stranger.serve("/a", b"content")
    with pytest.raises(RefusedError, match=r"no toolchain .* stranger\.test"):
        got(here, url, Way("foreign", frozenset({publisher.netloc})))
    assert stranger.server.requests == []
    assert got(here, url, PINNED) == b"content"


def test_redirects_come_to_an_end(here: Town, publisher: Site, way: Way) -> None:
    url = publisher.answer("/a", redirect(f"{publisher.url}/a"))
    with pytest.raises(RefusedError, match="it redirects more than 10 times"):
        got(here, url, way)
    assert len(publisher.server.requests) == 11


def test_no_cookie_is_kept(here: Town, publisher: Site, way: Way) -> None:
    content = publisher.serve("/b", b"content")
    url = publisher.answer("/a", redirect(content, ("Set-Cookie", "id=1; Path=/")))
    assert got(here, url, way) == b"content"
    assert publisher.cookies == [None, None]


def test_what_is_said_to_one_origin_stays_there() -> None:
    rules = AccessRules(PipConfig(trusted_hosts=("index.corp",)))
    for first, then, kept in [
        ("https://a.test/x", "https://a.test/y", True),
        ("https://a.test/x", "https://b.test/x", False),
        ("https://a.test/x", "https://a.test:8443/x", False),
        ("http://index.corp/x", "https://index.corp/x", True),
        ("http://index.corp:8080/x", "https://index.corp/x", False),
        ("http://index.corp/x", "https://a.test/x", False),
    ]:
        context = RequestContext(LISTED)
        signed = {"Authorization": "Basic x"}
        for url in (first, then):
            request = httpx2.Request("GET", url, headers=signed, extensions=context.extensions)
            rules.admit(request)
        assert ("Authorization" in request.headers) == kept, (first, then)
