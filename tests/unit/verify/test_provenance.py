"""A wheel that tells how it was built; every way to tamper with it is refused, by name.

RECORD is right in all of them, so that no other check can find what was done.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.errors import FormatError
from fatwheel.provenance.sbom import sbom_bytes
from fatwheel.provenance.statement import predicate_of, statement_bytes
from fatwheel.verify.inspect import inspect_file
from fatwheel.verify.report import verify_wheel

from ...helpers.cudawheels import NONE, OTHER_LAYOUT, fatbin, images
from ...helpers.statedwheels import (
    BINARY,
    CODES,
    INFO,
    LOCK,
    RECORD,
    SBOM,
    STATEMENT,
    VERSION,
    Files,
    demo_files,
    demo_lock,
    demo_record,
    edited,
    results,
    said,
    state_again,
    subjects_of,
    write,
)

Tamper = Callable[[Files], None]


# -- ways to tamper ------------------------------------------------------------------------------


def without(name: str) -> Tamper:
    """The same wheel without a file; its statement does not speak of it either."""

    def tamper(files: Files) -> None:
        del files[name]
        if name != STATEMENT:
            state_again(files)

    return tamper


def bytes_of(name: str, data: bytes) -> Tamper:
    """Another content of a file, and nothing else."""

    def tamper(files: Files) -> None:
        files[name] = data

    return tamper


def document(name: str, change: Callable[[Any], object], *, forge: bool = True) -> Tamper:
    """A change in one of the documents; forge: the statement's subjects are made right again."""

    def tamper(files: Files) -> None:
        files[name] = edited(files[name], change)
        if forge and name != STATEMENT:
            state_again(files)

    return tamper


def put(*path: str | int, value: Any) -> Callable[[Any], object]:
    """Another value at a place in a document."""

    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        assert content[path[-1]] != value, "it is the same"
        content[path[-1]] = value

    return change


def relocked(change: Callable[[Any], object]) -> Tamper:
    """Another lock, of which the record has the right digest."""

    def tamper(files: Files) -> None:
        files[LOCK] = edited(files[LOCK], change)
        sha256 = hashlib.sha256(files[LOCK]).hexdigest()
        files[RECORD] = edited(files[RECORD], put("lock", value=sha256))
        state_again(files)

    return tamper


def predicate(*path: str | int, value: Any) -> Tamper:
    return document(STATEMENT, put("predicate", *path, value=value))


def binary(data: bytes) -> Tamper:
    """Other device code, for which the statement is made right again."""

    def tamper(files: Files) -> None:
        files[BINARY] = data
        state_again(files)

    return tamper


def unit(change: Callable[[Any], object]) -> Tamper:
    return document(RECORD, lambda record: change(record["units"]))


def drop_last_material(statement: Any) -> None:
    del statement["predicate"]["buildDefinition"]["resolvedDependencies"][-1]


def add_material(statement: Any) -> None:
    material = {"name": "backdoor.whl", "digest": {"sha256": "ab" * 32}}
    statement["predicate"]["buildDefinition"]["resolvedDependencies"].append(material)


def swap_materials(statement: Any) -> None:
    materials = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    materials[1], materials[2] = materials[2], materials[1]


def other_material(statement: Any) -> None:
    materials = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    [torch] = [one for one in materials if one["name"].startswith("torch-")]
    torch["digest"]["sha256"] = "0" * 64


def other_component(sbom: Any) -> None:
    [torch] = [one for one in sbom["components"] if one["name"] == "torch"]
    torch["hashes"][0]["content"] = "0" * 64


def fewer_components(sbom: Any) -> None:
    sbom["components"] = [one for one in sbom["components"] if one["name"] != "torch"]


def two_subjects(statement: Any) -> None:
    statement["subject"].append(statement["subject"][0])


def fewer_subjects(statement: Any) -> None:
    statement["subject"] = [one for one in statement["subject"] if one["name"] != BINARY]


def other_subject(statement: Any) -> None:
    statement["subject"][0]["digest"]["sha256"] = "0" * 64


def later(statement: Any) -> None:
    statement["predicate"]["runDetails"]["metadata"] = {"startedOn": "2026-01-01T00:00:00Z"}


def twice(files: Files) -> None:
    """A key that one reader takes the first of, and another the last."""
    text = files[STATEMENT].replace(b'"_type"', b'"predicateType": "x",\n "_type"', 1)
    files[STATEMENT] = text


def other_source(lock: Any) -> None:
    lock["recipe"]["source"]["package"]["sha256"] = "0" * 64
    lock["recipe"]["source"]["sha256"] = "0" * 64


ONE_MORE = [*images(NONE), images(OTHER_LAYOUT)[2]]

# Name, what is done, what must be said of it.
TAMPERED: list[tuple[str, Tamper, str]] = [
    # the wheel
    ("a file is changed", bytes_of("demo/__init__.py", b"import os\n"),
     "fatwheel.provenance.json: its subjects are not the files of the wheel\n"
     "subject.demo/__init__.py"),
    ("a file is added", bytes_of("demo/evil.py", b"import os\n"),
     "subject.demo/evil.py: it is not there"),
    ("a file is taken out", lambda files: files.pop("demo/__init__.py") and None,
     "subject.demo/__init__.py: it does not belong there"),
    ("METADATA asks for more", bytes_of(
        f"{INFO}/METADATA",
        f"Metadata-Version: 2.1\nName: demo\nVersion: {VERSION}\nRequires-Dist: x\n".encode()),
     f"subject.{INFO}/METADATA"),
    ("device code is exchanged", binary(OTHER_LAYOUT),
     "it names slices that are not in the wheel\ncsrc/a.o: sm_90a"),
    ("device code is added", binary(fatbin(ONE_MORE)),
     "units in the wheel have slices that it does not list"),
    ("all device code is exchanged", binary(fatbin([OTHER_LAYOUT[16:]])),
     "not in the wheel"),
    # the record
    ("split code is called exact", document(RECORD, lambda record: record.update(
        front="exact", fronts=[{**one, "split": 4} for one in record["fronts"]])),
     "its front is exact, but split are compute_80, compute_90a, compute_120f"),
    ("split code is called shared", document(RECORD, lambda record: record.update(
        front="shared", fronts=[{**one, "split": 4} for one in record["fronts"]])),
     "its front is shared, but split are compute_80"),
    ("shared fronts are called exact", document(RECORD, lambda record: record.update(
        front="exact", fronts=[{"virtual": "compute_80", "codes": list(CODES)}])),
     "its front is exact, but shared are compute_80"),
    ("the record is gone", without(RECORD),
     "fatwheel.json: it is not in the wheel, which has fatwheel.lock.json"),
    ("the record is no JSON", bytes_of(RECORD, b"{"), "fatwheel.json: it cannot be read as JSON"),
    ("the record is of a newer fatwheel", document(RECORD, put("schema", value=2)),
     "fatwheel.json: schema 2 of fatwheel.json is not supported"),
    ("the record lacks a part", document(RECORD, lambda record: record.pop("toolchain")),
     "fatwheel.json: it is damaged\ntoolchain: Field required"),
    ("the record names no lock", document(RECORD, lambda record: record.pop("lock")),
     "fatwheel.json: it is damaged\nlock: Field required"),
    ("the record names another lock", document(RECORD, put("lock", value="0" * 64)),
     "its sha256 is not the one that fatwheel.json names"),
    ("the record names another Python", document(RECORD, put("python", value="3.12")),
     'fatwheel.json: it contradicts fatwheel.lock.json\npython: it says "3.12", not "3.11"'),
    ("the record names another torch", document(RECORD, put("torch", value="2.10.0")),
     'torch: it says "2.10.0"'),
    ("the record names another recipe", document(RECORD, put("recipe", "digest", value="0" * 64)),
     "recipe.digest: it says"),
    ("the record names another source", document(RECORD, put("recipe", "source", value="0" * 64)),
     "recipe.source: it says"),
    ("the record names another toolchain",
     document(RECORD, put("toolchain", "nvcc", value="12.9.1")),
     'toolchain.nvcc: it says "12.9.1", not "13.0.88"'),
    ("the record names another fatwheel", document(RECORD, put("fatwheel", value="9.9.9")),
     'fatwheel: it says "9.9.9"'),
    ("the record names another project",
     document(RECORD, put("recipe", "project", value="other")),
     "fatwheel.json: its project differs from that in METADATA"),
    ("the record names archs that are not there",
     document(RECORD, put("archs", value=["80+ptx", "90a", "120f", "75"])),
     "its archs ask for images that its fronts do not name: sm_75"),
    ("the record names fewer archs", document(RECORD, put("archs", value=["80+ptx", "90a"])),
     'its fronts name images that are not among its archs: "sm_120f"'),
    ("the record's archs are none", document(RECORD, put("archs", value=["eighty"])),
     "'eighty' is not an architecture"),
    ("the record names another way to the fronts", document(RECORD, put("front", value="exact")),
     "buildDefinition.externalParameters.front"),
    ("the record names images that are not there",
     document(RECORD, put("fronts", 1, "codes", value=["sm_90a", "sm_100"])),
     'its fronts name images that are not among the images inside: "sm_100"'),
    ("the record has another slice",
     unit(lambda units: put(0, "slices", "sm_90a", value="0" * 64)(units)),
     "fatwheel.json: it names slices that are not in the wheel\ncsrc/a.o: sm_90a"),
    ("the record has one slice less", unit(lambda units: units[0]["slices"].pop("sm_90a")),
     "units in the wheel have slices that it does not list\n"
     "demo/code.fatbin, container 0: sm_90a"),
    ("the record has other units",
     unit(lambda units: units.__setitem__(0, {"name": "b", "slices": {"sm_80": "0" * 64}})),
     "it names units that are not in the wheel"),
    ("the record has no units", unit(lambda units: units.clear()),
     "fatwheel.json: it does not cover all device code\ndemo/code.fatbin, container 0: "),
    # the lock
    ("the lock is gone", without(LOCK), "fatwheel.lock.json: it is not in the wheel"),
    ("the lock is no JSON", bytes_of(LOCK, b"[" * 100_000), "the lock is damaged"),
    ("the lock is of a newer fatwheel", document(LOCK, put("schema", value=2)),
     "fatwheel.lock.json: fatwheel"),
    ("the lock is written otherwise", lambda files: files.update({LOCK: files[LOCK] + b"\n"}),
     "it is not in the form that fatwheel writes"),
    ("the lock has another pin",
     document(LOCK, put("toolchain", "packages", 0, "sha256", value="0" * 64)),
     "fatwheel.lock.json: its sha256 is not the one that fatwheel.json names"),
    ("the lock and the record have another pin",
     relocked(put("toolchain", "packages", 0, "sha256", value="0" * 64)),
     "fatwheel.provenance.json: it contradicts fatwheel.lock.json or fatwheel.json\n"
     "buildDefinition.resolvedDependencies, fatwheel.lock.json.digest.sha256"),
    ("the lock and the record have another host",
     relocked(put("host", "compiler", value="g++ 13.0.0")),
     'buildDefinition.internalParameters.host.compiler: it says "g++ 12.2.0", not "g++ 13.0.0"'),
    ("the lock has another source", relocked(other_source), "recipe.source: it says"),
    ("the lock is of another recipe", relocked(put("recipe", "digest", value="0" * 64)),
     "recipe.digest: it says"),
    ("the lock leads elsewhere", relocked(put("recipe", "subdirectory", value="../..")),
     "is not a folder below this one"),
    # the statement
    ("the statement is gone", without(STATEMENT),
     "fatwheel.provenance.json: it is not in the wheel"),
    ("the statement is no JSON", bytes_of(STATEMENT, b"\xff"),
     "fatwheel.provenance.json: it cannot be read as JSON"),
    ("the statement is too deep", bytes_of(STATEMENT, b'{"a":' * 50 + b"1" + b"}" * 50),
     "it is nested more than 40 deep"),
    ("the statement says it twice", twice, "'predicateType' appears twice"),
    ("the statement is of another kind",
     document(STATEMENT, put("predicateType", value="https://spdx.dev/Document")),
     "its predicate is 'https://spdx.dev/Document', which this version of fatwheel does not "
     "support"),
    ("the statement is of a newer in-toto",
     document(STATEMENT, put("_type", value="https://in-toto.io/Statement/v2")),
     "the statement's type is 'https://in-toto.io/Statement/v2'"),
    ("the statement is of a newer build",
     predicate("buildDefinition", "buildType", value="urn:fatwheel:build:2"),
     "its subject is 'urn:fatwheel:build:2'"),
    ("the statement lacks a part",
     document(STATEMENT, lambda statement: statement["predicate"].pop("runDetails")),
     "the statement is damaged: a required part is missing: 'runDetails'"),
    ("the statement has a subject twice", document(STATEMENT, two_subjects), ("is listed as a "
        "subject twice")),
    ("the statement has fewer subjects", document(STATEMENT, fewer_subjects),
     f"subject.{BINARY}: it is not there"),
    ("the statement has another subject", document(STATEMENT, other_subject),
     "its subjects are not the files of the wheel"),
    ("the statement has no subjects", document(STATEMENT, put("subject", value=[])),
     "the statement is damaged: it has no subject"),
    ("the statement names other archs",
     predicate("buildDefinition", "externalParameters", "archs", value=["80"]),
     'buildDefinition.externalParameters.archs: "90a" is not there'),
    ("the statement names another torch",
     predicate("buildDefinition", "externalParameters", "torch", value="2.10.0"),
     'buildDefinition.externalParameters.torch: it says "2.10.0", not "2.11.0"'),
    ("the statement names another recipe",
     predicate("buildDefinition", "externalParameters", "recipe", "name", value="other"),
     'buildDefinition.externalParameters.recipe.name: it says "other"'),
    ("the statement names another builder",
     predicate("runDetails", "builder", "id", value="https://example.org"),
     'runDetails.builder.id: it says "https://example.org", not "urn:fatwheel"'),
    ("the statement has a time", document(STATEMENT, later),
     "runDetails.metadata: it does not belong there"),
    ("the statement lacks a material", document(STATEMENT, drop_last_material),
     "buildDefinition.resolvedDependencies: g++ is not there"),
    ("the statement has one material more", document(STATEMENT, add_material),
     "buildDefinition.resolvedDependencies: backdoor.whl does not belong there"),
    ("the statement has another material", document(STATEMENT, other_material),
     "buildDefinition.resolvedDependencies, torch-2.11.0-py3-none-any.whl.digest.sha256"),
    ("the statement has materials in another order", document(STATEMENT, swap_materials),
     "it is in a different order"),
    # the SBOM
    ("the SBOM is gone", without(SBOM), "sboms/fatwheel.cdx.json: it is not in the wheel"),
    ("the SBOM is no JSON", bytes_of(SBOM, b"null"),
     "sboms/fatwheel.cdx.json: it is not one JSON object"),
    ("the SBOM is changed alone", document(SBOM, other_component, forge=False), f"subject.{SBOM}"),
    ("the SBOM has another component", document(SBOM, other_component),
     "sboms/fatwheel.cdx.json: its components are not what fatwheel.lock.json lists\n"
     "only in fatwheel.lock.json: torch 2.11.0"),
    ("the SBOM has fewer components", document(SBOM, fewer_components),
     "only in fatwheel.lock.json: torch 2.11.0"),
    ("the SBOM is about another version",
     document(SBOM, put("metadata", "component", "version", value="1.1")),
     "sboms/fatwheel.cdx.json: it is about another wheel"),
    ("the SBOM is about nothing", document(SBOM, put("metadata", value=[])),
     "sboms/fatwheel.cdx.json: it is about another wheel"),
]  # fmt: skip


def test_a_wheel_as_it_was_built_passes(tmp_path: Path) -> None:
    report = verify_wheel(write(tmp_path, demo_files()))
    assert results(report) == {}
    assert said(report) == ""


@pytest.mark.parametrize(
    ("tamper", "words"),
    [pytest.param(tamper, words, id=name) for name, tamper, words in TAMPERED],
)
def test_every_tampering_is_refused_by_name(tmp_path: Path, tamper: Tamper, words: str) -> None:
    files = demo_files()
    before = dict(files)
    tamper(files)
    assert files != before, "nothing was done"
    report = verify_wheel(write(tmp_path, files))
    assert words in said(report)
    assert results(report)["provenance"] == "wrong"
    assert "record" not in results(report), "RECORD must not be what finds it"


@pytest.mark.parametrize(
    ("front", "kind", "words"),
    [
        ("shared", "note", "built with --front shared"),
        ("split", "note", "built with --front split"),
        ("fast", "warning", "built with --fast"),
    ],
)
def test_what_was_built_without_proof_is_told(
    tmp_path: Path, front: str, kind: str, words: str
) -> None:
    lock = demo_lock()
    files = demo_files(lock)
    files[RECORD] = edited(files[RECORD], put("front", value=front))
    record = json.loads(files[RECORD])
    files[SBOM] = sbom_bytes(lock, record, "demo", VERSION)
    del files[STATEMENT]
    files[STATEMENT] = statement_bytes(subjects_of(files), predicate_of(lock, record))
    path = write(tmp_path, files)
    report = verify_wheel(path)
    may = "its machine code may differ from what nvcc by itself makes"
    assert f"{kind}: fatwheel.json: {words}: {may}" in said(report)
    assert report.ok
    for about in (report.to_json(), inspect_file(path)):
        assert about["wheel"]["unproven"] == [front]


# -- wheels that say little ----------------------------------------------------------------------


def test_wheels_of_others_are_not_asked(tmp_path: Path) -> None:
    files = {name: data for name, data in demo_files().items() if "fatwheel" not in name}
    report = verify_wheel(write(tmp_path, files))
    assert (results(report), said(report)) == ({}, "")


def test_a_part_that_was_built_without_proof_is_told(tmp_path: Path) -> None:
    """A wheel that was stitched from builds with different fronts has no lock."""
    files = {name: data for name, data in demo_files().items() if "fatwheel" not in name}
    record = demo_record(demo_lock())
    del record["lock"]
    whole = {"schema": 1, "stitched": [record, {**record, "front": "fast"}]}
    files[RECORD] = json.dumps(whole).encode()
    report = verify_wheel(write(tmp_path, files))
    assert "warning: fatwheel.json: built with --fast" in said(report)
    assert report.ok


@pytest.mark.parametrize("stitched", [False, True])
def test_wheels_of_older_fatwheels_have_a_record_alone(tmp_path: Path, stitched: bool) -> None:
    """So have edits of wheels with different locks."""
    files = {name: data for name, data in demo_files().items() if "fatwheel" not in name}
    record = demo_record(demo_lock())
    del record["lock"]
    whole = {"schema": 1, "stitched": [record, record]} if stitched else record
    files[RECORD] = json.dumps(whole).encode()
    report = verify_wheel(write(tmp_path, files))
    assert results(report) == {}
    assert "note: : fatwheel.json names no lock" in said(report)


@pytest.mark.parametrize("stitched", [False, True])
def test_a_record_that_names_a_lock_must_not_be_alone(tmp_path: Path, stitched: bool) -> None:
    files = {name: data for name, data in demo_files().items() if "fatwheel" not in name}
    record = demo_record(demo_lock())
    whole = {"schema": 1, "stitched": [record, record]} if stitched else record
    files[RECORD] = json.dumps(whole).encode()
    report = verify_wheel(write(tmp_path, files))
    assert results(report) == {"provenance": "wrong"}
    for name in ("fatwheel.lock.json", "sboms/fatwheel.cdx.json", "fatwheel.provenance.json"):
        assert f"wrong: {name}: it is not in the wheel, which has fatwheel.json" in said(report)


def test_a_unit_that_no_binary_has_may_have_been_left_out(tmp_path: Path) -> None:
    """By the linker: only a warning, for all containers are accounted for."""
    files = demo_files()
    left_out = {"name": "csrc/test.o", "slices": {"sm_80": "0" * 64}}
    files[RECORD] = edited(files[RECORD], lambda record: record["units"].append(left_out))
    state_again(files)
    report = verify_wheel(write(tmp_path, files))
    assert results(report) == {"provenance": "warning"}
    assert "it names units that are not in the wheel\ncsrc/test.o" in said(report)


def test_device_code_of_a_library_may_be_linked_in(tmp_path: Path) -> None:
    files = demo_files()
    files[BINARY] = NONE + fatbin(images(OTHER_LAYOUT)[2:3])
    state_again(files)
    report = verify_wheel(write(tmp_path, files))
    assert results(report)["provenance"] == "warning"
    assert "it does not cover all device code\ndemo/code.fatbin, container 1" in said(report)


def test_a_record_that_leaves_a_digest_out_is_wrong(tmp_path: Path) -> None:
    """Else code that nobody vouches for could pass under it."""
    files = demo_files()
    unknown = put("units", 0, "slices", "sm_90a", value=None)
    files[RECORD] = edited(files[RECORD], unknown)
    state_again(files)
    report = verify_wheel(write(tmp_path, files))
    assert results(report) == {"provenance": "wrong"}
    assert "it does not name its slices\n" in said(report)


def test_a_record_with_other_hashes_does_not_keep_sha256_from_being_compared(
    tmp_path: Path,
) -> None:
    """The statement has sha256 whatever RECORD has."""
    files = demo_files()
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha512(data).digest()).decode().rstrip("=")
        lines.append(f"{name},sha512={digest},{len(data)}\n")
    path = write(tmp_path, {})
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"{INFO}/RECORD", "".join([*lines, f"{INFO}/RECORD,,\n"]))
    report = verify_wheel(path)
    assert (results(report), said(report)) == ({}, "")


def test_too_much_is_not_read(tmp_path: Path) -> None:
    files = demo_files()
    files[STATEMENT] = b" " * (17 << 20)
    wheel = write(tmp_path, files)
    with pytest.raises(FormatError, match="are the most"):
        verify_wheel(wheel)
