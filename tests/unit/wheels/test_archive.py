"""The wheel reader, on archives that zipfile wrote and on damaged ones."""

from __future__ import annotations

import stat
import struct
import sys
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from fatwheel.arch import Arch, ArchRequest
from fatwheel.edit.stitch import stitch_wheels
from fatwheel.edit.thin import thin_wheel
from fatwheel.errors import FormatError, ToolchainError
from fatwheel.fatbin.images import selection_for
from fatwheel.provenance.origin import read_held
from fatwheel.toolchain.unpack import unpack
from fatwheel.verify.inspect import inspect_file
from fatwheel.verify.report import verify_wheel
from fatwheel.wheels import archive, zipreader
from fatwheel.wheels.archive import open_wheel

from ...helpers.oddzips import Odd, unicode_path, zip_of

METADATA = "Metadata-Version: 2.1\nName: Thing\nVersion: 1.0+cu130\n\nLong text\nName: other\n"
WHEEL = "Wheel-Version: 1.0\nTag: cp311-cp311-linux_x86_64\nTag: cp311-abi3-linux_x86_64\n"
FILES = {
    "thing/__init__.py": b"x = 1\n",
    "thing/_C.so": b"\x7fELF" + bytes(range(256)) * 1000,
    "thing/empty": b"",
    "thing-1.0+cu130.dist-info/METADATA": METADATA.encode(),
    "thing-1.0+cu130.dist-info/WHEEL": WHEEL.encode(),
    "thing-1.0+cu130.dist-info/RECORD": b"",
}
NAME = "thing-1.0+cu130-cp311-cp311-linux_x86_64.whl"

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a wheel with zipfile: the usual files, then others given as (ZipInfo, content)."""

    def write(
        *others: tuple[zipfile.ZipInfo | str, bytes],
        files: Mapping[str, bytes] = FILES,
        method: int = zipfile.ZIP_DEFLATED,
    ) -> Path:
        path = tmp_path / NAME
        with zipfile.ZipFile(path, "w", method) as out:
            for name, data in [*files.items(), *others]:
                out.writestr(name, data)
        return path

    return write


def read_all(path: Path) -> None:
    with open_wheel(path) as wheel:
        for member in wheel.members:
            wheel.read(member.name)


def refused(path: Path, message: str) -> FormatError:
    with pytest.raises(FormatError, match=message) as caught:
        read_all(path)
    assert caught.value.where is not None
    assert str(path) in caught.value.where
    return caught.value


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_reads_a_wheel(make: Make, method: int) -> None:
    with open_wheel(make(method=method)) as wheel:
        assert (wheel.name, wheel.version) == ("Thing", "1.0+cu130")
        assert wheel.tags == ("cp311-cp311-linux_x86_64", "cp311-abi3-linux_x86_64")
        assert wheel.dist_info == "thing-1.0+cu130.dist-info"
        assert [(m.name, m.size) for m in wheel.members] == [(n, len(d)) for n, d in FILES.items()]
        assert wheel.start("thing/_C.so", 4) == b"\x7fELF"
        for name, data in FILES.items():
            assert wheel.read(name) == data
            assert b"".join(wheel.pieces(name)) == data
            shown = bytearray()
            with wheel.mapped(name, shown.extend) as view:
                assert bytes(view) == data == shown


def test_a_mapped_member_outlives_the_wheel(make: Make) -> None:
    with open_wheel(make()) as wheel, wheel.mapped("thing/_C.so") as view:
        pass
    assert bytes(view) == FILES["thing/_C.so"]


def test_modes_and_folders(make: Make) -> None:
    script, folder = zipfile.ZipInfo("thing/run"), zipfile.ZipInfo("thing/sub/")
    script.external_attr = (stat.S_IFREG | 0o755) << 16
    folder.external_attr = (stat.S_IFDIR | 0o755) << 16
    with open_wheel(make((script, b"#!"), (folder, b""))) as wheel:
        assert {m.name: m.mode for m in wheel.members}["thing/run"] == 0o755
        assert "thing/sub/" not in {member.name for member in wheel.members}


def test_a_zip64_archive_is_read(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    path = make()
    assert b"PK\x06\x06" in path.read_bytes(), "the sample must be zip64"
    monkeypatch.undo()
    with open_wheel(path) as wheel:
        assert wheel.read("thing/_C.so") == FILES["thing/_C.so"]


@pytest.mark.parametrize(
    "name",
    ["../evil", "thing/../../evil", "/etc/passwd", "a//b", "./a", "C:/evil", "a\\..\\b", "a\nb"],
)
def test_names_that_leave_the_folder_are_refused(make: Make, name: str) -> None:
    error = refused(make((name, b"x")), "a file named")
    assert repr(name) in error.what


NOT_ON_WINDOWS = [
    "thing/aux.py", "NUL", "thing/Con/x", "thing/com1.tar.gz", "LPT9", "prn .txt", "conin$",
    "COM¹", "thing/dot.", "thing/space ", "folder./x", "thing/what?", 'a"b', "a|b", "a<b", "a*",
]  # fmt: skip


@pytest.mark.parametrize("tag", ["cp311-cp311-win_amd64", "py3-none-any"])
@pytest.mark.parametrize("name", NOT_ON_WINDOWS)
def test_names_that_windows_cannot_have_are_refused(make: Make, name: str, tag: str) -> None:
    """One tag that is not for Linux is enough."""
    files = {**FILES, "thing-1.0+cu130.dist-info/WHEEL": f"{WHEEL}Tag: {tag}\n".encode()}
    error = refused(make((name, b"x"), files=files), "which Windows cannot have")
    assert repr(name) in error.what


@pytest.mark.skipif(sys.platform == "win32", reason="no wheel with such names is read there")
@pytest.mark.parametrize("name", NOT_ON_WINDOWS)
def test_wheels_for_linux_alone_may_have_them(make: Make, name: str) -> None:
    with open_wheel(make((name, b"x"))) as wheel:
        assert name in {member.name for member in wheel.members}


def test_names_that_only_look_like_devices_are_read(make: Make) -> None:
    names = ("thing/auxiliary.py", "thing/console", "thing/.nul", "com10", "nul_", "lpt", "a b.c")
    with open_wheel(make(*((name, b"x") for name in names))) as wheel:
        assert {member.name for member in wheel.members} >= set(names)


def test_a_nul_in_a_name_is_refused(make: Make) -> None:
    path = make(("thing/nul_here", b"x"))
    path.write_bytes(path.read_bytes().replace(b"nul_here", b"nul\0here"))
    refused(path, r"'thing/nul\\x00here'")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFDIR])
def test_links_and_devices_are_refused(make: Make, kind: int) -> None:
    link = zipfile.ZipInfo("thing/link")
    link.external_attr = (kind | 0o777) << 16
    refused(make((link, b"/etc/passwd")), "no links")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicates_are_refused(make: Make) -> None:
    error = refused(make(("thing/__init__.py", b"evil")), "two files of this name")
    assert "thing/__init__.py" in str(error.where)


def test_names_that_differ_in_how_a_letter_is_written_are_duplicates(make: Make) -> None:
    """One file on macOS: \u00e9 and e with an accent that follows."""
    refused(make(("thing/caf\u00e9", b"1"), ("thing/cafe\u0301", b"2")), "two files of this name")


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128, "a/" * 64 + "b", ("x" * 200 + "/") * 10])
def test_names_that_file_systems_do_not_take_are_refused(make: Make, name: str) -> None:
    refused(make((name, b"")), "a name of [0-9]+ characters")


def test_a_line_end_of_any_kind_in_a_name_is_refused(make: Make) -> None:
    """Installers split RECORD by str.splitlines, which knows more of them than CSV."""
    for end in "\x0b\x0c\x1c\x85\u2028\u2029":
        refused(make((f"a{end}b", b"")), "a file named")


def test_a_file_that_dos_takes_for_a_folder_is_refused(make: Make) -> None:
    file = zipfile.ZipInfo("thing/x")
    file.external_attr = stat.S_IFREG << 16 | 0x10
    refused(make((file, b"1")), "only plain files")


def test_names_that_differ_in_case_are_duplicates(make: Make) -> None:
    error = refused(make(("Thing/__INIT__.py", b"evil")), "two files of this name")
    assert "Windows" in (error.hint or "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("thing-1.0+cu130.data/purelib/thing/__init__.py", "installed at one place"),
        ("thing-1.0+cu130.data/platlib/THING/_c.so", "installed at one place"),
        ("thing-1.0+cu130.data/purelib/torch-9.9.dist-info/METADATA", "metadata of a package"),
        ("Thing-1.0.DATA/PureLib/thing-1.0+cu130.dist-info/METADATA", ""),
    ],
)
def test_what_installers_would_put_over_a_file_is_refused(
    make: Make, name: str, message: str
) -> None:
    refused(make((name, b"evil")), message)


def test_what_installers_put_beside_all_else_is_read(make: Make) -> None:
    read_all(make(("thing-1.0+cu130.data/purelib/thing/more.py", b""), ("x.data/scripts/x", b"")))


@pytest.mark.parametrize("name", ["thing/__init__.py/x", "thing/_C.so/", "THING/_c.so/x"])
def test_a_file_cannot_be_a_folder_too(make: Make, name: str) -> None:
    refused(make((name, b"")), "where its folder should be")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_refused(make: Make, method: int) -> None:
    refused(make(method=method), f"compression method {method}")


def test_encryption_is_refused(make: Make) -> None:
    path = make()
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # general purpose flags in the central directory
    path.write_bytes(data)
    refused(path, "encrypted")


def test_bombs_are_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_SMALL", 1 << 20)
    refused(make(("thing/zeros", bytes(4 << 20))), "would expand to")


def test_too_many_members_are_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipreader, "MAX_MEMBERS", 5)
    refused(make(), "lists 6 members")


def test_a_member_larger_than_it_says_is_refused(make: Make) -> None:
    path = make()
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)  # thing/_C.so
    assert struct.unpack_from("<I", data, at + 24) == (256_004,)
    struct.pack_into("<I", data, at + 24, 1000)
    struct.pack_into("<I", data, data.index(b"PK\x03\x04", 1) + 22, 1000)
    path.write_bytes(data)
    refused(path, "damaged: it has more than 1000 bytes")


def test_a_damaged_member_is_refused_by_name(make: Make) -> None:
    path = make(method=zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"x = 1\n", b"x = 2\n"))
    error = refused(path, "damaged")
    assert error.where == f"{path}: thing/__init__.py"


@pytest.mark.parametrize("field", [20, 24], ids=["compressed", "uncompressed"])
def test_sizes_of_zip64_that_are_not_given_are_refused(make: Make, field: int) -> None:
    """Sizes of 0xFFFFFFFF in the directory promise an extra field with the real ones."""
    path = make()
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + field, 0xFFFFFFFF)
    path.write_bytes(data)
    refused(path, ".")


def test_a_zip64_end_record_that_lies_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    path = make()
    monkeypatch.undo()
    original = path.read_bytes()
    record = original.index(b"PK\x06\x06")
    for field, value in ((32, 5), (32, 1 << 40), (40, 1 << 40), (48, 0), (48, 1 << 60)):
        data = bytearray(original)
        struct.pack_into("<Q", data, record + field, value)  # count, size and place of directory
        path.write_bytes(data)
        refused(path, ".")


def test_overlapping_members_are_refused(make: Make) -> None:
    path = make()
    data = bytearray(path.read_bytes())
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 1)
    # Two entries of the directory for the same bytes (offset of the local header: at 42).
    struct.pack_into("<I", data, second + 42, struct.unpack_from("<I", data, first + 42)[0])
    path.write_bytes(data)
    refused(path, "overlaps another")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b"", b"trailing", "something follows it"),
        (b"", bytes(22), "something follows it"),
        (b"#!/bin/sh\n", b"", "does not start as a zip"),
        (b"PK\x03\x04", b"", "do not belong"),
    ],
)
def test_bytes_around_the_archive_are_refused(
    make: Make, before: bytes, after: bytes, message: str
) -> None:
    path = make()
    path.write_bytes(before + path.read_bytes() + after)
    refused(path, message)


def test_a_comment_is_refused(make: Make) -> None:
    path = make()
    with zipfile.ZipFile(path, "a") as out:
        out.comment = b"hidden"
    refused(path, "something follows it")


def test_every_truncation_is_refused(make: Make) -> None:
    path = make()
    data = path.read_bytes()
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        refused(path, "not a wheel|cut off|something follows")


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ("METADATA", "has no METADATA"),
        ("WHEEL", "has no WHEEL"),
        ("RECORD", "has no RECORD"),
        ("", "0 .dist-info folders"),
    ],
)
def test_an_archive_that_is_no_wheel_is_refused(make: Make, drop: str, message: str) -> None:
    files = {name: data for name, data in FILES.items() if not name.endswith(f"dist-info/{drop}")}
    if not drop:
        files = {"readme.txt": b"hello"}
    refused(make(files=files), message)


def test_two_dist_info_folders_are_refused(make: Make) -> None:
    refused(make(("other-1.dist-info/METADATA", b"")), "2 .dist-info folders")


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("METADATA", "Name: Thing\n", ""),
        ("METADATA", "Name: Thing\n", "Name:\n"),
        ("METADATA", "Version: 1.0", "Version: 1.0\nVersion: 2.0"),
        ("WHEEL", "Tag", "Gat"),
    ],
)
def test_a_wheel_must_say_what_it_is(make: Make, file: str, old: str, new: str) -> None:
    name = f"thing-1.0+cu130.dist-info/{file}"
    changed = FILES[name].decode().replace(old, new).encode()
    with pytest.raises(FormatError), open_wheel(make(files={**FILES, name: changed})):
        pass


def test_a_missing_member_is_an_error(make: Make) -> None:
    with pytest.raises(FormatError, match="no such file"), open_wheel(make()) as wheel:
        wheel.read("nothing")


# -- a second name ---------------------------------------------------------------------------------


def thin(path: Path) -> object:
    return thin_wheel(path, selection_for([ArchRequest(Arch(80))]), path.parent / "thin")


def stitch(path: Path) -> object:
    other = path.parent / "other" / path.name
    other.parent.mkdir()
    other.write_bytes(path.read_bytes() + b"\0")
    return stitch_wheels([path, other], path.parent / "stitched")


def install(path: Path) -> object:
    return unpack(path, path.parent / "unpacked", lambda count: None)


USES: dict[str, Callable[[Path], object]] = {
    "inspect": inspect_file, "verify": verify_wheel, "thin": thin, "stitch": stitch,
    "rebuild": lambda path: read_held(path, path.parent), "--import": install,
}  # fmt: skip


def second_name(path: Path, place: str) -> Path:
    """A wheel whose RECORD is right, and in which a note is `start.pth` for some readers: what is
    in such a file runs whenever Python starts."""
    evil = b"import thing\n"
    files = {**FILES, "thing/note.txt": evil}
    record = "thing-1.0+cu130.dist-info/RECORD"
    rows = [
        f"{name},sha256={urlsafe_b64encode(sha256(data).digest()).decode().rstrip('=')},{len(data)}"
        for name, data in files.items()
        if name != record
    ]
    files[record] = "\n".join([*rows, f"{record},,", ""]).encode()
    members = [Odd(name, data) for name, data in files.items()]
    if place:
        note = next(member for member in members if member.data == evil)
        getattr(note, place)["extra"] = unicode_path("start.pth", note.name)
    path.write_bytes(zip_of(members))
    return path


@pytest.mark.parametrize("place", ["central", "local", "both"])
@pytest.mark.parametrize("use", USES)
def test_a_wheel_with_a_second_name_is_refused_in_every_use(
    tmp_path: Path, use: str, place: str
) -> None:
    path = second_name(tmp_path / NAME, place)
    with pytest.raises((FormatError, ToolchainError), match="extra field 0x7075"):
        USES[use](path)
    assert not list(tmp_path.rglob("*.pth"))


def test_without_it_the_same_wheel_is_right(tmp_path: Path) -> None:
    path = second_name(tmp_path / NAME, "")
    [record] = [check for check in verify_wheel(path).checks if check.name == "record"]
    assert record.result == "ok"
    install(path)
    assert (tmp_path / "unpacked" / "thing" / "note.txt").is_file()
