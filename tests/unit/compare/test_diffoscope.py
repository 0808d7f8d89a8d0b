"""diffoscope: a stand-in for it, and the real one where it is installed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.compare.report import find_diffoscope, said_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="diffoscope runs on Unix")
Script = Callable[[str], None]
CONTENTS = ([b"one\n"], [b"oth", b"er\n"])
PARSE = """
for word; do
  case $word in --text=*) out=${word#--text=};; --*) ;; *) files="$files $word";; esac
done
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Puts a script of that name in front of everything else."""

    def write(text: str) -> None:
        path = tmp_path / "diffoscope"
        path.write_text(f"#!/bin/sh\n{PARSE}{text}\n")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return write


def said() -> str:
    return said_of("demo/a.txt", [4, 6], CONTENTS)


def test_it_is_given_both_files_under_their_name(script: Script) -> None:
    script("for f in $files; do echo $f $(cat $f); done > $out; exit 1")
    assert said() == "first/a.txt one\nsecond/a.txt other\n"


@pytest.mark.parametrize("text", ["echo x > $out; exit 0", "echo x > $out; exit 2", "exit 1"])
def test_without_a_difference_it_has_nothing_to_say(script: Script, text: str) -> None:
    script(text)
    assert said() == ""


def test_what_it_says_is_cut(script: Script) -> None:
    script("head -c 1000000 /dev/zero | tr '\\0' x > $out; exit 1")
    assert len(said()) == 256 << 10


def test_it_is_ended_where_it_takes_too_long(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what it started: that would write a file."""
    monkeypatch.setattr("fatwheel.compare.report._SECONDS", 0.3)
    late = tmp_path / "late"
    script(f"echo x > $out; (sleep 1.2; touch {late}) & sleep 30")
    assert said() == ""
    time.sleep(1.5)
    assert not late.exists()


def test_large_files_are_not_given_to_it(script: Script) -> None:
    script("echo x > $out; exit 1")
    assert said_of("a.so", [10, 1 << 30], CONTENTS) == ""


def test_nothing_is_missing_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_diffoscope() is None
    assert said() == ""


def test_the_real_one(tool: Callable[[str], str]) -> None:
    tool("diffoscope")
    lines = said().splitlines()
    assert lines[:2] == ["--- first/a.txt", "+++ second/a.txt"]
    assert "-one" in "\n".join(lines)
    assert "+other" in "\n".join(lines)
