"""Standard output and error that outlive who reads them (`fatwheel inspect W | head -1`), and the
disk that they are written to."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Any


class _Outliving(io.FileIO):
    """A stream that drops what is written once nobody reads it any more, and waits for a reader
    who is slow, even where it is set not to. That a disk is full is told once, as OSError, unless
    messages go to that disk themselves."""

    def __init__(self, number: int, messages: bool) -> None:
        super().__init__(number, "wb", closefd=False)
        self._messages = messages

    def write(self, data: Any, /) -> int:
        try:
            while (written := super().write(data)) is None:
                select.select([], [self], [])
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if not (self._messages or isinstance(error, BrokenPipeError)):
                raise
            return super().write(data) or 0
        return written


def outlive_readers() -> None:
    """Let a command end as it would have, with the exit code that says what it found, although
    nobody reads its results any more."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed when the command began
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
            continue
        if stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper):
            continue  # somebody else's, or ours already
        stream.flush()
        raw = _Outliving(stream.fileno(), messages=name == "stderr")
        setattr(
            sys, name,
            io.TextIOWrapper(
                io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors,
                line_buffering=stream.line_buffering or stream.write_through,
            ),
        )  # fmt: skip
