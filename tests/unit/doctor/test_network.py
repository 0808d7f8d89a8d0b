"""Asking an index and other servers: real ones on this machine, which behave or do not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from fatwheel.doctor import network
from fatwheel.doctor.facts import IndexFacts, Trouble
from fatwheel.errors import FetchError
from fatwheel.toolchain.pipconfig import PipConfig

from ...helpers.webserver import Server, status
from ...helpers.workstations import package

WANTED = package("demo", 5)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(autouse=True)
def config(server: Server, monkeypatch: pytest.MonkeyPatch) -> PipConfig:
    """pip knows the server's index."""
    config = PipConfig(indexes=(f"{server.url}/simple",), timeout=2.0)
    tell(config, monkeypatch)
    return config


def tell(config: PipConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "read_pip_config", lambda: config)


def test_an_index_with_the_file(server: Server) -> None:
    server.list("demo", WANTED.filename)
    found = network.ask_index(WANTED)
    assert isinstance(found, IndexFacts)
    assert found.asked == WANTED.filename
    assert [trouble for _, trouble in found.sources] == [""]
    assert found.clock == pytest.approx(0, abs=5), "the server's Date is this machine's"
    assert server.asked_for(f"/files/{WANTED.filename}") == 0, "nothing is downloaded"


def test_an_index_whose_clock_is_off(server: Server) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response_only(200)
        handler.send_header("Date", formatdate(time.time() + 7200, usegmt=True))
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    server.answers["/simple/demo/"] = answer
    found = network.ask_index(WANTED)
    assert isinstance(found, IndexFacts)
    assert found.clock == pytest.approx(7200, abs=5)


def test_an_index_without_the_file(server: Server) -> None:
    server.list("demo", "demo-2.0-py3-none-any.whl")
    found = network.ask_index(WANTED)
    assert isinstance(found, IndexFacts)
    assert "not this one" in found.sources[0][1]


def test_several_places_are_all_asked(
    server: Server, config: PipConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.list("demo", WANTED.filename)
    tell(replace(config, find_links=(str(tmp_path),)), monkeypatch)
    found = network.ask_index(WANTED)
    assert isinstance(found, IndexFacts)
    assert [bool(trouble) for _, trouble in found.sources] == [True, False]


def test_a_hanging_index_is_given_up_and_asked_once(
    server: Server, config: PipConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()
    server.answers["/simple/demo/"] = lambda handler: never.wait(20) and None
    tell(replace(config, timeout=0.5), monkeypatch)
    found = network.ask_index(WANTED)
    never.set()
    assert isinstance(found, IndexFacts)
    assert "no answer in time" in found.sources[0][1]
    assert len(server.requests) == 1


def test_a_configuration_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> PipConfig:
        raise FetchError("pip cannot read its configuration", details=["line 3"])

    monkeypatch.setattr(network, "read_pip_config", broken)
    found = network.ask_index(WANTED)
    assert found == Trouble("pip cannot read its configuration: line 3")
    assert network.places_of(network.ask_places([package("a", 1, url="http://x.example/a")]))[
        0
    ].trouble.startswith("pip cannot")
    assert network.ask_proxies().pip == ""


def test_nowhere_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    tell(PipConfig(), monkeypatch)
    assert isinstance(network.ask_index(WANTED), Trouble)


def test_each_other_server_is_asked_once(server: Server) -> None:
    server.serve("/a", b"12345")
    files = [
        package("a", 5, url=f"{server.url}/a"),
        package("b", 7, url=f"{server.url}/b"),
        package("c", 9),
    ]
    (place,) = network.places_of(network.ask_places(files))
    assert (place.host, place.missing, place.trouble) == (server.url[len("http://") :], 12, "")
    assert (server.heads, server.requests) == (["/a"], [])


def test_a_server_that_refuses_and_one_that_is_not_there(server: Server) -> None:
    server.answers["/a"] = status(404)
    gone = package("b", 7, url="http://127.0.0.1:1/b")
    places = network.places_of(network.ask_places([package("a", 5, url=f"{server.url}/a"), gone]))
    assert "404" in places[0].trouble
    assert "no connection" in places[1].trouble


def test_proxies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: PipConfig) -> None:
    for name in network.VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("https_proxy", "http://ada:secret@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "localhost")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    proxies = {"default": {"httpsProxy": "http://d:secret@docker.example", "noProxy": "x"}}
    (tmp_path / "config.json").write_text(json.dumps({"proxies": proxies}))
    tell(replace(config, proxy="http://p:secret@pip.example"), monkeypatch)
    found = network.ask_proxies()
    assert found.variables == (
        ("https_proxy", "http://ada:****@proxy.example:3128"),
        ("NO_PROXY", "localhost"),
    )
    assert found.pip == "http://p:****@pip.example"
    assert found.docker == ("httpsProxy=http://d:****@docker.example",)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"proxies": 5}', '{"proxies": {"default": ["a"]}}', "\x00"]
)
def test_a_docker_configuration_that_is_odd_has_no_proxies(
    content: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(content)
    assert network.ask_proxies().docker == ()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("proxy.example:3128", "proxy.example:3128"),
        ("http://ada@proxy.example", "http://ada@proxy.example"),
        ("http://ada:p@ss@proxy.example", "http://ada:****@proxy.example"),
        ("ada:secret@proxy.example:3128", "http://ada:****@proxy.example:3128"),
        ("http://[::1", "an address that cannot be read"),
        ("", ""),
    ],
)
def test_passwords_are_never_shown(url: str, shown: str) -> None:
    assert network.without_password(url) == shown
