"""The question before code of strangers runs, asked on a real terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="Windows has no such terminals")

PROGRAM = """
import sys
from fatwheel.pipeline.consent import Stranger
from fatwheel.errors import UsageError
from fatwheel.cli.arguments import consent
try:
    consent("--yes" in sys.argv)(Stranger("W.whl", ("what would run \\x1b[2J",)))
except UsageError as error:
    sys.exit(f"refused: {error}")
print("it runs")
"""
ROOT = Path(__file__).parents[3]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "CI"}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm", **more}


def on_a_terminal(typed: bytes, *arguments: str, **more: str) -> str:
    """What is seen on a terminal after this was typed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment(**more), close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, typed)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:  # EIO: nobody writes any more
        pass
    process.wait(timeout=300)
    os.close(ours)
    return seen.decode()


@pytest.mark.parametrize("typed", [b"y\n", b"Yes\n", b" y \n"])
def test_who_agrees_sees_it_run(typed: bytes) -> None:
    seen = on_a_terminal(typed)
    assert "what would run \\x1b[2J" in seen, "shown, and harmless"
    assert "Run it? [y/N]" in seen
    assert "it runs" in seen


@pytest.mark.parametrize("typed", [b"\n", b"n\n", b"yo\n", b"\x04"], ids=["", "n", "yo", "end"])
def test_whatever_else_is_typed_is_a_no(typed: bytes) -> None:
    seen = on_a_terminal(typed)
    assert "Run it? [y/N]" in seen
    assert "refused: W.whl: nothing was run" in seen
    assert "it runs" not in seen


def test_with_yes_it_is_told_and_not_asked() -> None:
    seen = on_a_terminal(b"", "--yes")
    assert "what would run" in seen
    assert "[y/N]" not in seen
    assert "it runs" in seen


def test_in_ci_nobody_is_asked() -> None:
    seen = on_a_terminal(b"y\n", CI="true")
    assert "add --yes" in seen
    assert "it runs" not in seen


@pytest.mark.parametrize("typed", ["y\n", ""])
def test_without_a_terminal_it_is_refused(typed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=typed, capture_output=True, text=True,
        env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("refused: W.whl: ")
    assert "what would run" in done.stderr
    assert "add --yes" in done.stderr
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--yes"], stdin=subprocess.DEVNULL, capture_output=True,
        text=True, env=environment(), check=True,
    )  # fmt: skip
    assert "what would run" in told.stderr
    assert told.stdout == "it runs\n"
