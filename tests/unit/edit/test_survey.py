"""What is known of a wheel or file before it is edited; made with zipfile, read back here."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from fatwheel.edit.survey import (
    check_readable,
    is_wheel,
    located,
    survey_file,
    survey_wheel,
)
from fatwheel.errors import FormatError, StitchError, UsageError
from fatwheel.provenance.origin import Origin
from fatwheel.storage.mapped import digest_of_pieces

from ...helpers.deviceimages import TWO, container, cubin, sm, write_wheel
from ...helpers.standins import DATA
from ...helpers.tinywheels import record_hash

FAT = container(sm(80), sm(90)) + container(sm(80, TWO))


def rewritten(path: Path, **changes: bytes) -> Path:
    """The same archive with other files (and a RECORD that does not know)."""
    with zipfile.ZipFile(path) as archive:
        files = {info: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in files.items():
            archive.writestr(info, changes.pop(info.filename, data))
        for name, data in changes.items():
            archive.writestr(name, data)
    return path


def files_open() -> set[tuple[str, str]]:
    """By their numbers, and what they are."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the folder itself, or a thread's that has just ended
            found.add((link.name, os.readlink(link)))
    return found


# -- wheels --------------------------------------------------------------------------------------


def test_very_many_files_need_few_that_are_open(tmp_path: Path) -> None:
    """Systems bound those of a process: 1,024 is usual."""
    files = {f"demo/{n}.fatbin": container(sm(75 + n)) for n in range(30)}
    files |= {f"demo/{n}.cubin": cubin(80, TWO) for n in range(30)}
    path = write_wheel(tmp_path, files, version="1.0")
    gc.collect()  # other tests' files may be closed at any time; their numbers must not come again
    before = files_open()
    wheel = survey_wheel(path)
    assert len(files_open() - before) < 5
    assert {name: bytes(file.data) for name, file in wheel.files.items()} == {
        name: data for name, data in files.items() if name.endswith(".fatbin")
    }
    del wheel
    assert files_open() - before == set(), "the temporary file stays"


def test_a_wheel_s_files_by_names_without_its_version(tmp_path: Path) -> None:
    files = {
        "demo/code.fatbin": FAT,
        "demo/__init__.py": b"",
        "demo/one.cubin": cubin(80, TWO),
        "demo/empty.so": b"",
        "demo-1.0.data/scripts/run": b"#!python\n",
        "demo-1.0.data/platlib/more.fatbin": container(sm(75)),
        "demo-1.0.dist-info.d/note": b"",
    }
    wheel = survey_wheel(write_wheel(tmp_path, files, version="1.0"))
    assert {stem: file.name for stem, file in wheel.files.items()} == {
        "demo/code.fatbin": "demo/code.fatbin",
        ".data/platlib/more.fatbin": "demo-1.0.data/platlib/more.fatbin",
    }
    assert wheel.others == {
        "demo/__init__.py": "demo/__init__.py",
        "demo/one.cubin": "demo/one.cubin",
        "demo/empty.so": "demo/empty.so",
        ".data/scripts/run": "demo-1.0.data/scripts/run",
        "demo-1.0.dist-info.d/note": "demo-1.0.dist-info.d/note",
        ".dist-info/METADATA": "demo-1.0.dist-info/METADATA",
        ".dist-info/WHEEL": "demo-1.0.dist-info/WHEEL",
    }
    assert (wheel.version, wheel.dist_info, wheel.notes) == ("1.0", "demo-1.0.dist-info", ())
    assert (wheel.name.project, wheel.name.platform) == ("demo", "linux_x86_64")


def test_what_follows_from_other_files_is_left_out(tmp_path: Path) -> None:
    more = {"fatwheel.json": b'{"schema": 1}', "RECORD.jws": b"{}", "RECORD.p7s": b"", "top": b""}
    path = write_wheel(tmp_path, {"demo/code.fatbin": FAT}, more=more)
    wheel = survey_wheel(path)
    assert sorted(wheel.others) == [".dist-info/METADATA", ".dist-info/WHEEL", ".dist-info/top"]
    assert wheel.origin == Origin(b'{"schema": 1}', None)


def test_files_of_those_names_elsewhere_are_not_left_out(tmp_path: Path) -> None:
    files = {"demo/RECORD": b"1", "demo/fatwheel.json": b"2"}
    wheel = survey_wheel(write_wheel(tmp_path, files))
    assert wheel.others.keys() > files.keys()
    assert wheel.origin is None


def test_device_code_can_be_read_when_the_wheel_is_gone(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, {"demo/code.fatbin": FAT})
    file = survey_wheel(path).files["demo/code.fatbin"]
    path.unlink()
    assert bytes(file.data) == FAT
    assert [[bytes(entry.raw) for entry in entries] for entries in file.containers] == [
        [sm(80), sm(90)],
        [sm(80, TWO)],
    ]
    assert file.relocatable == ()
    assert file.where == f"{path}: demo/code.fatbin"


def test_the_newest_time(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, {"demo/code.fatbin": FAT}, time=(2001, 9, 9, 1, 46, 40))
    assert survey_wheel(path).newest == 10**9  # seconds since 1970, of that very moment in UTC


def test_tags_that_do_not_agree_are_told(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, {"demo/code.fatbin": FAT})
    renamed = path.rename(path.with_name("demo-1.0-cp311-cp311-win_amd64.whl"))
    (note,) = survey_wheel(renamed).notes
    assert note.startswith(f"{renamed.name}: ")
    assert "as before" in note
    assert "linux_x86_64" in note


@pytest.mark.parametrize("listed", [True, False])
def test_two_files_that_would_be_one_are_refused(tmp_path: Path, listed: bool) -> None:
    """Else the first were not compared with RECORD, and vouched for by the new one."""
    files = {".data/run": b"evil", "demo-1.0.data/run": b"good"}
    path = write_wheel(tmp_path, {"demo/code.fatbin": FAT, **files})
    if not listed:
        row = f".data/run,{record_hash(b'evil')},4\n".encode()
        name = "demo-1.0.dist-info/RECORD"
        with zipfile.ZipFile(path) as archive:
            record = archive.read(name)
        assert row in record
        rewritten(path, **{name: record.replace(row, b"")})
    with pytest.raises(FormatError, match=r"counts as the same file as \.data/run") as caught:
        survey_wheel(path)
    assert caught.value.where == f"{path}: demo-1.0.data/run"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("demo/code.fatbin", FAT + bytes(8)),
        ("demo/__init__.py", b"import os"),
        ("demo-1.0.dist-info/fatwheel.json", b"{}"),
        ("demo/new.py", b""),
        ("demo/new.fatbin", FAT),
    ],
)
def test_every_file_must_be_the_one_that_record_lists(
    tmp_path: Path, name: str, data: bytes
) -> None:
    files = {"demo/code.fatbin": FAT, "demo/__init__.py": b""}
    path = write_wheel(tmp_path, files, more={"fatwheel.json": b"[]"})
    rewritten(path, **{name: data})
    with pytest.raises(FormatError, match="not those that its RECORD lists") as caught:
        survey_wheel(path)
    assert [detail.partition(":")[0] for detail in caught.value.details][:1] == [name]


# -- single files --------------------------------------------------------------------------------


def test_a_single_file(tmp_path: Path) -> None:
    path = tmp_path / "odd name.bin"
    path.write_bytes(FAT)
    file = survey_file(path)
    assert (file.name, file.where, file.binary.format) == ("odd name.bin", str(path), "fatbin")
    assert [len(entries) for entries in file.containers] == [2, 1]
    assert "data" not in repr(file), "the whole file is in its text"


def test_a_single_file_is_only_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.fatbin"
    path.write_bytes(FAT)
    path.chmod(0o444)
    assert survey_file(path).data.readonly


def test_malformed_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.fatbin"
    for data, where in ((b"", ""), (FAT[:-1], ": fatbin container at offset 0x")):
        path.write_bytes(data)
        with pytest.raises(FormatError) as caught:
            survey_file(path)
        assert f"{caught.value.where}".startswith(f"{path}{where}")


# -- helpers -------------------------------------------------------------------------------------


def test_a_wheel_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, {}).rename(tmp_path / "demo.so")
    fatbin = tmp_path / "demo.whl"
    fatbin.write_bytes(FAT)
    short = tmp_path / "short.whl"
    short.write_bytes(b"PK\3")
    assert [is_wheel(path) for path in (wheel, fatbin, short)] == [True, False, False]


@pytest.mark.parametrize("look", [is_wheel, survey_file, survey_wheel, check_readable])
def test_what_cannot_be_opened_is_wrong_use(tmp_path: Path, look: object) -> None:
    assert callable(look)
    for path, reason in (
        (tmp_path / "missing", os.strerror(errno.ENOENT)),
        (tmp_path, "it is a folder"),
        (tmp_path / ("long" * 100), os.strerror(errno.ENAMETOOLONG)),
    ):
        with pytest.raises(UsageError, match=f"cannot read this file: {reason}") as caught:
            look(path)
        assert caught.value.where == str(path)


def test_a_digest_is_that_of_all_pieces() -> None:
    data = (DATA / "none.fatbin").read_bytes()
    pieces = [data[:10], b"", memoryview(data)[10:]]
    assert digest_of_pieces(pieces) == hashlib.sha256(data).hexdigest()


def test_errors_get_the_place_in_front_and_keep_the_rest() -> None:
    with pytest.raises(StitchError) as caught, located("a.whl"):
        raise StitchError("what", where="demo.so", hint="hint", details=["detail"])
    assert str(caught.value) == "a.whl: demo.so: what\n  detail\n  hint"
    with pytest.raises(FormatError) as malformed, located("a.whl"):
        raise FormatError("what")
    assert malformed.value.where == "a.whl"
