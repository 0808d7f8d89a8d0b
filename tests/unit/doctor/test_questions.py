"""Questions are asked at once, and none is waited for longer than its time."""

from __future__ import annotations

import threading
import time

import pytest

from fatwheel.doctor.facts import Silence
from fatwheel.doctor.network import Question


def test_the_answer() -> None:
    assert Question(lambda: 42, 5.0).answer() == 42
    nothing: Question[None] = Question(lambda: None, 5.0)
    assert nothing.answer() is None


def test_who_hangs_is_left_behind() -> None:
    never = threading.Event()
    started = time.monotonic()
    questions = [Question(never.wait, 0.3) for _ in range(10)]
    assert [question.answer() for question in questions] == [Silence("no answer in 0 s")] * 10
    assert time.monotonic() - started < 2.5, "one after the other would take 3 s"
    never.set()


@pytest.mark.parametrize("error", [ValueError("odd"), KeyboardInterrupt(), SystemExit(3)])
def test_what_goes_wrong_becomes_a_silence(error: BaseException) -> None:
    def ask() -> int:
        raise error

    answer = Question(ask, 5.0).answer()
    assert isinstance(answer, Silence)
    assert type(error).__name__ in answer.reason
