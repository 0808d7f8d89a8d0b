"""The HTTP client: proxy, certificates, credentials and patience as pip is configured.

Who asks for a file checks what comes against its pin; nothing here is trusted.
"""

from __future__ import annotations

import os
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.client import responses
from typing import TypeVar

import httpx2
from unearth import Link
from unearth.auth import MultiDomainBasicAuth
from unearth.fetchers import PyPIClient

from ..errors import FetchError
from .pipconfig import PipConfig

T = TypeVar("T")

_FIRST_PAUSE = 0.25  # seconds before the first retry, doubled each time: as pip does
# Statuses worth another try; those from 520 on are what proxies in front of indexes say.
LATER = (408, 429, 500, 502, 503, 504, *range(520, 528))
_NO_HEAD = (400, 403, 405, 501)  # what servers say that answer GET only
# A file is hashed as it is stored: no transfer encoding may be undone on the way.
_AS_STORED = {"Accept-Encoding": "identity"}
_LONGEST = 64 << 20  # bytes of a document that is read whole


class TransientError(Exception):
    """A failure that another try may cure; its text says what happened."""


class NoConnectionError(TransientError):
    """Nobody answers there."""


class RefusedError(Exception):
    """A failure that another try will not cure, or did not; its text says what happened.

    passing: the last of all tries failed in a way that may pass. unreachable: nobody answered.
    """

    passing = False
    unreachable = False


class Web:
    """One HTTP client, which threads may share.

    Raises FetchError where the certificates that pip is configured with cannot be read.
    """

    def __init__(self, config: PipConfig) -> None:
        self.config = config
        self.client = PyPIClient(
            trusted_hosts=config.trusted_hosts,
            verify=_ssl_context(config),
            timeout=config.timeout,
            follow_redirects=True,
            proxy=config.proxy,
        )
        self.client.auth = MultiDomainBasicAuth(prompting=False, index_urls=config.indexes)

    def close(self) -> None:
        self.client.close()

    @contextmanager
    def opened(self, link: Link) -> Iterator[Iterator[bytes]]:
        """The bytes of a file, in chunks. Raises TransientError or RefusedError."""
        with self.resumed(link, 0) as (_, chunks):
            yield chunks

    @contextmanager
    def resumed(self, link: Link, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """A file from the byte `start` on, or from 0 where the server cannot: which, and chunks."""
        asked = {"Range": f"bytes={start}-"} if start else {}
        with self._got(link.normalized, asked) as response:
            yield _start_of(response), _chunks(response)

    def length(self, url: str) -> int | None:
        """A file's size in bytes, None where the server does not say it."""
        response = self.ask("HEAD", url, _AS_STORED)
        if response.status_code in _NO_HEAD:
            with self._got(url, {}) as response:
                return _length_of(response)
        _check_status(response.status_code)
        return _length_of(response)

    def read(self, url: str) -> bytes:
        """A small document. Raises TransientError or RefusedError."""
        found = b""
        with self._got(url, {}) as response:
            for chunk in _chunks(response):
                found += chunk
                if len(found) > _LONGEST:
                    raise RefusedError(f"it has more than {_LONGEST >> 20} MiB")
        return found

    def ask(self, method: str, url: str, headers: Mapping[str, str]) -> httpx2.Response:
        """An answer of any status, without the user's credentials."""
        with _network_errors():
            return self.client.request(method, url, headers=dict(headers), auth=None)

    @contextmanager
    def _got(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
        request = self.client.get_stream(url, headers={**_AS_STORED, **headers})
        with ExitStack() as stack:
            with _network_errors():
                response = stack.enter_context(request)
            _check_status(response.status_code)
            yield response

    def patiently(self, action: Callable[[], T], stop: threading.Event) -> T:
        """The action's result; tried again, after a pause, while the failure may pass.

        Raises RefusedError; where nobody answered, its `unreachable` is true.
        """
        trouble: TransientError | None = None
        for _ in self.tries(stop):
            try:
                return action()
            except TransientError as error:
                trouble = error
        refused = RefusedError(f"{trouble} ({self.config.retries + 1} tries)")
        refused.passing = True
        refused.unreachable = isinstance(trouble, NoConnectionError)
        raise refused

    def tries(self, stop: threading.Event) -> Iterator[int]:
        """Numbers of the tries still allowed, with a growing pause between them."""
        for number in range(self.config.retries + 1):
            if number and stop.wait(_FIRST_PAUSE * 2 ** (number - 1)):
                return
            yield number


def words(status: int) -> str:
    """`404 Not Found`; only the number of a status that no standard knows."""
    return f"{status} {responses.get(status, '')}".rstrip()


def describe(error: httpx2.HTTPError) -> str:
    """A network error in the user's words."""
    if isinstance(error, httpx2.TimeoutException):
        return "no answer in time (pip's option timeout sets how long to wait)"
    if isinstance(error, httpx2.ConnectError):
        return f"no connection: {error}"
    return f"{type(error).__name__}: {error}"


@contextmanager
def _network_errors() -> Iterator[None]:
    try:
        yield
    except (httpx2.ConnectError, httpx2.TimeoutException) as error:
        raise NoConnectionError(describe(error)) from error
    except httpx2.HTTPError as error:
        raise TransientError(describe(error)) from error
    except (httpx2.InvalidURL, OSError) as error:
        raise RefusedError(str(error)) from error


def _check_status(status: int) -> None:
    if status >= 400:
        raise (TransientError if status in LATER else RefusedError)(words(status))


def _chunks(response: httpx2.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_raw()
    except httpx2.HTTPError as error:
        raise TransientError(describe(error)) from error


def _start_of(response: httpx2.Response) -> int:
    """Where the bytes of an answer begin in the file (RFC 9110, 14.4)."""
    if response.status_code != 206:
        return 0
    said = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if said is None:
        raise RefusedError("it sends a part of the file and does not say which")
    return int(said[1])


def _length_of(response: httpx2.Response) -> int | None:
    said = response.headers.get("Content-Length", "")
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    return int(said) if re.fullmatch(r"\d{1,18}", said, re.ASCII) and not encoded else None


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
