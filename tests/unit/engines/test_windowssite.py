"""Where processes for Windows run: what is deleted before upstream's build begins."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import pytest

from fatwheel.engines import windows
from fatwheel.engines.base import Limits
from fatwheel.engines.windows import WindowsSite
from fatwheel.errors import FetchError
from fatwheel.events import silent
from fatwheel.worker.inside import ASSEMBLE, CAPTURE, SHARD


def site(folder: Path) -> WindowsSite:
    system: Any = SimpleNamespace(
        place=PureWindowsPath("C:/b/demo-1.0"),
        path=str,
        real=lambda path: folder.joinpath("drive", *path.parts[1:]),
    )
    build: Any = SimpleNamespace(logs=folder / "logs")
    return WindowsSite(system, build, SimpleNamespace())  # type: ignore[arg-type]


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


def test_files_are_fetched_before_a_windows_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wine's takes 0.7 GB and half a minute, which are of no use without a network."""

    def fetch(emit: object) -> None:
        raise FetchError("no network")

    tools = SimpleNamespace(is_made=lambda: False, fetch=fetch)
    monkeypatch.setattr(windows, "windows_tools", lambda *asked: tools)
    monkeypatch.setattr(windows, "held", lambda *asked: pytest.fail("a Windows was made"))
    with pytest.raises(FetchError):
        windows.ensure_tools(SimpleNamespace(), "3.11", "2.11.0", silent)  # type: ignore[arg-type]
