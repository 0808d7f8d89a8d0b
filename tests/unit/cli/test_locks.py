"""What `invoke lock` shows of its findings."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.cli.results import lock_rows, show_locks
from fatwheel.pins.compare import PinState
from fatwheel.pins.lock import LockReport

RIGHT = PinState(("packages", 0), "a.whl", "right", {"size": 1, "sha256": "aa"}, {"sha256": "aa"})
NOTED = PinState(("packages", 1), "b.whl", "right", {"size": 1}, {"size": 1}, "a remark")
FILLED = PinState(
    ("cuda_files", 0), "c.zip", "filled", {"sha256": "cc"}, {"size": 5, "sha256": "cc"}, "why"
)
MOVED = PinState(("cuda_files", 1), "d.zip", "moved", {"size": 1, "sha256": "dd"}, {"size": 2})


def test_only_what_is_not_as_published_becomes_a_row() -> None:
    """And of a pin's values only those that are new, or differ."""
    assert lock_rows([RIGHT, NOTED, FILLED, MOVED]) == [
        {"file": "c.zip", "state": "filled in", "pinned": "", "found": "size 5", "note": "why"},
        {"file": "d.zip", "state": "moved", "pinned": "size 1", "found": "size 2", "note": ""},
    ]


def test_each_toolchain_has_its_count(capfd: pytest.CaptureFixture[str]) -> None:
    first = LockReport("one", Path("one.toml"), True, (RIGHT, FILLED, MOVED))
    second = LockReport("two", Path("two.toml"), False, (RIGHT,))
    show_locks([first, second])
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "one: 3 pins: 1 as published, 1 filled in, 1 moved"
    assert lines[-2:] == ["written to one.toml", "two: 1 pin: 1 as published"]
