"""The files beside a wheel, held against the wheel itself and the tools that read them."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.pylock import Pylock

from fatwheel.errors import FormatError, StoreError, UsageError
from fatwheel.provenance import beside as beside_module
from fatwheel.provenance.beside import (
    ENVELOPE,
    LOCK,
    STATEMENT,
    beside,
    sign,
    signable,
    write_beside,
)
from fatwheel.provenance.lock import Material
from fatwheel.provenance.signing import load_key, load_signer

from ...helpers import provenwheels
from ...helpers.provenwheels import proven_wheel
from ...helpers.signingkeys import Keys, open_envelope
from ...helpers.somelocks import installed_lock
from ...helpers.tinywheels import Draft

IMAGE = Material("image", "fatwheel/env:abc", "", "", 0, "ab" * 32, "")

NAMES = {
    "demo-1.0-cp311-cp311-linux_x86_64.whl.provenance.json",
    "demo-1.0-cp311-cp311-linux_x86_64.whl.lock.json",
    "demo-1.0-cp311-cp311-linux_x86_64.whl.requirements.txt",
    "pylock.demo-1_0-cp311-cp311-linux_x86_64.toml",
}


@pytest.fixture(scope="module")
def keys(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tool("openssl"), tmp_path_factory.mktemp("keys"))


def written(folder: Path, keys: Keys | None = None) -> tuple[Path, set[str]]:
    """A wheel and the names of the files that were written beside it."""
    wheel = proven_wheel(folder)
    signer = load_signer(keys.pair("ed25519").private) if keys else None
    paths = write_beside(wheel, [IMAGE], {"engine": "docker"}, signer)
    assert {path.parent for path in paths} == {folder}
    return wheel, {path.name for path in paths}


def in_wheel(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"demo-1.0.dist-info/{name}")


def test_what_is_written_without_a_key(tmp_path: Path) -> None:
    wheel, names = written(tmp_path)
    assert names == NAMES
    assert set(os.listdir(tmp_path)) == {*NAMES, wheel.name}


def test_installers_are_told_nothing_of_what_was_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its torch came from is not known; and what a pinned wheel of this name left goes."""
    written(tmp_path)
    monkeypatch.setattr(provenwheels, "some_lock", installed_lock)
    wheel, names = written(tmp_path)
    assert names == {name for name in NAMES if name.endswith(".json")}
    assert set(os.listdir(tmp_path)) == {*names, wheel.name}


def test_the_lock_is_that_of_the_wheel(tmp_path: Path) -> None:
    wheel, _ = written(tmp_path)
    assert beside(wheel, LOCK).read_bytes() == in_wheel(wheel, "fatwheel.lock.json")


def test_the_statement_is_about_the_wheel_and_says_what_the_one_in_it_says(tmp_path: Path) -> None:
    wheel, _ = written(tmp_path)
    outer = json.loads(beside(wheel, STATEMENT).read_bytes())
    inner = json.loads(in_wheel(wheel, "fatwheel.provenance.json"))
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert outer["subject"] == [{"name": wheel.name, "digest": {"sha256": sha256}}]

    definition = outer["predicate"]["buildDefinition"]
    assert definition["internalParameters"].pop("engine") == "docker"
    image = definition["resolvedDependencies"].pop()
    assert image["digest"] == {"sha256": IMAGE.sha256}
    assert outer["predicate"] == inner["predicate"], "nothing else may differ"


def test_installers_are_told_the_wheel_s_own_hash(tmp_path: Path) -> None:
    wheel, _ = written(tmp_path)
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    requirements = (tmp_path / f"{wheel.name}.requirements.txt").read_text(encoding="utf-8")
    assert f"--hash=sha256:{sha256}" in requirements
    assert sha256 in (tmp_path / "pylock.demo-1_0-cp311-cp311-linux_x86_64.toml").read_text()


def test_the_envelope_holds_exactly_the_statement(tmp_path: Path, keys: Keys) -> None:
    wheel, names = written(tmp_path, keys)
    assert names == {*NAMES, f"{wheel.name}.intoto.jsonl"}
    data = beside(wheel, ENVELOPE).read_bytes()
    payload = open_envelope(data, load_key(keys.pair("ed25519").public), "envelope")
    assert payload == beside(wheel, STATEMENT).read_bytes()


def test_the_same_wheel_and_key_give_the_same_files_anywhere_and_any_time(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, names = written(tmp_path / "one", keys)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LANG", "tr_TR.UTF-8")
    other = tmp_path / "two" / one.name
    other.parent.mkdir()
    other.write_bytes(one.read_bytes())
    os.utime(other, (1, 1))
    signer = load_signer(keys.pair("ed25519").private)
    write_beside(other, [IMAGE], {"engine": "docker"}, signer)
    for name in names:
        assert (one.parent / name).read_bytes() == (other.parent / name).read_bytes(), name


def test_nothing_of_this_machine_is_in_them(tmp_path: Path, keys: Keys) -> None:
    _, names = written(tmp_path, keys)
    told = b"\n".join((tmp_path / name).read_bytes() for name in names)
    for secret in (tmp_path, Path.home(), keys.folder):
        assert f"{secret}{os.sep}".encode() not in told, secret


def test_an_unsigned_build_removes_the_older_signature(tmp_path: Path, keys: Keys) -> None:
    wheel, _ = written(tmp_path, keys)
    assert beside(wheel, ENVELOPE).exists()
    written(tmp_path)
    assert not beside(wheel, ENVELOPE).exists()


def signed_now(wheel: Path, keys: Keys) -> Path:
    """The envelope of the statement that is there, for the wheel that is there."""
    statement = beside(wheel, STATEMENT)
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    signer = load_signer(keys.pair("ed25519").private)
    found = statement.read_bytes() if statement.exists() else None
    return sign(wheel, signable(wheel, found, sha256), signer)


def test_signing_later_gives_what_signing_at_once_gives(tmp_path: Path, keys: Keys) -> None:
    signed, _ = written(tmp_path / "at once", keys)
    later, _ = written(tmp_path / "later")
    envelope = signed_now(later, keys)
    assert envelope.read_bytes() == beside(signed, ENVELOPE).read_bytes()
    assert open_envelope(envelope.read_bytes(), load_key(keys.pair("ed25519").public), "") == (
        beside(later, STATEMENT).read_bytes()
    )


def test_what_is_about_another_file_is_not_signed(tmp_path: Path, keys: Keys) -> None:
    wheel, _ = written(tmp_path)
    statement = beside(wheel, STATEMENT)
    renamed = wheel.with_name(wheel.name.replace("demo", "other"))
    wheel.rename(renamed)
    with pytest.raises(FormatError, match="no statement beside it"):
        signed_now(renamed, keys)
    statement.rename(beside(renamed, STATEMENT))
    with pytest.raises(FormatError, match="about another file"):
        signed_now(renamed, keys)
    renamed.rename(wheel)
    beside(renamed, STATEMENT).rename(statement)
    with wheel.open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(FormatError, match="about another file"):
        signed_now(wheel, keys)
    assert not beside(wheel, ENVELOPE).exists()


def test_what_was_there_is_replaced_whole(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).write_bytes(b"an older build's" * 100_000)
    wheel, _ = written(tmp_path)
    json.loads(beside(wheel, STATEMENT).read_bytes())
    assert b"older" not in (tmp_path / f"{wheel.name}.requirements.txt").read_bytes()


def test_no_signature_is_left_beside_a_statement_that_it_does_not_cover(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it stops in the middle, after another wheel took the first one's place."""
    wheel, names = written(tmp_path, keys)
    before = {name: (tmp_path / name).read_bytes() for name in names}
    proven_wheel(tmp_path, b"other code")
    real, calls = beside_module.replacing, []

    def breaks(path: Path) -> Any:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(path)

    monkeypatch.setattr(beside_module, "replacing", breaks)
    signer = load_signer(keys.pair("ed25519").private)
    with pytest.raises(StoreError) as caught:
        write_beside(wheel, [], {}, signer)
    assert f"cannot write the files beside {wheel.name}: No space left" in str(caught.value)
    assert "--out FOLDER" in str(caught.value)
    assert beside(wheel, STATEMENT).read_bytes() != before[beside(wheel, STATEMENT).name]
    assert not beside(wheel, ENVELOPE).exists()
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


def test_a_wheel_that_says_nothing_of_its_build_is_refused(tmp_path: Path) -> None:
    wheel = Draft(files={"demo/code.py": b"code"}).write(tmp_path)
    with pytest.raises(FormatError, match="nothing in the wheel says how it was built"):
        write_beside(wheel, [], {}, None)
    assert os.listdir(tmp_path) == [wheel.name]
    with pytest.raises(UsageError, match="No such file"):
        write_beside(tmp_path / "none-1.0-py3-none-any.whl", [], {}, None)


def test_a_damaged_lock_or_statement_is_refused(tmp_path: Path) -> None:
    for name in ("fatwheel.lock.json", "fatwheel.provenance.json"):
        source = proven_wheel(tmp_path / "source")
        with zipfile.ZipFile(source) as archive:
            files = {each: archive.read(each) for each in archive.namelist()}
        files[f"demo-1.0.dist-info/{name}"] = b"{}"
        wheel = Draft(files=files).write(tmp_path)
        with pytest.raises(FormatError, match=name):
            write_beside(wheel, [], {}, None)
        assert [path.name for path in tmp_path.glob("*.json")] == []


def test_the_pylock_file_is_one(tmp_path: Path) -> None:
    written(tmp_path)
    [path] = tmp_path.glob("pylock.*.toml")
    lock = Pylock.from_dict(_toml(path))
    assert [str(one.version) for one in lock.packages if one.name == "demo"] == ["1.0"]


def _toml(path: Path) -> Any:
    try:
        import tomllib
    except ImportError:
        import tomli as tomllib
    return tomllib.loads(path.read_text(encoding="utf-8"))
