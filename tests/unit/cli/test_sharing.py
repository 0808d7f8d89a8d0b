"""What commands say of remotes and shares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fatwheel.cli.main import commands
from fatwheel.cli.results import show_share
from fatwheel.cli.tables import share_rows
from fatwheel.errors import UsageError
from fatwheel.pipeline.share import ShareMade
from fatwheel.sharing.shares import Share
from fatwheel.sharing.uses import Count, note_use

from ...helpers.commandline import exit_code_of
from ...helpers.schemas import schema_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    for name in ("", "_MODE", "_SIGN", "_TRUST"):
        monkeypatch.delenv(f"FATWHEEL_REMOTE{name}", raising=False)
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--remote", "ftp://host/x"), "ftp:// is not a kind of remote"),
        (
            ("--remote", "https://me:hunter2@host/x"),
            "there is a user or a password in this address",
        ),
        (("--only-shard", "7/6", "--share-to", "a.share"), "'7/6' is no share"),
        (("--only-shard", "1/6"), "nobody would get this share"),
        (("--share-to", "a.share"), "which share?"),
        (("--only-shard", "1/6", "--share-to", "a.zip"), "'a.zip' is no name of a share"),
        (("--from-shares", "tests/unit"), "there is no share in tests/unit"),
        (("--from-shares", "nowhere", "--plan"), "cannot look for shares in nowhere: No such file"),
        (
            ("--only-shard", "1/6", "--share-to", "a.share", "--from-shares", "tests/unit"),
            "there is no share in tests/unit",
        ),
        (
            ("--only-shard", "1/6", "--share-to", "a.share", "--python", "3.11,3.12"),
            "shares are of one wheel",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    options: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments = ("build", "--kernel", "selftest", *options)
    assert exit_code_of(commands(), arguments, monkeypatch) == UsageError.exit_code
    shown = capfd.readouterr().err
    assert said in shown
    assert "hunter2" not in shown


def test_a_plan_names_the_remote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FATWHEEL_REMOTE_MODE", "read")
    arguments = ("build", "--kernel", "selftest", "--plan", "--remote", str(tmp_path))
    assert exit_code_of(commands(), arguments, monkeypatch) == 0
    [line] = [one for one in capfd.readouterr().out.splitlines() if one.startswith("  remote")]
    assert line.split(maxsplit=1)[1].strip() == f"{tmp_path}, only read, not signed"


def test_cache_shows_a_remote_and_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    address = str(tmp_path / "team")
    note_use(address, Count(found=3, absent=2, refused=1, written=4, bytes_in=2048, bytes_out=512))
    assert exit_code_of(commands(), ("cache", "--remote", address), monkeypatch) == 0
    lines = capfd.readouterr().out.splitlines()[-3:]
    assert lines == [
        f"{address}, read and written, not signed",
        "it can be read",
        "1 build of this machine asked for 6 parcels: 3 came (2.0 KiB), 1 refused; 4 went there "
        "(512 B)",
    ]
    monkeypatch.setenv("FATWHEEL_REMOTE", address)
    assert exit_code_of(commands(), ("cache", "--json"), monkeypatch) == 0
    found = json.loads(capfd.readouterr().out)
    jsonschema.validate(found, schema_of("cache"))
    assert (found["remote"]["address"], found["remote"]["use"]["found"]) == (address, 3)


def test_cache_alone_has_no_remote(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(commands(), ("cache", "--json"), monkeypatch) == 0
    found = json.loads(capfd.readouterr().out)
    jsonschema.validate(found, schema_of("cache"))
    assert found["remote"] is None


def test_a_share_is_shown_by_what_it_has(capfd: pytest.CaptureFixture[str]) -> None:
    show_share(ShareMade(Share(2, 6), Path("2.share"), 8, 0, 3, 2048))
    show_share(ShareMade(Share(1, 6), None, 1, 0, 1, 0))
    assert capfd.readouterr().out == (
        "share 2/6: 8 jobs, 3 compiled now; 2.share, 2.0 KiB\n"
        "share 1/6: 1 job, 1 compiled now; the remote has it\n"
    )


def test_shares_as_a_table() -> None:
    share: dict[str, Any] = {
        "share": "1/2", "seconds": 90.0, "longest": 60.0, "memory": 1 << 30,
        "jobs": ["csrc/a [sm_80]", "csrc/b"],
    }  # fmt: skip
    nothing = {"share": "2/2", "seconds": 0, "longest": 0, "memory": 0, "jobs": []}
    rows = share_rows([share, nothing])
    assert rows[0] == {
        "share": "1/2", "jobs": "2", "work": "1 min 30 s", "longest job": "1 min 00 s",
        "memory of a job": "1.0 GiB", "the first": "a [sm_80]",
    }  # fmt: skip
    assert (rows[1]["jobs"], rows[1]["the first"]) == ("0", "")
