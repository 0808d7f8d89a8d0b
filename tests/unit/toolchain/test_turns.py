"""Whose turn it is: one at a time, and a word to those who wait."""

from __future__ import annotations

import threading
from pathlib import Path

from fatwheel.events import Event, Note
from fatwheel.toolchain.unpack import one_at_a_time


def test_who_comes_first_is_told_nothing(tmp_path: Path) -> None:
    events: list[Event] = []
    with one_at_a_time(tmp_path, "making tea", events.append):
        pass
    assert events == []


def test_the_next_one_waits_and_says_so(tmp_path: Path) -> None:
    order: list[str] = []
    told = threading.Event()
    events: list[Event] = []

    def tell(event: Event) -> None:
        events.append(event)
        told.set()

    def second() -> None:
        with one_at_a_time(tmp_path, "making tea", tell):
            order.append("second")

    with one_at_a_time(tmp_path, "making tea", events.append):
        thread = threading.Thread(target=second)
        thread.start()
        assert told.wait(60), "nobody was told to wait"
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]
    assert events == [Note("another build is making tea: waiting for it")]
