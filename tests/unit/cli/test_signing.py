"""`invoke sign`: keys, wheels that are wrong, and what is left where one of them is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.cli.main import commands
from fatwheel.errors import UsageError, VerifyError
from fatwheel.provenance.beside import ENVELOPE, beside, write_beside

from ...helpers.commandline import exit_code_of
from ...helpers.provenwheels import proven_wheel
from ...helpers.signingkeys import KeyPair, Keys

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


def test_keys_that_are_none(
    call: Call, key: KeyPair, wheel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in (key.public, wheel, wheel.parent / "nothing.pem"):
        assert call("sign", wheel, "--key", wrong) == UsageError.exit_code
        assert f"--key {wrong}" in capsys.readouterr().err
    assert call("sign", wheel, "--key", key.encrypted) == UsageError.exit_code
    assert "FATWHEEL_SIGN_PASSWORD" in capsys.readouterr().err
