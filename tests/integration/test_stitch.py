"""Slices of separate nvcc calls, stitched, equal what one multi-arch nvcc call makes."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from fatwheel.decoders import payload
from fatwheel.errors import StitchError
from fatwheel.fatbin.container import Entry
from fatwheel.fatbin.cubin import kernels_of_cubin
from fatwheel.fatbin.stitch import (
    image_name,
    nvcc_order,
    slices_of,
    stitch_object,
    without_device_code,
)

from ..helpers.deviceimages import check_parity

SAMPLE = Path(__file__).parent.parent / "data" / "device" / "sample.cu"
# In ascending order, PTX in the middle, each kind of suffix.
CODES = {
    "80": "[sm_80,compute_80]",
    "86": "sm_86",
    "90a": "sm_90a",
    "100f": "sm_100f",
    "120": "sm_120",
}
ARCH_LIST = "800,860,900,1000,1200"

Tool = Callable[[str], str]


class Compiler:
    """nvcc in a folder of its own, with what makes calls comparable (docs of `build`)."""

    def __init__(self, cuda_home: Path, folder: Path) -> None:
        self.cuda_home = cuda_home
        self.folder = folder
        shutil.copy(SAMPLE, folder / "sample.cu")
        header = f"#undef __CUDA_ARCH_LIST__\n#define __CUDA_ARCH_LIST__ {ARCH_LIST}\n"
        (folder / "fixed.h").write_text(header)

    def __call__(self, *arguments: str, archs: tuple[str, ...]) -> bytes:
        keep = self.folder / "keep"
        shutil.rmtree(keep, ignore_errors=True)
        keep.mkdir()
        fixed = ["-frandom-seed=7", "-include", "fixed.h", "--keep", "--keep-dir", "keep"]
        codes = [f"-gencode=arch=compute_{arch},code={CODES[arch]}" for arch in archs]
        command = [self.cuda_home / "bin" / "nvcc", "sample.cu", *fixed, *codes, *arguments]
        done = subprocess.run(
            [*command, "-o", "out"], cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"nvcc failed:\n{done.stdout}{done.stderr}"
        return (self.folder / "out").read_bytes()


@pytest.fixture
def nvcc(cuda_home: Path, tmp_path: Path, tool: Tool) -> Compiler:
    tool("g++")
    return Compiler(cuda_home, tmp_path)


def section(obj: bytes, name: str = ".nv_fatbin") -> bytes:
    return ELFFile(io.BytesIO(obj)).get_section_by_name(name).data()


def slices(nvcc: Compiler, *options: str) -> tuple[bytes, list[Entry]]:
    """The host object of the first arch's call, and all archs' entries, the last arch first."""
    first, *others = CODES
    obj = nvcc("-c", *options, archs=(first,))
    entries = [
        entry
        for arch in reversed(others)
        for entry in slices_of(nvcc("-fatbin", *options, archs=(arch,)))
    ]
    return without_device_code(obj), [*entries, *slices_of(obj)]


@pytest.mark.parametrize(
    "options",
    [pytest.param((), marks=pytest.mark.long), ("--compress-mode=size", "-lineinfo")],
    ids=["default", "compressed"],
)
def test_the_fatbin_section_equals_one_call_for_all(
    nvcc: Compiler, options: tuple[str, ...]
) -> None:
    host, entries = slices(nvcc, *options)
    check_parity("sample", entries)
    stitched = stitch_object(host, nvcc_order(entries))
    whole = nvcc("-c", *options, archs=tuple(CODES))
    assert section(stitched) == section(whole), "the stitched fatbin differs from nvcc's"
    ours, theirs = (ELFFile(io.BytesIO(data)) for data in (stitched, whole))
    # nvcc names a temporary file after the last of several archs; only that name may differ.
    names = {".strtab", ".symtab"}
    for one, other in zip(ours.iter_sections(), theirs.iter_sections(), strict=True):
        assert one.name == other.name
        if one.name not in names:
            assert one.data() == other.data(), f"section {one.name} differs from nvcc's"


def test_the_stitched_object_links_and_cuobjdump_reads_it(nvcc: Compiler, tool: Tool) -> None:
    host, entries = slices(nvcc)
    (nvcc.folder / "a.o").write_bytes(stitch_object(host, nvcc_order(entries)))
    library = next((nvcc.cuda_home / "lib").glob("libcudart.so*"))
    command = [tool("g++"), "-shared", "a.o", library, "-o", "a.so"]
    subprocess.run(command, cwd=nvcc.folder, check=True)
    listing = subprocess.run(
        [nvcc.cuda_home / "bin" / "cuobjdump", "-lelf", "-lptx", "a.so"],
        cwd=nvcc.folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = re.findall(r"\.(sm_\w+)\.(cubin|ptx)$", listing.stdout, re.MULTILINE)
    # cuobjdump does not show the suffix f.
    assert found == [
        ("sm_80", "cubin"),
        ("sm_80", "ptx"),
        ("sm_86", "cubin"),
        ("sm_90a", "cubin"),
        ("sm_100", "cubin"),
        ("sm_120", "cubin"),
    ]


def test_nvcc_orders_images_as_its_command_line_does(nvcc: Compiler) -> None:
    """What `nvcc_order` says about nvcc, from its own list of commands."""
    codes = [f"-gencode=arch=compute_{arch},code={code}" for arch, code in CODES.items()]
    for order in (codes, codes[::-1], codes[2:] + codes[:2]):
        command = [nvcc.cuda_home / "bin" / "nvcc", "-dryrun", "-c", "sample.cu", *order]
        done = subprocess.run(command, cwd=nvcc.folder, capture_output=True, text=True, check=True)
        given = re.findall(r"--image3=kind=(elf|ptx),sm=(\w+)", done.stderr)
        kinds = {"sm": "elf", "compute": "ptx"}
        expected = [
            (kinds[kind], arch)
            for option in order
            for kind, arch in re.findall(r"(sm|compute)_(\w+)", option.partition(",code=")[2])
        ]
        assert given == expected


def test_layouts_are_those_that_cuobjdump_reads(nvcc: Compiler) -> None:
    for arch in ("86", "100f"):
        (entry,) = slices_of(nvcc("-fatbin", archs=(arch,)))
        cubin = nvcc.folder / "a.cubin"
        cubin.write_bytes(payload(entry))
        command = [nvcc.cuda_home / "bin" / "cuobjdump", "-elf", cubin]
        dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        theirs = parameters_of_dump(dump)
        ours = {
            name: sorted((p.ordinal, p.offset, p.size) for p in layout.parameters)
            for name, layout in kernels_of_cubin(payload(entry)).items()
        }
        assert ours == theirs
        assert sum(len(parameters) for parameters in ours.values()) == 14


def parameters_of_dump(dump: str) -> dict[str, list[tuple[int, ...]]]:
    """(ordinal, offset, size) per kernel, from `cuobjdump -elf`."""
    found = {}
    for block in re.split(r"^(?=\.nv\.info\.|\.section|\.text|\.nv\.)", dump, flags=re.MULTILINE):
        heading = re.match(r"\.nv\.info\.(\S+)\n", block)
        if heading:
            numbers = re.findall(
                r"Ordinal : 0x(\w+)\s+Offset\s+: 0x(\w+)\s+Size\s+: 0x(\w+)", block
            )
            found[heading[1]] = sorted(tuple(int(n, 16) for n in row) for row in numbers)
    return found


def test_slices_of_different_sources_are_refused_by_unit(nvcc: Compiler) -> None:
    mine = slices_of(nvcc("-fatbin", archs=("80",)))
    source = nvcc.folder / "sample.cu"
    text = source.read_text()
    source.write_text(text.replace("int i, long j, void* p", "int i, int j, void* p"))
    # The C name stays `plain`, but its second parameter is smaller.
    other = slices_of(nvcc("-fatbin", archs=("86",)))
    with pytest.raises(StitchError, match="sm_80 and sm_86 disagree on kernel par") as caught:
        check_parity("csrc/sample", [*mine, *other])
    assert caught.value.where == "csrc/sample"
    assert [line.partition(":")[0] for line in caught.value.details] == ["plain", "plain"]
    source.write_text(
        text.replace("void launch", "template __global__ void scale<9>(float*, int);\nvoid launch")
    )
    check_parity("csrc/sample", [*mine, *slices_of(nvcc("-fatbin", archs=("86",)))])


def test_an_aligned_parameter_has_another_place_on_each_architecture(nvcc: Compiler) -> None:
    """Its slices belong together all the same: each image says for itself where it is."""
    source = nvcc.folder / "sample.cu"
    source.write_text(
        "struct alignas(64) Map { char bytes[128]; };\n"
        "__global__ void tma(int n, const __grid_constant__ Map map, char *out) {\n"
        "    if (threadIdx.x < n) out[threadIdx.x] = map.bytes[threadIdx.x & 127];\n"
        "}\n"
    )
    entries = [slices_of(nvcc("-fatbin", archs=(arch,)))[0] for arch in ("80", "90a")]
    [(old, new)] = [
        [
            layout.parameters
            for entry in entries
            for layout in kernels_of_cubin(payload(entry)).values()
        ]
    ]
    assert [one.size for one in old] == [one.size for one in new] == [4, 128, 8]
    assert [one.offset for one in old] != [one.offset for one in new], "nothing is shown by this"
    check_parity("csrc/sample", entries)


def test_relocatable_device_code_has_slices_too(nvcc: Compiler) -> None:
    plain, relocatable = (nvcc("-c", *how, archs=("80", "86")) for how in ((), ("-rdc=true",)))
    names = [image_name(entry) for entry in slices_of(relocatable)]
    assert names == [image_name(entry) for entry in slices_of(plain)]
    assert {"sm_80", "sm_86"} <= set(names)
