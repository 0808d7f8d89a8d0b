"""fatwheel.json: what it must claim, and in which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fatwheel.errors import FormatError
from fatwheel.verify.claims import asked_codes, read_claims

from ...helpers.statedwheels import SLICES, demo_lock, demo_record


def test_a_builds_record_is_read() -> None:
    found = read_claims(demo_record(demo_lock()), "fatwheel.json")
    assert found.recipe.project == "demo"
    assert found.toolchain.nvcc == "13.0.88"
    assert found.codes == {"sm_80", "compute_80", "sm_90a", "sm_120f"}
    assert [(unit.name, unit.slices) for unit in found.units] == [("csrc/a.o", SLICES)]


def test_what_a_newer_fatwheel_adds_is_no_mistake() -> None:
    found = read_claims({**demo_record(demo_lock()), "more": 1}, "fatwheel.json")
    assert found.python == "3.11"


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
        read_claims(record, "fatwheel.json")
    assert caught.value.where == "fatwheel.json"
    [detail] = caught.value.details
    assert detail.startswith(words)


def test_many_mistakes_are_shortened() -> None:
    units = [{"name": 1, "slices": {}}] * 1000
    with pytest.raises(FormatError) as caught:
        read_claims({**demo_record(demo_lock()), "units": units}, "fatwheel.json")
    assert len(caught.value.details) < 20


@pytest.mark.parametrize(
    ("archs", "codes"),
    [
        ((), set()),
        (("80",), {"sm_80"}),
        (("80+ptx", "90a"), {"sm_80", "compute_80", "sm_90a"}),
        (("ptx89",), {"compute_89"}),
    ],
)
def test_archs_ask_for_images(archs: tuple[str, ...], codes: set[str]) -> None:
    assert asked_codes(archs) == codes


@pytest.mark.parametrize("text", ["", "eighty", "80+sass", "ptx", "ptx80+ptx", "8" * 1000])
def test_what_is_no_architecture_is_refused(text: str) -> None:
    with pytest.raises(FormatError) as caught:
        asked_codes((text,))
    assert len(str(caught.value)) < 200
