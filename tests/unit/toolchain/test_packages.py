"""Packages that several environments share: fetched and unpacked once, made anew where damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.config.pinned import Package
from fatwheel.errors import StoreError
from fatwheel.events import silent
from fatwheel.toolchain import unpack
from fatwheel.toolchain.pipconfig import PipConfig
from fatwheel.toolchain.unpack import ensure_unpacked, folder_of, missing

from ...helpers.tinywheels import write_wheel


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A wheel in the only folder that pip is configured with."""
    folder = tmp_path / "wheels"
    config = PipConfig(indexes=(), find_links=(str(folder),))
    monkeypatch.setattr("fatwheel.toolchain.download.read_pip_config", lambda: config)
    return write_wheel(folder, "demo", "1.0", {"demo.py": "ANSWER = 42\n"})


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_a_package_is_unpacked_under_its_digest(package: Package, cache: Path) -> None:
    ensure_unpacked([package], cache, silent)
    assert folder_of(package, cache) == cache / "packages" / package.sha256
    assert (folder_of(package, cache) / "demo.py").read_text() == "ANSWER = 42\n"


def test_what_is_there_is_neither_fetched_nor_waited_for(
    package: Package, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_unpacked([package], cache, silent)
    monkeypatch.setattr(unpack, "one_at_a_time", pytest.fail)
    monkeypatch.setattr(unpack, "fetch", pytest.fail)
    ensure_unpacked([package], cache, silent)


def test_what_is_damaged_is_made_anew(package: Package, cache: Path) -> None:
    ensure_unpacked([package], cache, silent)
    file = folder_of(package, cache) / "demo.py"
    file.write_text("cut off")
    assert missing([package], cache) == [package]
    ensure_unpacked([package], cache, silent)
    assert file.read_text() == "ANSWER = 42\n"


def test_what_killed_runs_left_goes(package: Package, cache: Path) -> None:
    left = cache / "packages" / ".0123.part"
    left.mkdir(parents=True)
    ensure_unpacked([package], cache, silent)
    assert not left.exists()


def test_a_full_disk(package: Package, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unpack, "unpack_all", full)
    with pytest.raises(StoreError, match="No space left"):
        ensure_unpacked([package], cache, silent)
