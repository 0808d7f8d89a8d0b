"""Keys as people make them: by openssl, in PEM files, written once for all tests of a run."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import SSlibKey

from fatwheel.provenance.signing import check_signed, read_envelope

PASSPHRASE = "open sesame"

GOOD = {
    "ed25519": ("-algorithm", "ed25519"),
    "p256": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "p384": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"),
    "rsa2048": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
}
OTHER = {
    "rsa1024": ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"),
    "secp256k1": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"),
    "p521": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"),
    "x25519": ("-algorithm", "X25519"),
    "ed448": ("-algorithm", "ED448"),
}
ENCRYPTED = ("-aes-256-cbc", "-passout", f"pass:{PASSPHRASE}")


@dataclass(frozen=True)
class KeyPair:
    """PEM files: the private key, the same encrypted, the public key."""

    private: Path
    encrypted: Path
    public: Path


class Keys:
    """Makes each pair once, in a folder, with the openssl whose path it is given."""

    def __init__(self, openssl: str, folder: Path) -> None:
        self.openssl = openssl
        self.folder = folder

    def pair(self, kind: str, number: int = 0) -> KeyPair:
        stem = self.folder / f"{kind}-{number}"
        pair = KeyPair(*(stem.with_suffix(end) for end in (".pem", ".encrypted.pem", ".pub")))
        if pair.public.exists():
            return pair
        self.call("genpkey", *{**GOOD, **OTHER}[kind], "-out", str(pair.private))
        source = str(pair.private)
        if kind in GOOD:
            self.call("pkey", "-in", source, *ENCRYPTED, "-out", str(pair.encrypted))
        self.call("pkey", "-in", source, "-pubout", "-out", str(pair.public))
        return pair

    def call(self, *arguments: str) -> str:
        done = subprocess.run([self.openssl, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, f"openssl {arguments}: {done.stdout}{done.stderr}"
        return done.stdout


def open_envelope(data: bytes, key: SSlibKey, where: str) -> bytes:
    """What is in an envelope that must be signed with this key."""
    envelope = read_envelope(data, where)
    check_signed(envelope, key, where)
    return envelope.payload
