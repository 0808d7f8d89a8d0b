"""Signs and verifies statements, in DSSE envelopes, with key files.

The envelope is DSSE ("Dead Simple Signing Envelope" 1.0.0) as in-toto wants it: one line of JSON
with the statement's bytes and signatures over them and their type. What exactly is signed, and
with which algorithm, is securesystemslib's business, keys are cryptography's: ed25519; ECDSA over
P-256 with SHA-256, over P-384 with SHA-384; RSA with PSS and SHA-256. Of these only ed25519 has
nothing random in it, so that the same statement and key give the same envelope.

These libraries take longer to import than most commands take: import this only to sign or verify.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from securesystemslib import dsse
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from ..errors import FormatError, UsageError, VerifyError
from ..storage.documents import read_object

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PASSWORD = "FATWHEEL_SIGN_PASSWORD"  # never on a command line, where others can read it

MAX_SIGNATURES = 100
_MAX_KEY = 1 << 20  # bytes
_LEAST_RSA = 2048  # bits
_KINDS = f"ed25519, ECDSA over P-256 or P-384, or RSA with {_LEAST_RSA} bits or more"
_MAKE = "openssl genpkey -algorithm ed25519 -out KEY.pem"
_PUBLISH = "openssl pkey -in KEY.pem -pubout -out KEY.pub"

Signer: TypeAlias = CryptoSigner  # what signs with a private key
_Private = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey
_Public = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey


@dataclass(frozen=True)
class Signed:
    """One signature of an envelope. keyid is what its maker calls the key; nothing proves it."""

    keyid: str
    signature: bytes


@dataclass(frozen=True)
class Envelope:
    """An envelope as it was read, of which nothing is proven yet."""

    payload: bytes
    signatures: tuple[Signed, ...]


# -- keys ----------------------------------------------------------------------------------------


def load_signer(path: Path, option: str = "--sign") -> Signer:
    """What signs with the private key in a PEM file, as `openssl genpkey` writes it.

    The passphrase of an encrypted one is in the environment variable FATWHEEL_SIGN_PASSWORD.
    UsageError, at the option that names it, where the file is no such key.
    """
    option = f"{option} {path}"
    data = _read_key(path, option, _MAKE)
    if b"PUBLIC KEY-----" in data and b"PRIVATE KEY-----" not in data:
        raise _no_key(
            "this is a public key; signing needs the private key", option, "a private key", _MAKE
        )
    key: object = _private_key(data, option)
    if isinstance(key, _Private) and _accepted(key.public_key()):
        return CryptoSigner(key)
    raise _unknown_kind(key, option, _MAKE)


def load_key(path: Path, option: str = "--key") -> SSlibKey:
    """The public key in a PEM file, as `openssl pkey -pubout` writes it.

    UsageError, at the option that names it, where the file is no such key.
    """
    option = f"{option} {path}"
    data = _read_key(path, option, _PUBLISH)
    if b"PRIVATE KEY-----" in data:
        what = (
            "this is a private key; checking needs only the public key, and nobody else "
            "should see this one"
        )
        raise _no_key(what, option, "its public key", _PUBLISH)
    try:
        key: object = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(
            "this is not a public key in PEM format", option, f"a public key: {_KINDS}", _PUBLISH
        ) from error
    if isinstance(key, _Public) and _accepted(key):
        return SSlibKey.from_crypto(key)
    raise _unknown_kind(key, option, _PUBLISH)


def name_of(key: SSlibKey) -> str:
    """A key's name in messages: its kind, and the start of its id, as in in-toto and TUF."""
    return f"{key.keytype} key {key.keyid[:16]}"


def _read_key(path: Path, option: str, how: str) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_KEY + 1)
    except OSError as error:
        what = f"cannot read this key: {error.strerror or error}"
        raise _no_key(what, option, "a PEM file", how) from error
    if len(data) > _MAX_KEY:
        raise _no_key("this file is too large for a key", option, "a PEM file", how)
    return data


def _private_key(data: bytes, option: str) -> object:
    try:
        try:
            return load_pem_private_key(data, None)
        except TypeError:  # it is encrypted
            return load_pem_private_key(data, _passphrase(option))
    except ValueError as error:
        if b"ENCRYPTED" in data:
            raise UsageError(
                "this private key cannot be decrypted with that passphrase, or is damaged",
                where=option,
                hint=f"the passphrase is read from the environment variable {PASSWORD}",
            ) from error
        valid = f"a private key: {_KINDS}"
        raise _no_key("this is not a private key in PEM format", option, valid, _MAKE) from error
    except UnsupportedAlgorithm as error:
        raise _unknown_kind(error, option, _MAKE) from error


def _passphrase(option: str) -> bytes:
    passphrase = os.environ.get(PASSWORD, "")
    if not passphrase:
        raise UsageError(
            "this private key is encrypted",
            where=option,
            hint=f"put its passphrase into the environment variable {PASSWORD}",
        )
    return os.fsencode(passphrase)  # which need not be text


def _accepted(key: _Public) -> bool:
    if isinstance(key, EllipticCurvePublicKey):
        return isinstance(key.curve, SECP256R1 | SECP384R1)
    if isinstance(key, RSAPublicKey):
        return key.key_size >= _LEAST_RSA
    return True


def _unknown_kind(key: object, option: str, how: str) -> UsageError:
    kind = type(key).__name__.removeprefix("_")
    if isinstance(key, EllipticCurvePrivateKey | EllipticCurvePublicKey):
        kind = f"ECDSA over {key.curve.name}"
    elif isinstance(key, RSAPrivateKey | RSAPublicKey):
        kind = f"RSA with {key.key_size} bits"
    elif isinstance(key, UnsupportedAlgorithm):
        kind = "of an unknown kind"
    return _no_key(f"this key is {kind}", option, _KINDS, how)


def _no_key(what: str, option: str, valid: str, how: str) -> UsageError:
    return UsageError(what, where=option, hint=f"valid: {valid}, as made by `{how}`")


# -- envelopes -----------------------------------------------------------------------------------


# kind: the type of what is signed, which is signed with it: what was signed as one thing is never
# taken for another.


def envelope_bytes(statement: bytes, signer: Signer, kind: str = PAYLOAD_TYPE) -> bytes:
    """An envelope of exactly these bytes, as one line."""
    envelope = dsse.Envelope(statement, kind, {})
    envelope.sign(signer)
    text = json.dumps(envelope.to_dict(), sort_keys=True, separators=(",", ":"))
    return f"{text}\n".encode()


def check_signed(envelope: Envelope, key: SSlibKey, where: str) -> None:
    """VerifyError unless one of the signatures is by this key, whatever its maker calls it."""
    if not is_signed(envelope, key):
        raise VerifyError(
            "it is not signed with this key, or was changed after it was signed",
            where=where,
            details=[
                f"given key: {name_of(key)}",
                f"claims to be signed with: {_named(envelope.signatures)}",
            ],
        )


def is_signed(envelope: Envelope, key: SSlibKey, kind: str = PAYLOAD_TYPE) -> bool:
    """Whether one of the signatures is by this key."""
    signed = dsse.Envelope(envelope.payload, kind, {}).pae()
    return any(_is_by(signature, key, signed) for signature in envelope.signatures)


def _is_by(signature: Signed, key: SSlibKey, signed: bytes) -> bool:
    # The envelope's own keyid is left out of it: DSSE calls it a hint that must decide nothing.
    try:
        key.verify_signature(Signature(key.keyid, signature.signature.hex()), signed)
    except UnverifiedSignatureError:
        return False
    return True


def _named(signatures: Sequence[Signed]) -> str:
    shown = [repr(signature.keyid[:16]) for signature in signatures[:5]]
    return ", ".join([*shown, *(["..."] if len(signatures) > 5 else [])])


def read_envelope(data: bytes, where: str, kind: str = PAYLOAD_TYPE) -> Envelope:
    """Read an untrusted envelope. FormatError if it is invalid."""
    if len(data.splitlines()) > 1:
        raise _no_envelope("it has several lines", where, kind)
    content = read_object(data, where)
    try:
        _check_type(content["payloadType"], kind)
        signatures = content["signatures"]
        if not isinstance(signatures, list):
            raise _Damaged("its signatures are not a list")
        if not signatures:
            raise _Damaged("it has no signature")
        if len(signatures) > MAX_SIGNATURES:
            raise _Damaged(f"it has {len(signatures)} signatures, more than {MAX_SIGNATURES}")
        return Envelope(
            _decoded(content["payload"], "payload"), tuple(_signed(each) for each in signatures)
        )
    except KeyError as error:
        raise _no_envelope(f"it has no {error}", where, kind) from error
    except _Damaged as error:
        raise _no_envelope(str(error), where, kind) from error


class _Damaged(Exception):
    """Why something is not a valid envelope; `read_envelope` adds the place."""


def _no_envelope(reason: str, where: str, kind: str) -> FormatError:
    return FormatError(
        f"this is not an envelope with a signed statement: {reason}",
        where=where,
        hint=f"valid: DSSE in one line of JSON, with the payloadType {kind}",
    )


def _check_type(found: object, kind: str) -> None:
    if not isinstance(found, str):
        raise _Damaged("its payloadType is not text")
    if found != kind:
        raise _Damaged(f"its payloadType is {found[:80]!r}")


def _signed(content: object) -> Signed:
    if not isinstance(content, dict):
        raise _Damaged("a signature is not a JSON object")
    keyid = content.get("keyid") or ""
    if not isinstance(keyid, str):
        raise _Damaged("a keyid is not text")
    return Signed(keyid, _decoded(content["sig"], "sig"))


def _decoded(text: object, name: str) -> bytes:
    """Base64 of either alphabet, as DSSE allows, and nothing else in it."""
    if not isinstance(text, str):
        raise _Damaged(f"its {name} is not text")
    try:
        data = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _Damaged(f"its {name} is not base64: {error}") from error
    if not data:
        raise _Damaged(f"its {name} is empty")
    return data
