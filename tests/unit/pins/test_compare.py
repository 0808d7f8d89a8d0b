"""Which pins there are, and where they stand. test_lock.py compares them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from fatwheel.config.pinned import Package
from fatwheel.config.toolchain import Base
from fatwheel.config.toolchains import list_toolchains, load_toolchain
from fatwheel.pins.compare import PinState

from ...helpers.pinned import TOOLCHAINS, pinned_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.mark.parametrize("name", list_toolchains(TOOLCHAINS))
def test_every_pin_is_found_where_it_stands(name: str, tmp_path: Path) -> None:
    """Against the file's own tables, as a TOML parser sees them."""
    text = pinned_text(name)
    (tmp_path / f"{name}.toml").write_text(text)
    raw = tomllib.loads(text)
    keys = set()
    for key, item in load_toolchain(name, tmp_path).pins():
        table: Any = raw
        for part in key:
            table = table[part]
        if isinstance(item, Base):
            assert table["reference"] == item.reference
        elif isinstance(item, Package):
            assert table["file"] == item.filename
        else:
            assert table.get("url", "") == item.url
        keys.add(key)
    lists = ("cuda_files", "interpreters", "portable", "packages")
    pinned = sum(len(raw.get(part, ())) for part in lists)
    pinned += sum(len(build["packages"]) for build in raw["builds"])
    pinned += len(raw["containers"]["bases"]) + ("wine" in raw)
    pinned += len(raw.get("msvc", {}).get("payloads", ()))
    assert len(keys) == pinned


def test_new_is_what_is_found_and_not_pinned() -> None:
    finding = PinState(("a", 1), "f", "filled", {"size": 1}, {"size": 1, "sha256": "x"}, "why")
    assert finding.new == {"sha256": "x"}
    assert finding.to_json() == {
        "key": "a[1]",
        "name": "f",
        "state": "filled",
        "pinned": {"size": 1},
        "found": {"size": 1, "sha256": "x"},
        "note": "why",
    }
