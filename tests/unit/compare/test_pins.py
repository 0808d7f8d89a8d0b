"""Locks and records that say another thing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fatwheel.compare.device import Slices
from fatwheel.compare.differences import Difference, Position
from fatwheel.compare.documents import differing_locks, differing_records, differing_text
from fatwheel.provenance.lock import lock_bytes

from ...helpers.statedwheels import as_json, demo_lock, demo_record, edited, package

LOCK = lock_bytes(demo_lock())
RECORD = as_json(demo_record(demo_lock()))
PLACE = Position("demo.dist-info/x.json")


def locks(change: Callable[[Any], object]) -> list[Difference]:
    return list(differing_locks(PLACE, LOCK, edited(LOCK, change)))


def records(
    change: Callable[[Any], object], *seen: str, locked: bool = False
) -> list[tuple[str, str]]:
    slices = Slices(None), Slices(None)
    slices[0].seen |= set(seen)
    data = RECORD, edited(RECORD, change)
    return [(found.level, found.what) for found in differing_records(PLACE, data, slices, locked)]


def test_a_pin_by_its_name() -> None:
    lock = demo_lock()
    newer = package("ninja", "1.13.3", "build")
    packages = (lock.toolchain.packages[0], newer)
    other = replace(lock, toolchain=replace(lock.toolchain, packages=packages))
    [found] = differing_locks(PLACE, LOCK, lock_bytes(other))
    assert (found.level, found.place) == ("pins", PLACE)
    assert found.what.startswith("ninja (build): 1.13.2 ")
    assert " became 1.13.3 " in found.what
    assert newer.sha256 in found.what


def test_the_host_compiler() -> None:
    lock = demo_lock()
    host = replace(lock.host, compiler="g++ 14.2.0")
    found = list(differing_locks(PLACE, LOCK, lock_bytes(replace(lock, host=host))))
    assert any("g++ 12.2.0 became g++ 14.2.0" in each.what for each in found), found
    assert {each.level for each in found} == {"pins"}


def test_what_the_lock_s_words_leave_out_is_told_by_its_field() -> None:
    lock = demo_lock()
    other = lock_bytes(replace(lock, recipe=replace(lock.recipe, digest="f" * 64)))
    [found] = differing_locks(PLACE, LOCK, other)
    assert found.what == f"recipe.digest: {'d' * 64} became {'f' * 64}"


def test_a_lock_that_cannot_be_read_is_compared_by_its_lines() -> None:
    [found] = locks(lambda lock: lock.update(schema=99))
    assert (found.level, found.what.split()[0]) == ("text", "line")
    assert (found.one, found.other) == (' "schema": 1,', ' "schema": 99,')
    found_all = list(differing_locks(PLACE, LOCK, b"["))
    assert {each.level for each in found_all} == {"text"}


def test_fields_of_a_record() -> None:
    assert records(lambda record: record.update(front="exact")) == [
        ("pins", "front: auto became exact")
    ]
    assert records(lambda record: record["recipe"].update(version="1.1")) == [
        ("pins", "recipe.version: 1.0 became 1.1")
    ]


def test_what_the_lock_tells_already_is_left_out() -> None:
    def change(record: Any) -> None:
        record["lock"] = "0" * 64
        record["recipe"]["version"] = "1.1"
        record["front"] = "exact"

    assert records(change, locked=True) == [("pins", "front: auto became exact")]


def test_slices_that_are_right_in_both_wheels_are_left_out() -> None:
    old = json.loads(RECORD)["units"][0]["slices"]["sm_80"]

    def change(record: Any) -> None:
        record["units"][0]["slices"]["sm_80"] = "1" * 64

    assert records(change, old, "1" * 64) == []
    told = ("text", f"units[csrc/a.o].slices.sm_80: {old} became {'1' * 64}")
    assert records(change, old) == [told], "no binary holds the new slice"


def test_fronts_follow_from_the_architectures() -> None:
    def change(record: Any) -> None:
        record["archs"].append("121")
        record["fronts"].append({"virtual": "compute_121", "codes": ["sm_121"]})

    [(level, what)] = records(change)
    assert level == "pins"
    assert what.startswith("archs: [")


def test_a_record_that_cannot_be_read_is_compared_by_its_lines() -> None:
    data = RECORD, RECORD[:-3]
    slices = Slices(None), Slices(None)
    found = list(differing_records(PLACE, data, slices, locked=False))
    assert {each.level for each in found} == {"text"}


def test_what_is_no_text_is_compared_as_bytes() -> None:
    [found] = differing_text(PLACE, b"\xff\x00", b"\xff\x01")
    assert (found.level, found.what) == (
        "binary", "2 bytes in both; the first that differs is at 0x1",
    )  # fmt: skip
