"""Reads what publishers state of files and images: index pages, CUDA manifests, registries, and the
catalogues of Visual Studio.

Nothing of it is trusted further than a pin is: it is written down once and compared ever after.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import httpx2
from pydantic import ValidationError
from unearth import Link

from ..config import fields
from ..config.fields import LOOPBACK
from ..config.pinned import Package
from ..config.schema import PayloadTable, filename_of
from ..config.toolchain import Document
from ..errors import FormatError
from ..storage.documents import read_object
from ..toolchain.access import origin_of
from ..toolchain.index import Index, IndexSource
from ..toolchain.pipconfig import RefusedError, TransientError
from ..toolchain.web import LATER, Web, words

Values = dict[str, int | str]  # 'size' in bytes, 'sha256', or 'digest' of an image
# The result of an action that asks a URL's host, tried as often as need be; or RefusedError.
Ask = Callable[[str, Callable[[], list[Link]]], list[Link]]

_SHA256 = re.compile("[0-9a-f]{64}")
_DEPTH = 4  # how deep entries lie in a manifest: component, platform, CUDA version


def page_values(package: Package, index: Index, ask: Ask) -> Values:
    """The sha256 on the page (PEP 503) next to a wheel's URL; nothing where none is published.

    As for https://host/whl/cu121/torch-2.1.whl, where the page is https://host/whl/cu121/torch/.
    Raises RefusedError where the page may be there and cannot be read.
    """
    source = index.source_at(package.url.rpartition("/")[0])
    try:
        links = ask(source.url, partial(index.links, source, package))
    except RefusedError as error:
        if error.passing:
            raise
        return {}
    return sha256_of(links, package.sha256)


def index_values(package: Package, index: Index, ask: Ask) -> Values:
    """The sha256 that the user's indexes list for a file; the pinned one if any of them does.

    Empty where it is listed without any. Raises RefusedError where no index lists it.
    """
    listed = False
    found: set[str] = set()
    refused: list[tuple[IndexSource, RefusedError]] = []
    for source in index.sources:
        try:
            links = ask(source.url, partial(index.links, source, package))
        except RefusedError as error:
            refused.append((source, error))
            continue
        listed = True
        hashes = {sha256 for link in links for sha256 in announced(link)}
        if package.sha256 in hashes:
            return {"sha256": package.sha256}
        found |= hashes
    if not listed:
        raise _nowhere(refused)
    return {"sha256": sorted(found)[0]} if found else {}


def _nowhere(refused: list[tuple[IndexSource, RefusedError]]) -> RefusedError:
    said = [f"{source.shown}: {error}" for source, error in refused]
    return RefusedError("; ".join(said) or "there is no index to ask")


def sha256_of(links: Iterable[Link], pinned: str) -> Values:
    """The sha256 that is published; the pinned one, if any of the listings gives it."""
    found = {sha256 for link in links for sha256 in announced(link)}
    if pinned in found:
        return {"sha256": pinned}
    return {"sha256": sorted(found)[0]} if found else {}


def announced(link: Link) -> list[str]:
    """The sha256 that a listing gives with a link."""
    said = (link.hash_option or {}).get("sha256", [])
    return [sha256.lower() for sha256 in said if _SHA256.fullmatch(sha256.lower())]


def manifest_values(url: str, web: Web) -> dict[str, Values]:
    """Size and sha256 by URL of each file in NVIDIA's manifest of a release (redistrib_X.json).

    Raises TransientError or RefusedError.
    """
    try:
        document = read_object(web.read(url), url)
    except FormatError:
        raise RefusedError("is not a CUDA release manifest: not JSON") from None
    found = {
        urljoin(url, entry["relative_path"]): Values(size=int(entry["size"]), sha256=sha256)
        for entry in _entries(document, _DEPTH)
        if _SHA256.fullmatch(sha256 := entry["sha256"])
    }
    if not found:
        raise RefusedError("is not a CUDA release manifest: it names no files")
    return found


def _entries(value: Any, depth: int) -> Iterator[Mapping[str, str]]:
    """The tables that describe a file, wherever they are: {relative_path, sha256, size}."""
    if not isinstance(value, dict) or not depth:
        return
    path, sha256, size = (value.get(name) for name in ("relative_path", "sha256", "size"))
    if isinstance(path, str) and isinstance(sha256, str) and re.fullmatch(r"\d{1,18}", str(size)):
        yield {"relative_path": path, "sha256": sha256, "size": str(size)}
        return
    for inner in value.values():
        yield from _entries(inner, depth - 1)


# -- registries of images --------------------------------------------------------------------------

# Digests of container images, asked of the registries that serve them, without credentials.
#
# Source: OCI Distribution Specification 1.1 and Docker's token authentication. A digest is that of
# what `docker pull` would resolve the name to: an index of all platforms where the registry has
# one.


_HUB, _HUB_API = "docker.io", "registry-1.docker.io"
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_MOST_TOKEN = 1 << 20  # bytes
_MOST_TAGS = 8 << 20  # bytes; a tag has 25 or so, and each month brings a few
_TOKEN = re.compile("[!-~]+")
_DIGEST = re.compile("sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class ImageReference:
    """A reference in parts, with what `docker pull` adds: docker.io, library/, latest."""

    host: str
    repository: str
    tag: str

    @property
    def url(self) -> str:
        """The URL of its repository."""
        scheme = "http" if self.host.partition(":")[0] in LOOPBACK else "https"
        host = _HUB_API if self.host == _HUB else self.host
        return f"{scheme}://{host}/v2/{self.repository}"

    @property
    def manifest(self) -> str:
        """The URL of what its digest is of."""
        return f"{self.url}/manifests/{self.tag}"


def parse_reference(reference: str) -> ImageReference:
    """`python:3.11` as docker.io, library/python and 3.11."""
    first, slash, rest = reference.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    host, path = (first, rest) if named else (_HUB, reference)
    repository, _, tag = path.partition(":")
    if host == _HUB and "/" not in repository:
        repository = f"library/{repository}"
    return ImageReference(host, repository, tag or "latest")


def image_digest(image: ImageReference, web: Web) -> str:
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


@dataclass(frozen=True)
class HostBuild:
    """What `ver` says of a Windows host: 10.0.20348.2340 is build 20348, revision 2340."""

    build: int
    revision: int


def parse_host_build(text: str) -> HostBuild | None:
    """`20348.2340` or `10.0.20348.2340`; None for anything else."""
    found = re.fullmatch(r"(?:10\.0\.)?([0-9]{5})\.([0-9]{1,6})", text)
    return HostBuild(int(found[1]), int(found[2])) if found else None


def image_for_host(image: ImageReference, host: HostBuild, web: Web) -> ImageReference:
    """The newest image of the host's build that is not newer than the host.

    Microsoft's registry has one for each month's updates, whose tag is the whole version. Raises
    TransientError or RefusedError.
    """
    answer = web.ask("GET", f"{image.url}/tags/list", {})
    _check(answer.status_code, "the registry does not list its tags")
    try:
        tags = read_object(answer.content, "the tags", _MOST_TAGS).get("tags")
    except FormatError:
        tags = None
    versions = re.compile(rf"10\.0\.{host.build}\.([0-9]{{1,6}})")
    found = [versions.fullmatch(tag) for tag in tags or () if isinstance(tag, str)]
    fitting = [int(one[1]) for one in found if one and int(one[1]) <= host.revision]
    if not fitting:
        raise RefusedError(f"no image for Windows {host.build}.{host.revision} or older is there")
    return replace(image, tag=f"10.0.{host.build}.{max(fitting)}")


def _token(challenge: str, image: ImageReference, web: Web) -> str:
    """What lets anybody read: `Bearer realm="URL",service="…",scope="…"` says where to get it."""
    scheme, _, rest = challenge.partition(" ")
    parts = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    realm = parts.get("realm", "")
    if scheme.lower() != "bearer" or not _safe(realm, image):
        raise RefusedError("the registry requires credentials")
    query = {"service": parts.get("service", ""), "scope": f"repository:{image.repository}:pull"}
    answer = web.ask("GET", f"{realm}?{urlencode(query)}", {})
    _check(answer.status_code, "the registry gave no token")
    return _token_in(answer.content)


def _safe(url: str, image: ImageReference) -> bool:
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
    raise RefusedError("the registry gave no token")


def _check(status: int, trouble: str) -> None:
    if status in LATER:
        raise TransientError(words(status))
    if status >= 400:
        raise RefusedError(f"{trouble}: {words(status)}")


# -- Visual Studio ---------------------------------------------------------------------------------

# A catalogue has some 30 MB and half a million values.
_MOST_CATALOGUE, _MOST_VALUES = 64 << 20, 8_000_000
_BOM = b"\xef\xbb\xbf"
# Packages of words come once for each language, the others without any.
_LANGUAGES = (None, "neutral", "en-US")


class ChangedError(RefusedError):
    """A document is not the one that is pinned. found: its sha256."""

    def __init__(self, document: Document, found: str) -> None:
        super().__init__("it is not the one that is pinned")
        self.document = document
        self.found = found


def packages_in(channel: Document, catalogue: Document, web: Web) -> dict[str, Values]:
    """What is to be known of every package of a release, by its id in small letters: the version,
    and the url and sha256 of its one file.

    Raises ChangedError, RefusedError, TransientError.
    """
    named = [
        payload.get("url")
        for item in _dicts(_read_pinned(channel, web).get("channelItems"))
        if item.get("type") == "Manifest"
        for payload in _dicts(item.get("payloads"))
    ]
    if catalogue.url not in named:
        raise RefusedError(f"{filename_of(channel.url)} names another catalogue")
    found: dict[str, Values] = {}
    for package in _dicts(_read_pinned(catalogue, web).get("packages")):
        name, payloads = package.get("id"), list(_dicts(package.get("payloads")))
        ours = package.get("language") in _LANGUAGES and len(payloads) == 1
        if isinstance(name, str) and ours:
            values = {"version": package.get("version"), **_file_of(payloads[0])}
            found.setdefault(name.lower(), {k: v for k, v in values.items() if isinstance(v, str)})
    if not found:
        raise RefusedError(f"{filename_of(catalogue.url)} is no catalogue: it lists no packages")
    return found


def checked(name: str, values: Values) -> Values:
    """What a catalogue says of a package, if a toolchain's file can have it. RefusedError else."""
    try:
        fields.adapter(PayloadTable).validate_python({"name": name, **values})
    except ValidationError as error:
        first = error.errors()[0]
        what = first["msg"].removeprefix("Value error, ")
        raise RefusedError(f"the catalogue says nonsense of it: {first['loc']}: {what}") from None
    if {"version", "url", "sha256"} - values.keys():
        raise RefusedError("the catalogue does not say its version, url and sha256")
    return values


def _file_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    sha256 = payload.get("sha256")
    return {
        "url": payload.get("url"),
        "sha256": sha256.lower() if isinstance(sha256, str) else None,
    }


def _read_pinned(document: Document, web: Web) -> dict[str, Any]:
    data = web.read(document.url)
    found = hashlib.sha256(data).hexdigest()
    if found != document.sha256:
        raise ChangedError(document, found)
    name = filename_of(document.url)
    try:
        return read_object(data.removeprefix(_BOM), name, _MOST_CATALOGUE, _MOST_VALUES)
    except FormatError as error:
        raise RefusedError(f"{name}: {error.what}") from None


def _dicts(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (one for one in value if isinstance(one, dict))
