"""Servers with names and certificates on this machine, which remember who was sent what."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from unearth import Link

from fatwheel.toolchain.access import Way
from fatwheel.toolchain.pipconfig import PipConfig
from fatwheel.toolchain.web import Web

from .webserver import Answer, Server, body

NAMES = ("publisher.test", "cdn.test", "index.test", "stranger.test")


@dataclass
class Site:
    """One server, under one name, which notes the Authorization and Cookie of each request.

    url: how its URLs begin.
    """

    server: Server
    url: str
    sent: list[str | None] = field(default_factory=list)
    cookies: list[str | None] = field(default_factory=list)

    @property
    def netloc(self) -> str:
        return self.url.partition("://")[2]

    def answer(self, path: str, answer: Answer) -> str:
        """Let it answer a path; the URL of that."""

        def noted(handler: BaseHTTPRequestHandler) -> None:
            self.sent.append(handler.headers["Authorization"])
            self.cookies.append(handler.headers["Cookie"])
            answer(handler)

        self.server.answers[path] = noted
        return self.url + path

    def serve(self, path: str, content: bytes, kind: str = "application/octet-stream") -> str:
        return self.answer(path, body(content, kind))


@dataclass
class Town:
    """Makes servers. ca: a file with the certificate that vouches for those with TLS."""

    ca: Path
    context: ssl.SSLContext
    open: ExitStack

    def site(self, name: str) -> Site:
        """Over https, at one of NAMES."""
        server = self.open.enter_context(Server())
        server.http.socket = self.context.wrap_socket(server.http.socket, server_side=True)
        return Site(server, f"https://{name}:{server.http.server_address[1]}")

    def plain(self, name: str = "127.0.0.1") -> Site:
        """Over http."""
        server = self.open.enter_context(Server())
        return Site(server, f"http://{name}:{server.http.server_address[1]}")


def redirect(url: str, *headers: tuple[str, str]) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", url)
        handler.send_header("Content-Length", "0")
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()

    return answer


def town(folder: Path, open: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Town:
    """A place in which NAMES are those of this machine."""
    real: Callable[..., Any] = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host in NAMES else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    ca, pem = _certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return Town(ca, context, open)


def got(here: Town, url: str, way: Way, config: PipConfig | None = None) -> bytes:
    """A file; config: what pip is configured with besides the authority."""
    web = Web(replace(config or PipConfig(), cert=str(here.ca), timeout=5.0))
    try:
        with web.opened(Link(url), way) as chunks:
            return b"".join(chunks)
    finally:
        web.close()


def _certificates(folder: Path) -> tuple[Path, Path]:
    """The certificate of an authority, and key with certificate of all NAMES."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    ca = (
        _begun(authority, authority, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(identifier, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAMES[0])])
    names = x509.SubjectAlternativeName([x509.DNSName(name) for name in NAMES])
    certificate = (
        _begun(subject, authority, key)
        .add_extension(names, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    ca_file, pem = folder / "ca.pem", folder / "server.pem"
    ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return ca_file, pem


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
