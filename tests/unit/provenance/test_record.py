from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from fatwheel.errors import FormatError, StitchError
from fatwheel.provenance.record import (
    BuildRecord,
    merged,
    record_bytes,
    record_of,
    thinned,
    unproven,
    whole,
)

from ...helpers.statedwheels import SLICES, demo_lock, demo_record


def record(*codes: str, toolchain: str = "cuda13", archs: list[str] | None = None) -> bytes:
    """As a build for these images writes it, each with a front of its own."""
    return record_bytes(
        {
            "schema": 1,
            "toolchain": {"name": toolchain},
            "archs": archs or ["as asked for"],
            "fronts": [{"virtual": virtual(code), "codes": [code]} for code in codes],
            "units": [
                {"name": name, "slices": {code: f"{name} {code}" for code in codes}}
                for name in ("b.o", "a.o")
            ],
        }
    )


def virtual(code: str) -> str:
    return code.replace("sm_", "compute_")


FAT: dict[str, Any] = {
    "schema": 1,
    "fatwheel": "0.1",
    "archs": ["80", "86", "89+ptx"],
    "front": "auto",
    "fronts": [
        {"virtual": "compute_80", "codes": ["sm_80", "sm_86"]},
        {"virtual": "compute_89", "codes": ["sm_89", "compute_89"]},
    ],
    "units": [
        {"name": "b.o", "slices": {"sm_80": "1", "sm_86": "2", "sm_89": "3", "compute_89": None}},
        {"name": "a.o", "slices": {"sm_80": "4", "sm_86": "5", "sm_89": "6", "compute_89": "7"}},
        # The same source compiled twice: two units of one name.
        {"name": "a.o", "slices": {"sm_80": "8", "sm_86": "9", "sm_89": "10", "compute_89": "11"}},
    ],
}
IMAGES = ("sm_80", "sm_86", "sm_89", "compute_89")


SOME: dict[str, Any] = {**FAT, "front_units": ["a.o"]}


def test_exact_fronts_are_of_one_build_with_one_that_some_units_share() -> None:
    """`--arch 80,86` by a proof of some units, and `--arch 89`: in any order."""
    fat = record_bytes(SOME)
    shared, exact = thinned(fat, {"sm_80", "sm_86"}), thinned(fat, {"sm_89", "compute_89"})
    assert json.loads(shared)["front_units"] == ["a.o"]
    assert "front_units" not in json.loads(exact), "one front of its own, for all units"
    whole_again = merged([exact, shared])
    assert whole_again == merged([shared, exact]) == thinned(fat, IMAGES)
    assert json.loads(whole_again)["front_units"] == ["a.o"]


def test_fronts_that_other_units_share_are_of_another_build() -> None:
    fat = [record_bytes({**FAT, "front_units": units}) for units in (["a.o"], ["b.o"])]
    parts = [thinned(one, {"sm_80", "sm_86"}) for one in (record_bytes(FAT), *fat)]
    assert len(json.loads(merged(parts))["stitched"]) == 3


def test_a_record_says_only_what_is_left() -> None:
    found = json.loads(thinned(record_bytes(FAT), {"sm_86", "compute_89"}))
    assert found == {
        "schema": 1,
        "fatwheel": "0.1",
        "archs": ["86", "ptx89"],
        "front": "auto",
        "fronts": [
            {"virtual": "compute_80", "codes": ["sm_86"]},
            {"virtual": "compute_89", "codes": ["compute_89"]},
        ],
        "units": [
            {"name": "b.o", "slices": {"sm_86": "2", "compute_89": None}},
            {"name": "a.o", "slices": {"sm_86": "5", "compute_89": "7"}},
            {"name": "a.o", "slices": {"sm_86": "9", "compute_89": "11"}},
        ],
    }


def test_where_everything_is_left_the_record_stays_the_same() -> None:
    data = record_bytes(FAT)
    assert thinned(data, set(IMAGES)) == data
    assert merged([data]) == data


def split_record(front: str = "fast", **split: int) -> bytes:
    """Of a build with these fronts, one for each architecture."""
    fronts = [
        {
            "virtual": f"compute_{arch[2:]}",
            "codes": [f"sm_{arch[2:]}"],
            **({"split": n} if n else {}),
        }
        for arch, n in split.items()
    ]
    codes = [one["codes"][0] for one in fronts]
    units = [{"name": "a.o", "slices": {code: f"{front} {code}" for code in codes}}]
    return record_bytes(
        {"schema": 1, "front": front, "archs": [], "fronts": fronts, "units": units}
    )


def test_what_was_split_stays_so_in_edited_wheels() -> None:
    data = split_record(sm80=4, sm86=4)
    assert json.loads(thinned(data, {"sm_86"}))["fronts"] == [
        {"virtual": "compute_86", "codes": ["sm_86"], "split": 4}
    ]
    parts = [thinned(data, {code}) for code in ("sm_86", "sm_80")]
    assert json.loads(merged(parts))["fronts"] == json.loads(data)["fronts"]
    mixed = [split_record("auto", sm80=4), split_record("auto", sm86=0)]
    assert json.loads(merged(mixed))["fronts"] == [
        {"virtual": "compute_80", "codes": ["sm_80"], "split": 4},
        {"virtual": "compute_86", "codes": ["sm_86"]},
    ]


def test_who_builds_without_proof_is_told_in_every_wheel_that_comes_of_it() -> None:
    fast, exact = split_record(sm80=4), split_record("exact", sm86=0)
    assert unproven(fast) == ("fast",)
    assert unproven(exact) == unproven(record_bytes(FAT)) == unproven(None) == unproven(b"{") == ()
    assert unproven(thinned(fast, {"sm_80"})) == ("fast",)
    assert unproven(record_bytes({**json.loads(fast), "front": [["fast"]]})) == (), "damaged"
    assert unproven(merged([exact, fast, split_record("shared", sm89=0)])) == ("shared", "fast")


@pytest.mark.parametrize("split", [-1, 65, "4", 4.0, None, True, [4]])
def test_a_number_of_parts_that_makes_no_sense(split: object) -> None:
    front = {"virtual": "compute_80", "codes": ["sm_80"], "split": split}
    with pytest.raises(FormatError, match="damaged"):
        record_of(record_bytes({"schema": 1, "fronts": [front], "units": []}))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_merging_undoes_thinning(count: int) -> None:
    data = record_bytes(FAT)
    for left in itertools.product(*[itertools.combinations(IMAGES, count)] * 2):
        for parts in itertools.permutations(left):
            together = set().union(*parts)
            found = merged([thinned(data, set(part)) for part in parts])
            assert found == thinned(data, together), f"stitched from {parts}"


def test_builds_for_other_architectures_become_one() -> None:
    one, other = record("sm_80"), record("sm_90a", "compute_90a")
    found = json.loads(merged([other, one]))
    assert merged([one, other]) == merged([other, one])
    assert found["archs"] == ["80", "90a+ptx"]
    assert [unit["name"] for unit in found["units"]] == ["b.o", "a.o"], "the builds' own order"
    assert found["units"][0]["slices"] == {
        "sm_80": "b.o sm_80", "sm_90a": "b.o sm_90a", "compute_90a": "b.o compute_90a",
    }  # fmt: skip


def test_other_builds_keep_records_of_their_own() -> None:
    old, new = record("sm_80", toolchain="cuda12"), record("sm_86", "sm_90", toolchain="cuda13")
    data = merged([new, old])
    assert data == merged([old, new])
    builds = json.loads(data)["stitched"]
    assert [build["toolchain"]["name"] for build in builds] == ["cuda12", "cuda13"]
    assert merged([data, new]) == data, "stitching what is in it adds nothing"
    assert thinned(data, {"sm_80"}) == thinned(old, {"sm_80"})
    assert merged([thinned(data, {"sm_80"}), thinned(data, {"sm_86"})]) == thinned(
        data, {"sm_80", "sm_86"}
    )


def test_slices_that_contradict_are_refused() -> None:
    other = record("sm_80").replace(b"a.o sm_80", b"another")
    with pytest.raises(StitchError) as caught:
        merged([record("sm_80"), other])
    assert str(caught.value) == (
        "a.o: the wheels' fatwheel.json files name different slices for sm_80"
    )


def test_a_newer_schema_is_refused() -> None:
    with pytest.raises(FormatError) as caught:
        thinned(b'{"schema": 2, "units": "unlike anything known"}', {"sm_80"})
    assert str(caught.value) == (
        "fatwheel.json: schema 2 of fatwheel.json is not supported\n"
        "  supported: 1; was the wheel made by a newer fatwheel?"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b"3", b"{}", b"\xff", b'{"schema": 1}',
        b'{"schema": 1, "stitched": 3}', b'{"schema": 1, "stitched": [3]}',
        b'{"schema": 1, "fronts": [], "units": [{"name": 1, "slices": {}}]}',
        b'{"schema": 1, "fronts": [], "units": [{"name": "a", "slices": {"sm_80": 1}}]}',
        b'{"schema": 1, "fronts": [], "units": [{"name": "a", "slices": {"gfx90": "1"}}]}',
        b'{"schema": 1, "fronts": [{"virtual": [], "codes": []}], "units": []}',
        b'{"schema": 1, "fronts": [{"virtual": "80", "codes": [{}]}], "units": []}',
        b'{"schema": 1, "fronts": 7, "units": []}',
        b"[" * 100_000,
        b'{"schema": ' + b"9" * 10_000 + b"}",
    ],
)  # fmt: skip
def test_damaged_records_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        merged([data])
    assert caught.value.where == "fatwheel.json"


def test_whatever_is_nested_too_deeply_is_refused() -> None:
    """How deep that is depends on Python; reading and writing have limits of their own."""
    start = record("sm_80").rstrip().removesuffix(b"}")
    refused = 0
    for depth in (*range(50, 3 * sys.getrecursionlimit(), 50), 100_000):
        try:
            thinned(start + b', "more": ' + b"[" * depth + b"]" * depth + b"}", {"sm_80"})
        except FormatError:
            refused += 1
    assert refused


# -- a whole record --------------------------------------------------------------------------------


def read(record: dict[str, Any]) -> BuildRecord:
    return whole(record_of(record_bytes(record)))


def test_a_builds_record_is_read() -> None:
    found = read(demo_record(demo_lock()))
    assert found.recipe.project == "demo"
    assert found.toolchain.nvcc == "13.0.88"
    assert found.codes == {"sm_80", "compute_80", "sm_90a", "sm_120f"}
    assert [(unit.name, unit.slices) for unit in found.units] == [("csrc/a.o", SLICES)]


def test_what_a_newer_fatwheel_adds_is_no_mistake() -> None:
    record = {**demo_record(demo_lock()), "more": {"of": [1]}}
    assert read(record).python == "3.11"
    assert json.loads(thinned(record_bytes(record), {"sm_80"}))["more"] == {"of": [1]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record.pop("units"), "units: Field required"),
        (lambda record: record.update(archs="80"), "archs: "),
        (lambda record: record.update(python=3.11), "python: "),
        (lambda record: record["recipe"].pop("source"), "recipe.source: Field required"),
        (lambda record: record["units"][0].update(slices=[]), "units.0.slices: "),
        (lambda record: record["fronts"][1].update(codes=[1]), "fronts.1.codes.0: "),
    ],
)
def test_what_is_missing_or_of_another_kind_is_named(
    change: Callable[[Any], object], words: str
) -> None:
    record = demo_record(demo_lock())
    change(record)
    with pytest.raises(FormatError) as caught:
        read(record)
    assert caught.value.where == "fatwheel.json"
    assert words in str(caught.value)


@pytest.mark.parametrize("part", ["units", "fronts", "archs"])
def test_a_million_mistakes_are_not_all_found(part: str) -> None:
    """Each costs time and memory."""
    with pytest.raises(FormatError) as caught:
        read({**demo_record(demo_lock()), part: [{"name": 1, "slices": {}}] * 100_000})
    assert len(str(caught.value)) < 600
