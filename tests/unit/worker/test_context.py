from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from fatwheel.model import Job, Unit
from fatwheel.worker.context import (
    context_from_wire,
    digest,
    fingerprint,
    fronts_from_wire,
    job_from_wire,
    unit_from_wire,
)

from ...helpers.standins import cpp_unit, cuda_unit, front, fronts_of_list, make_context

UNIT = cuda_unit("csrc/a", "-D", "A=1", "-I", "@src@/inc", codegen=("-O3", "-std", "c++17"))


def test_a_context_crosses_a_process_boundary_whole(tmp_path: Path) -> None:
    context = make_context(
        tmp_path,
        fronts=fronts_of_list(800, 900),
        seeded=False,
        store_scope="ab",
        store_trunks=("/a", "/b"),
    )
    data = json.loads(json.dumps(context.to_wire()))
    assert context_from_wire(data) == context


@pytest.mark.parametrize(
    "job",
    [
        Job(UNIT, front("80", "sm_80", "compute_80"), host=True, memory=1 << 32, seconds=1.5),
        Job(UNIT, front("90a"), host=False, memory=0, seconds=0),
        Job(cpp_unit("csrc/b"), None, host=True, memory=1, seconds=2),
    ],
)
def test_a_job_crosses_a_process_boundary_whole(job: Job) -> None:
    found = job_from_wire(json.loads(json.dumps(dataclasses.asdict(job))))
    assert found == job
    assert hash(found) == hash(job), "jobs are keys of dictionaries"


def test_fronts_and_units_cross_a_process_boundary_whole() -> None:
    fronts = (front("80", "sm_80", "sm_86"), front("120f"))
    wire = json.loads(json.dumps([dataclasses.asdict(item) for item in fronts]))
    assert fronts_from_wire(wire) == fronts
    assert unit_from_wire(json.loads(json.dumps(dataclasses.asdict(UNIT)))) == UNIT


def test_a_digest_is_over_the_values_not_over_how_they_are_held() -> None:
    # printf '["a",[1,2],{"x":1,"y":null}]' | sha256sum
    known = "3eb6f602f0146f02761e572f7a8830b2ee99cca85beaeb2a3dbff751e9c10a36"
    assert digest("a", (1, 2), {"y": None, "x": 1}) == known
    assert digest("a", [1, 2], {"x": 1, "y": None}) == known


def test_different_parts_give_different_digests() -> None:
    # Parts that would be the same text if they were only put in a row.
    parts = [("ab", "c"), ("a", "bc"), ("abc",), (["ab", "c"],), ("ab", ["c"]), ("ab", None, "c")]
    assert len({digest(*item) for item in parts}) == len(parts)


PLANNED = ("own", "images")  # what it is to be compiled for


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Unit)])
def test_a_fingerprint_covers_every_field_of_a_unit_but_its_architectures(name: str) -> None:
    value = getattr(UNIT, name)
    other = (*(value or ()), "-X") if name in PLANNED or isinstance(value, tuple) else f"{value}x"
    same = fingerprint(dataclasses.replace(UNIT, **{name: other})) == fingerprint(UNIT)
    assert same == (name in PLANNED)
