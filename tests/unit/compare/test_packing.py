"""Files, modes, and how archives hold the same files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from fatwheel.compare import compare_wheels
from fatwheel.compare.differences import Difference

from ...helpers.comparedwheels import INFO, NAME, compared, found, pack, without_diffoscope

assert without_diffoscope  # a fixture

FILES = {"demo/a.py": b"a = 1\n" * 500, "demo/b.py": b"b = 1\n" * 500}


def packed(folder: Path, **how: Any) -> list[Difference]:
    one = pack(folder / "one" / NAME, FILES)
    return found(compare_wheels(one, pack(folder / "other" / NAME, FILES, **how)))


def test_the_same_bytes(tmp_path: Path) -> None:
    assert packed(tmp_path) == []


def test_files_that_only_one_has(tmp_path: Path) -> None:
    one, other = {**FILES, "demo/c.py": b""}, {**FILES, "demo/d.py": b"12"}
    told = {(each.level, each.place.file, each.what)
            for each in found(compared(tmp_path, one, other))}  # fmt: skip
    assert told == {
        ("files", "demo/c.py", "only in the first: 0 bytes"),
        ("files", "demo/d.py", "only in the second: 2 bytes"),
    }


def test_another_version_in_the_folder_s_name(tmp_path: Path) -> None:
    one = pack(tmp_path / "one" / NAME, FILES)
    other = tmp_path / "other" / NAME
    other.parent.mkdir()
    with zipfile.ZipFile(one) as old, zipfile.ZipFile(other, "w") as new:
        for info in old.infolist():
            content = old.read(info).replace(b"demo-1.0.dist-info", b"demo-1.1.dist-info")
            info.filename = info.filename.replace("demo-1.0", "demo-1.1")
            new.writestr(info, content, zipfile.ZIP_DEFLATED, 6)
    [each] = found(compare_wheels(one, other))
    assert (each.level, each.one, each.other) == ("files", INFO, "demo-1.1.dist-info")


def test_modes(tmp_path: Path) -> None:
    [each] = packed(tmp_path, modes={"demo/a.py": 0o755})
    assert (each.level, each.place.file, each.one, each.other) == (
        "modes", "demo/a.py", "644", "755",
    )  # fmt: skip


def test_times(tmp_path: Path) -> None:
    [each] = packed(tmp_path, times={"demo/b.py": (1999, 12, 31, 23, 59, 58)})
    assert (each.level, each.what) == ("archive", "the time of demo/b.py")
    assert (each.one, each.other) == ("2024-05-06 07:08:10", "1999-12-31 23:59:58")


def test_another_compression(tmp_path: Path) -> None:
    [each] = packed(tmp_path, method=zipfile.ZIP_STORED)
    assert each.level == "archive"
    assert each.what.startswith("deflated became stored: demo/a.py, demo/b.py")


def test_the_same_compression_with_other_bytes(tmp_path: Path) -> None:
    one = pack(tmp_path / "one" / NAME, FILES, level=1)
    [each] = found(compare_wheels(one, pack(tmp_path / "other" / NAME, FILES, level=9)))
    assert each.what.startswith("the same content is compressed differently: another zlib")
    assert "demo/a.py" in each.what


def test_compressed_bytes_of_one_size(tmp_path: Path) -> None:
    """Deflate can say the same in several ways of one length: here, where blocks end."""
    path = pack(tmp_path / "one" / NAME, FILES)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("demo/a.py")
    start = info.header_offset + 30 + len(info.filename)
    data = bytearray(path.read_bytes())
    # The bits after the end of the last block are not looked at.
    data[start + info.compress_size - 1] ^= 0x80
    other = tmp_path / "other.whl"
    other.write_bytes(data)
    with zipfile.ZipFile(other) as archive:
        same = archive.testzip() is None
    if not same:
        pytest.skip("this zlib leaves no spare bits here")
    [each] = found(compare_wheels(path, other))
    assert (each.level, "demo/a.py" in each.what) == ("archive", True)
    assert "compressed differently" in each.what


def test_another_order(tmp_path: Path) -> None:
    """RECORD is sorted as before, so that the archive alone differs."""
    one = pack(tmp_path / "one" / NAME, FILES)
    other = tmp_path / "other" / NAME
    other.parent.mkdir()
    with zipfile.ZipFile(one) as old, zipfile.ZipFile(other, "w") as new:
        for info in reversed(old.infolist()):
            new.writestr(info, old.read(info), zipfile.ZIP_DEFLATED, 6)
    [each] = found(compare_wheels(one, other))
    assert each.what.startswith("the files are in a different order: ")


def test_fields_of_the_headers(tmp_path: Path) -> None:
    one = pack(tmp_path / "one" / NAME, FILES)
    other = tmp_path / "other" / NAME
    other.parent.mkdir()
    with zipfile.ZipFile(one) as old, zipfile.ZipFile(other, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename == "demo/a.py":
                info.create_system = 0
            new.writestr(info, content, zipfile.ZIP_DEFLATED, 6)
    told = {each.what for each in found(compare_wheels(one, other))}
    assert told == {"the system that wrote it differs: demo/a.py"}


def test_what_is_no_file(tmp_path: Path) -> None:
    """An entry for a folder, which no installer needs."""
    one = pack(tmp_path / "one" / NAME, FILES)
    other = tmp_path / "other" / NAME
    other.parent.mkdir()
    with zipfile.ZipFile(one) as old, zipfile.ZipFile(other, "w") as new:
        for info in old.infolist():
            new.writestr(info, old.read(info), zipfile.ZIP_DEFLATED, 6)
        new.writestr(zipfile.ZipInfo("demo/", (2024, 1, 1, 0, 0, 0)), b"")
    [each] = found(compare_wheels(one, other))
    assert (each.level, "entries for folders" in each.what) == ("archive", True)
