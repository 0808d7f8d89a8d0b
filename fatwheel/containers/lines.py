"""What a container writes: whole lines to those who wait for them, the rest into a log.

Containers run compilers of other people: lines may be cut, endless, or no text at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..text import clean

LONGEST = 16 << 20  # bytes of one line: an answer with everything of a large project has 2 MB
_LOG = 64 << 20  # bytes of one log
_SHOWN = 20  # lines kept for messages
_WIDTH = 2000  # bytes of each of these
_LEFT_OUT = b"\n[fatwheel: this log is full; what followed is left out]\n"


class Lines:
    """Cuts a stream into lines. One that is longer than LONGEST counts as its beginning, which
    is told as soon as it is too long: it may never end. What follows is nobody's."""

    def __init__(self, on_line: Callable[[str], None], rest: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._rest = rest
        self._line = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> None:
        *ended, begun = data.split(b"\n")
        for part in ended:
            self._add(part)
            if not self._too_long:
                self._tell(self._line)
            self._line, self._too_long = bytearray(), False
        self._add(begun)

    def end(self) -> None:
        """Nothing follows: its writer was killed if it was in the middle of a line."""
        if self._line:
            self._rest(bytes(self._line[:_WIDTH]) + b"\n")

    def _add(self, part: bytes) -> None:
        if self._too_long:
            return
        self._line += part
        if len(self._line) > LONGEST:
            beginning, self._line, self._too_long = self._line[:_WIDTH], bytearray(), True
            self._rest(b"[fatwheel: an endless line]\n" + beginning + b"\n")
            self._tell(beginning)

    def _tell(self, line: bytearray) -> None:
        self._on_line(line.decode("utf-8", "replace").removesuffix("\r"))


class Log:
    """A file to which bytes are appended as they come, and the last of their lines.

    A disk that is full ends the log, not the build: its own files will say so.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("ab", buffering=0)
        self._room = _LOG
        self._tail: deque[bytes] = deque(maxlen=_SHOWN)
        self._open = b""  # a line that may go on

    def write(self, data: bytes) -> None:
        if self._room >= 0:
            with suppress(OSError):
                self._stream.write(data[: self._room])
                if len(data) > self._room:
                    self._stream.write(_LEFT_OUT)
            self._room -= len(data)
        *ended, begun = data.split(b"\n")
        for line in ended[:1]:
            self._tail.append((self._open + line)[:_WIDTH])
        self._tail.extend(line[:_WIDTH] for line in ended[1:][-_SHOWN:])
        self._open = (begun if ended else self._open + begun)[:_WIDTH]

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines that say something, fit for a terminal."""
        lines = (line.decode("utf-8", "replace").rstrip() for line in (*self._tail, self._open))
        return tuple(clean(line) for line in lines if line)

    def close(self) -> None:
        with suppress(OSError):
            self._stream.close()
