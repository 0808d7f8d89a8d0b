"""The reader of sdists: tarfile is the oracle for what honest tools write."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.errors import FormatError
from fatwheel.pipeline import sdist
from fatwheel.pipeline.sdist import FIRST_TIME, unpack_sdist

MTIME = 1_700_000_000
MOST_MEMORY = 150 << 20  # more than an honest sdist


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), MTIME
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.DIRTYPE)


def tar(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def header(name: str, size: int, kind: bytes = b"0") -> bytes:
    """One that claims what it likes."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def unpacked(tmp_path: Path, data: bytes) -> Path:
    archive = tmp_path / "demo-1.0.tar.gz"
    archive.write_bytes(data if data[:2] == b"\x1f\x8b" else gzip.compress(data, 1))
    return unpack_sdist(archive, tmp_path / "out")


def tree(root: Path) -> dict[str, tuple[str, bool, float]]:
    """What a build sees: content, whether it can be executed, and its time."""
    return {
        path.relative_to(root).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            bool(path.stat().st_mode & 0o100),
            path.stat().st_mtime,
        )
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_it_unpacks_what_tarfile_unpacks(tmp_path: Path, format: int) -> None:
    text = random.Random(1).randbytes(3 << 20)
    data = tar(
        folder("./demo/"), member("demo/a.py", b"x"), member("demo/empty"),
        member("demo/large", text), member("demo/run", b"#!", mode=0o755),
        member("demo/" + "long/" * 20 + "name.py", b"1"), member("demo/größe.py", b"2"),
        member("demo/" + "f" * 90, b"3", mtime=MTIME + 0.5), format=format,
    )  # fmt: skip
    ours = unpacked(tmp_path, data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(tmp_path / "theirs")
    assert tree(ours) == tree(tmp_path / "theirs" / "demo")
    assert len(tree(ours)) == 7


def test_headers_of_honest_tools(tmp_path: Path) -> None:
    """What git archive, old tars and pigz do: a comment for all, names that end with a slash, one
    file twice, a stream in pieces, zeros behind it."""
    git = tarfile.TarInfo.create_pax_global_header({"comment": "0" * 40})
    first = header("demo/", 0) + header("demo/a", 1) + b"1".ljust(512, b"\0")
    data = git + first + header("demo/a", 1) + b"1".ljust(512, b"\0") + bytes(1024)
    ours = unpacked(tmp_path, gzip.compress(data[:700]) + gzip.compress(data[700:]) + bytes(100))
    assert (ours / "a").read_bytes() == b"1"


def test_a_large_number_is_read_in_base_256(tmp_path: Path) -> None:
    info, _ = member("demo/a", mtime=2**40)  # more than octal digits can say
    assert info.tobuf(tarfile.GNU_FORMAT)[136] == 0x80
    root = unpacked(tmp_path, tar((info, b""), format=tarfile.GNU_FORMAT))
    assert (root / "a").stat().st_mtime == FIRST_TIME


def refused(tmp_path: Path, data: bytes, says: str) -> FormatError:
    with pytest.raises(FormatError, match=says) as caught:
        unpacked(tmp_path, data)
    assert caught.value.where == "demo-1.0.tar.gz"
    return caught.value


DAMAGED = header("a", 8, b"x") + b"99 a=b\n".ljust(512, b"\0")
NAME_FOR_ALL = tarfile.TarInfo.create_pax_global_header({"path": "a"})
PAX = {"pax_headers": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}}
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a symbolic link": (
        lambda: tar(member("a/x", type=tarfile.SYMTYPE, linkname="y")),
        "could escape",
    ),
    "a hard link": (
        lambda: tar(member("a/x", type=tarfile.LNKTYPE, linkname="a/y")),
        "could escape",
    ),
    "a sparse file of GNU": (lambda: header("a/x", 0, b"S") + bytes(1024), "could escape"),
    "a sparse file of pax": (lambda: tar(member("a/x", **PAX)), "is sparse or could escape"),
    "a volume's label": (lambda: header("a/x", 0, b"V") + bytes(1024), "could escape"),
    "another drive": (lambda: tar(member("C:/x")), "could escape"),
    "a backslash": (lambda: tar(member("a\\..\\x")), "unusable name"),
    "a line end": (lambda: tar(member("a/x\ny")), "unusable name"),
    "no UTF-8": (lambda: tar(member("a/\udcff"), format=tarfile.GNU_FORMAT), "not UTF-8"),
    "another encoding": (
        lambda: tar(member("a/x", pax_headers={"hdrcharset": "BINARY"})),
        "is sparse or could escape",
    ),
    "a name for all": (lambda: NAME_FOR_ALL, "one name or size"),
    "two files of one name": (
        lambda: tar(member("a/x", b"1"), member("a/x", b"2")),
        "two different",
    ),
    "the second is longer": (
        lambda: tar(member("a/x", b"1"), member("a/x", b"12")),
        "two different",
    ),
    "the second is shorter": (
        lambda: tar(member("a/x", b"12"), member("a/x", b"1")),
        "two different",
    ),
    "3000 folders deep": (lambda: tar(member("a/" * 3000 + "x")), "a name of 6001 characters"),
    "100 kB of a name": (lambda: tar(member("a/" + "x" * 100_000)), "a header of 1[0-9]{5} bytes"),
    "a part too long": (lambda: tar(member("a/" + "é" * 128)), "a name of 130 characters"),
    "a second archive": (lambda: tar(member("a/x")) + tar(member("a/y")), "data after the end"),
    "cut off": (lambda: header("a/x", 9999) + bytes(512), "truncated"),
    "half a header": (lambda: header("a/x", 0)[:300], "truncated"),
    "a wrong checksum": (lambda: b"b" + header("a/x", 0)[1:], "checksum"),
    "headers of nothing": (lambda: header("a/x", 0, b"L") * 9, "headers without a member"),
    "a pax header without a line end": (lambda: DAMAGED, "pax header is damaged"),
    "a size that is no number": (
        lambda: tar(member("a/x", pax_headers={"size": "9" * 5000})),
        "a size is not a number",
    ),
    "5 GiB by base 256": (lambda: header("a/x", 5 << 40), "more than 4 GiB"),
    "a pax header of 1 GiB": (lambda: header("a/x", 1 << 30, b"x"), "a header of 1073741824 bytes"),
    "behind the stream": (
        lambda: gzip.compress(tar(member("a/x"))) + b"more",
        "not a readable sdist",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused(tmp_path: Path, kind: str) -> None:
    make, says = HOSTILE[kind]
    refused(tmp_path, make(), says)


def test_members_are_counted_with_the_folders_that_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdist, "MAX_MEMBERS", 20)
    unpacked(tmp_path / "fits", tar(*(member(f"a/{n}") for n in range(19))))
    refused(tmp_path / "files", tar(*(member(f"a/{n}") for n in range(21))), "more than 20 files")
    refused(tmp_path / "folders", tar(*(folder("a") for _ in range(21))), "more than 20 files")
    deep = [member("/".join(f"{n}{d}" for d in "abcdefgh")) for n in range(3)]
    refused(tmp_path / "deep", tar(*deep), "more than 20 files")


def test_what_headers_and_what_follows_expand_to_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdist, "MAX_EXPANSION", 100_000)
    names = (header("x", 60_000, b"K") + bytes(60_416)) * 2
    refused(tmp_path / "names", names + header("a/x", 0) + bytes(1024), "more than 4 GiB")
    refused(tmp_path / "zeros", tar(member("a/x")) + bytes(200_000), "more than 4 GiB")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path) -> None:
    for name in ("fits", "files", "folders", "deep", "names", "zeros"):
        (tmp_path / name).mkdir()


_PEAK = """
import resource, sys
from pathlib import Path
from fatwheel.errors import FormatError
from fatwheel.pipeline.sdist import unpack_sdist
try:
    unpack_sdist(Path(sys.argv[1]), Path(sys.argv[2]))
    print("read")
except FormatError as error:
    print(error.what)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)
"""


def peak(tmp_path: Path, name: str, data: bytes) -> tuple[str, int]:
    """What came of an archive, and the most memory that a process had with it."""
    archive = tmp_path / f"{name}.tar.gz"
    archive.write_bytes(data)
    command = [sys.executable, "-c", _PEAK, str(archive), str(tmp_path / f"{name}-out")]
    said, memory = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=120
    ).stdout.splitlines()
    return said, int(memory)


@pytest.mark.skipif(sys.platform == "win32", reason="resource is for Unix alone")
def test_a_bomb_of_headers_costs_no_memory(tmp_path: Path) -> None:
    """256 MiB of pax records, in 260 kB: tarfile reads them whole."""
    zeros = gzip.compress(bytes(16 << 20), 9) * 16
    bomb = gzip.compress(header("a/x", 256 << 20, b"x")) + zeros
    honest = gzip.compress(tar(member("a/x", b"1")))
    _, floor = peak(tmp_path, "honest", honest)
    said, memory = peak(tmp_path, "bomb", bomb)
    assert said == "the sdist has a header of 268435456 bytes"
    assert memory - floor < MOST_MEMORY
    said, memory = peak(tmp_path, "file", gzip.compress(header("a/x", 256 << 20)) + zeros)
    assert said == "read"  # nothing is wrong with a large file of zeros
    assert memory - floor < MOST_MEMORY
