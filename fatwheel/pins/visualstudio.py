"""Reads what Microsoft publishes of a release of Visual Studio: where its packages are.

    channel     NAME.chman, {"channelItems": [{"type": "Manifest", "payloads": [{"url"}]}, ...]}
    catalogue   NAME.vsman, {"packages": [{"id", "version", "language", "payloads": [...]}, ...]}
                with payloads as {"url", "sha256", "size"}

The sha256 that a channel gives for its catalogue, and the sizes in a catalogue, are not those of
the files that are served; neither is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from ..config import fields
from ..config.model import Document
from ..config.schema import PayloadTable, filename_of
from ..errors import FormatError
from ..storage.documents import read_object
from ..toolchain.pipconfig import RefusedError
from ..toolchain.web import Web
from .published import Values

# A catalogue has some 30 MB and half a million values.
_MOST, _MOST_VALUES = 64 << 20, 8_000_000
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
        for item in _dicts(_read(channel, web).get("channelItems"))
        if item.get("type") == "Manifest"
        for payload in _dicts(item.get("payloads"))
    ]
    if catalogue.url not in named:
        raise RefusedError(f"{filename_of(channel.url)} names another catalogue")
    found: dict[str, Values] = {}
    for package in _dicts(_read(catalogue, web).get("packages")):
        name, payloads = package.get("id"), list(_dicts(package.get("payloads")))
        ours = package.get("language") in _LANGUAGES and len(payloads) == 1
        if isinstance(name, str) and ours:
            values = {"version": package.get("version"), **_known(payloads[0])}
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


def _known(payload: Mapping[str, Any]) -> dict[str, Any]:
    sha256 = payload.get("sha256")
    return {
        "url": payload.get("url"),
        "sha256": sha256.lower() if isinstance(sha256, str) else None,
    }


def _read(document: Document, web: Web) -> dict[str, Any]:
    data = web.read(document.url)
    found = hashlib.sha256(data).hexdigest()
    if found != document.sha256:
        raise ChangedError(document, found)
    name = filename_of(document.url)
    try:
        return read_object(data.removeprefix(_BOM), name, _MOST, _MOST_VALUES)
    except FormatError as error:
        raise RefusedError(f"{name}: {error.what}") from None


def _dicts(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (one for one in value if isinstance(one, dict))
