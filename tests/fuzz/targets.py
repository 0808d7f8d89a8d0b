"""What the fuzzer gives its inputs to: everything that reads files from anywhere."""

from __future__ import annotations

import random
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from fatwheel.arch import Arch, ArchRequest
from fatwheel.decoders import DECODERS
from fatwheel.errors import FormatError
from fatwheel.fatbin import container, cubin, stitch
from fatwheel.fatbin.binary import exports_of, imports_of, read_binary, rewrite_binary
from fatwheel.fatbin.choose import choose, selection_for
from fatwheel.fatbin.container import Container, Decoder, Entry, parse_containers
from fatwheel.fatbin.parity import check_parity
from fatwheel.fatbin.union import Part, unite
from fatwheel.verify.inspect import inspect_file

from .worker import Target

# Memory, where the system offers it as a folder: an input is written to a file by most steps.
_FOLDER = tempfile.TemporaryDirectory(
    prefix="fatwheel-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
)
_FILE = Path(_FOLDER.name) / "input.bin"
_CHOSEN = selection_for([ArchRequest(Arch(80), ptx=False), ArchRequest(Arch(90), ptx=True)])


def inspect(data: bytes) -> None:
    _FILE.write_bytes(data)
    inspect_file(_FILE)


def names(data: bytes) -> None:
    imports_of(memoryview(data))
    exports_of(memoryview(data))


def thin(data: bytes) -> None:
    """Rewritten with some of its images, a file must be sound and hold exactly those."""
    source = random.Random(zlib.crc32(data))
    containers = read_binary(memoryview(data)).containers
    some = [[entry for entry in c.entries if source.random() < 0.6] for c in containers]
    for contents in (some, [choose(_CHOSEN, c.entries) for c in containers]):
        _rewrite(data, contents)


def unite_with_itself(data: bytes) -> None:
    """Halves of a file's images, put together, are all of them: each once, in one order."""
    containers = read_binary(memoryview(data)).containers
    halves = [
        Part(name, tuple(tuple(c.entries[start::2]) for c in containers))
        for name, start in (("even", 0), ("odd", 1))
    ]
    united = unite(halves, DECODERS)
    _rewrite(data, united)


def _rewrite(data: bytes, contents: Sequence[Sequence[Entry]]) -> bytes:
    written = b"".join(rewrite_binary(memoryview(data), contents).pieces)
    found = _images(read_binary(memoryview(written)).containers)
    wanted = [[bytes(entry.raw) for entry in entries] for entries in contents if entries]
    assert found == wanted, f"{len(found)} containers with images, not {len(wanted)} as asked for"
    for read in (imports_of, exports_of):
        before = _said(read, data)
        # A table that lay outside the file may lie inside afterwards, and then say anything.
        assert before in (None, _said(read, written)), f"{read.__name__} changed"
    return written


def _images(containers: Sequence[Container]) -> list[list[bytes]]:
    return [[bytes(entry.raw) for entry in c.entries] for c in containers if c.entries]


def _said(read: object, data: bytes) -> object:
    try:
        return read(memoryview(data))  # type: ignore[operator]
    except FormatError:
        return None


def parity(data: bytes) -> None:
    check_parity("unit", stitch.slices_of(data))


def restitch(data: bytes) -> None:
    """An object with its device code taken out and put in again."""
    entries = stitch.slices_of(data)
    again = stitch.stitch_object(stitch.without_device_code(data), entries)
    assert [bytes(e.raw) for e in stitch.slices_of(again)] == [bytes(e.raw) for e in entries]


def images(data: bytes) -> None:
    """Every image decompressed by both decoders."""
    for found in parse_containers(data):
        for entry in found.entries:
            if entry.compression in DECODERS:
                stored = entry.raw[entry.header_size : entry.header_size + entry.stored]
                _decode_both(entry.compression, stored, entry.uncompressed)


def kernels(data: bytes) -> None:
    names = cubin.kernel_names_of_cubin(data)
    assert tuple(cubin.kernels_of_cubin(data)) == names
    cubin.arch_of_cubin(data)


def entries_of_ptx(data: bytes) -> None:
    cubin.kernel_names_of_ptx(data)


def lz4(data: bytes) -> None:
    _decode_both("lz4", memoryview(data)[4:], int.from_bytes(data[:4], "little"))


def zstd(data: bytes) -> None:
    _decode_both("zstd", memoryview(data)[4:], int.from_bytes(data[:4], "little"))


def _decode_both(compression: str, stored: memoryview, size: int) -> None:
    """The decoders of the core and those on libraries say the same.

    The libraries do not see every damage that the formats can show (libzstd: bits that are left
    over in one of four streams; lz4: a match at distance 0), so the core may be stricter.
    """
    if size > container.MAX_IMAGE:
        return
    own, library = (
        _decoded(decoders, compression, stored, size) for decoders in (container.DECODERS, DECODERS)
    )
    if isinstance(own, bytes) and isinstance(library, bytes):
        assert own == library, "the decoders give different bytes"
        return
    if isinstance(own, bytes) and not (compression == "zstd" and _has_checksum(stored)):
        raise AssertionError(f"the core gives {len(own)} bytes; the library: {library}")


def _decoded(
    decoders: Mapping[str, Decoder], compression: str, stored: memoryview, size: int
) -> bytes | FormatError:
    try:
        return decoders[compression](stored, size)
    except FormatError as error:
        return error


def _has_checksum(frame: memoryview) -> bool:
    """The core does not look at it."""
    return bool(frame[4] & 0x04)


TARGETS = {
    "cubin": Target(("cubin",), (kernels, inspect), 3),
    "ptx": Target(("ptx",), (entries_of_ptx,), 1),
    "lz4": Target(("lz4",), (lz4,), 1),
    "zstd": Target(("zstd",), (zstd,), 1),
    "fatbin": Target(("fatbin",), (inspect, images, parity, thin, unite_with_itself), 3),
    "elf": Target(("elf",), (inspect, names, thin, unite_with_itself, restitch), 5),
    "pe": Target(("pe",), (inspect, names, thin, unite_with_itself), 5),
    "coff": Target(("coff",), (inspect, thin, unite_with_itself), 3),
    "wheel": Target(("wheel",), (inspect,), 4),
}
