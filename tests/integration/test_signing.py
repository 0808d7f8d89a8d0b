"""Wheels signed by `invoke build` and checked by `invoke verify`, with keys that openssl made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from .conftest import ARCHS, Outcome, Workbench

pytestmark = pytest.mark.slow

PASSPHRASE = "open sesame"


@pytest.fixture
def key(tool: Callable[[str], str], tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
    """Makes a key with a passphrase, as docs/provenance.md says; the private and public file."""
    openssl = tool("openssl")

    def make(name: str) -> tuple[Path, Path]:
        private, public = tmp_path / f"{name}.pem", tmp_path / f"{name}.pub"
        secret = f"pass:{PASSPHRASE}"
        for command in (
            ["genpkey", "-algorithm", "ed25519", "-aes-256-cbc", "-pass", secret, "-out", private],
            ["pkey", "-in", private, "-passin", secret, "-pubout", "-out", public],
        ):
            subprocess.run([openssl, *command], check=True, capture_output=True)
        return private, public

    return make


def complaint(outcome: Outcome, code: int) -> str:
    assert outcome.code == code, f"ended with {outcome.code}, not {code}:\n{outcome.err}"
    assert "Traceback" not in outcome.err, outcome.err
    return outcome.out + outcome.err


def test_a_signed_build(warm: Workbench, key: Callable[[str], tuple[Path, Path]]) -> None:
    private, public = key("mine")
    _, other = key("other")
    secret = {"FATWHEEL_SIGN_PASSWORD": PASSPHRASE}

    first = warm.build("--arch", ARCHS, "--sign", str(private), **secret).wheel()
    envelope = Path(f"{first}.intoto.jsonl")
    signed = envelope.read_bytes()
    theirs = SSlibKey.from_crypto(load_pem_public_key(public.read_bytes()))
    opened = Envelope.from_dict(json.loads(signed))
    opened.verify([theirs], 1)
    digest = hashlib.sha256(first.read_bytes()).hexdigest()
    subject = {"name": first.name, "digest": {"sha256": digest}}
    assert json.loads(opened.payload)["subject"] == [subject]

    good = warm.invoke("verify", str(first), "--key", str(public))
    assert "ed25519 key" in complaint(good, 0)
    refused = warm.invoke("verify", str(first), "--key", str(other))
    assert "not signed with this key" in complaint(refused, 13)

    warm.forget_wheels()
    again = warm.build("--arch", ARCHS, "--sign", str(private), **secret).wheel()
    assert Path(f"{again}.intoto.jsonl").read_bytes() == signed, "ed25519 has nothing random"

    unsigned = warm.build("--arch", ARCHS).wheel()
    assert not Path(f"{unsigned}.intoto.jsonl").exists(), "an older signature was left"
    missing = warm.invoke("verify", str(unsigned), "--key", str(public))
    assert "it is not signed" in complaint(missing, 13)

    complaint(warm.invoke("sign", str(unsigned), "--key", str(private), **secret), 0)
    assert Path(f"{unsigned}.intoto.jsonl").read_bytes() == signed, "signed later, it differs"


def test_changes_are_refused_by_the_command(
    warm: Workbench, key: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    private, public = key("mine")
    secret = {"FATWHEEL_SIGN_PASSWORD": PASSPHRASE}
    built = warm.build("--arch", ARCHS, "--sign", str(private), **secret).wheel()
    for suffix, said in (
        (".provenance.json", "differs from the signed statement"),
        (".requirements.txt", "differs from what fatwheel writes for this wheel"),
        (".intoto.jsonl", "its sig is not base64"),
    ):
        folder = tmp_path / suffix.strip(".")
        shutil.copytree(built.parent, folder)
        wheel = folder / built.name
        path = Path(f"{wheel}{suffix}")
        data = bytearray(path.read_bytes())
        data[data.rindex(b'"' if suffix != ".requirements.txt" else b"==") - 2] ^= 1
        path.write_bytes(data)
        text = complaint(warm.invoke("verify", str(wheel), "--key", str(public)), 13)
        assert said in " ".join(text.split()), text


def test_keys_that_cannot_sign_end_a_build_before_it_begins(
    warm: Workbench, key: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    private, public = key("mine")
    rubbish = tmp_path / "rubbish.pem"
    rubbish.write_bytes(os.urandom(100))
    for path, said in (
        (tmp_path / "none.pem", "none.pem"),
        (public, "this is a public key; signing needs the private key"),
        (rubbish, "not a private key in PEM"),
        (private, "put its passphrase into the environment variable FATWHEEL_SIGN_PASSWORD"),
    ):
        outcome = warm.build("--arch", ARCHS, "--sign", str(path), FATWHEEL_SIGN_PASSWORD="")
        text = complaint(outcome, 2)
        assert said in " ".join(text.split()), text
        assert outcome.wheels == ()
    wrong = warm.build("--arch", ARCHS, "--sign", str(private), FATWHEEL_SIGN_PASSWORD="swordfish")
    text = complaint(wrong, 2)
    assert "cannot be decrypted with that passphrase" in " ".join(text.split())
    assert "swordfish" not in text
