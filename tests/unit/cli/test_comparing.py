"""The task `compare`: its arguments, its results, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invoke.collection import Collection

from fatwheel.errors import FormatError, RebuildError, UsageError

from ...helpers.commandline import exit_code_of, load_tasks
from ...helpers.comparedwheels import NAME, pack, without_diffoscope

assert without_diffoscope  # a fixture

COLLECTION = Collection.from_module(load_tasks())


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    return exit_code_of(COLLECTION, ("compare", *arguments), monkeypatch)


@pytest.fixture
def wheels(tmp_path: Path) -> tuple[str, str, str]:
    """A wheel, the same again, and another one."""
    one = pack(tmp_path / "one" / NAME, {"demo.py": b"x = 1\n"})
    same = pack(tmp_path / "same" / NAME, {"demo.py": b"x = 1\n"})
    other = pack(tmp_path / "other" / NAME, {"demo.py": b"x = 2\n"})
    return str(one), str(same), str(other)


def test_the_same_wheel(
    wheels: tuple[str, str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, wheels[0], wheels[1]) == 0
    assert capfd.readouterr().out.startswith("identical: sha256 ")


def test_another_wheel(
    wheels: tuple[str, str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, wheels[0], wheels[2]) == RebuildError.exit_code
    captured = capfd.readouterr()
    assert "\ndemo.py\n  line 1\n    - x = 1\n    + x = 2\n" in captured.out
    assert "the wheels differ, at the highest level in lines of text" in captured.err
    assert run(monkeypatch, wheels[0], wheels[2], "--json") == RebuildError.exit_code
    document = json.loads(capfd.readouterr().out)
    assert (document["identical"], document["level"]) == (False, "text")


def test_mistakes(
    wheels: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run(monkeypatch, wheels[0], str(tmp_path / "absent.whl")) == UsageError.exit_code
    (tmp_path / "a.whl").write_bytes(b"no wheel")
    assert run(monkeypatch, wheels[0], str(tmp_path / "a.whl")) == FormatError.exit_code
