"""Device code and wheels of a few bytes, encoded here from the formats' descriptions: cubins with
kernels of any names and parameters, PTX, containers, and wheels that hold them as `.fatbin` files.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import lz4.block
import zstandard

from fatwheel.decoders import describe
from fatwheel.fatbin.container import Entry, parse_containers
from fatwheel.fatbin.images import compare, is_readable
from fatwheel.fatbin.stitch import image_name

from .tinywheels import record_hash

Kernels = Mapping[str, Sequence[tuple[int, int]]]  # name -> (offset, size) of each parameter

KINDS = {"ptx": 1, "elf": 2, "lto": 8, "other": 77}
SUFFIXES = {"": 0, "a": 0x100000, "f": 0x200000}
COMPRESSIONS = {"": 0, "lz4": 0x2000, "zstd": 0x8000}
ONE: Kernels = {"one": [(0, 8), (8, 4)]}
TWO: Kernels = {"two": [(0, 8)]}


def cubin(number: int, kernels: Kernels, code: bytes = b"") -> bytes:
    """A cubin of CUDA 12: an ELF file for machine 190 with a symbol and a record per kernel."""
    names = list(kernels)
    texts = [(f".text.{name}", 1, b"code" + code, 0, 0) for name in names]
    infos = [(f".nv.info.{name}", 0x70000000, _info(kernels[name]), 0, 0) for name in names]
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    symbols = bytes(24) + b"".join(
        # a global function with the 'entry' bit, in its section
        struct.pack("<IBBHQQ", strings.index(b"\0" + name.encode() + b"\0") + 1, 0x12, 0x10,
                    place, 0, 4)
        for place, name in enumerate(names, 1)
    )  # fmt: skip
    count = 1 + len(texts) + len(infos)
    tables = [(".symtab", 2, symbols, count + 1, 24), (".strtab", 3, strings, 0, 0)]
    return _elf(number, [*texts, *infos, *tables])


def ptx(number: int, kernels: Iterable[str]) -> bytes:
    lines = [".version 8.3", f".target sm_{number}", ".address_size 64"]
    lines += [f".visible .entry {name}()\n{{ ret; }}" for name in kernels]
    return "\n".join(lines).encode() + b"\0"


def raw(kind: str, number: int, image: bytes, *, suffix: str = "", compression: str = "") -> bytes:
    """An entry with this image."""
    stored = {
        "": lambda: image + bytes(-len(image) % 8),
        "lz4": lambda: lz4.block.compress(image, store_size=False),
        "zstd": lambda: zstandard.ZstdCompressor().compress(image),
    }[compression]()
    padded = stored + bytes(-len(stored) % 8)
    flags = 0x11 | SUFFIXES[suffix] | COMPRESSIONS[compression]
    fields = (KINDS[kind], 0x101, 64, len(padded), len(stored) if compression else 0, 0, 0, 8,
              number, 0, 0, flags, 0, len(image) if compression else 0)  # fmt: skip
    return struct.pack("<HHIQIIHHIIIQQQ", *fields) + padded


def sm(number: int, kernels: Kernels = ONE, code: bytes = b"", **how: str) -> bytes:
    """An entry with a cubin."""
    return raw("elf", number, cubin(number, kernels, code), **how)


def compute(number: int, kernels: Iterable[str] = ONE, **how: str) -> bytes:
    """An entry with PTX."""
    return raw("ptx", number, ptx(number, kernels), **how)


def container(*raws: bytes) -> bytes:
    body = b"".join(raws)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def entries(*raws: bytes) -> tuple[Entry, ...]:
    """Entries as a container of them is read."""
    return parse_containers(container(*raws))[0].entries


def check_parity(unit: str, images: Iterable[Entry]) -> None:
    """Refuse images that do not belong together, by what they hold."""
    compare(unit, [describe(image_name(image), image) for image in filter(is_readable, images)])


def images(data: bytes) -> list[list[str]]:
    """What each container of a fatbin holds, such as `elf 80`."""
    return [
        [f"{entry.kind} {entry.arch}" for entry in one.entries] for one in parse_containers(data)
    ]


def write_wheel(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    version: str = "1.0",
    project: str = "demo",
    tag: str = "cp311-cp311-linux_x86_64",
    description: str = "",
    time: tuple[int, int, int, int, int, int] = (2024, 5, 6, 7, 8, 10),
    more: Mapping[str, bytes] | None = None,
) -> Path:
    """A wheel in `folder`, which is made; `more` lies in its dist-info folder."""
    info = f"{project}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n\n{description}"
    wheel = f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n"
    contents = {
        **files,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": wheel.encode(),
        **{f"{info}/{name}": data for name, data in (more or {}).items()},
    }
    rows = [f"{name},{record_hash(data)},{len(data)}\n" for name, data in contents.items()]
    contents[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{project}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(zipfile.ZipInfo(name, time), data)
    return path


def read_wheel(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _info(parameters: Sequence[tuple[int, int]]) -> bytes:
    size = max((offset + length for offset, length in parameters), default=0)
    records = struct.pack("<BBH", 3, 0x19, size)
    for ordinal, (offset, length) in enumerate(parameters):
        records += struct.pack("<BBHIHHI", 4, 0x17, 12, 0, ordinal, offset, length << 18)
    return records


def _elf(number: int, sections: Sequence[tuple[str, int, bytes, int, int]]) -> bytes:
    """Sections as (name, type, content, link, size of an entry); the names' section is added."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name, *_ in sections) + b".shstrtab\0"
    every = [*sections, (".shstrtab", 3, names, 0, 0)]
    body, headers = b"", bytes(64)
    for name, kind, content, link, size in every:
        place = names.index(b"\0" + name.encode() + b"\0") + 1
        offset = 64 + len(body)
        headers += struct.pack("<IIQQQQIIQQ", place, kind, 0, 0, offset, len(content), link, 0, 1,
                               size)  # fmt: skip
        body += content + bytes(-len(content) % 8)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01\x33\x07", 2, 190, 1, 0, 0,
                         64 + len(body), number << 16 | number, 64, 0, 0, 64, len(every) + 1,
                         len(every))  # fmt: skip
    return header + body + headers
