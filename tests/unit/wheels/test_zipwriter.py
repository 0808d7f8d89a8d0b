"""The ZIP writer, read back by `zipfile` and by Info-ZIP's `unzip`."""

from __future__ import annotations

import io
import os
import random
import stat
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.wheels.zipwriter import ZipWriter, compressor

EPOCH = 1_700_000_001  # 2023-11-14 22:13:21 UTC


def written(files: dict[str, bytes], epoch: int = EPOCH, step: int = 100_000) -> bytes:
    stream = io.BytesIO()
    with ZipWriter(stream, epoch) as archive:
        for name, data in files.items():
            chunks = [data[at : at + step] for at in range(0, len(data), step)]
            archive.add(name, len(data), chunks, executable=name.endswith(".so"))
    return stream.getvalue()


def mixed(size: int) -> bytes:
    """Bytes that shrink in places and do not in others, with repeats across any block edge."""
    chance = random.Random(size)
    pieces = [chance.randbytes(9000), b"\0" * 5000, b"the same words again and again " * 40]
    count = size // 1000 + 1
    data = b"".join(chance.choice(pieces) + chance.randbytes(200) for _ in range(count))
    return data[:size]


SIZES = [0, 1, 1000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20]


@pytest.mark.parametrize("size", SIZES)
def test_content_comes_back(size: int) -> None:
    data = mixed(size)
    with zipfile.ZipFile(io.BytesIO(written({"a.so": data, "b": b"x"}))) as archive:
        assert archive.testzip() is None
        assert archive.read("a.so") == data
        assert archive.getinfo("a.so").file_size == size


def test_content_that_does_not_shrink_comes_back() -> None:
    data = random.Random(1).randbytes(3 << 20)
    made = written({"a": data})
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert archive.read("a") == data
    assert len(made) < len(data) * 1.001


def test_blocks_cost_next_to_nothing() -> None:
    """Each block sees the window before it, so cutting must not spoil compression."""
    data = mixed(6 << 20)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        archive.writestr("a", data)
    ours, theirs = len(written({"a": data})), len(whole.getvalue())
    assert ours <= theirs * 1.003, f"{ours} bytes, where one deflate stream takes {theirs}"


def test_every_attribute_is_fixed() -> None:
    with zipfile.ZipFile(io.BytesIO(written({"a.so": b"x", "ö/b": b""}))) as archive:
        library, other = archive.infolist()
    assert library.date_time == other.date_time == (2023, 11, 14, 22, 13, 20)
    assert library.external_attr >> 16 == stat.S_IFREG | 0o755
    assert other.external_attr >> 16 == stat.S_IFREG | 0o644
    assert other.filename == "ö/b"
    assert other.flag_bits == 0x800
    for info in (library, other):
        assert info.create_system == 3
        assert info.compress_type == zipfile.ZIP_DEFLATED
        assert (info.create_version, info.extract_version) == (20, 20)
        assert (info.extra, info.comment, info.internal_attr) == (b"", b"", 0)


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0, (1980, 1, 1, 0, 0, 0)),
        (-(10**12), (1980, 1, 1, 0, 0, 0)),
        (315532800, (1980, 1, 1, 0, 0, 0)),
        (315532801, (1980, 1, 1, 0, 0, 0)),
        (315532802, (1980, 1, 1, 0, 0, 2)),
        (951782400, (2000, 2, 29, 0, 0, 0)),
        (4354819199, (2107, 12, 31, 23, 59, 58)),
        (10**12, (2107, 12, 31, 23, 59, 58)),
    ],
)
def test_times_are_moved_into_what_zip_can_say(epoch: int, expected: tuple[int, ...]) -> None:
    with zipfile.ZipFile(io.BytesIO(written({"a": b""}, epoch))) as archive:
        assert archive.infolist()[0].date_time == expected


@pytest.mark.parametrize("cores", [1, 3, 16])
def test_cores_and_chunks_do_not_show(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"a.so": mixed(4 << 20), "b": b"b" * 10}
    expected = written(files)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert written(files, step=777_777) == expected


def test_a_wrong_size_is_a_bug() -> None:
    archive = ZipWriter(io.BytesIO(), EPOCH)
    with pytest.raises(ValueError, match="3 bytes came where 4 were announced"):
        archive.add("a", 4, [b"abc"], executable=False)


def test_more_members_than_a_plain_zip_can_count() -> None:
    files = {f"{n}": b"" for n in range(0x10000 + 5)}
    with zipfile.ZipFile(io.BytesIO(written(files))) as archive:
        assert archive.namelist() == list(files)


def test_unzip_finds_no_fault(tmp_path: Path, tool: Callable[[str], str]) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(written({"a.so": mixed(3 << 20), "ö/b": b"", "c": b"c"}))
    ran = subprocess.run([tool("unzip"), "-t", path], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "No errors detected" in ran.stdout


@pytest.mark.slow
@pytest.mark.long
def test_members_beyond_four_gigabytes(tmp_path: Path) -> None:
    """Sizes and offsets that need ZIP64; zeros shrink, so the archive itself stays small."""
    size = (4 << 30) + 5
    block = bytes(1 << 24)
    path = tmp_path / "big.zip"
    with path.open("w+b") as stream, ZipWriter(stream, EPOCH) as archive:
        chunks = (block[: min(len(block), size - at)] for at in range(0, size, len(block)))
        archive.add("big", size, chunks, executable=False)
        archive.add("after", 3, [b"abc"], executable=False)
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("big").file_size == size
        assert archive.read("after") == b"abc"
        assert archive.testzip() is None


@pytest.mark.slow
@pytest.mark.long
def test_offsets_beyond_four_gigabytes(tmp_path: Path) -> None:
    size = (4 << 30) - (1 << 24)
    noise = random.Random(3).randbytes(1 << 24)
    path = tmp_path / "big.zip"
    with path.open("w+b") as stream, ZipWriter(stream, EPOCH) as archive:
        for name, amount in (("big", size), ("more", 1 << 25), ("after", 3)):
            chunks = (noise[: min(len(noise), amount - at)] for at in range(0, amount, len(noise)))
            archive.add(name, amount, chunks, executable=False)
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("after").header_offset > 1 << 32
        assert archive.read("after") == noise[:3]
        assert archive.testzip() is None


def test_the_compressor_is_named() -> None:
    assert compressor().startswith("zlib ")
