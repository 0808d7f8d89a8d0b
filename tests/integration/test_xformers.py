"""xformers 0.0.23 as its authors published it, thinned and stitched back, for Linux and Windows.

Of the Windows wheel, a run without --all makes the one for 8.0 alone; test_windows_wheel has what
the others are about, in wheels that take seconds.

What it holds was measured once with NVIDIA's tools: `_C_flashattention` has 48 containers, each
with PTX and a cubin for 8.0 and a cubin for 9.0, and 1552 kernels; each of the 61 containers of
`_C` has cubins for 5.0 to 9.0 and PTX for 5.0 and 8.0. Images are found here as CUDA's runtime
finds them, through the wrappers, in files read by LIEF; cuobjdump must count the same.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lief
import pytest

from fatwheel.fatbin.container import parse_containers
from fatwheel.model import Environment

from ..conftest import missing
from .conftest import Workbench
from .windows import subject

pytestmark = [
    pytest.mark.slow,
    # Smaller wheels for Windows are thinned and stitched in every run.
    pytest.mark.long_for(sample=["windows"], stage=["for 80", "for 90", "stitched"]),
    # Of what they would show, the wheel that is stitched of them shows nearly all.
    pytest.mark.long_for(sample=["linux"], stage=["for 80", "for 90"]),
]

FLASH, GENERAL = "xformers/_C_flashattention", "xformers/_C"
SUFFIX = {"linux": ".so", "windows": ".pyd"}
SECTIONS = {"linux": ".nv_fatbin", "windows": ".nv_fatb"}
ORIGINAL = {
    FLASH: Counter({("ptx", "80"): 48, ("elf", "80"): 48, ("elf", "90"): 48}),
    GENERAL: Counter(
        {("elf", arch): 61 for arch in ("50", "60", "61", "70", "75", "80", "90")}
        | {("ptx", arch): 61 for arch in ("50", "80")}
    ),
}
# What GPUs of 8.0 load and all PTX; what GPUs of 9.0 load.
KEPT = {
    "original": set.union(*(set(counted) for counted in ORIGINAL.values())),
    "for 80": {("elf", "80"), ("ptx", "80"), ("ptx", "50")},
    "for 90": {("elf", "90")},
}
KEPT["stitched"] = KEPT["for 80"] | KEPT["for 90"]
STAGES = tuple(KEPT)
OPTIONS = {"for 80": ("--arch", "80", "--keep-ptx"), "for 90": ("--arch", "90")}
# How code comes to GPUs of these. For 7.5 only the other module has code.
GPUS = ("7.5", "8.0", "8.9", "9.0", "12.0")
COVERAGE = {
    "original": ("part", "native", "native", "native", "jit"),
    "for 80": ("part", "native", "native", "jit", "jit"),
    "for 90": ("none", "none", "none", "native", "none"),
    "stitched": ("part", "native", "native", "native", "jit"),
}


# Bytes that cannot be reclaimed: on Linux, of the pages that old device code shared with its
# neighbours, and of the one that new code begins in; on Windows, of a sector at its end.
EDGES = {"linux": 3 * 4096, "windows": 512}


@dataclass(frozen=True)
class Image:
    kind: str
    arch: str
    size: int  # bytes in the container
    digest: str  # of the whole entry

    @property
    def what(self) -> tuple[str, str]:
        return self.kind, self.arch


class Sample:
    """One platform's wheel: as published, thinned to each of its parts, and those stitched.

    Everything is made once, when a test first asks for it.
    """

    def __init__(self, system: str, folder: Path) -> None:
        self.system = system
        self.folder = folder
        self.bench = Workbench(folder / "bench")
        self._wheels: dict[str, Path] = {}
        self._images: dict[tuple[str, str], list[tuple[Image, ...]]] = {}

    def wheel(self, stage: str) -> Path:
        if stage not in self._wheels:
            self._wheels[stage] = self._made(stage)
        return self._wheels[stage]

    def _made(self, stage: str) -> Path:
        if stage == "original":
            return subject(f"xformers-{self.system}")
        if stage == "stitched":
            command = ["stitch", str(self.wheel("for 80")), str(self.wheel("for 90"))]
        else:
            command = ["thin", str(self.wheel("original")), *OPTIONS[stage]]
        return self.bench.wheel_in(self.folder / stage, *command)

    def binary(self, stage: str, module: str) -> Path:
        """A module as it is at a stage, unpacked."""
        folder = self.folder / "unpacked" / stage
        name = module + SUFFIX[self.system]
        if not (folder / name).is_file():
            with zipfile.ZipFile(self.wheel(stage)) as wheel:
                wheel.extract(name, folder)
        return folder / name

    def images(self, stage: str, module: str) -> list[tuple[Image, ...]]:
        """The images of each container, in the order of the wrappers."""
        if (stage, module) not in self._images:
            file = self.binary(stage, module)
            with file.open("rb") as stream:
                data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            found = [images_at(data, offset) for offset in container_offsets(file)]
            self._images[stage, module] = found
        return self._images[stage, module]

    def inspected(self, stage: str) -> dict[str, object]:
        done = self.bench.invoke("inspect", str(self.wheel(stage)), "--json")
        assert done.code == 0, f"inspect ended with {done.code}:\n{done.err}"
        report: dict[str, object] = json.loads(done.out)
        return report


def images_at(data: mmap.mmap, offset: int) -> tuple[Image, ...]:
    magic, _, header, size = struct.unpack_from("<IHHQ", data, offset)
    assert magic == 0xBA55ED50, f"a wrapper leads to {offset:#x}, where no container is"
    [container] = parse_containers(memoryview(data)[offset : offset + header + size])
    return tuple(
        Image(e.kind, e.arch.name, len(e.raw), hashlib.sha256(e.raw).hexdigest())
        for e in container.entries
    )


def container_offsets(file: Path) -> Iterator[int]:
    """Where in the file each wrapper's container is, with the file loaded as its system does."""
    binary = lief.parse(str(file))
    if isinstance(binary, lief.PE.Binary):
        base = binary.optional_header.imagebase
        relocated = {entry.address for block in binary.relocations for entry in block.entries}
        [section] = [section for section in binary.sections if section.name == ".nvFatBi"]
        for place, pointer in wrappers(bytes(section.content)):
            assert section.virtual_address + place in relocated, "a pointer that is not relocated"
            yield binary.rva_to_offset(pointer - base)
    else:
        assert isinstance(binary, lief.ELF.Binary)
        targets = {entry.address: entry.addend for entry in binary.dynamic_relocations}
        section = binary.get_section(".nvFatBinSegment")
        for place, _ in wrappers(bytes(section.content)):
            yield binary.virtual_address_to_offset(targets[section.virtual_address + place])


def wrappers(section: bytes) -> Iterator[tuple[int, int]]:
    """Where each wrapper's pointer stands in the section, and what it is in the file."""
    for start in range(0, len(section) - 23, 24):
        magic, version, pointer, _ = struct.unpack_from("<IIQQ", section, start)
        if magic:
            assert (magic, version) == (0x466243B1, 1)
            yield start + 8, pointer


def expected(stage: str, module: str) -> Counter[tuple[str, str]]:
    return Counter({w: n for w, n in ORIGINAL[module].items() if w in KEPT[stage]})


@pytest.fixture(scope="module", params=SUFFIX)
def sample(request: pytest.FixtureRequest, on_disk: Path) -> Iterator[Sample]:
    folder = on_disk / f"xformers-{request.param}"
    folder.mkdir()
    yield Sample(request.param, folder)
    shutil.rmtree(folder)  # gigabytes


each_module = pytest.mark.parametrize("module", [FLASH, GENERAL])
each_stage = pytest.mark.parametrize("stage", STAGES)


@each_stage
@each_module
def test_each_container_holds_what_was_kept_of_it(sample: Sample, stage: str, module: str) -> None:
    found = sample.images(stage, module)
    assert Counter(image.what for images in found for image in images) == expected(stage, module)
    for before, after in zip(sample.images("original", module), found, strict=True):
        kept = {image for image in before if image.what in KEPT[stage]}
        assert set(after) == kept, "a container has other images than it had"
        assert len(after) == len(kept), "a container has an image twice"


@each_stage
def test_inspect_reports_it(sample: Sample, stage: str) -> None:
    report = sample.inspected(stage)
    assert isinstance(report["binaries"], list)
    binaries = {binary["path"]: binary for binary in report["binaries"]}
    for module in (FLASH, GENERAL):
        binary = binaries[module + SUFFIX[sample.system]]
        counted = Counter(
            {
                (image["kind"], image["arch"].partition("_")[2]): image["count"]
                for image in binary["images"]
            }
        )
        assert counted == expected(stage, module)
        assert binary["containers"] == len(sample.images("original", module))
    assert binaries[FLASH + SUFFIX[sample.system]]["kernels"] == 1552
    coverage = report["coverage"]
    assert isinstance(coverage, dict)
    assert tuple(coverage[gpu] for gpu in GPUS) == COVERAGE[stage]


@each_module
@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_file_is_smaller_by_what_was_dropped(sample: Sample, stage: str, module: str) -> None:
    sizes = {
        name: sum(image.size for images in sample.images(name, module) for image in images)
        for name in ("original", stage)
    }
    before = sample.binary("original", module).stat().st_size
    after = sample.binary(stage, module).stat().st_size
    dropped = sizes["original"] - sizes[stage]
    assert before - after >= dropped - EDGES[sample.system]


@pytest.mark.parametrize("stage", ["for 90", "stitched"])
def test_unzip_finds_no_mistake(sample: Sample, tool: Callable[[str], str], stage: str) -> None:
    command = [tool("unzip"), "-tq", sample.wheel(stage)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("stage", STAGES[1:])
def test_all_else_stays_as_it_was(sample: Sample, stage: str) -> None:
    """By zip's own checksums. The folder of metadata has a new name and new content."""

    def members(wheel: Path) -> dict[str, int]:
        with zipfile.ZipFile(wheel) as archive:
            return {i.filename: i.CRC for i in archive.infolist() if not is_changed(i.filename)}

    def is_changed(name: str) -> bool:
        return name.endswith(SUFFIX[sample.system]) or ".dist-info/" in name

    assert members(sample.wheel(stage)) == members(sample.wheel("original"))


@pytest.mark.parametrize("stage", ["stitched"])
def test_stitched_the_file_has_the_original_s_code(sample: Sample, stage: str) -> None:
    """Nothing was lost of this module, so what is not device code must be the same too."""
    for module in (FLASH, GENERAL):
        before, after = (lief.parse(str(sample.binary(s, module))) for s in ("original", stage))
        assert before is not None
        assert after is not None
        for name in (".text", ".rdata" if sample.system == "windows" else ".rodata", ".data"):
            one, other = before.get_section(name), after.get_section(name)
            assert one.virtual_address == other.virtual_address, f"{name} moved"
            assert bytes(one.content) == bytes(other.content), f"{name} changed"


@pytest.mark.parametrize("stage", ["stitched"])
def test_pip_installs_it(sample: Sample, stage: str) -> None:
    """test_postlink has pip unpack wheels of every edit."""
    platform = {"linux": "manylinux2014_x86_64", "windows": "win_amd64"}[sample.system]
    wheel = sample.wheel(stage)
    site = sample.folder / "site"
    command = [
        sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--no-compile",
        "--only-binary=:all:", "--python-version=3.11", f"--platform={platform}",
        "--target", site, wheel,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    version = wheel.name.split("-")[1]
    assert version != "0.0.23", "the version does not say that this is another wheel"
    assert (site / f"xformers-{version}.dist-info" / "METADATA").is_file()


# -- NVIDIA's own readers ------------------------------------------------------------------------
# cuobjdump of CUDA 13 takes some cubins of CUDA 12.1 for an 'Invalid ELF' and goes no further: of
# these, as they were published, those for 9.0 and some in _C. That of CUDA 12.8, which comes with
# Triton, reads them all. For Windows there is only the former.


@pytest.fixture(scope="module")
def cuobjdump_12(environment: Environment) -> Path:
    program = environment.site / "triton" / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not program.is_file():
        missing("this Triton has no cuobjdump")
    return program


@each_stage
@each_module
def test_cuobjdump_counts_the_same(
    sample: Sample, cuobjdump_12: Path, stage: str, module: str
) -> None:
    file = sample.binary(stage, module)
    if sample.system == "windows":
        file = in_an_object(file, sample.folder)
    listing = "".join(
        subprocess.run(
            [cuobjdump_12, option, file], capture_output=True, text=True, check=True
        ).stdout
        for option in ("-lelf", *(["-lptx"] if any("ptx" in w for w in KEPT[stage]) else []))
    )
    assert counted(listing) == expected(stage, module)


def in_an_object(file: Path, folder: Path) -> Path:
    """A Windows module's device code in an object of this system, which cuobjdump can read."""
    binary = lief.parse(str(file))
    assert isinstance(binary, lief.PE.Binary)
    full = [s for s in binary.sections if s.name == ".nv_fatb" and s.sizeof_raw_data]
    assert len(full) == 1, f"{len(full)} sections of device code"
    (folder / "code").write_bytes(full[0].content)
    command = ["objcopy", "-I", "binary", "-O", "elf64-x86-64", "-B", "i386:x86-64"]
    rename = ["--rename-section", ".data=.nv_fatbin", folder / "code", folder / "code.o"]
    subprocess.run([*command, *rename], check=True)
    return folder / "code.o"


def counted(listing: str) -> Counter[tuple[str, str]]:
    found = re.findall(r"\.sm_(\w+)\.(cubin|ptx)$", listing, re.MULTILINE)
    return Counter(({"cubin": "elf", "ptx": "ptx"}[kind], arch) for arch, kind in found)


@pytest.mark.long  # test_windows_wheel has it of smaller wheels
@pytest.mark.parametrize("sample", ["windows"], indirect=True)
@pytest.mark.parametrize("stage", ["original", "for 80", "stitched"])
def test_cuobjdump_for_windows_counts_the_same(
    sample: Sample, cuobjdump_exe: Callable[..., str], stage: str
) -> None:
    file = sample.binary(stage, FLASH)
    listing = "".join(
        cuobjdump_exe(option, "-arch", "sm_80", file) for option in ("-lelf", "-lptx")
    )
    assert counted(listing) == Counter({("elf", "80"): 48, ("ptx", "80"): 48})
