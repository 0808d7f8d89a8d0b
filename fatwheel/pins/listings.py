"""What indexes list of a project, each asked once.

Publishers are asked as often as pip's retries say, and a silent host only once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2
from pydantic import ValidationError
from unearth import Link

from ..config import fields
from ..toolchain.errands import LISTED, PINNED, Way, origin_of
from ..toolchain.index import Index, Source
from ..toolchain.pipconfig import NotListedError, RefusedError
from ..toolchain.web import Web
from .published import Values, announced

Links = Mapping[str, list[Link]]  # by file name


class Listings:
    """Listings of the user's own indexes, and of others that a part names."""

    def __init__(self, index: Index, asker: Asker) -> None:
        self._index = index
        self._asker = asker
        self._known: dict[tuple[str, str], Links | RefusedError] = {}

    def own(self, project: str) -> Links:
        """All wheels that the user's indexes list.

        Raises NotListedError where all say that they have none, RefusedError where one is silent.
        """
        return self._once("", project, self._index.sources)

    def at(self, url: str, project: str) -> Links:
        """What another index lists, but for links that lead to this machine or into its network,
        where a stranger's listing has no business. Raises RefusedError."""
        listed = self._once(url, project, (self._index.source_at(url),))
        if origin_of(url).is_inside:
            return listed
        outside = {file: [*filter(_leads_outside, links)] for file, links in listed.items()}
        return {file: links for file, links in outside.items() if links}

    def length(self, link: Link, way: Way) -> int | None:
        """The size in bytes of a listed file, None where the server does not say it."""
        if link.is_file:
            return link.file_path.stat().st_size
        url = link.url_without_fragment
        return self._asker.ask(url, partial(self._index.length, url, way))

    def _once(self, url: str, project: str, sources: Iterable[Source]) -> Links:
        key = (url, project)
        if key not in self._known:
            self._known[key] = self._listed(project, sources)
        known = self._known[key]
        if isinstance(known, RefusedError):
            raise known
        return known

    def _listed(self, project: str, sources: Iterable[Source]) -> Links | RefusedError:
        found: dict[str, list[Link]] = {}
        refused: list[tuple[Source, RefusedError]] = []
        for source in sources:
            try:
                links = self._asker.ask(source.url, partial(self._index.listed, source, project))
            except RefusedError as error:
                refused.append((source, error))
                continue
            for link in filter(_is_wheel, links):
                found.setdefault(link.filename, []).append(link)
        if found:
            return found
        said = "; ".join(f"{source.shown}: {error}" for source, error in refused) or "no wheel"
        absent = all(isinstance(error, NotListedError) for _, error in refused)
        trouble = NotListedError(said) if absent else RefusedError(said)
        trouble.passing = any(error.passing for _, error in refused)
        return trouble


def _leads_outside(link: Link) -> bool:
    with suppress(httpx2.InvalidURL, ValueError):
        origin = origin_of(link.url_without_fragment)
        return origin.scheme == "https" and not origin.is_inside
    return False


def _is_wheel(link: Link) -> bool:
    """Whether a pin may name the file."""
    try:
        fields.adapter(fields.WheelFile).validate_python(link.filename)
    except ValidationError:
        return False
    return True


def way_to(url: str) -> Way:
    """Who named a file: a part, by its URL, or the user's own index."""
    return PINNED if url else LISTED


def published(links: Iterable[Link], pinned: str) -> Values:
    """The sha256 that is published; the pinned one, if any of the listings gives it."""
    found = {sha256 for link in links for sha256 in announced(link)}
    if pinned in found:
        return {"sha256": pinned}
    return {"sha256": sorted(found)[0]} if found else {}


T = TypeVar("T")


class Asker:
    """Remembers which hosts did not answer."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._never = threading.Event()  # Ctrl-C reaches this thread by itself
        self._silent: dict[str, str] = {}  # hosts that do not answer, and what happened

    def ask(self, url: str, action: Callable[[], T]) -> T:
        """The action's result; a host that was silent before is not waited for again.

        Raises RefusedError.
        """
        host = urlsplit(url).netloc
        if host in self._silent:
            raise _passing(self._silent[host])
        try:
            return self._web.patiently(action, self._never)
        except RefusedError as error:
            if not error.unreachable:
                raise
            self._silent[host] = f"{host}: {error}"
            raise _passing(self._silent[host]) from error


def _passing(said: str) -> RefusedError:
    error = RefusedError(said)
    error.passing = True
    return error
