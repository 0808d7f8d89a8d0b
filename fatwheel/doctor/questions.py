"""Questions to a machine, all asked at once, none waited for longer than its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from .facts import Silence

T = TypeVar("T")


class Question(Generic[T]):
    """A question that is being asked in a thread of its own, from now on.

    seconds: how long the answer may take. Whoever hangs is left behind: the thread is a daemon,
    and ends with the program.
    """

    def __init__(self, ask: Callable[[], T], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._answers: list[T | Silence] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def answer(self) -> T | Silence:
        """The answer, or a Silence once its time is over or where asking it failed."""
        self._thread.join(max(0.0, self._end - time.monotonic()))
        return self._answers[0] if self._answers else Silence(f"no answer in {self._seconds:.0f} s")

    def _run(self) -> None:
        try:
            self._answers.append(self._ask())
        except BaseException as error:  # whatever a broken machine makes of it, it is a finding
            self._answers.append(Silence(f"{type(error).__name__}: {error}"))
