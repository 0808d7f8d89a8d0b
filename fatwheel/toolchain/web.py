"""The HTTP client, configured as pip is; the size and time of responses are limited."""

from __future__ import annotations

import os
import re
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import responses
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar

import httpx2
from unearth import Link
from unearth.fetchers import PyPIClient

from ..errors import FetchError
from .access import LISTED, PINNED, AccessRules, Credentials, RequestContext, Way, context_of
from .pipconfig import NoConnectionError, PipConfig, RefusedError, TransientError, redacted

_LONGEST = 64 << 20  # bytes of a document that is read whole
_MOST_LINKS = 200_000  # in a document: the largest listings that there are have some 20,000
_FOUND = 200, 206
# A connection is not idle for longer than pip's timeout; a byte now and then would last for ever.
_WINDOW = 60.0  # seconds of waiting
_LEAST = 4096  # bytes that must come meanwhile
_MOST_OF_STEP = 1 << 20  # bytes that are unpacked at a time


def bound(response: httpx2.Response) -> None:
    """See to it that reading the answer ends: raises RefusedError or TransientError else."""
    asked = response.request
    paced = _Paced(response.stream)
    if context_of(asked).to_disk and response.status_code in _FOUND:
        response.stream = paced  # who writes it down knows its size
    elif asked.method == "HEAD":
        response.stream = _Document(paced, None)
    else:
        response.stream = _Document(paced, _decoder(response))


class _Paced(httpx2.SyncByteStream):
    """Bytes that come at a rate worth waiting for."""

    def __init__(self, stream: httpx2.SyncByteStream | httpx2.AsyncByteStream) -> None:
        assert isinstance(stream, httpx2.SyncByteStream), "the client is none for asyncio"
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        waited, came = 0.0, 0
        chunks = iter(self._stream)
        while True:
            started = time.monotonic()
            chunk = next(chunks, None)
            waited += time.monotonic() - started
            if chunk is None:
                return
            came += len(chunk)
            if waited >= _WINDOW:
                if came < _LEAST:
                    raise TransientError(f"too slow: {came} bytes in {waited:.0f} seconds")
                waited, came = 0.0, 0
            yield chunk

    def close(self) -> None:
        self._stream.close()


class _Document(httpx2.SyncByteStream):
    """What is read whole: unpacked, and neither too long nor with too many links."""

    def __init__(self, stream: _Paced, decoder: zlib._Decompress | None) -> None:
        self._stream = stream
        self._decoder = decoder

    def __iter__(self) -> Iterator[bytes]:
        size = links = 0
        for chunk in self._decoded(self._stream):
            size += len(chunk)
            if size > _LONGEST:
                raise RefusedError(f"it is larger than {_LONGEST >> 20} MiB")
            links += chunk.count(b"<a") + chunk.count(b"<A") + chunk.count(b'"url"')
            if links > _MOST_LINKS:
                raise RefusedError(f"it has more than {_MOST_LINKS:,} links")
            yield chunk

    def _decoded(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        decoder = self._decoder
        if decoder is None:
            yield from chunks
            return
        try:
            for chunk in chunks:
                while chunk:
                    yield decoder.decompress(chunk, _MOST_OF_STEP)
                    chunk = decoder.unconsumed_tail
            yield decoder.flush(_MOST_OF_STEP)
        except zlib.error as error:
            raise RefusedError(f"it cannot be unpacked: {error}") from error

    def close(self) -> None:
        self._stream.close()


def _decoder(response: httpx2.Response) -> zlib._Decompress | None:
    """Of an answer that is packed although that was not asked for, as files on some servers are.

    The client would unpack it whole, however long it gets; told that it is not packed, it does not.
    """
    said = response.headers.pop("Content-Encoding", "identity").strip().lower()
    if said in ("identity", ""):
        return None
    if said not in ("gzip", "x-gzip", "deflate"):
        raise RefusedError(f"it is encoded as {said:.40}, which was not requested")
    return zlib.decompressobj(zlib.MAX_WBITS | 32)


# -- the client ------------------------------------------------------------------------------------

# Who asks for a file checks what comes against its pin; nothing here is trusted.


T = TypeVar("T")

_FIRST_PAUSE = 0.25  # seconds before the first retry, doubled each time: as pip does
# Statuses worth another try; those from 520 on are what proxies in front of indexes say.
LATER = (408, 429, 500, 502, 503, 504, *range(520, 528))
_NO_HEAD = (400, 403, 405, 501)  # what servers say that answer GET only
# A file is hashed as it is stored: no transfer encoding may be undone on the way.
_AS_STORED = {"Accept-Encoding": "identity"}
_MOST_REDIRECTS = 10


@dataclass(frozen=True)
class Arriving:
    """A file on its way, from the byte `start` on. whole: the size of all of it in bytes, 0 where
    the server does not say it."""

    start: int
    whole: int
    chunks: Iterator[bytes]


class Web:
    """One HTTP client, which threads may share.

    Raises FetchError where the certificates that pip is configured with cannot be read.
    """

    def __init__(self, config: PipConfig) -> None:
        self.config = config
        self.rules = AccessRules(config)
        self.client = PyPIClient(
            trusted_hosts=config.trusted_hosts,
            verify=_ssl_context(config),
            timeout=config.timeout,
            follow_redirects=True,
            max_redirects=_MOST_REDIRECTS,
            proxy=config.proxy,
            headers=_AS_STORED,
            # None is kept: one host's would be told to others of its domain.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            event_hooks={"request": [self.rules.admit], "response": [bound]},
        )
        self.client.auth = Credentials(config, self.rules)

    def close(self) -> None:
        self.client.close()

    @contextmanager
    def opened(self, link: Link, way: Way) -> Iterator[Iterator[bytes]]:
        """The bytes of a file, in chunks. Raises TransientError or RefusedError."""
        with self.resumed(link, 0, way) as arriving:
            yield arriving.chunks

    @contextmanager
    def resumed(self, link: Link, start: int, way: Way) -> Iterator[Arriving]:
        """A file from the byte `start` on, or from 0 where the server cannot.

        way: who named the link.
        """
        asked = {"Range": f"bytes={start}-"} if start else {}
        with self._got(link.normalized, RequestContext(way, to_disk=True), asked) as response:
            begins = _start_of(response)
            length = _length_of(response)
            yield Arriving(begins, begins + length if length else 0, _chunks(response))

    def length(self, url: str, way: Way = PINNED) -> int | None:
        """The size in bytes of a file, None where the server does not say it.

        Of one that the user's own index lists (LISTED), it is asked with the user's credentials.
        """
        context = RequestContext(way, to_disk=True)
        if way == LISTED:
            with self._got(url, context, {}) as response:
                return _length_of(response)
        response = self.ask("HEAD", url, {}, way)
        if response.status_code in _NO_HEAD:
            with self._got(url, context, {}) as response:
                return _length_of(response)
        _check_status(response.status_code)
        return _length_of(response)

    def piece(self, url: str, start: int, size: int, way: Way) -> bytes:
        """At most `size` bytes of a file, from `start` on.

        Raises TransientError or RefusedError.
        """
        asked = {"Range": f"bytes={start}-{start + size - 1}"}
        with self._got(url, RequestContext(way), asked) as response:
            if response.status_code != 206 or _start_of(response) != start:
                raise RefusedError("the server does not send parts of a file")
            return b"".join(_chunks(response))[:size]

    def read(self, url: str, way: Way = PINNED) -> bytes:
        """A small document that a toolchain names. Raises TransientError or RefusedError."""
        with self._got(url, RequestContext(way), {}) as response:
            return b"".join(_chunks(response))

    def ask(
        self, method: str, url: str, headers: Mapping[str, str], way: Way = LISTED
    ) -> httpx2.Response:
        """An answer of any status, without the user's credentials."""
        extensions = RequestContext(way).extensions
        with _network_errors():
            return self.client.request(
                method, url, headers=dict(headers), auth=None, extensions=extensions
            )

    @contextmanager
    def _got(
        self, url: str, context: RequestContext, headers: Mapping[str, str]
    ) -> Iterator[httpx2.Response]:
        request = self.client.stream(
            "GET", url, headers=dict(headers), extensions=context.extensions
        )
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
    """`404 Not Found`; only the number for a non-standard status."""
    return f"{status} {responses.get(status, '')}".rstrip()


def describe(error: httpx2.HTTPError) -> str:
    """A network error as text for messages."""
    if isinstance(error, httpx2.TimeoutException):
        return "no answer in time (pip's option timeout sets how long to wait)"
    if isinstance(error, httpx2.ConnectError):
        return f"no connection: {redacted(error)}"
    return f"{type(error).__name__}: {redacted(error)}"


@contextmanager
def _network_errors() -> Iterator[None]:
    try:
        yield
    except (httpx2.ConnectError, httpx2.TimeoutException) as error:
        raise NoConnectionError(describe(error)) from error
    except httpx2.TooManyRedirects:
        raise RefusedError(f"it redirects more than {_MOST_REDIRECTS} times") from None
    except httpx2.HTTPError as error:
        raise TransientError(describe(error)) from error
    except (httpx2.InvalidURL, UnicodeError, OSError) as error:  # UnicodeError: of a host's name
        raise RefusedError(redacted(error)) from error


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
        raise RefusedError("it sends a part of the file without saying which")
    return int(said[1])


def _length_of(response: httpx2.Response) -> int | None:
    said = response.headers.get("Content-Length", "")
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    return int(said) if re.fullmatch(r"\d{1,18}", said, re.ASCII) and not encoded else None


def _ssl_context(config: PipConfig) -> ssl.SSLContext | bool:
    """The system's certificates, or those that pip is configured with."""
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
