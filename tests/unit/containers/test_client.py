"""Finding the engine, what it says of itself, and what its errors mean."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fatwheel.containers.client import connect, engine_errors
from fatwheel.errors import EngineError, UsageError

from ...helpers.fakeengine import WINDOWS_INFO, WINDOWS_VERSION, Fake, fake_engine

GIB = 1 << 30


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without Docker configuration and variables."""
    for name in list(os.environ):
        if name.startswith("DOCKER_"):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder / ".docker"))
    return folder


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    with fake_engine(tmp_path) as engine:
        yield engine


@pytest.fixture
def chosen(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """The engine that DOCKER_HOST names."""
    monkeypatch.setenv("DOCKER_HOST", fake.host)
    return fake


def refused() -> EngineError:
    with pytest.raises(EngineError) as error:
        connect()
    return error.value


def add_context(home: Path, name: str, host: str) -> None:
    """As `docker context create` lays it out."""
    folder = home / ".docker" / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    folder.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": False}
    meta = {"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}
    (folder / "meta.json").write_text(json.dumps(meta))


def configure(home: Path, text: str) -> None:
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker" / "config.json").write_text(text)


# -- where it is ---------------------------------------------------------------------------------


def test_docker_host_names_it(chosen: Fake) -> None:
    engine = connect()
    assert engine.endpoint == chosen.host
    assert engine.os == "linux"


def test_the_current_context_names_it(fake: Fake, home: Path) -> None:
    add_context(home, "mine", fake.host)
    configure(home, json.dumps({"currentContext": "mine"}))
    assert connect().endpoint == fake.host


def test_docker_context_goes_before_the_current_one(
    fake: Fake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_context(home, "mine", fake.host)
    add_context(home, "other", "unix:///nowhere.sock")
    configure(home, json.dumps({"currentContext": "other"}))
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    assert connect().endpoint == fake.host


def test_docker_host_goes_before_contexts(chosen: Fake, home: Path) -> None:
    add_context(home, "other", "unix:///nowhere.sock")
    configure(home, json.dumps({"currentContext": "other"}))
    assert connect().endpoint == chosen.host


def test_a_context_that_does_not_exist(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    configure(home, "{}")
    monkeypatch.setenv("DOCKER_CONTEXT", "none")
    error = refused()
    assert "'none'" in error.what
    assert "docker context ls" in str(error.hint)


def test_a_context_that_cannot_be_read(fake: Fake, home: Path) -> None:
    add_context(home, "mine", fake.host)
    configure(home, json.dumps({"currentContext": "mine"}))
    [meta] = home.rglob("meta.json")
    meta.write_text('{"Name": ')
    assert "cannot read the Docker context" in refused().what


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("nonsense", "not a valid engine address"),
        ("foo://bar", "not a valid engine address"),
        ("tcp://", "not a valid engine address"),
        ("tcp://127.0.0.1:port", "not a valid engine address"),
        ("npipe:////./pipe/docker_engine", "not a valid engine address"),
        ("unix:///nowhere/docker.sock", "no engine is listening there"),
        ("tcp://127.0.0.1:1", "no engine is listening there"),
        ("tcp://no-such-host.invalid:2375", "its host name does not resolve"),
        ("ssh://user@host", "does not see this machine's folders"),
    ],
)
def test_a_docker_host_of_no_use(host: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    error = refused()
    assert says in error.what
    assert host in str(error.where)
    assert error.hint


def test_no_engine_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    hint = str(refused().hint)
    for way in ("systemctl start docker", "Docker Desktop", "net start docker"):
        assert way in hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use any socket")
def test_no_permission_on_the_socket(chosen: Fake) -> None:
    chosen.socket.chmod(0)
    error = refused()
    assert "permission denied" in error.what
    assert "usermod -aG docker" in str(error.hint)


def test_no_permission_as_the_sdk_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests: the system's refusal, on its way through requests and the SDK."""

    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("DOCKER_HOST", "unix:///var/run/docker.sock")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    error = refused()
    assert "permission denied" in error.what
    assert "dockerd-rootless-setuptool.sh" in str(error.hint)


def test_certificates_that_are_not_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(home))
    error = refused()
    assert "TLS" in error.what
    assert "DOCKER_CERT_PATH" in str(error.hint)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not a container engine"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "not a container engine"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "not a container engine"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "not a container engine"),
        (
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
            "TLS",
        ),
        (b"", "connection to the engine was lost"),
    ],
)
def test_something_else_answers(answer: bytes, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1 << 16)
                client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.getsockname()[1]}")
        assert says in refused().what


# -- what it says of itself ----------------------------------------------------------------------


def test_facts_of_a_linux_engine(chosen: Fake) -> None:
    engine = connect()
    assert (engine.os, engine.os_build, engine.version) == ("linux", 0, "24.0.7")
    assert (engine.cpus, engine.memory, engine.root) == (16, 64 * GIB, "/var/lib/docker")
    assert engine.storage_driver == "overlay2"
    assert ("Backing Filesystem", "extfs") in engine.storage
    assert not engine.rootless
    assert not engine.remapped
    assert not engine.selinux
    assert engine.limits == {"memory", "swap", "cpus", "pids"}


def test_facts_of_a_windows_engine(chosen: Fake) -> None:
    chosen.info, chosen.version = dict(WINDOWS_INFO), dict(WINDOWS_VERSION)
    engine = connect()
    assert (engine.os, engine.os_build) == ("windows", 20348)
    assert (engine.storage_driver, engine.isolation) == ("windowsfilter", "process")
    assert engine.os_revision == 2340


@pytest.mark.parametrize(
    ("info", "revision"),
    [
        ({"OSVersion": "10.0.20348.2966"}, 2966),
        ({"OSVersion": "10.0.22631", "OperatingSystem": "Windows 11 (OS Build 22631.3155)"}, 3155),
        ({"OSVersion": "10.0.20348.x", "OperatingSystem": "Docker Desktop"}, 0),
        ({"OSVersion": 5, "OperatingSystem": None}, 0),
    ],
)
def test_the_revision_of_a_windows_host(chosen: Fake, info: dict[str, Any], revision: int) -> None:
    chosen.info, chosen.version = {**WINDOWS_INFO, **info}, dict(WINDOWS_VERSION)
    assert connect().os_revision == revision


@pytest.mark.parametrize(
    ("kernel", "build"),
    [
        ("10.0 22631 (22621.1.amd64fre.ni_release.220506-1250)", 22631),
        ("10.0 26100 (26100.1.amd64fre.ge_release.240331-1435)", 26100),
        ("10.0.17763.5576", 17763),
        ("", 0),
        ("something else", 0),
    ],
)
def test_the_build_of_a_windows_host(chosen: Fake, kernel: str, build: int) -> None:
    chosen.info = {**WINDOWS_INFO, "KernelVersion": kernel}
    chosen.version = {**WINDOWS_VERSION, "KernelVersion": kernel}
    assert connect().os_build == build


def test_facts_that_change_what_containers_get(chosen: Fake) -> None:
    chosen.info |= {
        "SecurityOptions": ["name=seccomp,profile=default", "name=rootless", "name=selinux"],
        "CpuCfsQuota": False,
        "PidsLimit": False,
    }
    engine = connect()
    assert engine.rootless
    assert engine.selinux
    assert not engine.remapped
    assert engine.limits == {"memory", "swap"}


def test_an_engine_that_is_too_old(chosen: Fake) -> None:
    chosen.version = {"Version": "19.03.15", "ApiVersion": "1.40", "Os": "linux"}
    error = refused()
    assert "19.03.15" in error.what
    assert "20.10" in str(error.hint)


def test_an_engine_that_fails(chosen: Fake) -> None:
    chosen.answers["GET /info"] = (500, {"message": "something\x1b[31m broke"})
    error = refused()
    assert "something\\x1b[31m broke" in error.what, "in the engine's words, made harmless"
    assert "invoke doctor" in str(error.hint)


@pytest.mark.parametrize(
    ("wanted", "has", "way"),
    [
        ("windows", {}, "Switch to Windows containers"),
        ("linux", {"OSType": "windows"}, "Switch to Linux containers"),
    ],
)
def test_the_wrong_kind_of_containers(
    chosen: Fake, wanted: str, has: dict[str, Any], way: str
) -> None:
    chosen.info |= has
    engine = connect()
    with pytest.raises(EngineError, match="the-toolchain needs") as error:
        engine.check_os(wanted, "the-toolchain")
    assert way in str(error.value.hint)
    engine.check_os(engine.os, "the-toolchain")


# -- what errors mean ----------------------------------------------------------------------------


def test_errors_of_fatwheel_go_through() -> None:
    with pytest.raises(UsageError), engine_errors("do it"):
        raise UsageError("as it was")


def test_the_engine_goes_away_in_the_middle(chosen: Fake) -> None:
    engine = connect()
    chosen.socket.unlink()
    engine.api.close()
    with (
        pytest.raises(EngineError, match="cannot look: no engine is listening there"),
        engine_errors("look", engine.endpoint),
    ):
        engine.api.containers()
