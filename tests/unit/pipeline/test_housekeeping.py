"""The cache folder: what is counted, checked and deleted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest

from fatwheel.storage.cache import CacheReport, open_store, tend_cache

from ...helpers.schemas import FOLDER

SCHEMA = FOLDER / "cache.schema.json"
KEY = "ab" * 32


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path))
    return tmp_path


def look() -> CacheReport:
    return tend_cache(check=False, limit=None, clean=False)


def sizes(report: CacheReport) -> dict[str, int]:
    return {usage.kind: usage.bytes for usage in report.usage}


def test_an_empty_cache() -> None:
    assert look().usage == ()


def test_the_store_and_the_other_folders_are_counted(folder: Path) -> None:
    open_store().put("slice", KEY, b"12345")
    (folder / "downloads" / "deep").mkdir(parents=True)
    (folder / "downloads" / "deep" / "file").write_bytes(b"123")
    (folder / "downloads" / "link").symlink_to("nowhere")
    report = look()
    assert report.folder == folder
    assert sizes(report) == {"slice": 5, "downloads": 3 + len("nowhere")}
    downloads = report.usage[-1]
    assert downloads.entries == 2
    assert downloads.oldest <= downloads.newest


def test_a_file_with_two_names_counts_once(folder: Path) -> None:
    for name in ("environments", "packages"):
        (folder / name).mkdir()
    (folder / "packages" / "file").write_bytes(b"123")
    (folder / "environments" / "file").hardlink_to(folder / "packages" / "file")
    assert sizes(look()) == {"environments": 3, "packages": 0}


def test_clean_empties_the_store_and_nothing_else(folder: Path) -> None:
    open_store().put("slice", KEY, b"12345")
    (folder / "environments").mkdir()
    (folder / "environments" / "file").write_bytes(b"123")
    assert sizes(tend_cache(check=False, limit=None, clean=True)) == {"environments": 3}
    assert not open_store().has("slice", KEY)


def test_limit_deletes_what_was_used_least_recently() -> None:
    store = open_store()
    keys = ["aa" * 32, "bb" * 32]
    for age, key in enumerate(keys):
        store.put("slice", key, key.encode())
        ref = next(store.root.rglob(key))
        os.utime(ref, (1000.0 + age, 1000.0 + age))
    tend_cache(check=False, limit=64, clean=False)
    assert [store.has("slice", key) for key in keys] == [False, True]


def test_check_reports_what_is_damaged() -> None:
    store = open_store()
    sha256 = store.put("slice", KEY, b"12345")
    next(store.root.rglob(f"objects/*/{sha256}")).write_bytes(b"54321")
    damaged = tend_cache(check=True, limit=None, clean=False).damaged
    assert [(damage.kind, damage.key) for damage in damaged] == [("slice", KEY)]


def test_json_is_as_its_schema_says() -> None:
    open_store().put("slice", KEY, b"12345")
    document = {**json.loads(json.dumps(look().to_json())), "remote": None}
    jsonschema.validate(document, json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert document["kinds"][0]["bytes"] == 5


def test_the_schema_refuses_what_is_not_a_cache() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"folder": "x"}, json.loads(SCHEMA.read_text(encoding="utf-8")))
