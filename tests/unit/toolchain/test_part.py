"""A file that comes in parts, from a client of our own making."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import pytest
from unearth import Link

from fatwheel.toolchain.access import PINNED, Way
from fatwheel.toolchain.download import PartialFile, TooLongError
from fatwheel.toolchain.pipconfig import RefusedError, TransientError
from fatwheel.toolchain.web import Arriving, Web

LINK = Link("https://host.invalid/file")


class Pieces:
    """Sends what it is told to, from where it is told to; then breaks off or ends."""

    def __init__(self, *answers: tuple[int, bytes, bool], whole: int = 0) -> None:
        self.answers = list(answers)
        self.whole = whole
        self.asked: list[int] = []

    @contextmanager
    def resumed(self, link: Link, start: int, way: Way) -> Iterator[Arriving]:
        assert way is PINNED
        self.asked.append(start)
        begins, content, breaks = self.answers.pop(0)

        def chunks() -> Iterator[bytes]:
            yield content
            if breaks:
                raise TransientError("cut")

        yield Arriving(begins, self.whole, chunks())


def get(part: PartialFile, pieces: Pieces) -> None:
    part.receive(cast(Web, pieces), LINK, PINNED, lambda size: None)


def test_tries_go_on_where_the_last_one_broke() -> None:
    stream, pieces = io.BytesIO(), Pieces((0, b"abc", True), (3, b"def", False))
    part = PartialFile(stream, 6)
    with pytest.raises(TransientError):
        get(part, pieces)
    get(part, pieces)
    assert pieces.asked == [0, 3]
    assert stream.getvalue() == b"abcdef"
    assert (part.size, part.sha256) == (6, hashlib.sha256(b"abcdef").hexdigest())


def test_a_server_that_begins_anew_is_followed() -> None:
    stream, pieces = io.BytesIO(), Pieces((0, b"abcd", True), (0, b"xy", False))
    part = PartialFile(stream, 1000)
    with pytest.raises(TransientError):
        get(part, pieces)
    get(part, pieces)
    assert stream.getvalue() == b"xy", "bytes of the first try are left"
    assert (part.size, part.sha256) == (2, hashlib.sha256(b"xy").hexdigest())


def test_a_gap_is_refused() -> None:
    part = PartialFile(io.BytesIO(), 1000)
    with pytest.raises(RefusedError, match="asked for byte 0 and sends byte 9"):
        get(part, Pieces((9, b"j", False)))


def test_more_than_there_may_be_is_not_written() -> None:
    stream = io.BytesIO()
    with pytest.raises(TooLongError):
        get(PartialFile(stream, 2), Pieces((0, b"abc", False)))
    assert stream.getvalue() == b""


def test_more_than_there_may_be_is_not_even_begun_where_the_server_says_so() -> None:
    pieces = Pieces((0, b"ab", False), whole=3)
    part = PartialFile(io.BytesIO(), 2)
    with pytest.raises(TooLongError):
        get(part, pieces)
    assert part.size == 0, "it was asked for although it cannot be the file"
