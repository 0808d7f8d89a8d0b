"""The document of a plan: its shape is the schema's, and its sums are right."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jsonschema
import pytest

from fatwheel.pipeline.plan import BuildPlan

from ...helpers.plandocuments import EVERY, LINUX, PROCESSES, WINDOWS
from ...helpers.schemas import schema_of

SCHEMA = schema_of("plan")


def document_of(plan: BuildPlan) -> Any:
    """What a program reads, of which nothing but JSON is left."""
    return json.loads(json.dumps(plan.to_json()))


@pytest.mark.parametrize("plan", EVERY.values(), ids=EVERY)
def test_json_is_as_its_schema_says(plan: BuildPlan) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(document_of(plan), SCHEMA)


def test_the_schema_says_every_field_and_no_other() -> None:
    assert set(SCHEMA["properties"]) == set(SCHEMA["required"]) == set(WINDOWS.to_json())


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "podman"},
        {"jobs": 0},
        {"wheels": []},
        {"archs": ["sm_80"]},
        {"surprise": 1},
        {"containers": [{"python": "3.11"}]},
    ],
)
def test_the_schema_refuses_what_is_no_plan(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document_of(WINDOWS), **change}, SCHEMA)


def test_device_code_is_counted_for_each_python() -> None:
    assert WINDOWS.device_containers[0] == 3
    assert WINDOWS.device_containers[1] == 0, "host code is no device code"
    assert LINUX.device_containers[0] == 1
    assert PROCESSES.device_containers[0] == 0


def test_what_is_to_be_locked_is_named_once() -> None:
    footprint = WINDOWS.footprint
    assert footprint.unlocked == (
        "servercore:ltsc2022",
        "headers.vsix",
        "torch-2.1.1+cu121-cp310-cp310-win_amd64.whl",
        "torch-2.1.1+cu121-cp311-cp311-win_amd64.whl",
    )
    twice = dataclasses.replace(footprint, images=footprint.images + footprint.images)
    assert twice.unlocked == footprint.unlocked
    assert document_of(WINDOWS)["unlocked"] == list(footprint.unlocked)
