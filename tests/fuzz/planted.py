"""Targets with bugs that sound files do not meet, to see that the fuzzer finds each kind."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable

from fatwheel.errors import FormatError

from .seeds import DATA
from .worker import Target

_SOUND = {path.read_bytes() for path in DATA.glob("*.ptx")}
_HELD: list[bytes] = []


def _sound(data: bytes) -> None:
    if len(data) % 2:
        raise FormatError("refused")


def _key_error(data: bytes) -> None:
    dict[str, int]()["missing"]


def _recursion(data: bytes) -> None:
    _recursion(data)


def _loop(data: bytes) -> None:
    while True:
        try:
            time.process_time()
        except Exception:  # as careless code does it
            continue


def _long_call(data: bytes) -> None:
    """A library's call that Python cannot interrupt."""
    re.match(rb"(a|a)*b", b"a" * 60)


def _wait(data: bytes) -> None:
    time.sleep(1000)


def _claim(data: bytes) -> None:
    """Memory that is asked for and not touched."""
    bytes(1 << 30)


def _fill(data: bytes) -> None:
    """Memory in many small pieces."""
    _HELD.extend(b"%d" % number * 100 for number in range(1 << 22))


def _crash(data: bytes) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _leave(data: bytes) -> None:
    raise SystemExit(0)


def _target(bug: Callable[[bytes], None]) -> Target:
    def step(data: bytes) -> None:
        if data not in _SOUND:
            bug(data)

    return Target(("ptx",), (step,))


TARGETS = {
    bug.__name__.strip("_"): _target(bug)
    for bug in (
        _sound, _key_error, _recursion, _loop, _long_call, _wait, _claim, _fill, _crash, _leave,
    )
}  # fmt: skip
