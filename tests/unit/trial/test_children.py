"""How children end is told in words; what they wrote is read within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.errors import FormatError
from fatwheel.trial import children
from fatwheel.trial.children import LAST, Ended, results_of
from fatwheel.trial.environment import run_python

from ...helpers.fakecuda import clean_with


def run(folder: Path, code: str, limit: float = 60.0) -> Ended:
    return run_python(clean_with(folder), ["-c", code], {"MODE": "x"}, limit)


def test_what_it_said_and_how_it_ended(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['MODE'], os.getcwd()); print('no', file=sys.stderr)"
    ended = run(tmp_path, f"{code}; sys.exit(3)")
    assert (ended.code, ended.how) == (3, "exit code 3")
    assert ended.said == (f"x {tmp_path / 'empty'}", "no")
    assert 0 < ended.seconds < 60


def test_a_crash_is_named(tmp_path: Path) -> None:
    ended = run(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert ended.how == "ended by SIGSEGV"
    assert Ended(-200, 1.0, ()).how == "ended by signal 200"


def test_what_takes_too_long_is_stopped(tmp_path: Path) -> None:
    ended = run(tmp_path, "print('begun'); import time; time.sleep(60)", limit=1.0)
    assert ended.code is None
    assert ended.how.startswith("not done after 1 s")
    assert ended.said == ("begun",)


def test_only_the_last_lines_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_SAID", 100)
    ended = run(tmp_path, "print(*range(1000), sep='\\n')")
    assert ended.last == tuple(str(number) for number in range(1000 - LAST, 1000))
    assert len(ended.said) < 30


def test_results_that_were_cut_off_or_are_none(tmp_path: Path) -> None:
    file = tmp_path / "results"
    assert results_of(file) == []
    file.write_bytes(b'{"a": 1}\n[1]\n' + b"[" * 100_000 + b'\n{"b"\n\xff\n{"c": 2}')
    assert results_of(file) == [{"a": 1}, {"c": 2}]


def test_results_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_MOST", 5)
    (tmp_path / "results").write_text('{"a": 1}\n')
    with pytest.raises(FormatError, match="too long"):
        results_of(tmp_path / "results")
