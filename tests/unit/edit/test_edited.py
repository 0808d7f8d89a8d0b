"""Finished wheels and files: names, labels, digests, and what is never overwritten."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from fatwheel.edit import survey as edited_module
from fatwheel.edit.survey import (
    Edited,
    EditedFile,
    held_images,
    labels_of,
    survey_wheel,
    write_file,
    write_wheel,
)
from fatwheel.errors import StoreError, UsageError
from fatwheel.fatbin.container import Rewritten
from fatwheel.provenance.origin import Origin

from ...helpers import deviceimages
from ...helpers.deviceimages import compute, container, entries, raw, read_wheel, sm


def change(*raws: bytes, notes: tuple[str, ...] = ()) -> EditedFile:
    """A file that is one container with these images."""
    return EditedFile([entries(*raws)], Rewritten((container(*raws),), notes))


def write(
    fat: Path,
    changes: Mapping[str, EditedFile],
    out: Path,
    *,
    origin: Origin | None = None,
    notes: tuple[str, ...] = (),
) -> Edited:
    return write_wheel(
        survey_wheel(fat), changes, origin, out, inputs=[fat], epoch=10**9, notes=notes
    )


# -- what is in it -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ([change(sm(80))], ("sm80",)),
        ([change(sm(90), sm(80))], ("sm80", "sm90")),
        ([change(sm(80), compute(80))], ("sm80.ptx",)),
        ([change(sm(80)), change(compute(80))], ("sm80.ptx",)),  # of two files together
        ([change(compute(90))], ("ptx90",)),
        ([change(sm(90, suffix="a"), sm(90))], ("sm90", "sm90a")),
        ([change(sm(100, suffix="f"), sm(75))], ("sm75", "sm100f")),
        ([change(raw("lto", 80, b"ir"), raw("other", 86, b"what"))], ()),
        ([change()], ()),
        ([], ()),
    ],
)
def test_labels_say_what_is_there(changes: list[EditedFile], labels: tuple[str, ...]) -> None:
    held = [entry for one in changes for images in one.contents for entry in images]
    assert labels_of(held) == labels


def test_images_of_unknown_kinds_have_no_name() -> None:
    one = change(sm(80), compute(90), raw("other", 75, b"what"))
    two = EditedFile([entries(sm(80)), (), entries(sm(90, suffix="a"))], Rewritten(()))
    assert held_images([one, two]) == {"sm_80", "compute_90", "sm_90a"}
    assert held_images([]) == frozenset()


# -- wheels --------------------------------------------------------------------------------------


def test_a_wheel_gets_its_new_files_version_times_and_notes(tmp_path: Path) -> None:
    files = {
        "demo/a.fatbin": container(sm(80), sm(90)),
        "demo/b.fatbin": container(sm(80)),
        "demo-1.0+cu130.sm80.sm90.data/platlib/c.fatbin": container(sm(90)),
        "demo/__init__.py": b"",
    }
    fat = deviceimages.write_wheel(tmp_path, files, version="1.0+cu130.sm80.sm90")
    changes = {
        "demo/a.fatbin": change(sm(90), notes=("lost",)),
        ".data/platlib/c.fatbin": change(compute(90), notes=("lost",)),
    }
    made = write(fat, changes, tmp_path / "new" / "out", notes=("odd", "odd"))
    name = "demo-1.0+cu130.sm90.ptx"
    assert made.path == tmp_path / "new" / "out" / f"{name}-cp311-cp311-linux_x86_64.whl"
    assert made.archs == ("sm90.ptx",)
    assert made.notes == (
        "odd",
        "demo/a.fatbin: lost",
        "demo-1.0+cu130.sm80.sm90.data/platlib/c.fatbin: lost",
    )
    data = made.path.read_bytes()
    assert (made.size, made.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    found = read_wheel(made.path)
    assert found["demo/a.fatbin"] == container(sm(90))
    assert found["demo/b.fatbin"] == files["demo/b.fatbin"], "what is not changed stays"
    assert found[f"{name}.data/platlib/c.fatbin"] == container(compute(90))
    with zipfile.ZipFile(made.path) as archive:
        times = {info.date_time for info in archive.infolist()}
    assert times == {(2001, 9, 9, 1, 46, 40)}, "10**9 seconds after 1970"


def test_the_record_is_the_one_that_is_given(tmp_path: Path) -> None:
    more = {"fatwheel.json": b'{"old": 1}', "fatwheel.lock.json": b"{}"}
    fat = deviceimages.write_wheel(tmp_path, {"a.fatbin": container(sm(80))}, more=more)
    changes, new = {"a.fatbin": change(sm(80))}, b'{"new": 1}'
    made = write(fat, changes, tmp_path / "out", origin=Origin(new, None))
    found = {name: data for name, data in read_wheel(made.path).items() if "fatwheel" in name}
    assert found == {"demo-1.0+sm80.dist-info/fatwheel.json": new}
    bare = write(fat, changes, tmp_path / "bare")
    assert not [name for name in read_wheel(bare.path) if "fatwheel" in name]


@pytest.mark.parametrize("way", ["same folder", "link to the folder", "hard link"])
def test_no_input_is_replaced_whatever_it_is_called(tmp_path: Path, way: str) -> None:
    fat = deviceimages.write_wheel(
        tmp_path / "in", {"a.fatbin": container(sm(80))}, version="1.0+sm80"
    )
    before = fat.read_bytes()
    out = tmp_path / "in"
    if way == "link to the folder":
        out = tmp_path / "link"
        out.symlink_to(tmp_path / "in")
    elif way == "hard link":
        out = tmp_path / "out"
        out.mkdir()
        os.link(fat, out / fat.name)
    with pytest.raises(UsageError, match="would replace the file that it is made from") as caught:
        write(fat, {"a.fatbin": change(sm(80))}, out)
    assert caught.value.where == str(out / fat.name)
    assert fat.read_bytes() == before


def test_another_wheel_of_that_name_is_replaced(tmp_path: Path) -> None:
    fat = deviceimages.write_wheel(tmp_path, {"a.fatbin": container(sm(80), sm(90))})
    old = tmp_path / "out" / "demo-1.0+sm80-cp311-cp311-linux_x86_64.whl"
    old.parent.mkdir()
    old.write_bytes(b"an older one")
    made = write(fat, {"a.fatbin": change(sm(80))}, old.parent)
    assert made.path == old
    assert read_wheel(old)["a.fatbin"] == container(sm(80))
    assert list(old.parent.iterdir()) == [old]


# -- single files --------------------------------------------------------------------------------


def test_a_file_of_many_pieces(tmp_path: Path) -> None:
    source = tmp_path / "demo.so"
    source.write_bytes(b"old")
    source.chmod(0o751)
    pieces = (b"new ", memoryview(b"and longer")[4:], b"")
    edit = EditedFile([entries(sm(80))], Rewritten(pieces, ("lost", "lost")))
    made = write_file(source, edit, tmp_path / "a" / "b", ["note", "lost"])
    assert made.path == tmp_path / "a" / "b" / "demo.so"
    assert made.path.read_bytes() == b"new longer"
    assert made.sha256 == hashlib.sha256(b"new longer").hexdigest()
    assert (made.size, made.archs, made.notes) == (10, ("sm80",), ("note", "lost"))
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o751
    assert source.read_bytes() == b"old"


def test_a_file_is_not_written_over_itself(tmp_path: Path) -> None:
    source = tmp_path / "demo.so"
    source.write_bytes(b"old")
    with pytest.raises(UsageError, match="would replace"):
        write_file(source, change(sm(80)), tmp_path, [])
    assert source.read_bytes() == b"old"


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, old = tmp_path / "demo.so", tmp_path / "out" / "demo.so"
    source.write_bytes(b"new")
    old.parent.mkdir()
    old.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("shutil.copymode", refuse)
    with pytest.raises(StoreError, match="cannot write the file: Operation not permitted") as error:
        write_file(source, change(sm(80)), old.parent, [])
    assert error.value.where == str(old)
    assert old.read_bytes() == b"old"
    assert list(old.parent.iterdir()) == [old]


def test_a_file_that_is_deleted_at_once_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "demo.so"
    source.write_bytes(b"old")
    monkeypatch.setattr(edited_module, "digest_of", lambda path: None)
    with pytest.raises(StoreError, match="deleted as soon as it was made"):
        write_file(source, change(sm(80)), tmp_path / "out", [])
