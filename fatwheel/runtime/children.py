"""Runs Python in a clean environment, and tells how it ended in a few lines."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FormatError
from .clean import Clean

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


def run_python(
    clean: Clean, arguments: Sequence[str], variables: Mapping[str, str], limit: float
) -> Ended:
    """Run the environment's Python, isolated, in an empty folder, for at most `limit` seconds.

    What it compiles of Python is kept in the environment. Raises OSError.
    """
    output = clean.root / "output"
    command = [
        str(clean.python), "-I", "-u", "-X", f"pycache_prefix={clean.root / 'pycache'}", *arguments,
    ]  # fmt: skip
    begun = time.perf_counter()
    with output.open("wb") as stream:
        try:
            code: int | None = subprocess.run(
                command, cwd=clean.empty, env={**clean.variables, **variables},
                stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, timeout=limit,
                check=False,
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
        raise FormatError("what it wrote about itself is too long")
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
