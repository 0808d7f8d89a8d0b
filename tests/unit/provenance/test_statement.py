"""Statements as they are written and read.

The oracle of their form is in-toto's own package: the protobuf messages of Statement v1 and of
SLSA's provenance v1, which refuse fields that they do not know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement as Published

from fatwheel.errors import FormatError
from fatwheel.provenance.lock import Material, lock_bytes
from fatwheel.provenance.statement import (
    BUILD,
    EDIT,
    extended,
    predicate_of,
    read_statement,
    statement_bytes,
)

from ...helpers.somelocks import LINUX, TOOLCHAINS, some_lock
from ...helpers.statedwheels import as_json, demo_lock, demo_record

SUBJECTS = [("demo/b.so", "b" * 64), ("demo/a.py", "a" * 64)]
IMAGE = Material("image", "fatwheel-env:1a2b", "", "", 0, "1" * 64, "")
RECORD = {"fatwheel": "0.1.0", "archs": ["80"], "front": "auto", "fronts": []}


def demo_statement(change: Callable[[Any], object] = lambda content: None) -> bytes:
    lock = demo_lock()
    content = json.loads(statement_bytes(SUBJECTS, predicate_of(lock, demo_record(lock))))
    change(content)
    return as_json(content)


def check_published(data: bytes) -> None:
    """Whether in-toto's own package reads every part of a statement."""
    statement = json_format.Parse(data, statement_pb2.Statement())
    Published.copy_from_pb(statement).validate()
    predicate = json.dumps(json.loads(data)["predicate"])
    provenance = json_format.Parse(predicate, provenance_pb2.Provenance())
    definition = provenance.build_definition
    assert definition.build_type
    assert definition.external_parameters.fields
    assert provenance.run_details.builder.id
    assert not provenance.run_details.HasField("metadata"), "times are not the same twice"
    for dependency in definition.resolved_dependencies:
        ResourceDescriptor.copy_from_pb(dependency).validate()
        assert dependency.digest["sha256"]


# -- as it is written ----------------------------------------------------------------------------


@pytest.mark.parametrize("toolchain", TOOLCHAINS)
def test_statements_are_what_in_toto_and_slsa_publish(toolchain: str) -> None:
    predicate = predicate_of(some_lock(toolchain), RECORD, [IMAGE], {"engine": "docker"})
    check_published(statement_bytes(SUBJECTS, predicate))


def test_the_published_schemas_refuse_what_they_do_not_know() -> None:
    """So the test above can fail."""
    spoilt = demo_statement(lambda content: content["predicate"].update(builder={}))
    with pytest.raises(json_format.ParseError):
        check_published(spoilt)


def test_a_statement_says_what_was_asked_for_and_what_followed() -> None:
    content = json.loads(demo_statement())
    assert content["_type"] == "https://in-toto.io/Statement/v1"
    assert content["predicateType"] == "https://slsa.dev/provenance/v1"
    assert content["subject"] == [
        {"name": "demo/a.py", "digest": {"sha256": "a" * 64}},
        {"name": "demo/b.so", "digest": {"sha256": "b" * 64}},
    ]
    definition = content["predicate"]["buildDefinition"]
    assert definition["buildType"] == "urn:fatwheel:build:1"
    assert definition["externalParameters"] == {
        "recipe": {"name": "demo", "project": "demo", "version": "1.0"},
        "archs": ["80+ptx", "90a", "120f"],
        "front": "auto",
        "python": "3.11",
        "torch": "2.11.0",
        "toolchain": "tiny",
    }
    internal = definition["internalParameters"]
    assert internal["epoch"] == 1700000000
    assert internal["host"] == {"compiler": "g++ 12.2.0", "python": "3.11.7"}
    assert [front["virtual"] for front in internal["fronts"]] == [
        "compute_80", "compute_90a", "compute_120f",
    ]  # fmt: skip
    assert content["predicate"]["runDetails"] == {
        "builder": {"id": "urn:fatwheel", "version": {"fatwheel": demo_lock().fatwheel}}
    }


def test_materials_are_the_locks_and_the_lock_itself() -> None:
    definition = json.loads(demo_statement())["predicate"]["buildDefinition"]
    lock, *others = definition["resolvedDependencies"]
    data = lock_bytes(demo_lock())
    assert lock == {
        "name": "fatwheel.lock.json",
        "digest": {"sha256": hashlib.sha256(data).hexdigest()},
        "mediaType": "application/json",
        "annotations": {"role": "lock", "size": len(data)},
    }
    torch = "torch-2.11.0-py3-none-any.whl"
    assert [one["name"] for one in others] == [
        "demo-1.0.tar.gz", "nvcc-13.0.88-py3-none-any.whl", "ninja-1.13.2-py3-none-any.whl",
        torch, "g++",
    ]  # fmt: skip
    assert others[3] == {
        "name": torch,
        "uri": "pkg:pypi/torch@2.11.0",
        "digest": {"sha256": hashlib.sha256(torch.encode()).hexdigest()},
        "annotations": {"role": "runtime", "version": "2.11.0", "size": 1000},
    }
    assert others[4] == {
        "name": "g++",
        "digest": {"sha256": "c" * 64},
        "annotations": {"role": "host", "version": "12.2.0"},
    }


def test_files_with_an_address_of_their_own_have_it() -> None:
    lock = some_lock("windows-msvc17.8-cuda12.3")
    definition = predicate_of(lock, RECORD)["buildDefinition"]
    by_name = {one["name"]: one for one in definition["resolvedDependencies"]}
    download = lock.toolchain.cuda_files[0]
    assert by_name[download.filename]["uri"] == download.url


def test_what_the_engine_adds_comes_last() -> None:
    lock = demo_lock()
    plain = predicate_of(lock, demo_record(lock))
    more = predicate_of(lock, demo_record(lock), [IMAGE], {"engine": "docker"})
    assert more == extended(plain, [IMAGE], {"engine": "docker"})
    definition = more["buildDefinition"]
    assert definition["internalParameters"].pop("engine") == "docker"
    assert definition["resolvedDependencies"].pop() == {
        "name": "fatwheel-env:1a2b",
        "digest": {"sha256": "1" * 64},
        "annotations": {"role": "image"},
    }
    assert more == plain


def test_packages_of_debian_are_told_by_what_it_calls_them() -> None:
    """As the purl specification has it for deb: the vendor, and the architecture as a qualifier."""
    lock = demo_lock()
    libwine = Material(
        "wine", "libwine", "8.0~repack-4", "libwine_8.0~repack-4_amd64.deb", 100, "2" * 64, ""
    )
    plain = predicate_of(lock, demo_record(lock))
    assert extended(plain, [libwine], {})["buildDefinition"]["resolvedDependencies"][-1] == {
        "name": "libwine_8.0~repack-4_amd64.deb",
        "uri": "pkg:deb/debian/libwine@8.0~repack-4?arch=amd64",
        "digest": {"sha256": "2" * 64},
        "annotations": {"role": "wine", "version": "8.0~repack-4", "size": 100},
    }


def test_the_same_wheel_has_the_same_statement() -> None:
    lock = demo_lock()
    predicate = predicate_of(lock, demo_record(lock))
    backwards = dict(reversed(predicate.items()))
    assert statement_bytes(SUBJECTS, predicate) == statement_bytes(SUBJECTS[::-1], backwards)
    assert statement_bytes(SUBJECTS, predicate).endswith(b"}\n")


# -- as it is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("build_type", [BUILD, EDIT])
def test_what_is_written_is_read_again(build_type: str) -> None:
    predicate = predicate_of(some_lock(LINUX), RECORD, build_type=build_type)
    found = read_statement(statement_bytes(SUBJECTS, predicate), "s.json")
    assert found.subjects == dict(SUBJECTS)
    assert found.predicate == predicate
    assert found.build_type == build_type


def drop(*path: str | int) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        del content[path[-1]]

    return change


def put(*path: str | int, value: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value

    return change


DEFINITION = ("predicate", "buildDefinition")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop("_type"), "the statement's type is 'None'"),
        (put("_type", value="https://in-toto.io/Statement/v0.1"), "Statement/v0.1"),
        (put("_type", value=["https://in-toto.io/Statement/v1"]), "the statement's type is"),
        (put("predicateType", value="https://slsa.dev/provenance/v0.2"), "provenance/v0.2"),
        (put("predicateType", value="x" * 1000), "its predicate is"),
        (put(*DEFINITION, "buildType", value="urn:fatwheel:build:2"), "urn:fatwheel:build:2"),
        (put(*DEFINITION, "buildType", value={}), "its subject is"),
        (drop("subject"), "'subject'"),
        (drop("predicate"), "'predicate'"),
        (drop(*DEFINITION), "'buildDefinition'"),
        (drop(*DEFINITION, "internalParameters"), "'internalParameters'"),
        (drop("predicate", "runDetails", "builder"), "'builder'"),
        (put("predicate", value=[]), "a required part is missing"),
        (put("predicate", value="text"), "a required part is missing"),
        (put(*DEFINITION, value=7), "a required part is missing"),
        (put("subject", value=7), "a required part is missing"),
        (put("subject", value=["a"]), "a required part is missing"),
        (put("subject", value=[]), "it has no subject"),
        (put("subject", 0, "name", value=7), "not text"),
        (put("subject", 0, "digest", "sha256", value=None), "not text"),
        (put("subject", 0, "name", value="demo/b.so"), "'demo/b.so' is listed as a subject twice"),
        (drop("subject", 0, "digest", "sha256"), "'sha256'"),
        (put(*DEFINITION, "externalParameters", value=[]), "of the wrong kind"),
        (put(*DEFINITION, "resolvedDependencies", value={}), "of the wrong kind"),
        (put("predicate", "runDetails", "builder", value="me"), "of the wrong kind"),
    ],
)
def test_other_statements_are_refused_with_what_they_are(
    change: Callable[[Any], None], words: str
) -> None:
    with pytest.raises(FormatError) as caught:
        read_statement(demo_statement(change), "s.json")
    assert words in caught.value.what
    assert caught.value.where == "s.json"
    assert len(str(caught.value)) < 500


def test_a_newer_one_is_said_to_be_newer() -> None:
    newer = demo_statement(put(*DEFINITION, "buildType", value="urn:fatwheel:build:2"))
    with pytest.raises(FormatError) as caught:
        read_statement(newer, "s.json")
    assert "urn:fatwheel:build:1" in (caught.value.hint or "")
    assert "newer" in (caught.value.hint or "")
