"""Build contexts as tar archives; Python's tarfile reads them."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from fatwheel.config.pinned import Download
from fatwheel.containers.contexts import BuildContext
from fatwheel.containers.render import size_of, tar_of
from fatwheel.errors import FetchError

YEAR_2020 = 1577836800  # date -u -d 2020-01-01 +%s


def download(name: str, content: bytes, folder: Path) -> Download:
    (folder / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return Download(name, "1", "https://example.org", name, len(content), digest)


@pytest.fixture
def context(tmp_path: Path) -> BuildContext:
    files = (
        download("a.zip", b"a" * 1000, tmp_path),
        download("b" * 120 + ".zip", bytes(512), tmp_path),  # more than ustar has room for
    )
    return BuildContext("env", "t:1", "b", (("Dockerfile", b"FROM b\n"), ("x/y", b"")), files)


def places(context: BuildContext, folder: Path) -> dict[str, Path]:
    return {file.filename: folder / file.filename for file in context.files}


def test_it_holds_texts_and_files_and_nothing_of_this_machine(
    context: BuildContext, tmp_path: Path
) -> None:
    for path in tmp_path.iterdir():
        path.chmod(0o600)
    data = b"".join(tar_of(context, places(context, tmp_path), lambda count: None))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        content = {member.name: tar.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    assert content == {
        "Dockerfile": b"FROM b\n",
        "x/y": b"",
        "files/a.zip": b"a" * 1000,
        f"files/{'b' * 120}.zip": bytes(512),
    }
    kinds = {(m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members}
    assert kinds == {(0o644, 0, 0, "", "", YEAR_2020)}
    again = b"".join(tar_of(context, places(context, tmp_path), lambda count: None))
    assert again == data


def test_progress_adds_up_to_the_size(context: BuildContext, tmp_path: Path) -> None:
    counts: list[int] = []
    for _ in tar_of(context, places(context, tmp_path), counts.append):
        pass
    assert sum(counts) == size_of(context) == 7 + 1000 + 512


def test_a_file_whose_size_is_not_pinned_is_sent_whole(
    context: BuildContext, tmp_path: Path
) -> None:
    unsized = tuple(dataclasses.replace(file, size=0) for file in context.files)
    other = dataclasses.replace(context, files=unsized)
    sent = b"".join(tar_of(other, places(context, tmp_path), lambda count: None))
    assert sent == b"".join(tar_of(context, places(context, tmp_path), lambda count: None))


def test_files_are_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(64 << 20)
    file = Download("large", "1", "", "large", 64 << 20, "0" * 64)
    context = BuildContext("env", "t:1", "b", (), (file,))
    tracemalloc.start()
    try:
        for _ in tar_of(context, {"large": tmp_path / "large"}, lambda count: None):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20, f"{peak >> 20} MiB for a file of 64 MiB"


def test_a_file_that_becomes_shorter_is_told(context: BuildContext, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"a" * 10)
    with pytest.raises(FetchError, match=r"a\.zip was truncated"):
        list(tar_of(context, places(context, tmp_path), lambda count: None))


def test_a_file_that_is_gone_is_told(context: BuildContext, tmp_path: Path) -> None:
    (tmp_path / "a.zip").unlink()
    with pytest.raises(
        FetchError, match=("cannot read a file that goes into an image: No such file")
    ) as caught:
        list(tar_of(context, places(context, tmp_path), lambda count: None))
    assert caught.value.where == str(tmp_path / "a.zip")
