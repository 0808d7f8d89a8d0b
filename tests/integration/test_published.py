"""Wheels that others published: nothing in them is called wrong, and thinned, each place where host
code finds device code has exactly the images that it should.

What is found is read by `lief` from the library as it is loaded, and not by fatwheel.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import struct
import subprocess
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lief
import pytest

from .conftest import Workbench
from .windows import subject

pytestmark = pytest.mark.slow

PUBLISHED = (
    "nvjpeg-linux", "nvjpeg-windows", "nvjpeg2k-linux", "nvtiff-linux", "torchvision-linux",
    "torchaudio-linux", "jax-linux",
)  # fmt: skip
LINES = 60  # of a report that people read
WRAPPERS = {".nvFatBinSegment", ".nvFatBi"}
CODE = {".nv_fatbin", ".nv_fatb", *WRAPPERS}
# fatbinary_section.h: magic, version, data, and what linked code adds.
WRAPPER = struct.Struct("<IIQQ")
WRAPPER_MAGIC, CONTAINER_MAGIC = 0x466243B1, 0xBA55ED50
CUBIN, PTX = 2, 1
RELATIVE = lief.ELF.Relocation.TYPE.X86_64_RELATIVE


@dataclass(frozen=True, order=True)
class Image:
    kind: int
    arch: int
    digest: str


Images = list[list[Image]]


@pytest.fixture(scope="module", params=PUBLISHED)
def wheel(request: pytest.FixtureRequest) -> Path:
    return subject(request.param)


@pytest.fixture(scope="module")
def thinned(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The wheel thinned to two architectures, and to each of them alone."""
    folder = tmp_path_factory.mktemp("thinned")
    bench = Workbench(folder / "bench")
    yield {
        archs: bench.wheel_in(folder / archs, "thin", str(wheel), "--arch", archs)
        for archs in ("86,90", "86", "90")
    }
    shutil.rmtree(folder)


# -- a walk of the loaded library ----------------------------------------------------------------


def images_of(data: bytes) -> Images:
    """The images that each wrapper leads to, in the order of the wrappers."""
    binary = parsed(data)
    section = next((one for one in binary.sections if str(one.name) in WRAPPERS), None)
    if section is None:
        return []
    pointers = {}
    base = 0
    if isinstance(binary, lief.ELF.Binary):
        pointers = {one.address: one.addend for one in binary.relocations if one.type == RELATIVE}
    else:
        base = binary.optional_header.imagebase
    content = bytes(section.content)
    found: Images = []
    for place in range(0, len(content) - WRAPPER.size + 1, WRAPPER.size):
        magic, _, pointer, _ = WRAPPER.unpack_from(content, place)
        target = pointers.get(section.virtual_address + place + 8, pointer - base)
        if magic == WRAPPER_MAGIC and target > 0:
            found.append(list(_container(binary, target)))
    return found


def parsed(data: bytes) -> lief.ELF.Binary | lief.PE.Binary:
    binary = lief.parse(data)
    assert isinstance(binary, lief.ELF.Binary | lief.PE.Binary)
    return binary


def _container(binary: lief.ELF.Binary | lief.PE.Binary, address: int) -> Iterator[Image]:
    magic, _, header, size = struct.unpack("<IHHQ", _read(binary, address, 16))
    assert (magic, header) == (CONTAINER_MAGIC, 16)
    data = _read(binary, address + header, size)
    at = 0
    while at < size:
        kind, _, head, length = struct.unpack_from("<HHIQ", data, at)
        [arch] = struct.unpack_from("<I", data, at + 28)
        yield Image(kind, arch, hashlib.sha256(data[at + head : at + head + length]).hexdigest())
        at += head + length


def _read(binary: lief.ELF.Binary | lief.PE.Binary, address: int, size: int) -> bytes:
    if isinstance(binary, lief.PE.Binary):
        address += binary.optional_header.imagebase
    return bytes(binary.get_content_from_virtual_address(address, size))


def libraries(wheel: Path) -> dict[str, bytes]:
    """The libraries of a wheel that have device code."""
    with zipfile.ZipFile(wheel) as archive:
        found = {
            name: archive.read(name)
            for name in archive.namelist()
            if name.endswith((".so", ".dll", ".pyd")) or ".so." in name
        }
    return {name: data for name, data in found.items() if b".nv_fatb" in data}


# -- what must hold ------------------------------------------------------------------------------


def test_nothing_is_called_wrong(bench: Workbench, wheel: Path) -> None:
    done = bench.invoke("verify", str(wheel))
    assert done.code == 0, done.out
    assert done.out.count("\n") < LINES
    assert bench.invoke("inspect", str(wheel)).out.count("\n") < LINES


def loaded_by(number: int, images: list[Image]) -> list[Image]:
    """What a GPU loads: the newest cubin of its own generation, not newer than itself."""
    fit = [
        one for one in images
        if one.kind == CUBIN and one.arch // 10 == number // 10 and one.arch <= number
    ]  # fmt: skip
    newest = max((one.arch for one in fit), default=0)
    return [one for one in fit if one.arch == newest]


def test_each_wrapper_finds_what_its_gpu_loads(wheel: Path, thinned: dict[str, Path]) -> None:
    before, after = libraries(wheel), libraries(thinned["86"])
    assert sorted(after) == sorted(before)
    assert before
    for name, data in before.items():
        expected = [loaded_by(86, images) for images in images_of(data)]
        assert any(expected), f"{name}: nothing was found for this GPU"
        assert images_of(after[name]) == expected, name
        assert others(after[name]) == others(data), name


def others(data: bytes) -> dict[str, object]:
    """All else that a loader reads: sections but those of device code, and relocations but those
    of wrappers."""
    binary = parsed(data)
    found: dict[str, object] = {
        f"{number} {one.name}": (one.virtual_address, bytes(one.content))
        for number, one in enumerate(binary.sections)
        if str(one.name) not in {*CODE, ".bss", ".rela.dyn", ".symtab"}
    }
    if isinstance(binary, lief.ELF.Binary):
        [wrappers] = [one for one in binary.sections if str(one.name) in WRAPPERS]
        theirs = range(wrappers.virtual_address, wrappers.virtual_address + wrappers.size)
        found["relocations"] = [
            (one.address, one.type, one.addend, one.symbol.name if one.symbol else "")
            for one in binary.relocations
            if one.address not in theirs
        ]
    return found


def test_cuobjdump_lists_what_is_found(
    wheel: Path, thinned: dict[str, Path], cuda_home: Path, tmp_path: Path
) -> None:
    """Of libraries for Linux, which are those that it can read here."""
    for path in (wheel, thinned["86,90"]):
        for name, data in libraries(path).items():
            if name.endswith((".dll", ".pyd")):
                continue
            (tmp_path / "library.so").write_bytes(data)
            command = [cuda_home / "bin" / "cuobjdump", "-lelf", tmp_path / "library.so"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            listed = Counter(re.findall(r"\.sm_([0-9]+)[af]?\.cubin$", done.stdout, re.M))
            walked = Counter(
                str(one.arch) for images in images_of(data) for one in images if one.kind == CUBIN
            )
            assert walked <= listed, f"{path.name}: {name}"
            # Besides there are containers of units without kernels, to which no wrapper leads.
            assert set(listed) == set(walked), f"{path.name}: {name}"


def test_parts_give_the_whole(bench: Workbench, thinned: dict[str, Path], tmp_path: Path) -> None:
    whole = thinned["86,90"]
    parts = [str(thinned[arch]) for arch in ("90", "86")]
    made = bench.wheel_in(tmp_path / "made", "stitch", *parts)
    assert made.name == whole.name
    assert made.read_bytes() == whole.read_bytes()
