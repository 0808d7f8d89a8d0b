"""Envelopes that were damaged anywhere, and JSON that only looks like one."""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from fatwheel.errors import FormatError, VerifyError
from fatwheel.provenance.signing import PAYLOAD_TYPE, envelope_bytes

from ..helpers.signingkeys import open_envelope

SIGNER = CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
STATEMENT = b'{"_type": "https://in-toto.io/Statement/v1"}\n'
ENVELOPE = envelope_bytes(STATEMENT, SIGNER)

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
signatures = st.lists(
    values | st.fixed_dictionaries({"sig": values}, optional={"keyid": values}), max_size=4
)
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "payload": values | st.just("e30="),
        "payloadType": values | st.just(PAYLOAD_TYPE),
        "signatures": values | signatures,
    },
)


def refused(data: bytes) -> bool:
    """False where the statement came out, and nothing but the statement."""
    try:
        payload = open_envelope(data, SIGNER.public_key, "w")
    except (FormatError, VerifyError):
        return True
    assert payload == STATEMENT
    return False


@given(st.integers(0, len(ENVELOPE) - 1), st.integers(0, 255))
def test_one_other_byte_never_brings_another_statement(position: int, value: int) -> None:
    changed = bytearray(ENVELOPE)
    changed[position] = value
    refused(bytes(changed))


@given(st.integers(0, len(ENVELOPE) - 3))
def test_what_is_cut_off_is_refused(size: int) -> None:
    assert refused(ENVELOPE[:size])


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    assert refused(data)


@given(envelopes | values)
def test_other_json_is_refused(content: Any) -> None:
    assert refused(json.dumps(content).encode())
