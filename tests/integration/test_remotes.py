"""Remotes on servers that are not ours: nginx with WebDAV, and clouds; over networks that break."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import pytest

from fatwheel.model import Environment
from fatwheel.sharing import remote as remote_module
from fatwheel.sharing.remote import Remote, remote_of
from fatwheel.storage.files import digest_of as file_digest

from ..helpers.npmpackages import install
from ..helpers.remoteservers import (
    AZURE_VARIABLES,
    BUCKET,
    GCS_VARIABLES,
    PASSWORD,
    S3_VARIABLES,
    USER,
    Network,
    azure_sas,
    azurite,
    nginx,
    requests_of,
    s3,
)
from ..helpers.sharingbench import Bench
from ..helpers.signingkeys import Keys
from .conftest import ROOT, Workbench
from .engine import LentEngine
from .once import once
from .slim import Slim

NAME = "slice/" + "ab" * 32


@pytest.fixture
def program(tool: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(
        "PATH", f"{os.environ['PATH']}{os.pathsep}/usr/sbin"
    )  # where users' may lack it
    return tool("nginx")


@pytest.fixture
def dav(program: str, tmp_path: Path) -> Iterator[str]:
    with nginx(program, tmp_path / "nginx") as url:
        yield url


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(tmp_path, monkeypatch)


def opened(url: str, said: list[str], **variables: str) -> Remote:
    found = remote_of(None, {"FATWHEEL_REMOTE": url, **variables})
    assert found
    found.tell = said.append
    return found


def sent(remote: Remote, folder: Path, size: int = 1000) -> bool:
    file = folder / "sent"
    file.write_bytes(os.urandom(size))
    return remote.put(NAME, file)


def came(remote: Remote, folder: Path) -> bool:
    there = remote.get(NAME, folder / "came", 1 << 30)
    return there and (folder / "came").read_bytes() == (folder / "sent").read_bytes()


# -- a real build ----------------------------------------------------------------------------------


def test_the_second_machine_compiles_nothing_of_a_real_project(
    environment: Environment, dav: str, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    pair = Keys(tool("openssl"), tmp_path).pair("ed25519")
    variables = {"FATWHEEL_REMOTE": f"{dav}/dav/team", "FATWHEEL_REMOTE_SIGN": str(pair.private)}
    one = Workbench(tmp_path / "one").build("--arch", "80", **variables)
    second = Workbench(tmp_path / "two")
    two = second.build("--arch", "80", **variables)
    assert file_digest(one.wheel()) == file_digest(two.wheel())
    assert "3 from the store, 0 compiled" in two.out
    reader = {"FATWHEEL_REMOTE_TRUST": str(pair.public), "FATWHEEL_REMOTE_MODE": "read"}
    shown = second.invoke("cache", "--remote", f"{dav}/dav/team", **reader)
    assert f"{dav}/dav/team, only read, signed" in shown.out
    assert "it can be read" in shown.out
    assert "1 build of this machine asked for" in shown.out


def test_machines_share_what_containers_made(
    docker_engine: LentEngine, slim: Slim, tmp_path: Path
) -> None:
    """And, since nothing but the image can reach it, the finished wheel."""
    remote = tmp_path / "remote"
    variables = {"FATWHEEL_REMOTE": str(remote)}
    made = []
    for name in ("one", "two", "three"):
        bench = Workbench(tmp_path / name, slim=slim)
        command = bench.build_command("--engine", "docker", "--arch", "80")
        made.append(bench.run(command, **docker_engine.variables, **variables))
        if name == "two":
            assert "3 from the store, 0 compiled" in made[1].out
            assert "capture" not in made[1].err, "no container was started for it"
            shutil.rmtree(remote / "fatwheel1" / "wheel")
    assert "3 from the store, 0 compiled" in made[2].out
    assert len({file_digest(one.wheel()) for one in made}) == 1


# -- nginx -----------------------------------------------------------------------------------------


def test_webdav_keeps_what_it_gets(dav: str, tmp_path: Path) -> None:
    said: list[str] = []
    remote = opened(f"{dav}/dav/team", said)
    assert not came(remote, tmp_path), "there is nothing yet, which is no failure"
    assert sent(remote, tmp_path)
    assert sent(remote, tmp_path), "over what is there"
    assert came(opened(f"{dav}/dav/team", said), tmp_path)
    assert said == []


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("read", "it can only be read, which FATWHEEL_REMOTE_MODE=read says: 405 Not Allowed"),
        ("full", "it is full: 507 Insufficient Storage"),
    ],
)
def test_a_server_that_takes_nothing_is_still_read(
    dav: str, tmp_path: Path, folder: str, words: str
) -> None:
    said: list[str] = []
    assert sent(opened(f"{dav}/dav/team", said), tmp_path)
    remote = opened(f"{dav}/{folder}/team", said)
    assert not remote.put(NAME, tmp_path / "sent")
    assert came(remote, tmp_path)
    [note] = said
    assert note.startswith(f"nothing more is written to {dav}/{folder}/team in this build: ")
    assert words.replace("405 Not", "405 Method Not") in note


def test_a_login_is_used_and_never_shown(dav: str, tmp_path: Path) -> None:
    said: list[str] = []
    host = dav.removeprefix("http://")
    remote = opened(f"http://{USER}:{PASSWORD}@{host}/login/x", said)
    assert sent(remote, tmp_path)
    assert came(remote, tmp_path)
    assert said == []
    wrong = opened(f"http://{USER}:{PASSWORD}x@{host}/login/x", said)
    assert not came(wrong, tmp_path)
    assert not sent(wrong, tmp_path)
    assert [note for note in said if "401" in note and "with these credentials" in note] == said
    words = " ".join((*said, wrong.in_words, repr(wrong), wrong.probe()))
    assert PASSWORD not in words
    assert USER not in words


# -- clouds ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cloud:
    """A cloud's server. bucket: its address. variable: which names the server."""

    bucket: str
    url: str
    variable: str


CLOUDS = {
    "s3": (S3_VARIABLES, "AWS_ENDPOINT_URL"),
    "gs": (GCS_VARIABLES, "GOOGLE_BASE_URL"),
    "az": (AZURE_VARIABLES, "AZURITE_BLOB_STORAGE_URL"),
}


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with s3() as url:
        yield url


@pytest.fixture(scope="module")
def azure(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    project = ROOT / "tests" / "data" / "azurite"
    packages = once(tmp_path_factory, "azurite", lambda folder: install(project, folder, tool))
    with azurite(tool("node"), packages) as url:
        yield url


@pytest.fixture(params=CLOUDS)
def cloud(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    variables, variable = CLOUDS[request.param]
    url = request.getfixturevalue("azure" if request.param == "az" else "moto")
    for name, value in {**variables, variable: url}.items():
        monkeypatch.setenv(name, value)
    return Cloud(f"{request.param}://{BUCKET}", url, variable)


only_azure = pytest.mark.parametrize("cloud", ["az"], indirect=True)


def test_a_cloud_keeps_what_it_gets_in_parts_too(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "_ONE_PUT", 1 << 20)
    said: list[str] = []
    remote = opened(f"{cloud.bucket}/parts/{tmp_path.name}", said)
    assert not came(remote, tmp_path)
    for size in (1000, 11 << 20):
        assert sent(remote, tmp_path, size)
        assert came(remote, tmp_path)
    assert said == []


def test_a_bucket_that_is_not_there_is_said_once(cloud: Cloud, tmp_path: Path) -> None:
    for use in (came, sent):
        said: list[str] = []
        remote = opened(cloud.bucket.replace(BUCKET, "nobodys"), said)
        assert not use(remote, tmp_path)
        assert not sent(remote, tmp_path)
        assert said == [f"the build goes on without {remote.shown}: there is no such bucket"]
        assert remote.probe() == "there is no such bucket"


@pytest.mark.parametrize("cloud", ["s3", "az"], indirect=True)
def test_two_machines_share_by_a_cloud(cloud: Cloud, bench: Bench, tmp_path: Path) -> None:
    for machine in ("one", "two"):
        bench.remote = opened(f"{cloud.bucket}/{tmp_path.name}", [])
        bench.build(machine)
    assert bench.compiled == []


@only_azure
def test_a_build_goes_on_when_a_cloud_is_cut_off(
    cloud: Cloud, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = bench.build("alone")
    network = Network(cloud.url)
    network.left = 3000  # the first answers
    monkeypatch.setenv(cloud.variable, network.url)
    bench.remote = opened(f"{cloud.bucket}/{tmp_path.name}", [])
    assert bench.build("one").sha256 == expected.sha256
    assert sum("the build goes on without" in note for note in bench.notes) == 1


@only_azure
def test_a_wrong_key_is_said(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    said: list[str] = []
    remote = opened(f"{cloud.bucket}/a", said)
    assert not came(remote, tmp_path)
    assert not sent(remote, tmp_path)
    words = "it takes no such request with these credentials (AZURE_STORAGE_ACCOUNT_NAME and"
    assert [note for note in said if words in note and "403 Forbidden" in note] == said
    assert len(said) == 2, "of reading, and of writing"


@only_azure
def test_credentials_that_only_read(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    address = f"{cloud.bucket}/{tmp_path.name}"
    assert sent(opened(address, said), tmp_path)
    assert said == []
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", azure_sas("r"))
    remote = opened(address, said)
    assert not remote.put(NAME, tmp_path / "sent")
    assert came(remote, tmp_path)
    [note] = said
    assert note.startswith(f"nothing more is written to {address} in this build: it takes no such")
    assert "sig" not in note


# -- networks --------------------------------------------------------------------------------------


def test_nobody_there_costs_seconds_once(dav: str, tmp_path: Path) -> None:
    network = Network(dav)
    network.cut()
    said: list[str] = []
    remote = opened(f"{network.url}/dav/team", said)
    assert not any(remote.get(NAME, tmp_path / "came", 100) for _ in range(1000))
    assert not sent(remote, tmp_path)
    [note] = said
    assert note == (
        f"the build goes on without {network.url}/dav/team: there is no connection: "
        "Connection refused"
    )


def test_a_file_that_comes_byte_by_byte_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "_GRACE", 0.5)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\nLast-Modified: "
    head += formatdate(usegmt=True).encode() + b"\r\n\r\n"

    def dribble(server: socket.socket) -> None:
        connection = server.accept()[0]
        with suppress(OSError), connection:
            connection.recv(4096)
            connection.sendall(head)
            for number in range(200):
                went.append(number)
                connection.sendall(b"x")
                time.sleep(0.05)

    said: list[str] = []
    went: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=dribble, args=(server,), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert not opened(url, said).get(NAME, tmp_path / "came", 1 << 20)
        assert len(went) < 200, "nobody waited for its end"
    [note] = said
    assert note.startswith(f"the build goes on without {url}: it is too slow: ")


def test_a_connection_that_breaks_in_a_file(dav: str, tmp_path: Path) -> None:
    said: list[str] = []
    assert sent(opened(f"{dav}/dav/team", said), tmp_path, 1 << 20)
    network = Network(dav)
    network.left = 300_000
    assert not came(opened(f"{network.url}/dav/team", said), tmp_path)
    [note] = said
    # obstore asks for the rest first, and nobody answers that.
    assert note.startswith(f"the build goes on without {network.url}/dav/team: ")


def test_a_build_ends_well_when_the_network_is_cut_in_the_middle(
    dav: str, bench: Bench, tmp_path: Path
) -> None:
    """While parcels come, and while they go."""
    expected = bench.build("alone")
    network = Network(dav)
    network.left = 3000  # the answers to the first questions have 2,000 bytes
    bench.remote = opened(f"{network.url}/dav/team", [])
    assert bench.build("one").sha256 == expected.sha256
    assert sum("the build goes on without" in note for note in bench.notes) == 1
    bench.remote = opened(f"{dav}/dav/team", [])
    bench.build("two")
    network = Network(dav)
    network.left = 4000
    bench.remote = opened(f"{network.url}/dav/team", [])
    made = bench.build("three")
    assert made.sha256 == expected.sha256
    assert sum("the build goes on without" in note for note in bench.notes) == 1
    puts = [asked for asked in requests_of(tmp_path / "nginx") if asked.startswith("PUT")]
    assert all(asked.endswith((" 201", " 204")) for asked in puts)
