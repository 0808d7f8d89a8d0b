"""Lines and logs of what containers write, however they write it."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fatwheel.containers import stream as module
from fatwheel.containers.stream import Lines, Log


def cut(pieces: list[bytes]) -> tuple[list[str], bytes]:
    found: list[str] = []
    rest = bytearray()
    lines = Lines(found.append, rest.extend)
    for piece in pieces:
        lines.feed(piece)
    lines.end()
    return found, bytes(rest)


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_how_a_stream_is_cut_into_pieces_does_not_matter(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(at, len(data)) for at in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    whole, _, begun = data.rpartition(b"\n")
    texts = [line.decode("utf-8", "replace") for line in whole.split(b"\n")]
    found, rest = cut(pieces)
    assert found == ([text.removesuffix("\r") for text in texts] if b"\n" in data else [])
    assert rest == (begun + b"\n" if begun else b"")


def test_windows_line_ends() -> None:
    assert cut([b"one\r", b"\ntwo\r\n"]) == (["one", "two"], b"")


def test_a_character_cut_in_two() -> None:
    data = "naïve €\n".encode()
    assert cut([data[:3], data[3:8], data[8:]]) == (["naïve €"], b"")


def test_what_is_no_text_does_no_harm() -> None:
    [line], _ = cut([b"\xff\x00ab\n"])
    assert line.endswith("ab")


def test_an_endless_line_counts_as_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for an answer hears at once that there will be none."""
    monkeypatch.setattr(module, "LONGEST", 1000)
    found: list[str] = []
    lines = Lines(found.append, lambda data: None)
    for _ in range(10):
        lines.feed(b"x" * 400)
    assert found == ["x" * 1200]
    found, rest = cut([b"x" * 400] * 10 + [b"\nnext\n"])
    assert found == ["x" * 1200, "next"]
    assert rest.startswith(b"[fatwheel: this line is too long; it begins:]\nxxx")
    assert len(rest) < 1500


def test_a_line_that_comes_byte_by_byte_takes_no_more_memory_than_it_has() -> None:
    lines = Lines(lambda line: None, lambda data: None)
    tracemalloc.start()
    for _ in range(1 << 18):
        lines.feed(b"x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20, f"{peak} bytes for a line of {1 << 18}"


def test_a_line_of_the_greatest_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 1000)
    assert cut([b"x" * 1000 + b"\n"])[0] == ["x" * 1000]
    assert cut([b"x" * 3001 + b"\n"])[0] == ["x" * 2000]


# -- the log -------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "shard.log"


def test_a_log_keeps_what_comes_and_what_was_there(path: Path) -> None:
    for data in (b"first\n", b"second \xff"):
        log = Log(path)
        log.write(data)
        log.close()
    assert path.read_bytes() == b"first\nsecond \xff"


def test_the_last_lines(path: Path) -> None:
    log = Log(path)
    for number in range(100):
        log.write(f"line {number}\n".encode())
    log.write(b"\n  \nnot ")
    log.write(b"finished")
    last = log.last_lines
    assert last[-2:] == ("line 99", "not finished")
    assert len(last) <= 21
    log.close()


def test_last_lines_that_come_in_pieces(path: Path) -> None:
    log = Log(path)
    for piece in (b"on", b"e", b" line\nand ", b"another\nthi", b"rd"):
        log.write(piece)
    assert log.last_lines == ("one line", "and another", "third")
    log.close()


def test_last_lines_cannot_steer_a_terminal(path: Path) -> None:
    log = Log(path)
    log.write(b"\x1b[2Jgone\n" + b"y" * 10000 + b"\n")
    log.close()
    assert log.last_lines[0] == "\\x1b[2Jgone"
    assert len(log.last_lines[1]) == 2000


def test_a_log_has_an_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOG", 1000)
    log = Log(path)
    for _ in range(20):
        log.write(b"z" * 99 + b"\n")
    log.write(b"the cause\n")
    log.close()
    text = path.read_bytes()
    assert len(text) < 1200
    assert text.endswith(b"[fatwheel: this log is full; what followed is left out]\n")
    assert log.last_lines[-1] == "the cause", "messages still have the end"


def test_a_full_disk_ends_the_log_only() -> None:
    log = Log(Path("/dev/full"))
    log.write(b"lost\n")
    log.close()
    assert log.last_lines == ("lost",)
