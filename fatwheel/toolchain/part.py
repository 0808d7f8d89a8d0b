"""A file on its way: what has come of it so far, and its digest, over several tries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import BinaryIO

from unearth import Link

from .errands import Way
from .trouble import RefusedError
from .web import Web


class TooLongError(Exception):
    """More bytes came than the file has."""


class Part:
    """Bytes received, in an empty stream; most: how many there may be."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self._stream = stream
        self._most = most
        self._digest = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def receive(self, web: Web, link: Link, way: Way, on_size: Callable[[int], None]) -> None:
        """One try to get what is still missing. on_size is told how many bytes there are.

        Raises TransientError, after which the next try goes on from there, RefusedError, or
        TooLongError; OSError where the disk gives up.
        """
        with web.resumed(link, self.size, way) as (start, chunks):
            self._go_on_from(start)
            for chunk in chunks:
                self._write(chunk)
                on_size(self.size)

    def _go_on_from(self, start: int) -> None:
        if start == self.size:
            return
        if start:
            raise RefusedError(f"it was asked for byte {self.size} and sends byte {start}")
        self._stream.seek(0)
        self._stream.truncate()
        self._digest = hashlib.sha256()
        self.size = 0

    def _write(self, chunk: bytes) -> None:
        if self.size + len(chunk) > self._most:
            raise TooLongError
        self._stream.write(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)
