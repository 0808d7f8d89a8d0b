"""Looks up one exact file on the user's package index.

What an index answers is found through `unearth`, which reads PEP 503 and PEP 691 listings,
find-links pages and folders, and sends credentials from netrc, keyring or the URL. No listing
is trusted: whoever downloads a file checks it against its pin.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import httpx2
from unearth import Link, PackageFinder
from unearth.collector import is_secure_origin
from unearth.fetchers import Fetcher

from ..config.pinned import Package
from ..errors import FetchError
from .pipconfig import (
    NoConnectionError,
    NotListedError,
    PipConfig,
    RefusedError,
    TransientError,
    redacted,
)
from .web import LATER, Web, describe, words

# unearth logs what it could not read; here that becomes part of the error.
logging.getLogger("unearth").addHandler(logging.NullHandler())

# What `unearth` lets escape on a malformed listing, or a folder that cannot be read.
_UNREADABLE = (
    ValueError,
    TypeError,
    AttributeError,
    RecursionError,
    httpx2.InvalidURL,
    OSError,
)


@dataclass(frozen=True)
class IndexSource:
    """One place to ask: an index or a find-links page or folder."""

    url: str
    finder: PackageFinder

    @property
    def local(self) -> bool:
        return "://" not in self.url or self.url.startswith("file:")

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return Link(self.url).redacted if "://" in self.url else self.url


class Index(Web):
    """All the places that the user's pip configuration names, with one HTTP client.

    Threads may share it. Raises FetchError if nothing is configured, or no certificates can be
    loaded.
    """

    def __init__(self, config: PipConfig) -> None:
        super().__init__(config)
        self._statuses = threading.local()
        self.client.event_hooks["response"].append(self._note_status)
        self.sources = self._sources()

    def _sources(self) -> tuple[IndexSource, ...]:
        found = [
            *(IndexSource(url, self._finder(find_links=(url,))) for url in self.config.find_links),
            *(IndexSource(url, self._finder(index_urls=(url,))) for url in self.config.indexes),
        ]
        if not found:
            raise FetchError(
                "pip is configured with no index and no find-links, so there is nowhere to "
                "download from",
                hint="see `python -m pip config list`",
            )
        # Which source is asked first changes nothing but the time it takes: files are pinned.
        return tuple(sorted(found, key=lambda source: not source.local))

    def source_at(self, url: str) -> IndexSource:
        """An index that is not among those configured."""
        return IndexSource(url, self._finder(index_urls=(url,)))

    def _finder(
        self, index_urls: tuple[str, ...] = (), find_links: tuple[str, ...] = ()
    ) -> PackageFinder:
        return PackageFinder(
            self._fetcher,
            index_urls=index_urls,
            find_links=find_links,
            ignore_compatibility=True,  # wheels of other Pythons and platforms are wanted too
        )

    @property
    def _fetcher(self) -> Fetcher:
        return cast(Fetcher, self.client)  # it is one, but its own types say more

    def links(self, source: IndexSource, package: Package) -> list[Link]:
        """The links of one source to exactly this file name.

        A link whose listing says another sha256 than the pin's comes last. Raises
        TransientError or RefusedError.
        """
        found = self._listed(source, package.name)
        links = [link for link in _from(source, found) if link.filename == package.filename]
        if not links:
            self._explain(source, len(found))
        return sorted(links, key=lambda link: not _announces(link, package))

    def listed(self, source: IndexSource, project: str) -> list[Link]:
        """All that one source lists of a project. Raises TransientError or RefusedError."""
        found = _from(source, self._listed(source, project))
        if not found:
            self._explain(source, 0)
        return found

    def _listed(self, source: IndexSource, project: str) -> list[Link]:
        self._statuses.seen = []
        try:
            found = list(source.finder.find_all_packages(project, allow_yanked=True))
        except (httpx2.ConnectError, httpx2.TimeoutException) as error:
            raise NoConnectionError(describe(error)) from error
        except httpx2.HTTPError as error:
            raise TransientError(describe(error)) from error
        except _UNREADABLE as error:
            raise RefusedError(f"the listing could not be read: {redacted(error)}") from error
        return [item.link for item in found]

    def _explain(self, source: IndexSource, others: int) -> None:
        bad = [status for status in self._statuses.seen if status >= 400]
        if any(status in LATER for status in bad):
            raise TransientError(f"the listing could not be read: {words(bad[-1])}")
        if not source.local and not is_secure_origin(self._fetcher, Link(source.url)):
            raise RefusedError("skipped: plain http, and not among pip's trusted hosts")
        if others:
            raise RefusedError(f"lists {others} files of this package, not this one")
        raise NotListedError(
            f"no such package here: {words(bad[-1])}" if bad else "not listed here"
        )

    def _note_status(self, response: httpx2.Response) -> None:
        self._statuses.__dict__.setdefault("seen", []).append(response.status_code)


def _from(source: IndexSource, links: Iterable[Link]) -> list[Link]:
    """Those that a source may name: a page none of this machine's files."""
    return [link for link in links if source.local or link.parsed.scheme in ("http", "https")]


def _announces(link: Link, package: Package) -> bool:
    """Whether this may be the pinned file, by the listing."""
    announced = (link.hash_option or {}).get("sha256")
    return announced is None or package.sha256 in announced
