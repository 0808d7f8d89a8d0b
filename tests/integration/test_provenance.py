"""What a really built wheel says of its own build: it is true, it is in the published form, and it
cannot be changed without `invoke verify` saying so.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement as Published

from fatwheel.verify.report import verify_wheel

from ..helpers.tinywheels import record_hash
from .conftest import ARCHS, Outcome, Workbench

pytestmark = pytest.mark.slow

Members = dict[str, bytes]
MAGIC = struct.pack("<I", 0xBA55ED50)  # of a fatbin container


def members_of(wheel: Path) -> Members:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def named(members: Members, end: str) -> str:
    [name] = [name for name in members if name.endswith(end)]
    return name


def write(path: Path, members: Members) -> None:
    """A wheel of these members, whose RECORD is right."""
    record = named(members, ".dist-info/RECORD")
    rows = [
        f"{name},{record_hash(data)},{len(data)}\n"
        for name, data in members.items()
        if name != record
    ]
    members[record] = "".join([*rows, f"{record},,\n"]).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def check(wheel: Path) -> tuple[str, str]:
    """The result of the check, and all that it says."""
    [found] = [one for one in verify_wheel(wheel).checks if one.name == "provenance"]
    lines = [f"{one.where}: {one.what}: {'; '.join(one.details)}" for one in found.findings]
    return found.result, "\n".join(lines)


def test_a_built_wheel_says_how_it_was_built(selftest: tuple[Workbench, Outcome]) -> None:
    wheel = selftest[1].wheel()
    assert check(wheel) == ("ok", "")
    members = members_of(wheel)
    inside = members[named(members, "/fatwheel.provenance.json")]
    beside = Path(f"{wheel}.provenance.json").read_bytes()
    for data in (inside, beside):
        published = json_format.Parse(data, statement_pb2.Statement())
        Published.copy_from_pb(published).validate()
        predicate = json.dumps(json.loads(data)["predicate"])
        provenance = json_format.Parse(predicate, provenance_pb2.Provenance())
        asked = provenance.build_definition.external_parameters
        assert list(asked["archs"]) == ARCHS.split(",")
    [subject] = json.loads(beside)["subject"]
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert subject == {"name": wheel.name, "digest": {"sha256": sha256}}


def test_parts_of_it_stitched_in_any_order_say_the_same(
    selftest: tuple[Workbench, Outcome], warm_selftest: Workbench, tmp_path: Path
) -> None:
    whole = selftest[1].wheel()
    parts = [
        str(warm_selftest.wheel_in(tmp_path / arch, "thin", str(whole), "--arch", arch))
        for arch in ARCHS.split(",")
    ]
    one = warm_selftest.wheel_in(tmp_path / "one", "stitch", *parts)
    other = warm_selftest.wheel_in(tmp_path / "other", "stitch", *reversed(parts))
    assert one.read_bytes() == other.read_bytes()
    for wheel in (Path(parts[0]), one):
        assert check(wheel) == ("ok", "")
    before, after = members_of(whole), members_of(one)
    for name in ("/fatwheel.json", "/fatwheel.lock.json", "/sboms/fatwheel.cdx.json"):
        assert after[named(after, name)] == before[named(before, name)]


# -- tampering -----------------------------------------------------------------------------------


def of_json(end: str, change: Callable[[Any], object]) -> Callable[[Members], None]:
    def tamper(members: Members) -> None:
        name = named(members, end)
        content = json.loads(members[name])
        change(content)
        members[name] = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()

    return tamper


def state_again(members: Members) -> None:
    """Subjects of the statement that fit the files, as a careful forger has them."""
    untold = (named(members, "/fatwheel.provenance.json"), named(members, ".dist-info/RECORD"))
    subjects = [
        {"name": name, "digest": {"sha256": hashlib.sha256(data).hexdigest()}}
        for name, data in sorted(members.items())
        if name not in untold
    ]
    of_json("/fatwheel.provenance.json", lambda content: content.update(subject=subjects))(members)


def other_code(members: Members) -> None:
    """One byte of the first image's code, far behind its header."""
    name = next(name for name in members if "_lineinfo." in name)
    data = bytearray(members[name])
    data[data.index(MAGIC) + 400] ^= 1
    members[name] = bytes(data)


def other_module(members: Members) -> None:
    members[named(members, "selftest/__init__.py")] += b"import os\n"


def other_pin(lock: Any) -> None:
    lock["toolchain"]["packages"][0]["sha256"] = "0" * 64


def other_unit(record: Any) -> None:
    record["units"][0]["slices"]["sm_80"] = "0" * 64


def other_torch(statement: Any) -> None:
    statement["predicate"]["buildDefinition"]["externalParameters"]["torch"] = "2.10.0"


def no_host(statement: Any) -> None:
    del statement["predicate"]["buildDefinition"]["resolvedDependencies"][-1]


def no_component(sbom: Any) -> None:
    sbom["components"].pop()


TAMPERED: list[tuple[str, Callable[[Members], object], bool, str]] = [
    ("Python code", other_module, False, "its subjects are not the files of the wheel"),
    ("device code", other_code, True, "it names slices that are not in the wheel"),
    ("a pin", of_json("/fatwheel.lock.json", other_pin), True,
     "its sha256 is not the one that fatwheel.json names"),
    ("a slice's digest", of_json("/fatwheel.json", other_unit), True,
     "it names slices that are not in the wheel"),
    ("the torch", of_json("/fatwheel.provenance.json", other_torch), True,
     'externalParameters.torch: it says "2.10.0", not "2.11.0"'),
    ("the host", of_json("/fatwheel.provenance.json", no_host), True, "g++ is not there"),
    ("the SBOM", of_json("/sboms/fatwheel.cdx.json", no_component), True,
     "its components are not what fatwheel.lock.json lists"),
    ("no lock", lambda members: members.pop(named(members, "/fatwheel.lock.json")), True,
     "fatwheel.lock.json: it is not in the wheel"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("tamper", "forge", "words"), [pytest.param(*rest, id=name) for name, *rest in TAMPERED]
)
def test_tampering_is_refused(
    selftest: tuple[Workbench, Outcome],
    tmp_path: Path,
    tamper: Callable[[Members], object],
    forge: bool,
    words: str,
) -> None:
    whole = selftest[1].wheel()
    members = members_of(whole)
    tamper(members)
    if forge:
        state_again(members)
    path = tmp_path / whole.name
    write(path, members)
    result, said = check(path)
    assert result == "wrong"
    assert words in said


def test_a_statement_of_another_wheel_beside_it_is_refused(
    selftest: tuple[Workbench, Outcome], tmp_path: Path
) -> None:
    whole = selftest[1].wheel()
    path = tmp_path / whole.name
    members = members_of(whole)
    write(path, members)
    assert check(path) == ("ok", ""), "the same files, otherwise compressed"
    shutil.copy(f"{whole}.provenance.json", tmp_path)
    result, said = check(path)
    assert result == "wrong"
    assert "it is not about this file" in said
