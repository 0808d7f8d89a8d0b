"""The files beside a wheel against the wheel; every contradiction is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fatwheel.provenance.lock import lock_bytes
from fatwheel.verify.report import verify_wheel

from ...helpers.statedwheels import LOCK, STATEMENT, demo_files, demo_lock, results, said, write

# -- ways to tamper ------------------------------------------------------------------------------


def put(*path: str | int, value: Any) -> Callable[[Any], object]:
    """Another value at a place in a document."""

    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        assert content[path[-1]] != value, "it is the same"
        content[path[-1]] = value

    return change


def drop_last_material(statement: Any) -> None:
    del statement["predicate"]["buildDefinition"]["resolvedDependencies"][-1]


def add_material(statement: Any) -> None:
    material = {"name": "backdoor.whl", "digest": {"sha256": "ab" * 32}}
    statement["predicate"]["buildDefinition"]["resolvedDependencies"].append(material)


def other_material(statement: Any) -> None:
    materials = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    [torch] = [one for one in materials if one["name"].startswith("torch-")]
    torch["digest"]["sha256"] = "0" * 64


def beside(wheel: Path, change: Callable[[Any], object] = lambda statement: None) -> Path:
    """The statement that a build writes beside a wheel, changed."""
    inside = json.loads(demo_files()[STATEMENT])
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    inside["subject"] = [{"name": wheel.name, "digest": {"sha256": sha256}}]
    change(inside)
    path = wheel.with_name(wheel.name + ".provenance.json")
    path.write_bytes((json.dumps(inside, indent=1, sort_keys=True) + "\n").encode())
    return path


def with_an_image(statement: Any) -> None:
    """As the docker engine adds it."""
    definition = statement["predicate"]["buildDefinition"]
    definition["internalParameters"]["engine"] = "docker"
    definition["resolvedDependencies"].append(
        {"name": "fatwheel-env:1", "digest": {"sha256": "1" * 64}, "annotations": {"role": "image"}}
    )


def with_wine(statement: Any) -> None:
    """As the docker engine adds it for Windows, in Linux containers."""
    with_an_image(statement)
    statement["predicate"]["buildDefinition"]["resolvedDependencies"].append(
        {
            "name": "libwine_8.0~repack-4_amd64.deb",
            "digest": {"sha256": "2" * 64},
            "annotations": {"role": "wine"},
        }
    )


@pytest.mark.parametrize("change", [lambda statement: None, with_an_image, with_wine])
def test_a_statement_beside_the_wheel_may_say_more(
    tmp_path: Path, change: Callable[[Any], object]
) -> None:
    wheel = write(tmp_path, demo_files())
    beside(wheel, change)
    lock = wheel.with_name(wheel.name + ".lock.json")
    lock.write_bytes(demo_files()[LOCK])
    report = verify_wheel(wheel)
    assert (results(report), said(report)) == ({}, "")


def image_of_a_file_inside(statement: Any) -> None:
    definition = statement["predicate"]["buildDefinition"]
    name = definition["resolvedDependencies"][1]["name"]
    definition["resolvedDependencies"].append(
        {"name": name, "digest": {"sha256": "1" * 64}, "annotations": {"role": "image"}}
    )


BESIDE = [
    ("another file", put("subject", 0, "digest", "sha256", value="0" * 64),
     "it is not about this file"),
    ("another name", put("subject", 0, "name", value="other.whl"),
     "subject.other.whl: it does not belong there"),
    ("one subject more",
     lambda statement: statement["subject"].append({"name": "b", "digest": {"sha256": "1"}}),
     "subject.b: it does not belong there"),
    ("another torch",
     put("predicate", "buildDefinition", "externalParameters", "torch", value="2.10.0"),
     "it contradicts the statement in the wheel\n"
     'buildDefinition.externalParameters.torch: it says "2.10.0", not "2.11.0"'),
    ("another epoch",
     put("predicate", "buildDefinition", "internalParameters", "epoch", value=0),
     "buildDefinition.internalParameters.epoch: it says 0, not 1700000000"),
    ("another builder", put("predicate", "runDetails", "builder", "id", value="x"),
     "runDetails.builder.id"),
    ("another material", other_material, "torch-2.11.0-py3-none-any.whl.digest.sha256"),
    ("a material less", drop_last_material, "g++ is not there"),
    ("a material that is no image", add_material, "does not belong there"),
    ("an image with a name from inside", image_of_a_file_inside, "does not belong there"),
    ("materials that are none",
     put("predicate", "buildDefinition", "resolvedDependencies", value=[1, [], "x", None]),
     "fatwheel.lock.json is not there"),
    ("a newer kind", put("predicateType", value="https://slsa.dev/provenance/v2"),
     "its predicate is 'https://slsa.dev/provenance/v2'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"), [pytest.param(*rest, id=name) for name, *rest in BESIDE]
)
def test_a_statement_beside_the_wheel_must_not_say_otherwise(
    tmp_path: Path, change: Callable[[Any], object], words: str
) -> None:
    wheel = write(tmp_path, demo_files())
    path = beside(wheel, change)
    report = verify_wheel(wheel)
    assert results(report) == {"provenance": "wrong"}
    assert words in said(report)
    assert path.name in said(report)


def test_a_lock_beside_the_wheel_must_be_the_one_inside(tmp_path: Path) -> None:
    wheel = write(tmp_path, demo_files())
    other = replace(demo_lock(), host=replace(demo_lock().host, compiler="g++ 13.1.0"))
    wheel.with_name(wheel.name + ".lock.json").write_bytes(lock_bytes(other))
    report = verify_wheel(wheel)
    assert results(report) == {"provenance": "wrong"}
    assert "the lock beside the wheel is not the one in it" in said(report)


def test_a_statement_beside_a_wheel_that_lost_its_own(tmp_path: Path) -> None:
    files = {name: data for name, data in demo_files().items() if "fatwheel" not in name}
    wheel = write(tmp_path, files)
    beside(wheel)
    assert "the wheel has no statement that matches it" in said(verify_wheel(wheel))


def test_other_tools_files_beside_other_wheels_are_left_alone(tmp_path: Path) -> None:
    files = {name: data for name, data in demo_files().items() if "fatwheel" not in name}
    wheel = write(tmp_path, files)
    wheel.with_name(wheel.name + ".provenance.json").write_text("{}")
    report = verify_wheel(wheel)
    assert results(report) == {}
    assert "note: " in said(report)
