"""Processes that import a wheel's modules in some Python: run for a limited time, their output and
what they write down read within bounds."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FormatError
from . import import_script

SCRIPT = Path(import_script.__file__).resolve()
LAST = 12  # lines that are shown of what it said
_SAID = 1 << 20  # bytes that are read of it, from its end
_MOST = 64 << 20  # bytes of results that are read


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code (None: it took too long), seconds, what it said last."""

    code: int | None
    seconds: float
    said: tuple[str, ...]

    @property
    def how(self) -> str:
        """`exit code 1`, `ended by SIGSEGV`, `not done after 900 s`."""
        if self.code is None:
            return f"not done after {self.seconds:.0f} s"
        if self.code < 0:
            return f"ended by {_signal_name(-self.code)}"
        return f"exit code {self.code}"

    @property
    def last(self) -> tuple[str, ...]:
        return self.said[-LAST:]


def run_to_end(
    command: Sequence[str], folder: Path, variables: Mapping[str, str], output: Path, limit: float
) -> Ended:
    """Run a command in a folder, with these variables alone, for at most `limit` seconds.

    output: the file that gets what it prints. Raises OSError.
    """
    begun = time.perf_counter()
    with output.open("wb") as stream:
        try:
            code: int | None = subprocess.run(
                command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=stream,
                stderr=subprocess.STDOUT, timeout=limit, check=False,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code = None
    return Ended(code, time.perf_counter() - begun, _last_lines(output))


def results_of(file: Path) -> list[dict[str, Any]]:
    """The JSON lines that a child wrote; those it could not finish are left out.

    FormatError where there is more than any child of ours writes.
    """
    if not file.exists():
        return []
    if file.stat().st_size > _MOST:
        raise FormatError("its report is too long")
    found: list[dict[str, Any]] = []
    for line in file.read_bytes().splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _last_lines(output: Path) -> tuple[str, ...]:
    size = output.stat().st_size
    with output.open("rb") as stream:
        stream.seek(max(0, size - _SAID))
        text = stream.read().decode("utf-8", "replace")
    return tuple(line for line in text.splitlines() if line.strip())


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# -- imports ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """Modules imported one after another, and perhaps the GPU used once.

    seconds: of each module that could be imported. failed: Python's last words for each other.
    first_use: seconds that the GPU's first use took after that; None where it came to none.
    unfinished: what was being done when the process ended, or ''. outside: CUDA's libraries that
    were loaded from this machine, and not from the environment.
    """

    ended: Ended
    torch: str
    seconds: Mapping[str, float]
    failed: Mapping[str, tuple[str, ...]]
    first_use: float | None
    unfinished: str
    outside: tuple[str, ...]


def trial_of(ended: Ended, said: Sequence[Mapping[str, Any]]) -> Trial:
    """FormatError where the report is not as the script writes it."""
    try:
        seconds = {str(one["module"]): float(one["seconds"]) for one in said if "module" in one}
        failed = {str(one["failed"]): _texts(one["lines"]) for one in said if "failed" in one}
        first_use = next((float(one["first_use"]) for one in said if "first_use" in one), None)
        outside = next((_texts(one["outside"]) for one in said if "outside" in one), ())
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FormatError("its report is damaged: the code of the wheel wrote to it") from error
    begun = [str(one["start"]) for one in said if "start" in one]
    done = {*seconds, *failed} | ({"the GPU"} if first_use is not None else set())
    return Trial(
        ended=ended,
        torch=next((str(one["torch"]) for one in said if "torch" in one), ""),
        seconds=seconds,
        failed=failed,
        first_use=first_use,
        unfinished=next((name for name in begun if name not in done), ""),
        outside=outside,
    )


def _texts(lines: Iterable[object]) -> tuple[str, ...]:
    return tuple(map(str, lines))
