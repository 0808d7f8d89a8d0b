"""A ZIP writer whose output depends only on its input.

Python's own writer takes attributes and times from the machine unless each is overridden, and
compresses on one core. This one sets every field, and compresses a member in blocks of a fixed
size on all cores: each block is deflated with the 32 KiB before it as dictionary, as `pigz`
does, and the blocks in a row are one ordinary deflate stream. How many cores there are does
not show; the version of zlib does (see `compressor`).

Format: PKWARE APPNOTE.TXT 6.3.10, with ZIP64 where sizes need it.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

LEVEL = 6  # zlib's own default
_BLOCK = 1 << 20
_WINDOW = 1 << 15  # how far back deflate can refer
_MAX32 = 0xFFFFFFFF
_MAX16 = 0xFFFF
_DEFLATED = 8
_UNIX = 3
_REGULAR_FILE = 0o100000

_LOCAL = struct.Struct("<IHHHIIIIHH")
_CENTRAL = struct.Struct("<IHHHHIIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_END64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<IIQI")
_SIZES64 = struct.Struct("<HHQQ")  # the extra field of a local header

# What the DOS time of a ZIP member can say: 1980-01-01 to 2107-12-31, UTC, in steps of 2 s.
_FIRST_TIME = 315532800
_LAST_TIME = 4354819198


class Output(Protocol):
    """A stream of bytes that can seek."""

    def write(self, data: bytes, /) -> int: ...

    def tell(self) -> int: ...

    def seek(self, offset: int, /) -> int: ...


class Measure:
    """An Output that keeps nothing but the size of what was written."""

    def __init__(self) -> None:
        self.size = 0
        self._at = 0

    def write(self, data: bytes, /) -> int:
        self.seek(self._at + len(data))
        self.size = max(self.size, self._at)
        return len(data)

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, /) -> int:
        self._at = offset
        return offset


@dataclass(frozen=True)
class _Entry:
    """A member as the central directory lists it; sizes and offset in bytes."""

    name: bytes
    flags: int
    mode: int
    crc: int
    compressed: int
    size: int
    offset: int
    version: int


def compressor() -> str:
    """What compresses: wheels are the same bytes only where this is the same."""
    return f"zlib {zlib.ZLIB_RUNTIME_VERSION} level {LEVEL}"


class ZipWriter:
    """Writes members, in the order they are added, to a stream that can seek.

    All get the time `epoch` (seconds since 1970, moved into what ZIP can say). Use it in a
    `with` block, whose end completes the archive.
    """

    def __init__(self, stream: Output, epoch: int) -> None:
        self._stream = stream
        self._moment = _dos_time(epoch)
        self._entries: list[_Entry] = []
        self._cores = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._cores)

    def __enter__(self) -> ZipWriter:
        return self

    def __exit__(self, problem: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        if problem is None:
            self._write_directory()

    def add(
        self, name: str, size: int, chunks: Iterable[bytes | memoryview], *, executable: bool
    ) -> None:
        """Write a file of `size` bytes; ValueError if the chunks amount to another size."""
        raw_name = name.encode("utf-8")
        flags = 0 if name.isascii() else 0x800  # the name is UTF-8
        # Deflate adds 5 bytes to every 16 KiB or more that do not shrink, and a few per block.
        large = size + size // 1000 + 1024 > _MAX32
        version = 45 if large else 20
        extra = bytes(_SIZES64.size if large else 0)
        offset = self._stream.tell()
        sizes = (0, 0, 0, len(raw_name), len(extra))  # checksum and sizes come later
        header = _LOCAL.pack(0x04034B50, version, flags, _DEFLATED, self._moment, *sizes)
        self._stream.write(header + raw_name + extra)
        start = self._stream.tell()
        tally = _Tally(chunks)
        for piece in self._deflate(tally):
            self._stream.write(piece)
        end = self._stream.tell()
        if tally.size != size:
            raise ValueError(f"{name}: {tally.size} bytes came where {size} were announced")
        mode = _REGULAR_FILE | (0o755 if executable else 0o644)
        entry = _Entry(raw_name, flags, mode, tally.crc, end - start, size, offset, version)
        self._fill_header(entry)
        self._stream.seek(end)
        self._entries.append(entry)

    def _fill_header(self, entry: _Entry) -> None:
        """Put checksum and sizes, known only now, into the header of a member."""
        self._stream.seek(entry.offset + 14)
        if entry.version < 45:
            self._stream.write(struct.pack("<III", entry.crc, entry.compressed, entry.size))
            return
        self._stream.write(struct.pack("<III", entry.crc, _MAX32, _MAX32))
        self._stream.seek(entry.offset + _LOCAL.size + len(entry.name))
        self._stream.write(_SIZES64.pack(1, 16, entry.size, entry.compressed))

    def _deflate(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """One deflate stream, in pieces, made on all cores; few blocks are held at a time."""
        window = b""
        waiting: deque[Future[bytes]] = deque()
        for block in blocks:
            waiting.append(self._pool.submit(_deflate_block, block, window))
            window = block[-_WINDOW:]
            if len(waiting) > 2 * self._cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        yield _LAST_BLOCK

    def _write_directory(self) -> None:
        start = self._stream.tell()
        for entry in self._entries:
            self._write_central(entry)
        size = self._stream.tell() - start
        count = len(self._entries)
        if count >= _MAX16 or size >= _MAX32 or start >= _MAX32:
            version = _UNIX << 8 | 45
            totals = (count, count, size, start)
            self._stream.write(_END64.pack(0x06064B50, 44, version, 45, 0, 0, *totals))
            self._stream.write(_LOCATOR64.pack(0x07064B50, 0, start + size, 1))
        short_count = min(count, _MAX16)
        totals = (short_count, short_count, min(size, _MAX32), min(start, _MAX32))
        self._stream.write(_END.pack(0x06054B50, 0, 0, *totals, 0))

    def _write_central(self, entry: _Entry) -> None:
        values = (entry.size, entry.compressed, entry.offset)
        wide = [value for value in values if value >= _MAX32]
        extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        size, compressed, offset = (min(value, _MAX32) for value in values)
        version = 45 if wide else entry.version
        header = _CENTRAL.pack(
            0x02014B50,
            _UNIX << 8 | version,
            version,
            entry.flags,
            _DEFLATED,
            self._moment,
            entry.crc,
            compressed,
            size,
            len(entry.name),
            len(extra),
            0,  # no comment
            0,  # disk number
            0,  # internal attributes
            entry.mode << 16,
            offset,
        )
        self._stream.write(header + entry.name + extra)


class _Tally:
    """Chunks cut to blocks, with their size and checksum so far."""

    def __init__(self, chunks: Iterable[bytes | memoryview]) -> None:
        self._chunks = chunks
        self.size = 0
        self.crc = 0

    def __iter__(self) -> Iterator[bytes]:
        buffer = bytearray()
        for chunk in self._chunks:
            self.size += len(chunk)
            self.crc = zlib.crc32(chunk, self.crc)
            buffer += chunk
            while len(buffer) >= _BLOCK:
                yield bytes(buffer[:_BLOCK])
                del buffer[:_BLOCK]
        if buffer:
            yield bytes(buffer)


# An empty block with the bit set that says it is the last: the blocks before end on a byte.
_LAST_BLOCK = b"\x03\x00"


def _deflate_block(block: bytes, window: bytes) -> bytes:
    deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=window)
    return deflater.compress(block) + deflater.flush(zlib.Z_SYNC_FLUSH)


def _dos_time(epoch: int) -> int:
    """Time in the low 16 bits, date in the high ones (APPNOTE 4.4.6)."""
    moment = time.gmtime(min(max(epoch, _FIRST_TIME), _LAST_TIME))
    date = (moment.tm_year - 1980) << 9 | moment.tm_mon << 5 | moment.tm_mday
    return date << 16 | moment.tm_hour << 11 | moment.tm_min << 5 | moment.tm_sec // 2
