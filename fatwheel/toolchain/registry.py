"""Digests of container images, asked of the registries that serve them, without credentials.

Source: OCI Distribution Specification 1.1 and Docker's token authentication. A digest is that of
what `docker pull` would resolve the name to: an index of all platforms where the registry has one.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

import httpx2

from ..errors import FormatError
from ..jsonfile import read_object
from ..load.fields import LOOPBACK
from .errands import origin_of
from .trouble import RefusedError, TransientError
from .web import LATER, Web, words

_HUB, _HUB_API = "docker.io", "registry-1.docker.io"
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_MOST_TOKEN = 1 << 20  # bytes
_TOKEN = re.compile("[!-~]+")
_DIGEST = re.compile("sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Image:
    """A reference in parts, with what `docker pull` adds: docker.io, library/, latest."""

    host: str
    repository: str
    tag: str

    @property
    def manifest(self) -> str:
        """The URL of what its digest is of."""
        scheme = "http" if _bare(self.host) in LOOPBACK else "https"
        host = _HUB_API if self.host == _HUB else self.host
        return f"{scheme}://{host}/v2/{self.repository}/manifests/{self.tag}"


def parse_reference(reference: str) -> Image:
    """`python:3.11` as docker.io, library/python and 3.11."""
    first, slash, rest = reference.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    host, path = (first, rest) if named else (_HUB, reference)
    repository, _, tag = path.partition(":")
    if host == _HUB and "/" not in repository:
        repository = f"library/{repository}"
    return Image(host, repository, tag or "latest")


def image_digest(image: Image, web: Web) -> str:
    """`sha256:…` of what the image's name means now. Raises TransientError or RefusedError."""
    headers = {"Accept": ", ".join(_MANIFESTS)}
    answer = web.ask("HEAD", image.manifest, headers)
    if answer.status_code == 401:
        challenge = answer.headers.get("WWW-Authenticate", "")
        headers["Authorization"] = f"Bearer {_token(challenge, image, web)}"
        answer = web.ask("HEAD", image.manifest, headers)
    _check(answer.status_code, "no such image there")
    said = answer.headers.get("Docker-Content-Digest", "")
    if _DIGEST.fullmatch(said):
        return str(said)
    answer = web.ask("GET", image.manifest, headers)
    _check(answer.status_code, "no such image there")
    return f"sha256:{hashlib.sha256(answer.content).hexdigest()}"


def _token(challenge: str, image: Image, web: Web) -> str:
    """What lets anybody read: `Bearer realm="URL",service="…",scope="…"` says where to get it."""
    scheme, _, rest = challenge.partition(" ")
    parts = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    realm = parts.get("realm", "")
    if scheme.lower() != "bearer" or not _safe(realm, image):
        raise RefusedError("the registry wants credentials")
    query = {"service": parts.get("service", ""), "scope": f"repository:{image.repository}:pull"}
    answer = web.ask("GET", f"{realm}?{urlencode(query)}", {})
    _check(answer.status_code, "the registry gives no token")
    return _token_in(answer.content)


def _safe(url: str, image: Image) -> bool:
    """Whether a token would not travel in the clear, nor be asked of a host inside of a network."""
    try:
        place = urlsplit(url)
        origin = origin_of(url)
    except (ValueError, httpx2.InvalidURL):
        return False
    encrypted = place.scheme == "https" or (place.scheme == "http" and origin.is_loopback)
    reached = not origin.is_inside or origin.host == origin_of(image.manifest).host
    return encrypted and reached and "@" not in place.netloc


def _token_in(document: bytes) -> str:
    with suppress(FormatError):
        said = read_object(document, "the token", _MOST_TOKEN)
        for name in ("token", "access_token"):
            if isinstance(said.get(name), str) and _TOKEN.fullmatch(said[name]):
                return str(said[name])
    raise RefusedError("the registry gives no token")


def _check(status: int, trouble: str) -> None:
    if status in LATER:
        raise TransientError(words(status))
    if status >= 400:
        raise RefusedError(f"{trouble}: {words(status)}")


def _bare(host: str) -> str:
    return host.partition(":")[0]
