"""Follows an image's build by what the engine says: steps, their output, and why one failed.

An engine answers a build with JSON documents one after the other (Docker Engine API, ImageBuild):
`stream` is the output, in which each step begins with a line `Step 3/9 : RUN …`; `error` and
`errorDetail` end it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from ..containers.causes import cause_of
from ..errors import EngineError
from ..events import Emit, Progress
from ..text import clean
from .contexts import BuildContext

LABEL = "image"

_STEP = re.compile(r"Step (\d+)/(\d+) : (\S+)")
_CODE = re.compile(r"returned a non-zero code: (\d+)")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_FULL = re.compile(r"no space left on device|not enough space on the disk", re.IGNORECASE)
_LAST = 12  # lines of a failed step's output that are shown


class Following:
    """One build. The log gets every line; Progress counts the bytes of the files installed."""

    def __init__(self, context: BuildContext, log: TextIO, place: Path, emit: Emit) -> None:
        self._context = context
        self._log = log
        self._place = place
        self._emit = emit
        self._sizes = {file.filename: file.size for file in context.files}
        self._total = sum(self._sizes.values())
        self._line = ""
        self._step = ""  # `step 3 of 9`
        self._instruction = ""
        self._last: deque[str] = deque(maxlen=_LAST)
        self._copied = 0  # bytes of the files that the last COPY copied
        self._weight = 0  # bytes that the present step stands for
        self._done = 0

    def take(self, message: Mapping[str, Any]) -> None:
        """Take in one document. Raises EngineError where it says that the build failed."""
        if "error" in message:
            self._end_line()
            self._write(str(message["error"]))
            raise self._failure(str(message["error"]), message.get("errorDetail") or {})
        if "stream" in message:
            *lines, self._line = (self._line + str(message["stream"])).split("\n")
            for line in lines:
                self._take_line(line)
        elif "status" in message and "progressDetail" not in message:
            self._write(" ".join(str(message[key]) for key in ("id", "status") if key in message))

    def finish(self) -> None:
        """The build ended well."""
        self._end_line()
        self._emit(Progress(LABEL, self._total, self._total))

    def _end_line(self) -> None:
        if self._line:
            self._take_line(self._line)
            self._line = ""

    def _take_line(self, line: str) -> None:
        line = clean(_COLOUR.sub("", line)).rstrip()
        self._write(line)
        step = _STEP.match(line)
        if step is None:
            if line and not line.startswith(" ---> "):
                self._last.append(line)
            return
        self._step = f"step {step[1]} of {step[2]}"
        self._instruction = line.partition(" : ")[2]
        self._last.clear()
        self._count(step[3])

    def _count(self, verb: str) -> None:
        """What the step before stood for is done. COPY and what follows it stand for half of the
        files each."""
        self._done += self._weight
        if verb == "COPY":
            words = self._instruction.split()
            self._copied = sum(self._sizes.get(word.removeprefix("files/"), 0) for word in words)
        self._weight = self._copied // 2
        if verb != "COPY":
            self._copied = 0
        self._emit(Progress(LABEL, min(self._done, self._total), self._total))

    def _write(self, line: str) -> None:
        self._log.write(f"{line}\n")
        self._log.flush()

    def _failure(self, said: str, detail: Mapping[str, Any]) -> EngineError:
        said = clean(said).strip()
        code = _CODE.search(said)
        where = f"{self._context.tag}, {self._step or 'before the first step'}"
        log = f"the whole log: {self._place}"
        full = next((line for line in (said, *self._last) if _FULL.search(line)), None)
        if full:
            cause = cause_of(full)
            what = f"cannot build an image: {cause.what}"
            return EngineError(what, where=where, details=[full, log], hint=cause.hint)
        if code or "code" in detail:
            number = code[1] if code else detail["code"]
            return EngineError(
                f"building an image failed: a command ended with exit code {number}",
                where=where,
                details=[*_shortened(self._instruction), *self._last, log],
                hint="mend what it says and run the same command again: it goes on from here",
            )
        cause = cause_of(said)
        return EngineError(
            f"cannot build an image: {cause.what or said}",
            where=where,
            details=[*([said] if cause.what else []), *self._last, log],
            hint=cause.hint,
        )


def _shortened(instruction: str, longest: int = 240) -> list[str]:
    if len(instruction) > longest:
        instruction = f"{instruction[:longest]} …"
    return [instruction] if instruction else []
