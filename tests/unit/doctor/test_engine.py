"""What the engine is asked, which answers it may give, and its configuration file."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from requests.exceptions import ConnectionError as HttpError
from urllib3.exceptions import ProtocolError

from fatwheel.doctor import engine as engines
from fatwheel.doctor.facts import EngineTrouble, EngineView
from fatwheel.errors import EngineError

from ...helpers.workstations import DAEMON_JSON, LINUX_ENGINE, WINDOWS_ENGINE

# Parts of what Docker Engine answers to GET /info and GET /images/json.
INFO = {
    "Architecture": "x86_64",
    "SystemTime": "2026-01-02T03:04:05.678901234Z",
    "HttpProxy": "http://ada:secret@proxy.example:3128",
    "HttpsProxy": "",
}
IMAGES = [
    {"Id": "sha256:1", "RepoTags": ["fatwheel/l:a", "b:latest"]},
    {"Id": "sha256:2", "RepoTags": None},
]


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """An engine that keeps its images in tmp_path; `info` is what it says."""
    info: dict[str, Any] = dict(INFO)
    api = SimpleNamespace(info=lambda: info, images=lambda: IMAGES)
    engine = SimpleNamespace(
        api=api, endpoint="unix:///var/run/docker.sock", root=str(tmp_path / "docker"), said=info
    )
    monkeypatch.setattr(engines, "connect", lambda: engine)
    return engine


def ask() -> EngineView:
    found = engines.ask_engine()
    assert isinstance(found, EngineView)
    return found


def test_an_engine_that_answers(connected: SimpleNamespace, tmp_path: Path) -> None:
    found = ask()
    assert found.architecture == "x86_64"
    assert found.images == {
        "sha256:1": "sha256:1", "fatwheel/l:a": "sha256:1", "b:latest": "sha256:1",
        "sha256:2": "sha256:2",
    }  # fmt: skip
    assert found.proxies == ("http=http://ada:****@proxy.example:3128",)
    assert found.local
    assert found.free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    moment = 1_767_323_045.0  # 2026-01-02 03:04:05 UTC
    assert found.clock == pytest.approx(moment - time.time(), abs=300)


@pytest.mark.parametrize("said", ["", "soon", "2026-13-45T99:99:99Z", "2026-01-02T03:04:05+02:00"])
def test_a_clock_that_cannot_be_read(connected: SimpleNamespace, said: str) -> None:
    connected.said["SystemTime"] = said
    assert ask().clock is None


@pytest.mark.parametrize("root", ["", "/no-such-folder/docker", r"C:\ProgramData\docker"])
def test_images_in_a_virtual_machine_cannot_be_seen(connected: SimpleNamespace, root: str) -> None:
    connected.root = root
    assert ask().free is None


def test_an_engine_elsewhere(connected: SimpleNamespace) -> None:
    connected.endpoint = "tcp://10.0.0.1:2376"
    assert (ask().local, ask().free) == (False, None)


class PipeError(Exception):
    """As pywin32 raises it for a pipe of Windows: no OSError."""

    def __init__(self, winerror: int) -> None:
        super().__init__(winerror, "CreateFile", "some words")
        self.winerror = winerror


def raised_from(inner: BaseException) -> EngineError:
    """As it is raised: the SDK wraps what HTTP wraps, which keeps the reason in an argument."""
    try:
        try:
            raise HttpError(ProtocolError("Connection aborted.", inner))
        except HttpError as error:
            raise EngineError("cannot reach it", where="unix:///x", hint="a hint") from error
    except EngineError as error:
        return error


@pytest.mark.parametrize(
    ("inner", "kind"),
    [
        (PermissionError(13, "Permission denied"), "permission"),
        (FileNotFoundError(2, "No such file"), "absent"),
        (ConnectionRefusedError(111, "refused"), "absent"),
        (PipeError(2), "absent"),
        (PipeError(5), "permission"),
        (PipeError(231), "other"),
        (TimeoutError("slow"), "other"),
        (ValueError("odd"), "other"),
    ],
)
def test_why_it_cannot_be_reached(
    inner: BaseException, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect() -> None:
        raise raised_from(inner)

    monkeypatch.setattr(engines, "connect", connect)
    found = engines.ask_engine()
    assert isinstance(found, EngineTrouble)
    assert found.kind == kind
    assert (found.trouble.what, found.trouble.where) == ("cannot reach it", "unix:///x")


@pytest.fixture
def socket_of_root(tmp_path: Path) -> Iterator[Path]:
    """A socket that nobody but root may use."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        yield path


@pytest.fixture
def not_root() -> Iterator[None]:
    """Root may use every socket."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def test_a_real_socket_without_permission(
    socket_of_root: Path, not_root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket_of_root}")
    found = engines.ask_engine()
    assert isinstance(found, EngineTrouble)
    assert found.kind == "permission"


def test_a_real_socket_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    found = engines.ask_engine()
    assert isinstance(found, EngineTrouble)
    assert found.kind == "absent"


# -- its configuration file ----------------------------------------------------------------------


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/ada/.config")
    assert engines.daemon_file(LINUX_ENGINE) == "/etc/docker/daemon.json"
    rootless = replace(LINUX_ENGINE, facts=replace(LINUX_ENGINE.facts, rootless=True))
    assert engines.daemon_file(rootless) == "/home/ada/.config/docker/daemon.json"
    assert engines.daemon_file(WINDOWS_ENGINE) == "", "it is on another machine"
    assert engines.daemon_file(replace(LINUX_ENGINE, local=False)) == ""


def test_where_it_is_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROGRAMDATA", raising=False)
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    assert engines.daemon_file(WINDOWS_ENGINE) == DAEMON_JSON
    assert engines.daemon_file(LINUX_ENGINE) == "", "it is in a virtual machine"
