"""The images of containers, decompressed, and the kernels in them.

Only this module decompresses. It needs the lz4 and zstandard libraries, so nothing that runs
inside containers can use it: there, what is known of a slice's kernels was read when it was made,
from files that are not compressed (`worker.slices`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import lz4.block
import zstandard

from .errors import FormatError
from .fatbin.container import Entry
from .fatbin.cubin import kernel_names_of_cubin, kernel_names_of_ptx, kernels_of_cubin
from .fatbin.images import Described, is_readable

# Decompressed bytes of one image; bounds memory. The largest cubins known are a tenth of this.
MAX_IMAGE = 2**30
# Of all images together: four times the largest library known (torch), so that a bomb ends in
# time.
MAX_DECOMPRESSED = 16 << 30
# The library makes room for all that a frame claims before it reads it; a tiny one may claim a
# lot. Beyond this many bytes room is made in steps.
_TRUSTED = 64 << 20
_STEP = 1 << 20

Kernels = frozenset[str]


def payload(entry: Entry) -> bytes | memoryview:
    """The image itself, decompressed: a cubin, or PTX text (which may end in zero bytes).

    FormatError where it is damaged, or is not of the size that its header claims.
    """
    stored = entry.raw[entry.header_size : entry.header_size + entry.stored]
    if not entry.compression:
        return stored
    decode = _DECODERS.get(entry.compression)
    if decode is None:
        raise FormatError(
            f"an image for {entry.arch.sm} is compressed in an unknown way",
            where=f"fatbin entry with flags {entry.flags:#x}",
        )
    if entry.uncompressed > MAX_IMAGE:
        raise FormatError(
            f"an image for {entry.arch.sm} claims {entry.uncompressed} bytes uncompressed",
            hint=f"at most {MAX_IMAGE} bytes are accepted",
        )
    return decode(stored, entry.uncompressed)


def describe(title: str, entry: Entry) -> Described:
    """What a cubin or PTX defines, under the title that messages call it by."""
    data = payload(entry)
    if entry.kind == "elf":
        layouts = kernels_of_cubin(data)
        return Described(title, frozenset(layouts), layouts)
    return Described(title, frozenset(kernel_names_of_ptx(data)), None)


def kernels_of(entries: Sequence[Entry]) -> Kernels:
    """The names of the kernels of a container, in whichever of its images."""
    return frozenset().union(*(describe("", one).kernels for one in filter(is_readable, entries)))


def may_have_kernels(entry: Entry) -> bool:
    """Whether an image has kernels, or cannot be looked into."""
    try:
        if entry.kind == "elf":
            return bool(kernel_names_of_cubin(payload(entry)))
        return entry.kind != "ptx" or bool(kernel_names_of_ptx(payload(entry)))
    except FormatError:
        return True


def _decode_lz4(stored: memoryview, size: int) -> bytes:
    # One byte of a block yields at most 255: a larger claim would only cost memory.
    if size > len(stored) * 255:
        raise FormatError(f"an LZ4 block of {len(stored)} bytes cannot hold {size}")
    try:
        data: bytes = lz4.block.decompress(stored, uncompressed_size=size)
    except lz4.block.LZ4BlockError as error:
        raise FormatError(f"an LZ4 block is damaged: {error}") from error
    return _of_size(data, size)


def _decode_zstd(stored: memoryview, size: int) -> bytes:
    try:
        if zstandard.frame_content_size(stored) not in (size, -1):
            raise FormatError(f"a zstd frame does not hold {size} bytes")
        if size <= _TRUSTED:
            data = zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
        else:
            data = _decode_in_steps(stored, size)
    except zstandard.ZstdError as error:
        raise FormatError(f"a zstd frame is damaged: {error}") from error
    return _of_size(data, size)


def _decode_in_steps(stored: memoryview, size: int) -> bytes:
    """With no more memory than is really filled; stops once there is more than `size`."""
    data = bytearray()
    reader = zstandard.ZstdDecompressor().stream_reader(stored)
    while len(data) <= size and (step := reader.read(_STEP)):
        data += step
    return bytes(data)


def _of_size(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise FormatError(f"an image holds {len(data)} bytes, not {size}")
    return data


# (compressed bytes, decompressed size in bytes) -> exactly that many bytes, or FormatError.
_DECODERS: Mapping[str, Callable[[memoryview, int], bytes]] = {
    "lz4": _decode_lz4,
    "zstd": _decode_zstd,
}
