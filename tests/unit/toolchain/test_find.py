"""Pinned files that are there already, under any name, in folders of all sorts."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from pathlib import Path

import pytest

from fatwheel.config.pinned import Download, Package
from fatwheel.errors import StoreError, UsageError
from fatwheel.events import Event, Note, silent
from fatwheel.toolchain import fetch as find_module
from fatwheel.toolchain.fetch import fetch, seed

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")


def pin(content: bytes, filename: str = "demo-1.0.tar.gz") -> Package:
    digest = hashlib.sha256(content).hexdigest()
    return Package("demo", "1.0", filename, len(content), digest, "runtime")


@pytest.fixture
def have(tmp_path: Path) -> Path:
    """What the user has."""
    folder = tmp_path / "have"
    folder.mkdir()
    return folder


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    return tmp_path / "downloads"


def to(folder: Path, *pins: Package | Download) -> list[tuple[Package | Download, Path]]:
    """Pins that all belong into one folder of downloads."""
    return [(pinned, folder) for pinned in pins]


def kept(pinned: Package | Download, downloads: Path) -> bytes:
    """What a fetch then finds, without any index to ask."""
    [path] = fetch([pinned], downloads, silent)
    return path.read_bytes()


def test_a_file_is_found_under_any_name_at_any_depth(have: Path, downloads: Path) -> None:
    first, digest = pin(b"first"), hashlib.sha256(b"second").hexdigest()
    second = Download("cuda", "1", "http://127.0.0.1:9/b.zip", "b.zip", 6, digest)
    (have / "a" / "b").mkdir(parents=True)
    (have / "a" / "b" / "old backup.bin").write_bytes(b"first")
    (have / "x").write_bytes(b"second")
    events: list[Event] = []

    found = seed(to(downloads, first, second), have, events.append)

    assert set(found) == {first, second}
    assert kept(first, downloads) == b"first"
    assert kept(second, downloads) == b"second"
    [note] = events
    assert isinstance(note, Note)
    assert "has 2 of the 2 missing files: " in note.text
    assert "demo-1.0.tar.gz" in note.text
    assert str(have) in note.text


def test_size_and_sha256_decide_not_the_name(have: Path, downloads: Path) -> None:
    wanted = pin(b"wanted")
    (have / wanted.filename).write_bytes(b"another file")
    (have / "same size").write_bytes(b"wander")
    events: list[Event] = []
    assert seed(to(downloads, wanted), have, events.append) == ()
    assert "does not have the one missing file" in str(events)
    assert not downloads.exists()


def test_where_the_size_is_not_pinned_the_sha256_alone_decides(have: Path, downloads: Path) -> None:
    wanted = dataclasses.replace(pin(b"wanted"), size=0)
    (have / wanted.filename).write_bytes(b"another file")
    assert seed(to(downloads, wanted), have, silent) == ()
    (have / "x").write_bytes(b"wanted")
    assert seed(to(downloads, wanted), have, silent) == (wanted,)
    assert kept(wanted, downloads) == b"wanted"


def test_each_pin_goes_to_its_own_folder(have: Path, tmp_path: Path) -> None:
    wanted, other = pin(b"wanted"), pin(b"other", "other.zip")
    (have / "x").write_bytes(b"wanted")
    (have / "y").write_bytes(b"other")
    downloads, images = tmp_path / "downloads", tmp_path / "image-files"
    places = [(wanted, downloads), (wanted, images), (other, images)]
    assert set(seed(places, have, silent)) == {wanted, other}
    assert kept(wanted, downloads) == kept(wanted, images) == b"wanted"
    assert kept(other, images) == b"other"
    assert not (downloads / other.sha256).exists()


def test_two_pins_of_one_file_are_both_served(have: Path, downloads: Path) -> None:
    one, other = pin(b"same", "one.zip"), pin(b"same", "other.zip")
    (have / "x").write_bytes(b"same")
    assert set(seed(to(downloads, one, other, one), have, silent)) == {one, other}
    assert kept(one, downloads) == kept(other, downloads) == b"same"


def test_what_is_there_is_not_looked_for_and_what_is_damaged_is(
    have: Path, downloads: Path
) -> None:
    wanted = pin(b"wanted")
    (have / "x").write_bytes(b"wanted")
    seed(to(downloads, wanted), have, silent)
    events: list[Event] = []
    assert seed(to(downloads, wanted), have, events.append) == ()
    assert "was not searched" in str(events)

    place = downloads / wanted.sha256 / wanted.filename
    place.unlink()
    place.write_bytes(b"wander")
    assert seed(to(downloads, wanted), have, silent) == (wanted,)
    assert kept(wanted, downloads) == b"wanted"


def test_pins_that_are_not_locked_are_left_out(have: Path, downloads: Path) -> None:
    (have / "empty").write_bytes(b"")
    unlocked = Download("a", "1", "http://127.0.0.1:9/a", "a.zip", 0, "")
    assert seed(to(downloads, unlocked), have, silent) == ()


def test_the_user_s_file_stays_as_it_is_when_the_download_is_replaced(
    have: Path, downloads: Path
) -> None:
    wanted = pin(b"wanted")
    (have / "x").write_bytes(b"wanted")
    seed(to(downloads, wanted), have, silent)
    (downloads / wanted.sha256 / wanted.filename).unlink()
    assert (have / "x").read_bytes() == b"wanted"
    assert os.listdir(have) == ["x"]


def test_a_copy_serves_where_no_second_name_can_be_made(
    have: Path, downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    wanted = pin(b"wanted" * 1000)
    (have / "x").write_bytes(b"wanted" * 1000)
    assert seed(to(downloads, wanted), have, silent) == (wanted,)
    assert kept(wanted, downloads) == b"wanted" * 1000
    assert os.listdir(downloads / wanted.sha256) == [wanted.filename]


def test_a_file_that_changes_while_it_is_copied_is_not_kept(
    have: Path, downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(source: str, target: Path) -> None:
        Path(source).write_bytes(b"wander")
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", change)
    wanted = pin(b"wanted")
    (have / "x").write_bytes(b"wanted")
    assert seed(to(downloads, wanted), have, silent) == ()
    assert os.listdir(downloads / wanted.sha256) == []


def test_a_full_disk_is_a_store_error(
    have: Path, downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr("fatwheel.storage.files.sync_file", full)
    wanted = pin(b"wanted")
    (have / "x").write_bytes(b"wanted")
    with pytest.raises(StoreError, match=r"cannot keep demo-1\.0\.tar\.gz: No space left"):
        seed(to(downloads, wanted), have, silent)
    assert os.listdir(downloads / wanted.sha256) == []


def test_a_folder_that_is_none(have: Path, downloads: Path) -> None:
    (have / "file").write_bytes(b"")
    for path, said in ((have / "none", "No such file"), (have / "file", "Not a directory")):
        with pytest.raises(UsageError, match=said) as caught:
            seed(to(downloads, pin(b"x")), path, silent)
        assert caught.value.where == f"--find {path}"


@needs_links
def test_links_pipes_and_what_cannot_be_read_do_no_harm(have: Path, downloads: Path) -> None:
    wanted = pin(b"wanted")
    (have / "loop").symlink_to(have)
    (have / "dangling").symlink_to(have / "nowhere")
    os.mkfifo(have / "pipe")
    (have / "closed").mkdir(mode=0o000)
    (have / "secret").write_bytes(b"wander")
    (have / "secret").chmod(0o000)
    elsewhere = have.parent / "elsewhere"
    elsewhere.write_bytes(b"wanted")
    (have / "zlink").symlink_to(elsewhere)

    assert seed(to(downloads, wanted), have, silent) == (wanted,)
    place = downloads / wanted.sha256 / wanted.filename
    assert place.read_bytes() == b"wanted"
    assert not place.is_symlink(), "a link would break when the user's folder goes"
    (have / "closed").chmod(0o700)


@needs_links
def test_folders_that_are_links_are_not_entered(have: Path, downloads: Path) -> None:
    outside = have.parent / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"wanted")
    (have / "inside").symlink_to(outside)
    assert seed(to(downloads, pin(b"wanted")), have, silent) == ()
    assert seed(to(downloads, pin(b"wanted")), have / "inside", silent), "the user named it"


def test_the_search_is_bounded(
    have: Path, downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = pin(b"wanted")
    for number in range(20):
        (have / f"{number:02}").write_bytes(b"wander")
    (have / "z").write_bytes(b"wanted")
    monkeypatch.setattr(find_module, "MAX_FILES", 20)
    assert seed(to(downloads, wanted), have, silent) == ()
    monkeypatch.setattr(find_module, "MAX_FILES", 21)
    assert seed(to(downloads, wanted), have, silent) == (wanted,)


def test_very_deep_folders_are_given_up(have: Path, downloads: Path) -> None:
    folder = have
    for _ in range(find_module.MAX_DEPTH):
        folder = folder / "d"
    folder.mkdir(parents=True)
    (folder / "x").write_bytes(b"wanted")
    assert seed(to(downloads, pin(b"wanted")), have, silent) == ()
    (folder.parent / "x").write_bytes(b"wanted")
    assert seed(to(downloads, pin(b"wanted")), have, silent) == (pin(b"wanted"),)
