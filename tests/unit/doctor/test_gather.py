"""All questions at once, for the toolchain and engine that a build would choose."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fatwheel.doctor import engine as engines
from fatwheel.doctor import network
from fatwheel.doctor import report as gathering
from fatwheel.doctor.facts import Facts, IndexFacts, Silence
from fatwheel.doctor.report import gather, report_on
from fatwheel.errors import ConfigError, UsageError
from fatwheel.pipeline import resolve
from fatwheel.pipeline.resolve import ToolchainRequest
from fatwheel.toolchain.pipconfig import PipConfig

from ...helpers.webserver import Answer, Server
from ...helpers.workstations import LINUX_ENGINE, NO_ENGINE, WINDOWS_ENGINE

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No index but one that has nothing, and no engine."""
    monkeypatch.setattr(network, "read_pip_config", lambda: PipConfig(find_links=("/nowhere",)))
    monkeypatch.setattr(network, "ask_places", lambda missing: [])
    monkeypatch.setattr(engines, "ask_engine", lambda: NO_ENGINE)


def test_on_linux_the_process_engine_is_the_default() -> None:
    found = gather(ToolchainRequest(), None)
    assert (found.toolchain.name, found.engine) == ("linux-cuda13.0", "process")
    assert found.container_engine is None
    assert found.images is None
    assert found.pythons is not None
    assert found.compiler is not None


def test_containers_have_compilers_and_pythons_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "ask_engine", lambda: LINUX_ENGINE)
    found = gather(ToolchainRequest(), "docker")
    assert found.container_engine == LINUX_ENGINE
    assert (found.compiler, found.pythons) == (None, None)
    assert found.images is not None


def test_an_engine_with_windows_containers_chooses_the_toolchain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "ask_engine", lambda: WINDOWS_ENGINE)
    assert gather(ToolchainRequest(), "docker").toolchain.containers is not None
    assert gather(ToolchainRequest(), "docker").toolchain.platform == "win-amd64"
    assert (
        gather(ToolchainRequest(toolchain="linux-cuda13.0"), "docker").toolchain.name
        == "linux-cuda13.0"
    )


def test_on_windows_containers_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setattr(gathering.machine, "ask_host", lambda: None)
    found = gather(ToolchainRequest(), None)
    assert (found.toolchain.platform, found.engine) == ("win-amd64", "docker")
    assert found.windows is not None


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(UsageError, match="podman"):
        gather(ToolchainRequest(), "podman")
    with pytest.raises(UsageError, match="no-such"):
        gather(ToolchainRequest(toolchain="no-such"), None)


def test_a_broken_toolchain_is_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.toml").write_text("[")
    monkeypatch.setattr(resolve, "toolchain_folders", lambda: (tmp_path,))
    with pytest.raises(ConfigError):
        gather(ToolchainRequest(toolchain="x"), None)


# -- patience ------------------------------------------------------------------------------------


@pytest.fixture
def silent_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An engine that takes connections and never says a word."""
    monkeypatch.undo()
    monkeypatch.setattr(network, "read_pip_config", lambda: PipConfig(find_links=("/nowhere",)))
    monkeypatch.setattr(network, "ask_places", lambda missing: [])
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{listening.getsockname()[1]}")
        yield


def asked(engine: str | None) -> Facts:
    return gather(ToolchainRequest(toolchain="linux-cuda13.0"), engine)


def test_a_hanging_engine_is_a_finding(
    silent_engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "_ENGINE", 1.0)
    found = asked("docker")
    assert found.container_engine == Silence("no answer in 1 s")
    assert not report_on(found).ok


class Always(dict[str, Answer]):
    """One answer to every path."""

    def get(self, path: str, default: object = None) -> Answer:  # type: ignore[override]
        return self["any"]


def test_a_hanging_index_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    with Server() as server:
        server.answers = Always(any=lambda handler: never.wait(200) and None)
        config = PipConfig(indexes=(f"{server.url}/simple",), timeout=200.0)
        monkeypatch.setattr(network, "read_pip_config", lambda: config)
        monkeypatch.setattr(network, "PATIENCE", 200.0)
        monkeypatch.setattr(gathering, "_NETWORK", 3.0)
        found = asked(None)
        never.set()
    assert server.requests, "the index was not asked"
    assert found.index == Silence("no answer in 3 s")


def test_a_driver_and_a_disk_that_hang_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    monkeypatch.setattr(gathering, "_LOCAL", 0.5)
    for module, name in ((gathering.machine, "ask_gpu"), (gathering.machine, "ask_cache")):
        monkeypatch.setattr(module, name, never.wait)
    found = asked(None)
    never.set()
    assert isinstance(found.gpu, Silence)
    assert isinstance(found.cache, Silence)
    report = report_on(found)
    statuses = {finding.name: finding.status for finding in report.findings}
    assert (statuses["gpu"], statuses["cache"]) == ("warning", "wrong")


def test_the_index_is_asked_for_a_file_that_comes_from_it() -> None:
    found = gather(ToolchainRequest(), None)
    assert isinstance(found.index, IndexFacts)
    assert found.index.asked.endswith(".whl")
    assert [place for place, _ in found.index.sources] == ["/nowhere"]


# -- Windows -------------------------------------------------------------------------------------

BARRED = """
import builtins
real = builtins.__import__
def barred(name, variables=None, *rest, **others):
    who = (variables or {}).get("__name__", "")
    if name in ("fcntl", "pwd", "grp", "resource") and who.startswith("fatwheel."):
        # These have another way on Windows, which they choose by sys.platform.
        if not who.startswith(("fatwheel.storage.", "fatwheel.worker.roots")):
            raise ImportError(f"{who} imports {name}")
    return real(name, variables, *rest, **others)
builtins.__import__ = barred
import fatwheel.cli.main, fatwheel.doctor.report
"""


def test_it_can_be_imported_where_there_is_no_posix() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BARRED], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
