"""What those who publish files say of them: index pages beside wheels, manifests of CUDA releases.

Nothing of it is trusted further than a pin is: it is written down once and compared ever after.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import urljoin

from unearth import Link

from ..errors import FormatError
from ..jsonfile import read_object
from ..model import Package
from .index import Index, Source
from .trouble import RefusedError
from .web import Web

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
    found = {sha256 for link in links for sha256 in announced(link)}
    if package.sha256 in found:
        return {"sha256": package.sha256}
    return {"sha256": sorted(found)[0]} if found else {}


def index_values(package: Package, index: Index, ask: Ask) -> Values:
    """The sha256 that the user's indexes list for a file; the pinned one if any of them does.

    Empty where it is listed without any. Raises RefusedError where no index lists it.
    """
    listed = False
    found: set[str] = set()
    refused: list[tuple[Source, RefusedError]] = []
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


def _nowhere(refused: list[tuple[Source, RefusedError]]) -> RefusedError:
    said = [f"{source.shown}: {error}" for source, error in refused]
    return RefusedError("; ".join(said) or "there is no index to ask")


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
        raise RefusedError("is no manifest of a CUDA release: not JSON") from None
    found = {
        urljoin(url, entry["relative_path"]): Values(size=int(entry["size"]), sha256=sha256)
        for entry in _entries(document, _DEPTH)
        if _SHA256.fullmatch(sha256 := entry["sha256"])
    }
    if not found:
        raise RefusedError("is no manifest of a CUDA release: it names no files")
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
