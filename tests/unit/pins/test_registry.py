"""Digests of images, from registries of our own making that behave as those of the world do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from fatwheel.pins.published import (
    HostBuild,
    image_digest,
    image_for_host,
    parse_host_build,
    parse_reference,
)
from fatwheel.toolchain.pipconfig import NoConnectionError, PipConfig, RefusedError, TransientError
from fatwheel.toolchain.web import Web

from ...helpers.webserver import Server, body, status

DIGEST = "sha256:" + hashlib.sha256(b"an image index").hexdigest()
MANIFEST = "/v2/pypa/manylinux2014_x86_64/manifests/2025.10.10-1"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web(PipConfig(timeout=5.0))
    yield web
    web.close()


def reference(server: Server) -> str:
    return f"{server.url.removeprefix('http://')}/pypa/manylinux2014_x86_64:2025.10.10-1"


def manifest(digest: str | None = DIGEST, token: str | None = None, challenge: str = "") -> object:
    """A registry's answer; with a token only where it wants one."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if token is not None and handler.headers["Authorization"] != f"Bearer {token}":
            handler.send_response(401)
            handler.send_header("WWW-Authenticate", challenge)
            handler.end_headers()
            return
        assert "application/vnd.oci.image.index.v1+json" in handler.headers["Accept"]
        handler.send_response(200)
        if digest:
            handler.send_header("Docker-Content-Digest", digest)
        handler.send_header("Content-Length", "14")
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(b"an image index")

    return answer


# What `docker pull` makes of a name (distribution/reference), written by hand.
@pytest.mark.parametrize(
    ("text", "url"),
    [
        (
            "python:3.11-bookworm",
            "https://registry-1.docker.io/v2/library/python/manifests/3.11-bookworm",
        ),
        ("debian", "https://registry-1.docker.io/v2/library/debian/manifests/latest"),
        ("nvidia/cuda:12.3.2", "https://registry-1.docker.io/v2/nvidia/cuda/manifests/12.3.2"),
        (
            "docker.io/library/python:3.11",
            "https://registry-1.docker.io/v2/library/python/manifests/3.11",
        ),
        (
            "mcr.microsoft.com/windows/servercore:ltsc2022",
            "https://mcr.microsoft.com/v2/windows/servercore/manifests/ltsc2022",
        ),
        (
            "quay.io/pypa/manylinux2014_x86_64:2025.10.10-1",
            "https://quay.io/v2/pypa/manylinux2014_x86_64/manifests/2025.10.10-1",
        ),
        ("registry.example:5000/a/b", "https://registry.example:5000/v2/a/b/manifests/latest"),
        ("localhost:5000/a:1", "http://localhost:5000/v2/a/manifests/1"),
    ],
)
def test_where_an_image_is(text: str, url: str) -> None:
    assert parse_reference(text).manifest == url


def test_a_registry_that_lets_anybody_read(server: Server, web: Web) -> None:
    server.answers[MANIFEST] = manifest()  # type: ignore[assignment]
    assert image_digest(parse_reference(reference(server)), web) == DIGEST
    assert server.requests == [], "HEAD is enough"


@pytest.mark.parametrize("field", ["token", "access_token"])
def test_a_registry_that_wants_a_token_for_nobody_in_particular(
    server: Server, web: Web, field: str
) -> None:
    challenge = f'Bearer realm="{server.url}/auth",service="registry.example",scope="x"'
    server.answers[MANIFEST] = manifest(token="t0k", challenge=challenge)  # type: ignore[assignment]
    place = "/auth?service=registry.example&scope=repository%3Apypa%2Fmanylinux2014_x86_64%3Apull"
    server.serve(place, json.dumps({field: "t0k"}).encode())
    assert image_digest(parse_reference(reference(server)), web) == DIGEST
    assert server.requests == [place]


def test_a_registry_that_does_not_say_the_digest(server: Server, web: Web) -> None:
    """Then it is the sha256 of the manifest itself, by definition."""
    server.answers[MANIFEST] = manifest(digest=None)  # type: ignore[assignment]
    assert image_digest(parse_reference(reference(server)), web) == DIGEST


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        'Basic realm="x"',
        'Bearer realm="http://elsewhere.invalid/auth",service="s"',  # a token in the clear
        'Bearer service="s"',
        'Bearer realm="http://[::1",service="s"',
        'Bearer realm="https://169.254.169.254/latest",service="s"',  # the cloud's
        'Bearer realm="https://user:word@elsewhere.invalid/auth",service="s"',
    ],
)
def test_a_registry_that_wants_credentials(server: Server, web: Web, challenge: str) -> None:
    server.answers[MANIFEST] = manifest(token="t", challenge=challenge)  # type: ignore[assignment]
    with pytest.raises(RefusedError, match="requires credentials"):
        image_digest(parse_reference(reference(server)), web)


@pytest.mark.parametrize(
    "document", [b"", b"[]", b'{"token": 5}', b'{"token": "a\\nb"}', b"\xff", b"[" * 100_000]
)
def test_a_token_that_is_none(server: Server, web: Web, document: bytes) -> None:
    challenge = f'Bearer realm="{server.url}/auth",service="s"'
    server.answers[MANIFEST] = manifest(token="t", challenge=challenge)  # type: ignore[assignment]
    place = "/auth?service=s&scope=repository%3Apypa%2Fmanylinux2014_x86_64%3Apull"
    server.answers[place] = body(document)
    with pytest.raises(RefusedError, match="gave no token"):
        image_digest(parse_reference(reference(server)), web)


def test_an_image_that_is_not_there(server: Server, web: Web) -> None:
    with pytest.raises(RefusedError, match="no such image there: 404 Not Found"):
        image_digest(parse_reference(reference(server)), web)


def test_a_registry_that_is_busy_or_gone(server: Server, web: Web) -> None:
    server.answers[MANIFEST] = status(429)
    with pytest.raises(TransientError, match="429"):
        image_digest(parse_reference(reference(server)), web)
    with pytest.raises(NoConnectionError):
        image_digest(parse_reference("127.0.0.1:9/a:1"), web)


# -- the image for a Windows host ----------------------------------------------------------------

TAGS = [
    "ltsc2022", "10.0.20348.887", "10.0.20348.2340", "10.0.20348.2340-amd64", "10.0.20348.2966",
    "10.0.17763.2300", "10.0.20348.9999999", 5, "10.0.20348",
]  # fmt: skip
LIST = "/v2/pypa/manylinux2014_x86_64/tags/list"


def chosen(server: Server, web: Web, host: HostBuild) -> str:
    return image_for_host(parse_reference(reference(server)), host, web).tag


@pytest.mark.parametrize(
    ("revision", "tag"),
    [(2340, "10.0.20348.2340"), (2500, "10.0.20348.2340"), (4000, "10.0.20348.2966"),
     (1000, "10.0.20348.887")],
)  # fmt: skip
def test_the_newest_image_that_a_host_runs(
    server: Server, web: Web, revision: int, tag: str
) -> None:
    server.serve(LIST, json.dumps({"name": "base", "tags": TAGS}).encode())
    assert chosen(server, web, HostBuild(20348, revision)) == tag


def test_no_image_for_a_host(server: Server, web: Web) -> None:
    server.serve(LIST, json.dumps({"name": "base", "tags": TAGS}).encode())
    with pytest.raises(RefusedError, match=r"no image for Windows 20348\.500 or older"):
        chosen(server, web, HostBuild(20348, 500))
    for document in (b"[]", b'{"tags": {}}', b'{"tags": null}', b"no JSON", b'{"tags": "10.0"}'):
        server.serve(LIST, document)
        with pytest.raises(RefusedError, match="no image for Windows"):
            chosen(server, web, HostBuild(20348, 2340))


def test_a_registry_that_lists_no_tags(server: Server, web: Web) -> None:
    with pytest.raises(RefusedError, match="does not list its tags"):
        chosen(server, web, HostBuild(20348, 2340))


@pytest.mark.parametrize("text", ["20348.2340", "10.0.20348.2340"])
def test_the_version_of_a_host(text: str) -> None:
    assert parse_host_build(text) == HostBuild(20348, 2340)


@pytest.mark.parametrize(
    "text", ["", "20348", "10.0.20348", "6.1.7601.1", "20348.", "x.1", "٢٠٣٤٨.1"]
)
def test_what_is_no_version_of_a_host(text: str) -> None:
    assert parse_host_build(text) is None
