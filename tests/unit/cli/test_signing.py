"""`invoke sign`: keys, wheels that are wrong, and what is left where one of them is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.cli.main import commands
from fatwheel.errors import FormatError, UsageError, VerifyError
from fatwheel.provenance.beside import ENVELOPE, STATEMENT, beside, write_beside
from fatwheel.provenance.signing import load_key
from fatwheel.verify.report import Report, verify_wheel

from ...helpers import statedwheels
from ...helpers.commandline import exit_code_of
from ...helpers.provenwheels import proven_wheel
from ...helpers.signingkeys import KeyPair, Keys, open_envelope

Call = Callable[..., int]


@pytest.fixture(scope="module")
def key(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return Keys(tool("openssl"), tmp_path_factory.mktemp("keys")).pair("ed25519")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    return lambda *line: exit_code_of(commands(), tuple(map(str, line)), monkeypatch)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    wheel = proven_wheel(tmp_path)
    write_beside(wheel, [], {"engine": "process"}, None)
    return wheel


def test_a_wheel_that_is_wrong_stops_all(
    call: Call, key: KeyPair, wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sample is no sound wheel: its record is missing. None is signed then."""
    assert call("sign", wheel, "--key", key.private) == VerifyError.exit_code
    assert wheel.name in capsys.readouterr().err
    assert not beside(wheel, ENVELOPE).exists()


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A wheel in which nothing is wrong, and its statement beside it."""
    wheel = statedwheels.write(tmp_path, statedwheels.demo_files())
    write_beside(wheel, [], {"engine": "process"}, None)
    return wheel


def test_what_was_verified_is_signed_whatever_lies_there_by_then(
    call: Call, key: KeyPair, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another account that may write to the folder puts its own wheel and statement there."""
    verified = beside(sound, STATEMENT).read_bytes()

    def verify_and_lose(path: Path) -> Report:
        found = verify_wheel(path)
        (path.parent / "theirs").mkdir()
        theirs = proven_wheel(path.parent / "theirs").rename(path.parent / "theirs" / path.name)
        statement = json.loads(verified)
        sha256 = hashlib.sha256(theirs.read_bytes()).hexdigest()
        statement["subject"][0]["digest"]["sha256"] = sha256
        theirs.replace(path)
        beside(path, STATEMENT).write_bytes(statedwheels.as_json(statement))
        return found

    monkeypatch.setattr("fatwheel.verify.report.verify_wheel", verify_and_lose)
    assert call("sign", sound, "--key", key.private) == 0
    envelope = beside(sound, ENVELOPE).read_bytes()
    assert open_envelope(envelope, load_key(key.public), "envelope") == verified


def test_a_statement_with_a_second_digest_is_not_signed(
    call: Call, key: KeyPair, sound: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of another file: who goes by that takes it for signed."""
    place = beside(sound, STATEMENT)
    statement = json.loads(place.read_bytes())
    other = hashlib.sha512(b"another wheel").hexdigest()
    for one in (statement["subject"][0]["digest"], statement["subject"][0]):
        one["sha512"] = other
        place.write_bytes(statedwheels.as_json(statement))
        assert call("sign", sound, "--key", key.private) == VerifyError.exit_code
        assert not beside(sound, ENVELOPE).exists()
        del one["sha512"]
    place.write_bytes(statedwheels.as_json(statement))
    assert call("sign", sound, "--key", key.private) == 0, capsys.readouterr().err


def test_a_wheel_without_a_statement_stops_all(
    call: Call, key: KeyPair, sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the last of them, and nothing is wrong with the others."""
    (tmp_path / "other").mkdir()
    other = statedwheels.write(tmp_path / "other", statedwheels.demo_files())
    assert call("sign", sound, other, "--key", key.private) == FormatError.exit_code
    shown = capsys.readouterr()
    assert "there is no statement beside it" in shown.err
    assert str(other) in shown.err
    assert shown.out == ""
    assert not beside(sound, ENVELOPE).exists()


def test_keys_that_are_none(
    call: Call, key: KeyPair, wheel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (key.public, wheel, wheel.parent / "nothing.pem"):
        assert call("sign", wheel, "--key", wrong) == UsageError.exit_code
        assert f"--key {wrong}" in capsys.readouterr().err
    assert call("sign", wheel, "--key", key.encrypted) == UsageError.exit_code
    assert "FATWHEEL_SIGN_PASSWORD" in capsys.readouterr().err
