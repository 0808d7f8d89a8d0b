from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from fatwheel.storage.mapped import let_go, map_file

SIZE = 32 << 20


def resident() -> int:
    """Bytes of files that are mapped into this process and in its memory, whether they lie on a
    disk or in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = [line.split() for line in lines if line.startswith(("RssFile:", "RssShmem:"))]
    assert len(found) == 2, lines
    return sum(int(kibibytes) * 1024 for _, kibibytes, _ in found)


def test_a_mapping_outlives_its_stream(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with (tmp_path / "file").open("rb") as stream:
        view = map_file(stream)
    (tmp_path / "file").unlink()
    assert bytes(view) == b"content"
    assert view.readonly


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_what_was_read_is_given_back_and_can_be_read_again(tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * (SIZE >> 20)
    (tmp_path / "file").write_bytes(content)
    with (tmp_path / "file").open("rb") as stream:
        view = map_file(stream)
    assert view == content
    before = resident()
    let_go(view[100:200])
    assert before - resident() > SIZE // 2, "the file's pages still count"
    assert view == content


def test_other_memory_is_left_alone() -> None:
    data = bytearray(b"content")
    let_go(memoryview(data))
    assert data == b"content"
