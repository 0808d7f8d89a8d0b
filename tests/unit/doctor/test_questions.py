"""Questions are asked at once, and none is waited for longer than its time."""

from __future__ import annotations

import threading

import pytest

from fatwheel.doctor.facts import Silence
from fatwheel.doctor.network import Question


def test_the_answer() -> None:
    assert Question(lambda: 42, 5.0).answer() == 42
    nothing: Question[None] = Question(lambda: None, 5.0)
    assert nothing.answer() is None


def test_who_hangs_is_left_behind() -> None:
    never = threading.Event()
    assert Question(never.wait, 0.3).answer() == Silence("no answer in 0 s")
    never.set()


def test_all_are_asked_at_once() -> None:
    all_ten = threading.Barrier(10)
    questions = [Question(all_ten.wait, 60.0) for _ in range(10)]
    assert sorted(question.answer() for question in questions) == list(range(10))  # type: ignore[type-var]


@pytest.mark.parametrize("error", [ValueError("odd"), KeyboardInterrupt(), SystemExit(3)])
def test_what_goes_wrong_becomes_a_silence(error: BaseException) -> None:
    def ask() -> int:
        raise error

    answer = Question(ask, 5.0).answer()
    assert isinstance(answer, Silence)
    assert type(error).__name__ in answer.reason
