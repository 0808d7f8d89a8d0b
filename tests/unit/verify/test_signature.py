"""Signed wheels, and all ways to change what belongs to them that we could think of."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.dsse import Envelope

from fatwheel.errors import UsageError
from fatwheel.provenance.beside import ENVELOPE, STATEMENT, beside, write_beside
from fatwheel.provenance.signing import envelope_bytes, load_signer
from fatwheel.storage.documents import MOST
from fatwheel.verify.evidence import NOTE, WARNING, WRONG, Finding
from fatwheel.verify.provenance import signature_findings

from ...helpers.provenwheels import proven_wheel
from ...helpers.signingkeys import GOOD, Keys
from ...helpers.tinywheels import Draft

NAME = "demo-1.0-cp311-cp311-linux_x86_64.whl"
TYPE = "application/vnd.in-toto+json"


@pytest.fixture(scope="module")
def keys(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tool("openssl"), tmp_path_factory.mktemp("keys"))


class Signed:
    """A signed wheel that tests tamper with."""

    def __init__(self, folder: Path, keys: Keys) -> None:
        self.folder = folder
        self.keys = keys
        self.signer = load_signer(keys.pair("ed25519").private)
        self.wheel = proven_wheel(folder)
        write_beside(self.wheel, [], {"engine": "process"}, self.signer)
        self.place = beside(self.wheel, ENVELOPE)
        self.statement = beside(self.wheel, STATEMENT)

    def findings(self, kind: str = "ed25519", number: int = 0) -> tuple[Finding, ...]:
        return signature_findings(self.wheel, self.keys.pair(kind, number).public)

    def envelope(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.place.read_bytes())
        return content

    def put(self, envelope: object) -> None:
        self.place.write_text(json.dumps(envelope), encoding="utf-8")

    def payload(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.statement.read_bytes())
        return content

    def sign(self, statement: object) -> None:
        """As the key's owner would sign that, and put it in both places."""
        data = statement if isinstance(statement, bytes) else json.dumps(statement).encode()
        self.place.write_bytes(envelope_bytes(data, self.signer))
        self.statement.write_bytes(data)


@pytest.fixture
def signed(tmp_path: Path, keys: Keys) -> Signed:
    return Signed(tmp_path / "wheels", keys)


def wrongs(findings: tuple[Finding, ...]) -> str:
    """What is wrong, as it is shown."""
    return "\n".join(
        " ".join([finding.where, finding.what, *finding.details])
        for finding in findings
        if finding.severity == WRONG
    )


def test_a_signed_wheel_says_whose_signature_it_has(signed: Signed) -> None:
    [finding] = signed.findings()
    assert finding.severity == NOTE, finding
    assert finding.what == f"signed with the ed25519 key {signed.signer.public_key.keyid[:16]}"
    assert finding.where == f"{NAME}.intoto.jsonl"


@pytest.mark.parametrize("kind", GOOD)
def test_every_kind_of_key_serves(tmp_path: Path, keys: Keys, kind: str) -> None:
    wheel = proven_wheel(tmp_path)
    write_beside(wheel, [], {}, load_signer(keys.pair(kind).private))
    [finding] = signature_findings(wheel, keys.pair(kind).public)
    assert finding.severity == NOTE
    assert wrongs(signature_findings(wheel, keys.pair(kind, 1).public))


def test_other_signatures_are_counted(signed: Signed) -> None:
    """Also one of an algorithm that is not known here."""
    content = signed.envelope()
    content["signatures"] = [
        {"keyid": "other", "sig": "AAAA"},
        *content["signatures"],
        {"sig": base64.b64encode(os.urandom(3000)).decode()},
    ]
    signed.put(content)
    [finding] = signed.findings()
    assert finding.severity == NOTE
    assert finding.what.endswith("; 2 other signatures in it")


def test_without_the_open_copy_there_is_a_warning(signed: Signed) -> None:
    signed.statement.unlink()
    _, finding = signed.findings()
    assert finding.severity == WARNING
    assert finding.where == f"{NAME}.provenance.json"


# -- tampering -----------------------------------------------------------------------------------

Tamper = Callable[[Signed], None]


def changed_statement(change: Callable[[dict[str, Any]], object]) -> Tamper:
    """A statement that the key's owner signed, but that is not about this wheel, or no statement
    of a build."""

    def tamper(signed: Signed) -> None:
        statement = signed.payload()
        change(statement)
        signed.sign(statement)

    return tamper


def changed_envelope(change: Callable[[dict[str, Any]], object]) -> Tamper:
    def tamper(signed: Signed) -> None:
        envelope = signed.envelope()
        change(envelope)
        signed.put(envelope)

    return tamper


def another_wheel(signed: Signed) -> None:
    other = proven_wheel(signed.folder / "other", b"evil")
    signed.wheel.write_bytes(other.read_bytes())


def one_byte_of_the_wheel(signed: Signed) -> None:
    data = bytearray(signed.wheel.read_bytes())
    position = data.index(b"code")  # in the name of a member
    data[position] ^= 1
    signed.wheel.write_bytes(data)


def another_wheel_with_all_its_files(signed: Signed) -> None:
    """The signature of the older one is still there."""
    another_wheel(signed)
    envelope = signed.place.read_bytes()
    write_beside(signed.wheel, [], {"engine": "process"}, None)
    signed.place.write_bytes(envelope)


def renamed(signed: Signed) -> None:
    new = signed.folder / "demo-1.0-cp312-cp312-linux_x86_64.whl"
    for path in list(signed.folder.iterdir()):
        path.rename(signed.folder / path.name.replace("cp311", "cp312"))
    signed.wheel, signed.place = new, beside(new, ENVELOPE)


def signed_by_somebody_else(signed: Signed) -> None:
    other = load_signer(signed.keys.pair("ed25519", 1).private)
    signed.place.write_bytes(envelope_bytes(signed.statement.read_bytes(), other))


def signed_by_somebody_else_under_our_name(signed: Signed) -> None:
    ours = signed.envelope()["signatures"][0]["keyid"]
    signed_by_somebody_else(signed)
    changed_envelope(lambda it: it["signatures"][0].update(keyid=ours))(signed)


def payload_of_another(signed: Signed) -> None:
    """What a thief would write: another subject, the old signature."""
    statement = signed.payload()
    statement["subject"][0]["digest"]["sha256"] = "00" * 32
    payload = base64.b64encode(json.dumps(statement).encode()).decode()
    changed_envelope(lambda it: it.update(payload=payload))(signed)


def flipped_signature(signed: Signed) -> None:
    envelope = signed.envelope()
    signature = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    signature[5] ^= 0x10
    envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    signed.put(envelope)


def signed_as_another_type(signed: Signed) -> None:
    envelope = Envelope(signed.statement.read_bytes(), "text/plain", {})
    envelope.sign(signed.signer)
    signed.put(envelope.to_dict())


def type_exchanged(signed: Signed) -> None:
    signed_as_another_type(signed)
    changed_envelope(lambda it: it.update(payloadType=TYPE))(signed)


def open_copy(change: Callable[[bytes], bytes]) -> Tamper:
    def tamper(signed: Signed) -> None:
        signed.statement.write_bytes(change(signed.statement.read_bytes()))

    return tamper


def in_file(name: str, old: Callable[[Signed], str], new: str) -> Tamper:
    def tamper(signed: Signed) -> None:
        path = signed.folder / name
        text = path.read_text(encoding="utf-8")
        assert old(signed) in text
        path.write_text(text.replace(old(signed), new), encoding="utf-8")

    return tamper


def sha256_of_wheel(signed: Signed) -> str:
    return hashlib.sha256(signed.wheel.read_bytes()).hexdigest()


def two_envelopes(signed: Signed) -> None:
    signed.place.write_bytes(signed.place.read_bytes() * 2)


def name_twice(signed: Signed) -> None:
    data = signed.place.read_bytes()
    signed.place.write_bytes(b'{"payload":"e30=",' + data[1:])


def folder_instead(signed: Signed) -> None:
    signed.place.unlink()
    signed.place.mkdir()


def write(data: bytes) -> Tamper:
    return lambda signed: signed.place.write_bytes(data) and None


TAMPERINGS: dict[str, tuple[Tamper, str]] = {
    "another wheel under the name": (another_wheel, "not the one that was signed"),
    "one byte of the wheel": (one_byte_of_the_wheel, "not the one that was signed"),
    "another wheel and its files": (
        another_wheel_with_all_its_files, "not the one that was signed",
    ),
    "wheel renamed": (renamed, "another file was signed, or this one was renamed"),
    "no envelope": (lambda it: it.place.unlink(), "it is not signed: there is no"),
    "signed by somebody else": (signed_by_somebody_else, "not signed with this key"),
    "somebody else under our name": (
        signed_by_somebody_else_under_our_name, "not signed with this key",
    ),
    "payload exchanged": (payload_of_another, "was changed after it was signed"),
    "one bit of the signature": (flipped_signature, "not signed with this key"),
    "signature cut": (
        changed_envelope(lambda it: it["signatures"][0].update(sig="AAAA")), "not signed with",
    ),
    "another type signed": (signed_as_another_type, "payloadType is 'text/plain'"),
    "type exchanged": (type_exchanged, "not signed with this key"),
    "no signature left": (changed_envelope(lambda it: it.update(signatures=[])), "no signature"),
    "signatures gone": (changed_envelope(lambda it: it.pop("signatures")), "no 'signatures'"),
    "101 signatures": (
        changed_envelope(lambda it: it.update(signatures=it["signatures"] * 101)),
        "it has 101 signatures",
    ),
    "payload not base64": (
        changed_envelope(lambda it: it.update(payload="*" + it["payload"])), "not base64",
    ),
    "payload cut off": (
        changed_envelope(lambda it: it.update(payload=it["payload"][:100])), "changed after",
    ),
    "payload empty": (changed_envelope(lambda it: it.update(payload="")), "payload is empty"),
    "a second payload": (name_twice, "'payload' appears twice"),
    "two envelopes": (two_envelopes, "several lines"),
    "huge": (write(b" " * (MOST + 1)), f"more than {MOST} bytes"),
    "nested deeply": (write(b"[" * 100_000), "recursion"),
    "an empty file": (write(b""), "cannot be read as JSON"),
    "not JSON": (write(b"\x00\xff" * 100), "cannot be read as JSON"),
    "a folder": (folder_instead, "it is not a file"),
    "no subject": (changed_statement(lambda it: it.update(subject=[])), "it has no subject"),
    "a second subject": (
        changed_statement(
            lambda it: it["subject"].append({"name": "x", "digest": {"sha256": "00" * 32}})
        ),
        "about 2 files",
    ),
    "another subject": (
        changed_statement(lambda it: it["subject"][0].update(name="other.whl")),
        "another file was signed",
    ),
    "subject in capitals": (
        changed_statement(
            lambda it: it["subject"][0]["digest"].update(
                sha256=it["subject"][0]["digest"]["sha256"].upper()
            )
        ),
        "not the one that was signed",
    ),
    "subject without sha256": (
        changed_statement(lambda it: it["subject"][0].update(digest={"md5": "00" * 16})),
        "statement is damaged",
    ),
    "another predicate": (
        changed_statement(lambda it: it.update(predicateType="https://cyclonedx.org/bom")),
        "its predicate is 'https://cyclonedx.org/bom'",
    ),
    "another statement": (
        changed_statement(lambda it: it.update(_type="https://in-toto.io/Statement/v0.1")),
        "the statement's type is 'https://in-toto.io/Statement/v0.1'",
    ),
    "no statement": (lambda it: it.sign(b"hello"), "cannot be read as JSON"),
    "statement nested deeply": (lambda it: it.sign(b'{"a":' * 5000 + b"1" + b"}" * 5000), "depth"),
    "open copy changed": (
        open_copy(lambda data: data.replace(b'"80"', b'"86"')), "differs from the signed statement",
    ),
    "open copy reformatted": (
        open_copy(lambda data: json.dumps(json.loads(data)).encode()),
        "differs from the signed statement",
    ),
    "requirements ask for another wheel": (
        in_file(f"{NAME}.requirements.txt", sha256_of_wheel, "00" * 32),
        f"{NAME}.requirements.txt it differs from what fatwheel writes",
    ),
    "pylock asks for another wheel": (
        in_file("pylock.demo-1_0-cp311-cp311-linux_x86_64.toml", sha256_of_wheel, "00" * 32),
        "pylock.demo-1_0-cp311-cp311-linux_x86_64.toml it differs from what fatwheel writes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_refused_and_named(signed: Signed, name: str) -> None:
    assert not wrongs(signed.findings()), "it must be sound before"
    tamper, said = TAMPERINGS[name]
    tamper(signed)
    assert said in wrongs(signed.findings())


@pytest.mark.skipif(sys.platform == "win32", reason="pipes are something else on Windows")
def test_a_pipe_is_not_waited_for(signed: Signed) -> None:
    signed.place.unlink()
    os.mkfifo(signed.place)
    assert "it is not a file" in wrongs(signed.findings())


def test_a_key_that_is_none_ends_the_check(signed: Signed, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        signature_findings(signed.wheel, tmp_path / "none.pub")
    assert caught.value.where == f"--key {tmp_path / 'none.pub'}"


def test_a_wheel_that_says_nothing_of_its_build_is_refused_under_any_signature(
    signed: Signed,
) -> None:
    Draft(files={"demo/code.py": b"code"}).write(signed.folder)
    statement = signed.payload()
    statement["subject"][0]["digest"]["sha256"] = sha256_of_wheel(signed)
    signed.sign(statement)
    assert "nothing in the wheel says how it was built" in wrongs(signed.findings())
