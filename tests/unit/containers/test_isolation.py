"""How Windows containers are kept apart: by the engine's own way, by the user's, by what can be."""

from __future__ import annotations

import pytest

from fatwheel.containers.layouts import ISOLATION_VARIABLE, isolation
from fatwheel.errors import EngineError, UsageError

SERVER_2019, SERVER_2022, WINDOWS_11, SERVER_2025 = 17763, 20348, 22631, 26100


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ISOLATION_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("host", "image", "usual", "way"),
    [
        # Windows Server: its engine's own way is process isolation.
        (SERVER_2022, SERVER_2022, "process", "process"),
        (SERVER_2025, SERVER_2022, "process", "process"),
        (SERVER_2019, SERVER_2019, "process", "process"),
        (SERVER_2022, SERVER_2019, "process", "hyperv"),
        (0, SERVER_2022, "process", "process"),
        # Windows 10 and 11: theirs is Hyper-V, also where the builds are alike.
        (WINDOWS_11, SERVER_2022, "hyperv", "hyperv"),
        (SERVER_2025, SERVER_2022, "hyperv", "hyperv"),
        # A client whose daemon.json says so.
        (WINDOWS_11, SERVER_2022, "process", "process"),
        # No engine was asked, as for a plan.
        (0, SERVER_2022, "", "default"),
    ],
)
def test_the_engine_s_own_way(host: int, image: int, usual: str, way: str) -> None:
    assert isolation(host, image, usual) == way


@pytest.mark.parametrize("usual", ["process", "hyperv", ""])
def test_the_user_s_way_counts_more(monkeypatch: pytest.MonkeyPatch, usual: str) -> None:
    for way in ("process", "hyperv"):
        monkeypatch.setenv(ISOLATION_VARIABLE, way)
        assert isolation(WINDOWS_11, SERVER_2022, usual) == way
    for nothing in ("default", ""):
        monkeypatch.setenv(ISOLATION_VARIABLE, nothing)
        assert isolation(WINDOWS_11, SERVER_2022, usual) == (usual or "default")


def test_a_way_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISOLATION_VARIABLE, "vm")
    with pytest.raises(UsageError, match="'vm' is no way") as error:
        isolation(WINDOWS_11, SERVER_2022, "hyperv")
    assert (error.value.where, error.value.hint) == (
        ISOLATION_VARIABLE, "valid: process, hyperv or default (the engine's own)",
    )  # fmt: skip


def test_a_host_too_old_for_the_image() -> None:
    with pytest.raises(EngineError, match=r"build 19045.* needs 20348") as error:
        isolation(19045, SERVER_2022, "hyperv")
    assert "Windows 11" in str(error.value.hint)
