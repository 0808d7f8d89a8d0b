"""What the fuzzer gives its inputs to: everything that reads files from anywhere."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from fatwheel.arch import Arch, ArchRequest
from fatwheel.compare import compare_wheels
from fatwheel.config.load import load_recipe
from fatwheel.config.recipe import Target as BuildTarget
from fatwheel.config.toolchain import Toolchain
from fatwheel.config.toolchains import load_toolchain
from fatwheel.containers.contexts import contexts_of
from fatwheel.decoders import may_have_kernels, payload
from fatwheel.edit import stitch as postlink_stitch
from fatwheel.edit import thin as postlink_thin
from fatwheel.edit.union import FileContainers, unite
from fatwheel.errors import ConfigError, FormatError, ToolchainError, UsageError
from fatwheel.fatbin import cubin, stitch
from fatwheel.fatbin.binary import (
    HEAD,
    asked_of,
    exports_of,
    imports_of,
    is_loadable,
    loading_of,
    read_binary,
    rewrite_binary,
)
from fatwheel.fatbin.container import Container, Entry, parse_containers
from fatwheel.fatbin.images import choose, selection_for
from fatwheel.model import Host
from fatwheel.pipeline.sdist import unpack_sdist
from fatwheel.pipeline.source import build_system
from fatwheel.provenance.lock import BuildLock, lock_bytes, lock_of, materials_of, read_lock
from fatwheel.provenance.record import merged, record_of, thinned, unlocked, whole
from fatwheel.provenance.sbom import materials_in, sbom_bytes
from fatwheel.provenance.signing import read_envelope
from fatwheel.provenance.statement import predicate_of, read_statement, statement_bytes
from fatwheel.verify.inspect import inspect_file, inspect_units
from fatwheel.verify.papers import asked_codes
from fatwheel.verify.report import verify_wheel
from fatwheel.wheels.zipreader import pieces, read_entries

from ..helpers.deviceimages import COMPRESSIONS, check_parity
from ..helpers.dockerfiles import REQUIREMENT, instructions
from ..helpers.toolchains import shipped_toolchain
from .containers import hear, take_from
from .mutators import split_pair
from .worker import Target

# In memory where the system offers that: most steps write their input to a file.
_HOLDER = tempfile.TemporaryDirectory(
    prefix="fatwheel-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
)
_FOLDER = Path(_HOLDER.name)
_ROOT = Path(__file__).parents[2]
_RECIPE = load_recipe("causal-conv1d", _ROOT / "kernels")
_TOOLCHAIN = shipped_toolchain("linux-cuda13.0")
_ONE, _OTHER = Arch(80), Arch(90)
_BOTH = selection_for([ArchRequest(_ONE), ArchRequest(_OTHER)])
_CHOSEN = selection_for([ArchRequest(_ONE), ArchRequest(_OTHER, ptx=True)])


def inspect(data: bytes) -> None:
    file = _FOLDER / "input.bin"
    file.write_bytes(data)
    json.dumps(inspect_units(file))


def names(data: bytes) -> None:
    imports_of(memoryview(data))
    exports_of(memoryview(data))
    asked_of(memoryview(data))
    if is_loadable(data[:HEAD]):
        loading_of(memoryview(data))


def thin(data: bytes) -> None:
    """Rewritten with some of its images, a file must be sound and hold exactly those."""
    source = random.Random(zlib.crc32(data))
    containers = _containers(data)
    some = [[entry for entry in c.entries if source.random() < 0.6] for c in containers]
    for contents in (some, [choose(_CHOSEN, c.entries) for c in containers]):
        _rewrite(data, contents)


def unite_with_itself(data: bytes) -> None:
    """Halves of a file's images, put together, are all of them: each once, in one order."""
    containers = _containers(data)
    halves = [
        FileContainers(name, tuple(tuple(c.entries[start::2]) for c in containers))
        for name, start in (("even", 0), ("odd", 1))
    ]
    united = unite(halves).containers
    _rewrite(data, united)


def _rewrite(data: bytes, contents: Sequence[Sequence[Entry]]) -> None:
    written = b"".join(rewrite_binary(memoryview(data), contents, may_have_kernels).pieces)
    found = _images(_containers(written))
    wanted = [[bytes(entry.raw) for entry in entries] for entries in contents if entries]
    assert found == wanted, f"{len(found)} containers with images, not {len(wanted)} as asked for"


def _containers(data: bytes) -> tuple[Container, ...]:
    """Those that move and those that stay, as `rewrite_binary` takes them."""
    binary = read_binary(memoryview(data))
    return (*binary.containers, *binary.relocatable)


def _images(containers: Sequence[Container]) -> list[list[bytes]]:
    return [[bytes(entry.raw) for entry in c.entries] for c in containers if c.entries]


def parity(data: bytes) -> None:
    check_parity("unit", stitch.slices_of(data))


def restitch(data: bytes) -> None:
    """An object with its device code taken out and put in again."""
    entries = stitch.slices_of(data)
    again = stitch.stitch_object(stitch.without_device_code(data), entries)
    assert [bytes(e.raw) for e in stitch.slices_of(again)] == [bytes(e.raw) for e in entries]


def images(data: bytes) -> None:
    """Every image decompressed."""
    for found in parse_containers(data):
        for entry in found.entries:
            with suppress(FormatError):
                _decode(entry)


def kernels(data: bytes) -> None:
    names = cubin.kernel_names_of_cubin(data)
    assert tuple(cubin.kernels_of_cubin(data)) == names
    cubin.arch_of_cubin(data)


def entries_of_ptx(data: bytes) -> None:
    cubin.kernel_names_of_ptx(data)


def lz4(data: bytes) -> None:
    _decode(_compressed("lz4", data))


def zstd(data: bytes) -> None:
    _decode(_compressed("zstd", data))


def _compressed(compression: str, data: bytes) -> Entry:
    """An entry that claims to become as large as the first four bytes say."""
    size, stored = int.from_bytes(data[:4], "little"), memoryview(data)[4:]
    flags = COMPRESSIONS[compression]
    return Entry("elf", _ONE, flags, 0, compression, len(stored), size, stored)


def _decode(entry: Entry) -> None:
    """An image has the size that it claims, or it is refused."""
    assert len(payload(entry)) == entry.uncompressed


# -- wheels --------------------------------------------------------------------------------------


def verify(data: bytes) -> None:
    json.dumps(verify_wheel(_wheel(data, _emptied("in"))).to_json())


def thin_wheel(data: bytes) -> None:
    """Thinned to what its parts have, stitched from those, and thinned again: the same bytes."""
    path = _wheel(data, _emptied("in"))
    both = postlink_thin.thin_wheel(path, _BOTH, _emptied("both"))
    inspect_file(both.path)
    again = postlink_thin.thin_wheel(both.path, _BOTH, _emptied("again"))
    assert again.sha256 == both.sha256, "a thin wheel is not thin"
    parts = [
        postlink_thin.thin_wheel(path, selection_for([ArchRequest(arch)]), _emptied(arch.sm)).path
        for arch in (_ONE, _OTHER)
    ]
    stitched = postlink_stitch.stitch_wheels(parts, _emptied("stitched"))
    assert stitched.sha256 == both.sha256, "stitched parts are not the whole"


def stitch_wheels(data: bytes) -> None:
    parts = [
        _wheel(part, _emptied(name))
        for part, name in zip(split_pair(data), ("in", "other"), strict=True)
    ]
    inspect_file(postlink_stitch.stitch_wheels(parts, _emptied("stitched")).path)


def compare(data: bytes) -> None:
    """Where wheels differ, something is said, and on the same level whichever is the first."""
    one, other = (
        _wheel(part, _emptied(name))
        for part, name in zip(split_pair(data), ("in", "other"), strict=True)
    )
    found = compare_wheels(one, other, lambda *_: "")
    json.dumps(found.to_json())
    assert found.identical != bool(found.differences), "wheels differ, and nothing is said"
    again = compare_wheels(other, one, lambda *_: "")
    assert again.level == found.level, f"level {found.level}, or {again.level} the other way"


def all_readers(data: bytes) -> None:
    """What is accepted is the same for who goes by the directory and who goes by the headers."""
    stream = io.BytesIO(data)
    entries = read_entries(stream)
    ours = {entry.name: b"".join(pieces(stream, entry)) for entry in entries}
    assert len(ours) == len(entries) or len({entry.name for entry in entries}) < len(entries)
    if len(ours) == len(entries):
        with zipfile.ZipFile(stream) as archive:
            theirs = {info.orig_filename: archive.read(info) for info in archive.infolist()}
        assert theirs == ours, "zipfile sees something else"
        assert dict(_streamed(data)) == ours, "who reads it as a stream sees something else"


def _streamed(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The members of an archive by nothing but what comes before and in them: APPNOTE 4.3.6."""
    at = 0
    while data[at : at + 4] == b"PK\3\4":
        flags, method, _, _, stored, size, name, extra = struct.unpack_from(
            "<HHIIIIHH", data, at + 6
        )
        start = at + 30 + name + extra
        wide = data[at + 30 + name : start]
        described = flags & 8 and not size
        if size == 0xFFFFFFFF:
            size, stored = struct.unpack_from("<QQ", wide, wide.index(b"\1\0\x10\0") + 4)
            described = flags & 8 and not size
        inflater = zlib.decompressobj(-15)
        content = inflater.decompress(data[start:]) if method else data[start : start + stored]
        end = start + stored
        if described and method:
            end = len(data) - len(inflater.unused_data)
        if flags & 8:
            end += 4 * (data[end : end + 4] == b"PK\7\x08") + 12
            end += 8 * (data[end : end + 2] != b"PK" or b"\1\0\x10\0" in wide)
        yield data[at + 30 : at + 30 + name].decode(), content
        at = end


# -- sources ---------------------------------------------------------------------------------------


def sdist(data: bytes) -> None:
    archive = _emptied("in") / "seed-1.0.tar.gz"
    archive.write_bytes(data if data[:2] == b"\x1f\x8b" else gzip.compress(data, 1, mtime=0))
    unpack_sdist(archive, _emptied("sources"))


def pyproject(data: bytes) -> None:
    root = _emptied("project")
    (root / "pyproject.toml").write_bytes(data)
    backend, paths = build_system(root)
    assert all((root / path).resolve().is_relative_to(root.resolve()) for path in paths)
    assert backend.isprintable()


def recipe(data: bytes) -> None:
    root = _emptied("recipe")
    (root / "recipe.toml").write_bytes(data)
    load_recipe(root, root)


def incoming(data: bytes) -> None:
    take_from(data, _emptied("incoming"))


def _emptied(name: str) -> Path:
    folder = _FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _wheel(data: bytes, folder: Path) -> Path:
    """A file of this content, with the name that the wheel in it should have."""
    name, tag = "seed-1.0", "cp311-cp311-linux_x86_64"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = [n for n in archive.namelist() if re.fullmatch(r"[\w.+-]+\.dist-info/WHEEL", n)]
            name = infos[0].removesuffix(".dist-info/WHEEL")
            text = archive.read(infos[0])[:1000].decode("ascii")
        tag = re.findall(r"^Tag: (\w+-\w+-\w+)$", text, re.M)[0]
    except Exception:  # zipfile lets much escape, and it does not matter here
        pass
    path = folder / f"{name[:100]}-{tag[:100]}.whl"
    path.write_bytes(data)
    return path


def locks(data: bytes) -> None:
    """What a lock is used for must work with every lock that is let in."""
    lock = read_lock(data, "lock", _FOLDER)
    record = {"fatwheel": lock.fatwheel, "archs": [], "front": "exact", "fronts": []}
    sbom = sbom_bytes(lock, record, "seed", "1.0+cu130")
    materials = {(one.name, one.version, one.sha256) for one in materials_of(lock)}
    assert set(materials_in(sbom, "sbom")) == materials, "a material is missing"
    read_statement(statement_bytes([("a", "0" * 64)], predicate_of(lock, record)), "statement")
    if lock.toolchain.containers:
        _contexts(lock.toolchain, lock.python, lock.torch)


def papers(data: bytes) -> None:
    """What else a wheel says of itself, and an envelope beside it: by what is in it."""
    if b'"predicateType"' in data:
        read_statement(data, "statement")
    elif b'"bomFormat"' in data:
        materials_in(data, "sbom")
    elif b'"payloadType"' in data:
        read_statement(read_envelope(data, "envelope").payload, "statement")
    else:
        record = record_of(data)
        asked_codes(whole(record).archs)
        record_of(thinned(unlocked(data), ("sm_80", "compute_90")))
        merged([data, data])


def tables(data: bytes) -> None:
    """Whatever a recipe or a toolchain may say, its lock can be read again."""
    if re.search(rb"^project", data, re.M):
        folder = _FOLDER / "kernels" / "seed"
        (folder / "src").mkdir(parents=True, exist_ok=True)
        (folder / "recipe.toml").write_bytes(data)
        recipe, toolchain = load_recipe(folder, _FOLDER / "kernels"), _TOOLCHAIN
    else:
        (_FOLDER / "seed.toml").write_bytes(data)
        recipe, toolchain = _RECIPE, load_toolchain("seed", _FOLDER)
    build = toolchain.builds[0]
    target = BuildTarget(recipe, toolchain, build.python, build.torch, ())
    lock = lock_of(target, Host("g++ 12.2.0", "0" * 64, "3.11.7"))
    read_lock_of(lock)
    if toolchain.containers:
        _contexts(toolchain, build.python, build.torch)


def read_lock_of(lock: BuildLock) -> None:
    try:
        read_lock(lock_bytes(lock), "lock", _FOLDER)
    except FormatError as error:
        raise AssertionError(f"a lock of ours cannot be read: {error}") from error


def _contexts(toolchain: Toolchain, python: str, torch: str) -> None:
    """Build contexts of nothing but plain instructions and lines that pip takes for pins."""
    try:
        contexts = contexts_of(toolchain, python, torch, {})
    except (ConfigError, ToolchainError, UsageError):
        return  # such ones can be written down, and make no image
    for context in contexts:
        for path, text in context.texts:
            if path == "Dockerfile":
                found = {one.verb for one in instructions(context)}
                assert found == {"FROM", "COPY", "RUN"}, f"{found} in a Dockerfile"
            elif path.startswith("requirements/"):
                wrong = [line for line in text.decode().splitlines() if not REQUIREMENT.match(line)]
                assert not wrong, f"{wrong[0]!r:.100} in requirements"


TARGETS = {
    "cubin": Target(("cubin",), (kernels, inspect), 3),
    "ptx": Target(("ptx",), (entries_of_ptx,), 1),
    "lz4": Target(("lz4",), (lz4,), 1),
    "zstd": Target(("zstd",), (zstd,), 1),
    "fatbin": Target(("fatbin",), (inspect, images, parity, thin, unite_with_itself), 3),
    "elf": Target(("elf",), (inspect, names, thin, unite_with_itself, restitch), 5),
    "pe": Target(("pe",), (inspect, names, thin, unite_with_itself), 5),
    "coff": Target(("coff",), (inspect, thin, unite_with_itself, restitch), 3),
    "sdist": Target(("sdist",), (sdist,), 2),
    "pyproject": Target(("toml",), (pyproject, recipe), 2),
    "zip": Target(("wheel",), (all_readers,), 3),
    "wheel": Target(("wheel",), (inspect, verify), 4),
    "thin": Target(("wheel",), (thin_wheel,), 2),
    "compare": Target(("twins", "pair"), (compare,), 3),
    "stitch": Target(("pair",), (stitch_wheels,), 2),
    "locks": Target(("lock",), (locks,), 2),
    "statements": Target(("record", "statement", "sbom", "envelope"), (papers,), 2),
    "toolchains": Target(("recipe", "toolchain"), (tables,), 2),
    "lines": Target(("line",), (hear,), 3),
    "incoming": Target(("text",), (incoming,), 1),
}
