"""Envelopes and keys, held against openssl and against in-toto's own library."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from fatwheel.errors import FormatError, UsageError, VerifyError
from fatwheel.provenance.signing import (
    MAX_SIGNATURES,
    PASSWORD,
    envelope_bytes,
    load_key,
    load_signer,
)
from fatwheel.storage.documents import MOST

from ...helpers.signingkeys import ENCRYPTED, GOOD, OTHER, PASSPHRASE, Keys, open_envelope

STATEMENT = b'{\n "_type": "https://in-toto.io/Statement/v1",\n "subject": []\n}\n'
TYPE = "application/vnd.in-toto+json"  # as in-toto's specification of envelopes has it

each_kind = pytest.mark.parametrize("kind", GOOD)


@pytest.fixture(scope="module")
def keys(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tool("openssl"), tmp_path_factory.mktemp("keys"))


@pytest.fixture(autouse=True)
def no_passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)


def sealed(keys: Keys, kind: str = "ed25519", number: int = 0) -> dict[str, Any]:
    """An envelope of ours, as JSON that tests can spoil."""
    content = envelope_bytes(STATEMENT, load_signer(keys.pair(kind, number).private))
    envelope: dict[str, Any] = json.loads(content)
    return envelope


def refuse(envelope: object, keys: Keys, error: type[Exception], said: str) -> None:
    data = envelope if isinstance(envelope, bytes) else json.dumps(envelope).encode()
    with pytest.raises(error, match=said) as caught:
        open_envelope(data, load_key(keys.pair("ed25519").public), "w.intoto.jsonl")
    assert str(caught.value).startswith("w.intoto.jsonl: ")


# -- envelopes -----------------------------------------------------------------------------------


@each_kind
def test_what_was_signed_comes_out(keys: Keys, kind: str) -> None:
    pair = keys.pair(kind)
    data = envelope_bytes(STATEMENT, load_signer(pair.private))
    assert open_envelope(data, load_key(pair.public), "w") == STATEMENT


def test_an_envelope_is_one_line_of_json_as_dsse_has_it(keys: Keys) -> None:
    data = envelope_bytes(STATEMENT, load_signer(keys.pair("ed25519").private))
    assert data.endswith(b"}\n")
    assert data.count(b"\n") == 1
    content = json.loads(data)
    assert sorted(content) == ["payload", "payloadType", "signatures"]
    assert content["payloadType"] == TYPE
    assert base64.b64decode(content["payload"]) == STATEMENT
    assert [sorted(signature) for signature in content["signatures"]] == [["keyid", "sig"]]


@each_kind
def test_openssl_accepts_the_signature(keys: Keys, kind: str, tmp_path: Path) -> None:
    """Over DSSE's PAE, written out here: `DSSEv1 SIZE TYPE SIZE PAYLOAD`."""
    content = sealed(keys, kind)
    signed, signature = tmp_path / "signed", tmp_path / "signature"
    signed.write_bytes(
        b" ".join([b"DSSEv1", b"%d" % len(TYPE), TYPE.encode(), b"%d" % len(STATEMENT), STATEMENT])
    )
    signature.write_bytes(base64.b64decode(content["signatures"][0]["sig"]))
    pss = ("-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:digest")
    digest = ("-digest", "sha384" if kind == "p384" else "sha256")
    said = keys.call(
        "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", str(keys.pair(kind).public),
        "-in", str(signed), "-sigfile", str(signature),
        *(() if kind == "ed25519" else digest), *(pss if kind == "rsa2048" else ()),
    )  # fmt: skip
    assert "Signature Verified Successfully" in said


@each_kind
def test_in_toto_s_library_accepts_the_envelope(keys: Keys, kind: str) -> None:
    key = SSlibKey.from_crypto(load_pem_public_key(keys.pair(kind).public.read_bytes()))
    other = SSlibKey.from_crypto(load_pem_public_key(keys.pair(kind, 1).public.read_bytes()))
    envelope = Envelope.from_dict(sealed(keys, kind))
    assert list(envelope.verify([key], 1)) == [key.keyid]
    with pytest.raises(VerificationError):
        envelope.verify([other], 1)


@each_kind
def test_envelopes_of_in_toto_s_library_are_accepted(keys: Keys, kind: str) -> None:
    private = load_pem_private_key(keys.pair(kind).private.read_bytes(), None)
    envelope = Envelope(STATEMENT, TYPE, {})
    envelope.sign(CryptoSigner(private))
    data = json.dumps(envelope.to_dict(), indent=None).encode()
    assert open_envelope(data, load_key(keys.pair(kind).public), "w") == STATEMENT


def test_an_envelope_made_with_openssl_alone_is_accepted(keys: Keys, tmp_path: Path) -> None:
    signed, signature = tmp_path / "signed", tmp_path / "signature"
    signed.write_bytes(b"DSSEv1 28 application/vnd.in-toto+json 2 {}")
    private = str(keys.pair("ed25519").private)
    keys.call(
        "pkeyutl", "-sign", "-rawin", "-inkey", private, "-in", str(signed), "-out", str(signature)
    )
    sig = base64.b64encode(signature.read_bytes()).decode()
    data = f'{{"payload":"e30=","payloadType":"{TYPE}","signatures":[{{"sig":"{sig}"}}]}}'.encode()
    assert open_envelope(data, load_key(keys.pair("ed25519").public), "w") == b"{}"


def test_ed25519_gives_the_same_file_twice_and_another_key_another(keys: Keys) -> None:
    first, second, other = (
        envelope_bytes(STATEMENT, load_signer(keys.pair("ed25519", number).private))
        for number in (0, 0, 1)
    )
    assert first == second
    assert first != other


def test_one_of_several_signatures_is_enough(keys: Keys) -> None:
    content = sealed(keys, "ed25519", 1)
    content["signatures"] += sealed(keys)["signatures"]
    key = load_key(keys.pair("ed25519").public)
    assert open_envelope(json.dumps(content).encode(), key, "w") == STATEMENT


@pytest.mark.parametrize("keyid", [None, "", "what the other calls it"])
def test_the_keyid_decides_nothing(keys: Keys, keyid: str | None) -> None:
    content = sealed(keys)
    content["signatures"][0]["keyid"] = keyid
    key = load_key(keys.pair("ed25519").public)
    assert open_envelope(json.dumps(content).encode(), key, "w") == STATEMENT
    mine = sealed(keys, "ed25519", 1)
    mine["signatures"][0]["keyid"] = sealed(keys)["signatures"][0]["keyid"]
    refuse(mine, keys, VerifyError, "not signed with this key")


def test_base64_for_urls_is_accepted(keys: Keys) -> None:
    content = sealed(keys)
    signature = content["signatures"][0]
    signature["sig"] = signature["sig"].replace("+", "-").replace("/", "_")
    key = load_key(keys.pair("ed25519").public)
    assert open_envelope(json.dumps(content).encode(), key, "w") == STATEMENT


def test_another_key_of_any_kind_is_refused_and_both_are_named(keys: Keys) -> None:
    kinds = [(kind, 1) for kind in GOOD] + [(kind, 0) for kind in GOOD if kind != "ed25519"]
    for kind, number in kinds:
        content = sealed(keys, kind, number)
        refuse(content, keys, VerifyError, "not signed with this key")
        refuse(content, keys, VerifyError, load_key(keys.pair("ed25519").public).keyid[:16])
        refuse(content, keys, VerifyError, content["signatures"][0]["keyid"][:16])


def test_a_changed_payload_is_refused(keys: Keys) -> None:
    content = sealed(keys)
    changed = STATEMENT.replace(b"v1", b"v2")
    content["payload"] = base64.b64encode(changed).decode()
    refuse(content, keys, VerifyError, "was changed after it was signed")


@pytest.mark.parametrize("position", [0, 31, 63])
def test_a_changed_signature_is_refused(keys: Keys, position: int) -> None:
    content = sealed(keys)
    signature = bytearray(base64.b64decode(content["signatures"][0]["sig"]))
    signature[position] ^= 1
    content["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    refuse(content, keys, VerifyError, "not signed with this key")


def test_a_signature_of_another_length_is_refused(keys: Keys) -> None:
    for sig in (b"x", b"x" * 63, b"x" * 65, b"x" * 100_000):
        content = sealed(keys)
        content["signatures"][0]["sig"] = base64.b64encode(sig).decode()
        refuse(content, keys, VerifyError, "not signed with this key")


def test_a_signature_of_the_same_bytes_as_another_type_is_refused(keys: Keys) -> None:
    envelope = Envelope(STATEMENT, "text/plain", {})
    envelope.sign(load_signer(keys.pair("ed25519").private))
    content = envelope.to_dict()
    refuse(content, keys, FormatError, "payloadType is 'text/plain'")
    content["payloadType"] = TYPE
    refuse(content, keys, VerifyError, "not signed with this key")


SPOILT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no signatures": (lambda it: it.update(signatures=[]), "it has no signature"),
    "signatures gone": (lambda it: it.pop("signatures"), "it has no 'signatures'"),
    "signatures as object": (lambda it: it.update(signatures={}), "not a list"),
    "signature as text": (lambda it: it.update(signatures=["x"]), "a signature is not"),
    "sig gone": (lambda it: it["signatures"][0].pop("sig"), "it has no 'sig'"),
    "sig as number": (lambda it: it["signatures"][0].update(sig=1), "its sig is not text"),
    "sig not base64": (lambda it: it["signatures"][0].update(sig="!!!!"), "sig is not base64"),
    "sig empty": (lambda it: it["signatures"][0].update(sig=""), "its sig is empty"),
    "keyid as list": (lambda it: it["signatures"][0].update(keyid=["x"]), "a keyid is not text"),
    "too many": (
        lambda it: it.update(signatures=it["signatures"] * (MAX_SIGNATURES + 1)),
        f"it has {MAX_SIGNATURES + 1} signatures",
    ),
    "payload gone": (lambda it: it.pop("payload"), "it has no 'payload'"),
    "payload empty": (lambda it: it.update(payload=""), "its payload is empty"),
    "payload not text": (lambda it: it.update(payload={}), "its payload is not text"),
    "payload cut": (lambda it: it.update(payload=it["payload"][:-1]), "payload is not base64"),
    "payload with a blank": (lambda it: it.update(payload=it["payload"] + " "), "not base64"),
    "payload beyond ASCII": (lambda it: it.update(payload="é" * 4), "payload is not base64"),
    "type gone": (lambda it: it.pop("payloadType"), "it has no 'payloadType'"),
    "type as list": (lambda it: it.update(payloadType=[TYPE]), "payloadType is not text"),
    "unknown type": (lambda it: it.update(payloadType="text/plain"), "is 'text/plain'"),
}  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_is_no_envelope_is_refused_with_the_reason(keys: Keys, spoil: str) -> None:
    content = sealed(keys)
    change, said = SPOILT[spoil]
    change(content)
    refuse(content, keys, FormatError, said)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cannot be read as JSON"),
        (b"[]", "not one JSON object"),
        (b"{}\n{}\n", "several lines"),
        (b"{\n}", "several lines"),
        (b"\xff", "cannot be read as JSON"),
        (b'{"payload": "e30=", "payload": "e31="}', "'payload' appears twice"),
        (b'{"payload": ' + b"9" * 5000 + b"}", "cannot be read as JSON|payloadType"),
        (b"[" * 200_000, "recursion"),
        (b'{"payloadType": ' + b'{"a":' * 900 + b"1" + b"}" * 901, "nested more than 40 deep"),
        (b" " * (MOST + 1), f"it has {MOST + 1} bytes"),
    ],
    ids=lambda value: str(value[:20]),
)
def test_what_is_not_even_json_is_refused(keys: Keys, data: bytes, said: str) -> None:
    refuse(data, keys, FormatError, said)


def test_foreign_text_cannot_steer_a_terminal(keys: Keys) -> None:
    content = sealed(keys, "ed25519", 1)
    content["signatures"][0]["keyid"] = "\x1b[2J" * 50
    with pytest.raises(VerifyError) as caught:
        open_envelope(json.dumps(content).encode(), load_key(keys.pair("ed25519").public), "w")
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500


# -- keys ----------------------------------------------------------------------------------------


@each_kind
def test_an_encrypted_key_opens_with_the_passphrase_of_the_environment(
    keys: Keys, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = keys.pair(kind)
    monkeypatch.setenv(PASSWORD, PASSPHRASE)
    data = envelope_bytes(STATEMENT, load_signer(pair.encrypted))
    assert open_envelope(data, load_key(pair.public), "w") == STATEMENT


def test_a_passphrase_is_no_harm_to_a_key_without_one(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSWORD, PASSPHRASE)
    pair = keys.pair("ed25519")
    assert load_signer(pair.private).public_key == load_key(pair.public)


def test_a_file_with_both_halves_can_sign_and_is_not_for_checking(
    keys: Keys, tmp_path: Path
) -> None:
    pair, both = keys.pair("ed25519"), tmp_path / "both.pem"
    both.write_bytes(pair.private.read_bytes() + pair.public.read_bytes())
    assert load_signer(both).public_key == load_key(pair.public)
    assert "this is a private key" in complaint(load_key, both, "--key")


def test_older_ways_of_openssl_to_write_keys_are_read(
    keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, parameters = tmp_path / "old.pem", tmp_path / "parameters.pem"
    rsa = str(keys.pair("rsa2048").private)
    keys.call("pkey", "-in", rsa, "-traditional", *ENCRYPTED, "-out", str(old))
    assert b"BEGIN RSA PRIVATE KEY" in old.read_bytes()
    monkeypatch.setenv(PASSWORD, PASSPHRASE)
    assert load_signer(old).public_key == load_key(keys.pair("rsa2048").public)
    keys.call("ecparam", "-name", "prime256v1", "-genkey", "-out", str(parameters))
    assert b"BEGIN EC PARAMETERS" in parameters.read_bytes()
    assert load_signer(parameters).public_key.scheme == "ecdsa-sha2-nistp256"


def complaint(load: Callable[[Path], object], path: Path, option: str) -> str:
    with pytest.raises(UsageError) as caught:
        load(path)
    assert caught.value.where == f"{option} {path}"
    assert caught.value.hint, "it must be said what would be valid"
    text = str(caught.value)
    if path.is_file():
        lines = path.read_text(errors="replace").splitlines()
        leaked = [line for line in lines if len(line) > 30 and line in text]
        assert not leaked, "a message must not show what is in the file of a key"
    return text


def test_no_passphrase_and_a_wrong_one(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    encrypted = keys.pair("ed25519").encrypted
    text = complaint(load_signer, encrypted, "--sign")
    assert "this private key is encrypted" in text
    assert "FATWHEEL_SIGN_PASSWORD" in text
    monkeypatch.setenv(PASSWORD, "")
    assert "this private key is encrypted" in complaint(load_signer, encrypted, "--sign")
    monkeypatch.setenv(PASSWORD, "swordfish")
    text = complaint(load_signer, encrypted, "--sign")
    assert "cannot be decrypted with that passphrase" in text
    assert "swordfish" not in text
    monkeypatch.setenv(PASSWORD, os.fsdecode(b"\xff\xfe"))
    assert "cannot be decrypted with that passphrase" in complaint(load_signer, encrypted, "--sign")


def test_each_key_where_the_other_is_needed(keys: Keys) -> None:
    pair = keys.pair("ed25519")
    text = complaint(load_signer, pair.public, "--sign")
    assert "this is a public key; signing needs the private key" in text
    assert "openssl genpkey" in text
    for private in (pair.private, pair.encrypted):
        text = complaint(load_key, private, "--key")
        assert "this is a private key" in text
        assert "openssl pkey -in KEY.pem -pubout" in text


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("rsa1024", "RSA with 1024 bits"),
        ("secp256k1", "ECDSA over secp256k1"),
        ("p521", "ECDSA over secp521r1"),
        ("x25519", "X25519"),
        ("ed448", "Ed448"),
    ],
)
def test_keys_of_other_kinds(keys: Keys, kind: str, said: str) -> None:
    assert kind in OTHER
    for load, path, option in (
        (load_signer, keys.pair(kind).private, "--sign"),
        (load_key, keys.pair(kind).public, "--key"),
    ):
        text = complaint(load, path, option)
        assert said in text
        assert "valid: ed25519, ECDSA over P-256 or P-384, or RSA with 2048 bits" in text


@pytest.mark.parametrize(("load", "option"), [(load_signer, "--sign"), (load_key, "--key")])
def test_files_that_are_no_keys(
    load: Callable[[Path], object], option: str, tmp_path: Path
) -> None:
    assert "No such file" in complaint(load, tmp_path / "none.pem", option)
    assert "Is a directory" in complaint(load, tmp_path, option)
    path = tmp_path / "key.pem"
    for content in (b"", b"\x00" * 100, b"hello", b"-----BEGIN RUBBISH-----\nAAAA\n"):
        path.write_bytes(content)
        assert "in PEM" in complaint(load, path, option)
    for label in (b"PRIVATE KEY", b"PUBLIC KEY", b"ENCRYPTED PRIVATE KEY"):
        path.write_bytes(b"-----BEGIN %b-----\nAAAA\n-----END %b-----\n" % (label, label))
        assert complaint(load, path, option)
    path.write_bytes(b"x" * (2 << 20))
    assert "too large for a key" in complaint(load, path, option)
