"""What the fuzzer starts from: small sound files of every kind, made by code.

Device code comes from tests/data/device; compilers wrap it into objects and libraries, of Linux
and of Windows, where they are installed.
"""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import lz4.block
import zstandard

from fatwheel.arch import Arch, ArchRequest
from fatwheel.edit.thin import thin_wheel
from fatwheel.fatbin.container import Entry, parse_containers, write_container
from fatwheel.fatbin.images import selection_for
from fatwheel.wheels.pack import plain_file, write_wheel

from .containers import lines, records
from .mutators import RECORD, join_pair, record_of
from .written import documents

DATA = Path(__file__).parent.parent / "data" / "device"

_HOST = """\
#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
extern const void *const wrappers[];
extern int puts(const char *);
EXPORT int counter = 7;
EXPORT int *pointer = &counter;
EXPORT const void *first_wrapper(void) { return wrappers; }
EXPORT int PyInit_seed(void) { return puts("hello"); }
EXPORT int start(void) { return 1; }
"""
# Labels that begin with .L leave no symbol behind.
_LINKED = """\
.section {fatbins},"{flags}"
.align 8
.Lone: .incbin "one.fatbin"
.align 8
.Ltwo: .incbin "two.fatbin"
.align 8
.Lnone: .incbin "empty.fatbin"
.section {wrappers},"{writable}"
.align 8
.globl wrappers
wrappers:
.long 0x466243B1, 1
.quad .Lone, 0
.long 0x466243B1, 1
.quad .Ltwo, 0
.long 0x466243B1, 1
.quad .Lnone, 0
"""
_OBJECT = """\
.text
nop
.section {fatbins},"{flags}"
.align 8
.Lone: .incbin "one.fatbin"
.section {wrappers},"{writable}"
.align 8
.long 0x466243B1, 1
.quad .Lone, 0
"""
# So many containers that work which grows with their square takes seconds.
_MANY = """\
.section {fatbins},"{flags}"
.align 8
.Lall:
.rept 2000
.long 0xBA55ED50, 0x100001
.quad 0
.endr
.section {wrappers},"{writable}"
.align 8
.globl wrappers
wrappers:
.set number, 0
.rept 2000
.long 0x466243B1, 1
.quad .Lall + 16 * number, 0
.set number, number + 1
.endr
"""
# As nvcc -rdc=true leaves it: code that was linked, and the code that it was linked from.
_SEPARATE = """\
.section {fatbins},"{flags}"
.align 8
.Lone: .incbin "one.fatbin"
.section {relocatable},"{flags}"
.align 8
.Ltwo: .incbin "two.fatbin"
.section {wrappers},"{writable}"
.align 8
.globl wrappers
wrappers:
.long 0x466243B1, 1
.quad .Ltwo, 0
.long 0x466243B1, 2
.quad .Lone, wrappers
"""
# Beside that, code that only the library itself knows of.
_DATA = """\
.section .mine,"{writable}"
.incbin "two.fatbin"
.incbin "image.cubin"
.ascii "more data"
"""
_ELF = {
    "fatbins": ".nv_fatbin",
    "relocatable": "__nv_relfatbin",
    "wrappers": ".nvFatBinSegment",
    "flags": "a",
    "writable": "aw",
}
_PE = {
    "fatbins": ".nv_fatb",
    "relocatable": "__nv_rel",
    "wrappers": ".nvFatBi",
    "flags": "dr",
    "writable": "dw",
}
_TINY = ["-Os", "-fno-exceptions", "-fno-asynchronous-unwind-tables", "-nostartfiles"]
_MINGW = "x86_64-w64-mingw32-"


@dataclass(frozen=True)
class Tool:
    """A command that makes one seed; outputs go to the file that follows `-o`."""

    kind: str
    name: str
    command: tuple[str, ...]


_TOOLS = (
    Tool("elf", "object.o", ("as", "object.s")),
    Tool("elf", "separate.o", ("as", "separate-object.s")),
    Tool("elf", "library.so", ("gcc", "-shared", "-fPIC", *_TINY, "host.c", "linked.s")),
    Tool("elf", "relr.so", ("gcc", "-shared", "-fPIC", *_TINY, "-Wl,-z,pack-relative-relocs",
                            "-Wl,--hash-style=sysv", "host.c", "linked.s")),
    Tool("elf", "compact.so", ("gcc", "-shared", "-fPIC", *_TINY, "-Wl,-z,noseparate-code",
                               "-Wl,-soname,libseed.so.1", "host.c", "linked.s")),
    Tool("elf", "program", ("gcc", "-pie", *_TINY, "-Wl,-e,start", "host.c", "linked.s")),
    Tool("elf", "fixed", ("gcc", "-no-pie", *_TINY, "-Wl,-e,start", "host.c", "linked.s")),
    Tool("elf", "separate.so", ("gcc", "-shared", "-fPIC", *_TINY, "host.c", "separate.s")),
    Tool("elf", "data.so", ("gcc", "-shared", "-fPIC", *_TINY, "host.c", "data.s")),
    Tool("pe", "data.dll", (f"{_MINGW}gcc", "-shared", *_TINY, "-s", "-Wl,-e,start",
                            "host.c", "data-pe.s", "-lmsvcrt")),
    Tool("pe", "separate.dll", (f"{_MINGW}gcc", "-shared", *_TINY, "-s", "-Wl,-e,start",
                                "host.c", "separate-pe.s", "-lmsvcrt")),
    Tool("elf", "many.so", ("gcc", "-shared", "-fPIC", *_TINY, "host.c", "many.s")),
    Tool("pe", "many.dll", (f"{_MINGW}gcc", "-shared", *_TINY, "-s", "-Wl,-e,start",
                            "host.c", "many-pe.s", "-lmsvcrt")),
    Tool("pe", "library.dll", (f"{_MINGW}gcc", "-shared", *_TINY, "-s", "-Wl,-e,start",
                               "host.c", "linked-pe.s", "-lmsvcrt")),
    Tool("pe", "debug.dll", (f"{_MINGW}gcc", "-shared", *_TINY, "-Wl,-e,start",
                             "-Wl,--build-id", "host.c", "linked-pe.s", "-lmsvcrt")),
    Tool("pe", "program.exe", (f"{_MINGW}gcc", *_TINY, "-s", "-Wl,-e,start",
                               "host.c", "linked-pe.s", "-lmsvcrt")),
    Tool("coff", "object.obj", (f"{_MINGW}as", "object-pe.s")),
    Tool("coff", "large.obj", (f"{_MINGW}as", "-mbig-obj", "object-pe.s")),
    Tool("coff", "clang.obj", ("clang", "--target=x86_64-pc-windows-msvc", "-c", "object-pe.s")),
)  # fmt: skip


def make_seeds(folder: Path) -> list[str]:
    """Write a folder per kind with its seeds; names the seeds for which a tool is missing."""
    seeds: dict[str, dict[str, bytes]] = {
        "cubin": {path.name: path.read_bytes() for path in sorted(DATA.glob("*.cubin"))},
        "ptx": {path.name: path.read_bytes() for path in sorted(DATA.glob("*.ptx"))},
        "fatbin": dict(_fatbins()),
        "lz4": dict(_blocks("lz4")),
        "zstd": dict(_blocks("zstd")),
        "sdist": dict(_sdists()),
        "toml": {name: text.encode() for name, text in _TOML.items()},
        "line": dict(lines()),
        "text": dict(records()),
    }
    work = folder / "work"
    work.mkdir(parents=True)
    missing = _compile(work, seeds)
    seeds["wheel"] = dict(_wheels(work, seeds))
    seeds["pair"] = dict(_pairs(work, seeds["wheel"]))
    seeds["twins"] = {name: join_pair(data, data) for name, data in seeds["wheel"].items()}
    seeds |= {kind: dict(files) for kind, files in documents()}
    shutil.rmtree(work)
    for kind, files in seeds.items():
        (folder / kind).mkdir()
        for name, data in files.items():
            (folder / kind / name).write_bytes(data)
    return missing


def read_seeds(folder: Path) -> dict[str, dict[str, bytes]]:
    """What `make_seeds` wrote: by kind, by name."""
    return {
        kind.name: {path.name: path.read_bytes() for path in sorted(kind.iterdir())}
        for kind in sorted(folder.iterdir())
    }


def _entries(name: str) -> tuple[Entry, ...]:
    return parse_containers((DATA / f"{name}.fatbin").read_bytes())[0].entries


def _fatbins() -> Iterator[tuple[str, bytes]]:
    plain, lz4_entries, zstd_entries = (_entries(name) for name in ("none", "lz4", "zstd"))
    for name in ("none", "lz4", "zstd"):
        yield name, (DATA / f"{name}.fatbin").read_bytes()
    yield "empty", write_container([])
    yield "mixed", write_container([plain[1], lz4_entries[0], zstd_entries[2]])
    row = (lz4_entries[:2], (), zstd_entries[1:3])
    yield "row", bytes(8).join(map(write_container, row))
    yield "many", write_container(zstd_entries[1:2]) * 200
    yield "zeros", write_container([_ptx_of_zeros(8 << 20)])
    yield "unknown", write_container([_other(zstd_entries[1], 8), _other(zstd_entries[1], 77)])


def _other(entry: Entry, kind: int) -> Entry:
    """The same entry with another kind: what is in it is not looked at."""
    return _entry(struct.pack("<H", kind) + bytes(entry.raw[2:]))


def _entry(raw: bytes) -> Entry:
    container = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(raw)) + raw
    return parse_containers(container)[0].entries[0]


def _ptx_of_zeros(size: int) -> Entry:
    """A small bomb, which is let in."""
    stored = zstandard.ZstdCompressor().compress(bytes(size))
    fields = (1, 0x101, 64, len(stored), len(stored), 0, 7, 8, 80, 0, 0, 0x8011, 0, size)
    return _entry(struct.pack("<HHIQIIHHIIIQQQ", *fields) + stored)


def _blocks(compression: str) -> Iterator[tuple[str, bytes]]:
    """The size once decompressed, in four bytes, then the compressed data."""
    cubin, ptx = (DATA / "cuda13.0-sm_80.cubin").read_bytes(), (DATA / "scale.ptx").read_bytes()
    contents = {"cubin": cubin, "ptx": ptx * 5, "zeros": bytes(70_000), "bytes": bytes(range(256))}
    for name, data in contents.items():
        size = struct.pack("<I", len(data))
        if compression == "lz4":
            yield name, size + lz4.block.compress(data, store_size=False)
            continue
        for level in (1, 19):
            yield f"{name}-{level}", size + zstandard.ZstdCompressor(level=level).compress(data)
    if compression == "zstd":
        streamed = zstandard.ZstdCompressor(write_content_size=False).compress(ptx)
        yield "unsized", struct.pack("<I", len(ptx)) + streamed


def _compile(work: Path, seeds: dict[str, dict[str, bytes]]) -> list[str]:
    """Add what compilers make; names the seeds for which one is missing."""
    zstd_entries, lz4_entries = _entries("zstd"), _entries("lz4")
    (work / "one.fatbin").write_bytes(write_container(zstd_entries))
    (work / "two.fatbin").write_bytes(write_container(lz4_entries[:3]))
    (work / "empty.fatbin").write_bytes(write_container([]))
    (work / "host.c").write_text(_HOST)
    no_stack = '.section .note.GNU-stack,""\n'
    (work / "linked.s").write_text(_LINKED.format(**_ELF) + no_stack)
    (work / "linked-pe.s").write_text(_LINKED.format(**_PE))
    (work / "image.cubin").write_bytes(seeds["cubin"]["cuda13.0-sm_90a.cubin"])
    (work / "data.s").write_text((_LINKED + _DATA).format(**_ELF) + no_stack)
    (work / "data-pe.s").write_text((_LINKED + _DATA).format(**_PE))
    (work / "many.s").write_text(_MANY.format(**_ELF) + no_stack)
    (work / "many-pe.s").write_text(_MANY.format(**_PE))
    (work / "object.s").write_text(_OBJECT.format(**_ELF))
    only_relocatable = {**_ELF, "fatbins": _ELF["relocatable"]}
    (work / "separate-object.s").write_text(_OBJECT.format(**only_relocatable))
    (work / "separate.s").write_text(_SEPARATE.format(**_ELF) + no_stack)
    (work / "separate-pe.s").write_text(_SEPARATE.format(**_PE))
    (work / "object-pe.s").write_text(_OBJECT.format(**_PE))
    missing = []
    for tool in _TOOLS:
        program, *arguments = tool.command
        if not shutil.which(program):
            missing.append(f"{tool.kind}/{tool.name}: {program} is not installed")
            continue
        subprocess.run([program, *arguments, "-o", tool.name], cwd=work, check=True)
        seeds.setdefault(tool.kind, {})[tool.name] = (work / tool.name).read_bytes()
    return missing


_TOML = {
    "pyproject.toml": """\
[build-system]
requires = ["setuptools>=61", "wheel"]
build-backend = "own.hooks:api"
backend-path = ["tools", "."]

[project]
name = "seed"
version = "1.0"
classifiers = ["A :: B", 'C']
[tool.x.y."z.z"]
a = {b = [1, 0x2, 3.5, true, 1979-05-27T07:32:00Z], c.d = 1}
text = \"\"\"
two lines \\u00e9
\"\"\"
[[tool.list]]
""",
    "recipe.toml": f"""\
project = "seed"
version = "1.0"
archs = ["80", "90+ptx"]
imports = ["seed"]
memory = "6GiB"
seconds = 12.5
epoch = 1700000000
[source]
sdist = "seed-1.0.tar.gz"
size = 1000
sha256 = "{"0" * 64}"
[environment]
FORCE_CUDA = "1"
[[cost]]
units = "*_bwd_*"
memory = "9GiB"
""",
}


def _sdists() -> Iterator[tuple[str, bytes]]:
    """Tar archives, to be compressed when all changes are made."""
    formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    for name, format in formats.items():
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=format) as archive:
            for path in ("seed/", "seed/setup.py", "seed/" + "long/" * 22 + "x.cu", "seed/größe"):
                info = tarfile.TarInfo(path)
                info.mtime, info.size = 1_700_000_000, 0 if path.endswith("/") else 600
                info.type = tarfile.DIRTYPE if path.endswith("/") else tarfile.REGTYPE
                archive.addfile(info, io.BytesIO(b"x" * info.size))
        yield name, out.getvalue()


def _wheels(work: Path, seeds: Mapping[str, Mapping[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    extension = {"seed/_C.so": seeds["elf"]["library.so"], "seed/__init__.py": b"x = 1\n"}
    dll = seeds.get("pe", {}).get("library.dll")
    windows = {"seed/_C.pyd": dll, "seed/data.txt": b"text\n"} if dll else {}
    yield "ours", _own_wheel(work, extension, "cp311-cp311-linux_x86_64")
    yield "fatbin", _own_wheel(work, {"seed/a.fatbin": seeds["fatbin"]["row"]}, "py3-none-any")
    if windows:
        yield "windows", _own_wheel(work, windows, "cp311-cp311-win_amd64")
    data = {
        "seed/_C.so": seeds["elf"]["data.so"],
        "seed/a.cubin": seeds["cubin"]["cuda13.0-sm_80.cubin"],
    }
    yield "data", _own_wheel(work, data, "cp311-cp311-linux_x86_64")
    many = {f"seed/{number}/__init__.py": b"" for number in range(1000)}
    yield "many", _plain_wheel(many, "py3-none-any", zipfile.ZIP_STORED)
    yield "stored", _plain_wheel(extension, "cp311-cp311-linux_x86_64", zipfile.ZIP_STORED)
    yield "deflated", _plain_wheel(extension, "cp311-cp311-linux_x86_64", zipfile.ZIP_DEFLATED)


def _pairs(work: Path, wheels: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """The parts of wheels for two GPUs, which can be stitched."""
    for name, tag in (("ours", "cp311-cp311-linux_x86_64"), ("windows", "cp311-cp311-win_amd64")):
        if name in wheels:
            path = work / f"seed-1.0-{tag}.whl"
            path.write_bytes(wheels[name])
            parts = [
                thin_wheel(path, selection_for([ArchRequest(Arch(arch))]), work / str(arch)).path
                for arch in (80, 90)
            ]
            yield name, join_pair(*(part.read_bytes() for part in parts))


def _texts(tag: str) -> dict[str, bytes]:
    return {
        "METADATA": b"Metadata-Version: 2.1\nName: seed\nVersion: 1.0\n\nA seed.\n",
        "WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: " + tag.encode() + b"\n",
    }


def _own_wheel(work: Path, contents: Mapping[str, bytes], tag: str) -> bytes:
    info = "seed-1.0.dist-info"
    files = {**contents, **{f"{info}/{name}": text for name, text in _texts(tag).items()}}
    path = work / "seed.whl"
    write_wheel(path, info, [plain_file(name, data) for name, data in files.items()], 0)
    return path.read_bytes()


def _plain_wheel(contents: Mapping[str, bytes], tag: str, method: int) -> bytes:
    """As Python's zipfile writes it."""
    texts = {f"seed-1.0.dist-info/{name}": text for name, text in _texts(tag).items()}
    files = [*contents.items(), *texts.items()]
    return zip_bytes([*files, (RECORD, record_of(RECORD, files))], method)


def zip_bytes(files: Iterable[tuple[str, bytes]], method: int) -> bytes:
    """A zip archive of these files, with one time for all."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files:
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr = method, 0o100644 << 16
            archive.writestr(info, data)
    return out.getvalue()
