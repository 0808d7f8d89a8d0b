"""What a server says, held within bounds: how much of it there is, and how slowly it may come."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator

import httpx2

from .errands import errand_of
from .trouble import RefusedError, TransientError

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
    if errand_of(asked).to_disk and response.status_code in _FOUND:
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
                raise RefusedError(f"it has more than {_LONGEST >> 20} MiB")
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
        raise RefusedError(f"it comes packed as {said:.40}, which was not asked for")
    return zlib.decompressobj(zlib.MAX_WBITS | 32)
