"""What edited wheels say of the build that they are from."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fatwheel.arch import parse_gpu_list
from fatwheel.edit.stitch import stitch_wheels
from fatwheel.edit.survey import Edited
from fatwheel.edit.thin import thin
from fatwheel.fatbin.images import selection_for
from fatwheel.provenance.origin import Origin, edited_origin
from fatwheel.provenance.statement import read_statement
from fatwheel.verify.report import verify_wheel

from ...helpers.deviceimages import read_wheel
from ...helpers.statedwheels import (
    INFO,
    LOCK,
    NAME,
    RECORD,
    SBOM,
    STATEMENT,
    Files,
    as_json,
    demo_files,
    demo_lock,
    edited,
    write,
)

ARCHS = ("80+ptx", "90a", "120f")
TOLD = (
    "fatwheel.json",
    "fatwheel.lock.json",
    "fatwheel.provenance.json",
    "sboms/fatwheel.cdx.json",
)


def fat(folder: Path, files: Files | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return write(folder, files or demo_files())


def thinned(wheel: Path, arch: str, out: Path) -> Edited:
    return thin(wheel, selection_for(parse_gpu_list(arch)), out)


def parts(wheel: Path, out: Path) -> list[Path]:
    return [thinned(wheel, arch, out).path for arch in ARCHS]


def told(wheel: Path) -> dict[str, bytes]:
    """The files that tell of its build, by their names in the dist-info folder."""
    found = {}
    for name, data in read_wheel(wheel).items():
        _, is_info, rest = name.partition(".dist-info/")
        if is_info and "fatwheel" in rest:
            found[rest] = data
    return found


def provenance(wheel: Path) -> tuple[str, list[str]]:
    """What `verify` makes of it: the worst it says, and all notes."""
    [check] = [one for one in verify_wheel(wheel).checks if one.name == "provenance"]
    return check.result, [finding.what for finding in check.findings]


# -- kept ----------------------------------------------------------------------------------------


def test_a_thin_wheel_keeps_the_lock_and_tells_of_itself(tmp_path: Path) -> None:
    whole = fat(tmp_path)
    made = thinned(whole, "90a", tmp_path / "out")
    assert made.notes == ()
    assert provenance(made.path) == ("ok", [])
    found = told(made.path)
    assert sorted(found) == sorted(TOLD)
    assert found["fatwheel.lock.json"] == demo_files()[LOCK]
    statement = read_statement(found["fatwheel.provenance.json"], "s")
    assert statement.build_type == "urn:fatwheel:edit:1"
    definition = statement.predicate["buildDefinition"]
    assert definition["externalParameters"]["archs"] == ["90a"]
    whole_statement = read_statement(demo_files()[STATEMENT], "s")
    materials = whole_statement.predicate["buildDefinition"]["resolvedDependencies"]
    assert definition["resolvedDependencies"] == materials
    assert json.loads(found["sboms/fatwheel.cdx.json"])["metadata"]["component"]["version"] == (
        "1.0+cu130torch2.11.sm90a"
    )
    assert INFO.encode() not in found["fatwheel.provenance.json"], "it names the wheel it is from"


def test_thinning_twice_is_thinning_once(tmp_path: Path) -> None:
    once = thinned(fat(tmp_path), "90a", tmp_path / "once").path
    twice = thinned(
        thinned(fat(tmp_path), "80+ptx,90a", tmp_path / "a").path, "90a", tmp_path / "b"
    )
    assert twice.path.read_bytes() == once.read_bytes()


def test_parts_stitched_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    pieces = parts(fat(tmp_path), tmp_path / "parts")
    made = [
        stitch_wheels(order, tmp_path / str(number)).path
        for number, order in enumerate(itertools.permutations(pieces))
    ]
    assert {path.name for path in made} == {NAME}
    assert len({path.read_bytes() for path in made}) == 1
    assert provenance(made[0]) == ("ok", [])
    half = stitch_wheels(pieces[:2], tmp_path / "half").path
    again = stitch_wheels([pieces[2], half], tmp_path / "again").path
    assert again.read_bytes() == made[0].read_bytes()


def test_parts_and_the_whole_tell_of_the_same_build(tmp_path: Path) -> None:
    whole = fat(tmp_path)
    stitched = stitch_wheels(parts(whole, tmp_path / "parts"), tmp_path / "out").path
    assert told(stitched)["fatwheel.json"] == demo_files()[RECORD]
    assert told(stitched)["fatwheel.lock.json"] == demo_files()[LOCK]
    assert told(stitched)["sboms/fatwheel.cdx.json"] == demo_files()[SBOM]


# -- left out ------------------------------------------------------------------------------------


def built_otherwise() -> Files:
    """The same wheel, but for another compiler on the host."""
    return demo_files(replace(demo_lock(), host=replace(demo_lock().host, compiler="g++ 13.1.0")))


def different(folder: Path) -> list[Path]:
    """Three parts of which the second was built otherwise."""
    one = parts(fat(folder / "one"), folder / "parts")
    other = parts(fat(folder / "two", built_otherwise()), folder / "others")
    assert provenance(other[1]) == ("ok", [])
    return [one[0], other[1], one[2]]


def test_wheels_with_different_locks_give_one_that_names_none(tmp_path: Path) -> None:
    pieces = different(tmp_path)
    made = [
        stitch_wheels(order, tmp_path / str(number))
        for number, order in enumerate(itertools.permutations(pieces))
    ]
    assert len({one.path.read_bytes() for one in made}) == 1
    assert sorted(told(made[0].path)) == ["fatwheel.json"]
    assert "lock" not in json.loads(told(made[0].path)["fatwheel.json"])
    assert any("not built from the same lock" in note for note in made[0].notes)
    result, [words] = provenance(made[0].path)
    assert (result, words) == (
        "ok", "fatwheel.json names no lock: what it was built from is unknown",
    )  # fmt: skip


def test_the_order_of_steps_makes_no_difference_there_either(tmp_path: Path) -> None:
    one, other, third = different(tmp_path)
    first = stitch_wheels([one, third], tmp_path / "a").path
    left = stitch_wheels([first, other], tmp_path / "b").path
    second = stitch_wheels([one, other], tmp_path / "c").path
    right = stitch_wheels([second, third], tmp_path / "d").path
    assert left.read_bytes() == right.read_bytes()


def test_a_part_without_any_record_takes_the_lock_from_all(tmp_path: Path) -> None:
    pieces = parts(fat(tmp_path), tmp_path / "parts")
    bare = {name: data for name, data in demo_files().items() if "fatwheel" not in name}
    other = thinned(fat(tmp_path / "bare", bare), "90a", tmp_path / "others").path
    assert told(other) == {}
    made = stitch_wheels([pieces[0], other, pieces[2]], tmp_path / "out")
    assert sorted(told(made.path)) == ["fatwheel.json"]
    assert provenance(made.path)[0] == "ok"


def without(name: str) -> Any:
    def spoil(files: Files) -> None:
        del files[name]

    return spoil


def other_digest(files: Files) -> None:
    files[RECORD] = edited(files[RECORD], lambda record: record.update(lock="0" * 64))


def damaged(files: Files) -> None:
    files[LOCK] = b"{}"


def newer(files: Files) -> None:
    files[LOCK] = edited(files[LOCK], lambda lock: lock.update(schema=2))


def without_front(files: Files) -> None:
    files[RECORD] = edited(files[RECORD], lambda record: record.pop("front"))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without(LOCK), "there is no fatwheel.lock.json"),
        (without(SBOM), "there is no sboms/fatwheel.cdx.json"),
        (without(STATEMENT), "there is no fatwheel.provenance.json"),
        (other_digest, "fatwheel.lock.json: it is not the lock of the build"),
        (damaged, "fatwheel.lock.json: it is not the lock of the build"),
        (newer, "fatwheel.lock.json: it is not the lock of the build"),
        (without_front, "fatwheel.json: it has no 'front'"),
    ],
)
def test_what_is_not_whole_is_not_kept(tmp_path: Path, spoil: Any, words: str) -> None:
    files = demo_files()
    spoil(files)
    made = thinned(fat(tmp_path, files), "90a", tmp_path / "out")
    assert sorted(told(made.path)) == ["fatwheel.json"]
    assert made.notes == (f"{NAME}: its build records were dropped: {words}",)
    assert provenance(made.path)[0] == "ok"


def test_a_lock_of_a_newer_fatwheel_is_not_kept(tmp_path: Path) -> None:
    files = demo_files()
    newer(files)
    files[RECORD] = edited(
        files[RECORD], lambda record: record.update(lock=hashlib.sha256(files[LOCK]).hexdigest())
    )
    made = thinned(fat(tmp_path, files), "90a", tmp_path / "out")
    assert sorted(told(made.path)) == ["fatwheel.json"]
    assert "schema 2" in made.notes[0]


def test_without_a_record_nothing_is_kept(tmp_path: Path) -> None:
    files = demo_files()
    del files[RECORD]
    made = thinned(fat(tmp_path, files), "90a", tmp_path / "out")
    assert told(made.path) == {}
    assert "there is no fatwheel.json" in made.notes[0]


def test_wheels_of_older_fatwheels_are_edited_as_before(tmp_path: Path) -> None:
    files = {
        name: data
        for name, data in demo_files().items()
        if name == RECORD or "fatwheel" not in name
    }
    files[RECORD] = edited(files[RECORD], lambda record: record.pop("lock"))
    made = thinned(fat(tmp_path, files), "90a", tmp_path / "out")
    assert made.notes == ()
    record = json.loads(told(made.path)["fatwheel.json"])
    assert record["archs"] == ["90a"]


# -- by itself -----------------------------------------------------------------------------------


def both(records: Sequence[bytes]) -> bytes:
    """Records of several builds."""
    return as_json({"stitched": [json.loads(record) for record in records]})


def test_records_of_several_builds_name_no_lock_although_it_is_the_same() -> None:
    record = as_json({"schema": 1, "lock": "1", "fronts": [{"virtual": "80", "codes": ["sm_80"]}],
                      "units": []})  # fmt: skip
    origins = [Origin(record, b"lock"), Origin(record, b"lock")]
    found = edited_origin(origins, both)
    assert found is not None
    assert found.lock is None
    assert b"lock" not in found.record


def test_no_origin_gives_none() -> None:
    assert edited_origin([None, None], both) is None
