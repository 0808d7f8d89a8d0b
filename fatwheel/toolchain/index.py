"""Asks the user's package index for one exact file.

What an index answers is found through `unearth`, which reads PEP 503 and PEP 691 listings,
find-links pages and folders, and sends credentials from netrc, keyring or the URL. No listing
is trusted: whoever downloads a file checks it against its pin.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import responses
from typing import cast

import httpx2
from unearth import Link, PackageFinder
from unearth.auth import MultiDomainBasicAuth
from unearth.collector import is_secure_origin
from unearth.fetchers import Fetcher, PyPIClient

from ..errors import FetchError
from ..model import Package
from .pipconfig import PipConfig

# unearth logs what it could not read; here that becomes part of the error.
logging.getLogger("unearth").addHandler(logging.NullHandler())

_FIRST_PAUSE = 0.25  # seconds before the first retry, doubled each time: as pip does
# Statuses worth another try; those from 520 on are what proxies in front of indexes say.
_LATER = (408, 429, 500, 502, 503, 504, *range(520, 528))
# What `unearth` lets escape on a malformed listing, or a folder that cannot be read.
_UNREADABLE = (
    ValueError,
    TypeError,
    AttributeError,
    RecursionError,
    httpx2.InvalidURL,
    OSError,
)


class TransientError(Exception):
    """A failure that another try may cure; its text says what happened."""


class RefusedError(Exception):
    """A failure that another try will not cure; its text says what happened."""


@dataclass(frozen=True)
class Source:
    """One place to ask: an index or a find-links page or folder."""

    url: str
    finder: PackageFinder

    @property
    def local(self) -> bool:
        return "://" not in self.url or self.url.startswith("file:")

    @property
    def shown(self) -> str:
        """The URL without a password in it."""
        return Link(self.url).redacted if "://" in self.url else self.url


class Index:
    """All the places that the user's pip configuration names, with one HTTP client.

    Threads may share it. Raises FetchError if nothing is configured, or no certificates can be
    loaded.
    """

    def __init__(self, config: PipConfig) -> None:
        self.config = config
        self._statuses = threading.local()
        self.client = PyPIClient(
            trusted_hosts=config.trusted_hosts,
            verify=_ssl_context(config),
            timeout=config.timeout,
            follow_redirects=True,
            event_hooks={"response": [self._note_status]},
            proxy=config.proxy,
        )
        self.client.auth = MultiDomainBasicAuth(prompting=False, index_urls=config.indexes)
        self.sources = self._sources()

    def close(self) -> None:
        self.client.close()

    def _sources(self) -> tuple[Source, ...]:
        found = [
            *(Source(url, self._finder(find_links=(url,))) for url in self.config.find_links),
            *(Source(url, self._finder(index_urls=(url,))) for url in self.config.indexes),
        ]
        if not found:
            raise FetchError(
                "pip is configured with no index and no find-links, so there is nowhere to look",
                hint="see `python -m pip config list`",
            )
        # Which source is asked first changes nothing but the time it takes: files are pinned.
        return tuple(sorted(found, key=lambda source: not source.local))

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

    def links(self, source: Source, package: Package) -> list[Link]:
        """The links of one source to exactly this file name.

        A link whose listing says another sha256 than the pin's comes last. Raises
        TransientError or RefusedError.
        """
        self._statuses.seen = []
        try:
            found = list(source.finder.find_all_packages(package.name, allow_yanked=True))
        except httpx2.HTTPError as error:
            raise TransientError(describe(error)) from error
        except _UNREADABLE as error:
            raise RefusedError(f"the listing could not be read: {error}") from error
        links = [item.link for item in found if item.link.filename == package.filename]
        if not links:
            self._explain(source, len(found))
        return sorted(links, key=lambda link: not _announces(link, package))

    def _explain(self, source: Source, others: int) -> None:
        bad = [status for status in self._statuses.seen if status >= 400]
        if any(status in _LATER for status in bad):
            raise TransientError(f"the listing could not be read: {_words(bad[-1])}")
        if not source.local and not is_secure_origin(self._fetcher, Link(source.url)):
            raise RefusedError("skipped: plain http, and not among pip's trusted hosts")
        if others:
            raise RefusedError(f"lists {others} files of this package, not this one")
        raise RefusedError(f"no such package here: {_words(bad[-1])}" if bad else "not listed here")

    def _note_status(self, response: httpx2.Response) -> None:
        self._statuses.__dict__.setdefault("seen", []).append(response.status_code)

    @contextmanager
    def opened(self, link: Link) -> Iterator[Iterator[bytes]]:
        """The bytes of a file, in chunks. Raises TransientError or RefusedError."""
        # A file is hashed as it is stored: no transfer encoding may be undone on the way.
        request = self.client.get_stream(link.normalized, headers={"Accept-Encoding": "identity"})
        with ExitStack() as stack:
            try:
                response = stack.enter_context(request)
            except httpx2.HTTPError as error:
                raise TransientError(describe(error)) from error
            except (httpx2.InvalidURL, OSError) as error:
                raise RefusedError(str(error)) from error
            if response.status_code >= 400:
                later = response.status_code in _LATER
                raise (TransientError if later else RefusedError)(_words(response.status_code))
            yield _chunks(response)

    def tries(self, stop: threading.Event) -> Iterator[int]:
        """Numbers of the tries still allowed, with a growing pause between them."""
        for number in range(self.config.retries + 1):
            if number and stop.wait(_FIRST_PAUSE * 2 ** (number - 1)):
                return
            yield number


def _chunks(response: httpx2.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_raw()
    except httpx2.HTTPError as error:
        raise TransientError(describe(error)) from error


def _announces(link: Link, package: Package) -> bool:
    """Whether the listing says, or leaves open, that this is the pinned file."""
    announced = (link.hash_option or {}).get("sha256")
    return announced is None or package.sha256 in announced


def _words(status: int) -> str:
    """`404 Not Found`; only the number of a status that no standard knows."""
    return f"{status} {responses.get(status, '')}".rstrip()


def describe(error: httpx2.HTTPError) -> str:
    """A network error in the user's words."""
    if isinstance(error, httpx2.TimeoutException):
        return "no answer in time (pip's option timeout sets how long to wait)"
    if isinstance(error, httpx2.ConnectError):
        return f"no connection: {error}"
    return f"{type(error).__name__}: {error}"


def _ssl_context(config: PipConfig) -> ssl.SSLContext | bool:
    """The system's certificates, or those that pip is told to use."""
    if not config.cert and not config.client_cert:
        return True
    try:
        folder = config.cert is not None and os.path.isdir(config.cert)
        context = ssl.create_default_context(
            cafile=None if folder else config.cert, capath=config.cert if folder else None
        )
        if config.client_cert:
            context.load_cert_chain(config.client_cert)
    except OSError as error:  # ssl.SSLError is one
        raise FetchError(
            f"the certificates that pip is configured with cannot be read: {error}",
            where=config.client_cert or config.cert,
            hint="see cert and client-cert in `python -m pip config list`",
        ) from error
    return context
