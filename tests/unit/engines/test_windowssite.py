"""Where processes for Windows run: on which Windows, and what is deleted before upstream's build
begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import pytest

from fatwheel.engines import windows
from fatwheel.engines.base import Limits
from fatwheel.engines.registry import engine_named
from fatwheel.engines.windows import ProcessSite
from fatwheel.errors import FetchError, ToolchainError
from fatwheel.events import silent
from fatwheel.worker.inside import ASSEMBLE, CAPTURE, SHARD

from ...helpers.workstations import WINDOWS_TOOLCHAIN


def site(folder: Path) -> ProcessSite:
    system: Any = SimpleNamespace(
        place=PureWindowsPath("C:/b/demo-1.0"),
        path=str,
        real=lambda path: folder.joinpath("drive", *path.parts[1:]),
    )
    build: Any = SimpleNamespace(logs=folder / "logs")
    return ProcessSite(system, build, SimpleNamespace())  # type: ignore[arg-type]


@pytest.mark.parametrize("task", [CAPTURE, ASSEMBLE])
@pytest.mark.parametrize("name", ["project", "upstream"])
def test_what_upstream_left_goes_but_not_what_its_links_lead_to(
    tmp_path: Path, task: str, name: str
) -> None:
    """In Wine, Windows' own Python would empty the folder behind the link."""
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "letter").write_text("dear")
    left = tmp_path / "drive" / "b" / "demo-1.0" / name
    left.mkdir(parents=True)
    (left / "link").symlink_to(tmp_path / "users")
    site(tmp_path).container(task, tmp_path, Limits(1, 1), print)
    assert not left.exists()
    assert (tmp_path / "users" / "letter").read_text() == "dear"


def test_shards_delete_nothing(tmp_path: Path) -> None:
    left = tmp_path / "drive" / "b" / "demo-1.0" / "upstream"
    left.mkdir(parents=True)
    site(tmp_path).container(SHARD, tmp_path, Limits(1, 1), print)
    assert left.exists()


@pytest.mark.parametrize("said", ["", "[]", "{", "[" * 10**5, "\x1b[31m"])
def test_an_answer_that_makes_no_sense_is_told(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux may have killed Wine's program; and a lock from elsewhere has a Python of its own."""
    monkeypatch.setattr(ProcessSite, "run", property(lambda self: lambda command: said))
    made = SimpleNamespace(python=tmp_path / "envs" / "1" / "python.exe")
    tools = SimpleNamespace(cl="19.38", root=tmp_path, environment=lambda root: made)
    with pytest.raises(ToolchainError, match="does not say where the C") as caught:
        replace(site(tmp_path), tools=tools)._compiler("C:\\msvc")  # type: ignore[arg-type]
    assert "\x1b" not in str(caught.value.details)


def test_files_are_fetched_before_a_windows_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wine's takes 0.7 GB and half a minute, which are of no use without a network."""

    def fetch(emit: object) -> None:
        raise FetchError("no network")

    tools = SimpleNamespace(is_made=lambda: False, fetch=fetch)
    monkeypatch.setattr(windows, "windows_tools", lambda *asked: tools)
    monkeypatch.setattr(windows, "held", lambda *asked: pytest.fail("a Windows was made"))
    with pytest.raises(FetchError):
        windows.ensure_tools(SimpleNamespace(), "3.11", "2.11.0", silent)  # type: ignore[arg-type]


def test_windows_10_before_1809(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "this_platform", lambda: "win-amd64")
    for build, said in (
        (17134, "needs Windows 10 1809 (build 17763) or newer, and this is 17134"),
        (17763, ""),
    ):
        monkeypatch.setattr(windows, "windows_build", lambda build=build: build)
        assert engine_named("process").obstacle(WINDOWS_TOOLCHAIN) == said
