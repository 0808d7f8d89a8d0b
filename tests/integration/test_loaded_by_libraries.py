"""Device code among data of libraries, against NVIDIA's cuobjdump.

cuobjdump sees only sections of device code. So what lies elsewhere is found here, too, by its first
bytes, and put into such a section of an object for cuobjdump to read.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lief
import pytest
from elftools.elf.elffile import ELFFile

from .conftest import Workbench
from .windows import subject

BEGINNING = struct.pack("<IHH", 0xBA55ED50, 1, 16)
SAMPLE = Path(__file__).parent.parent / "data" / "device" / "sample.cu"
CODES = ("arch=compute_80,code=[sm_80,compute_80]", "arch=compute_90a,code=sm_90a")
# As a project would have it that makes its kernels known to nobody but itself.
DATA = """
.data
.align 8
.globl image
image: .incbin "a.fatbin"
.section .rodata
.incbin "a.cubin"
.section .note.GNU-stack,"",@progbits
"""


def containers(data: bytes) -> list[bytes]:
    found, position = [], 0
    while (position := data.find(BEGINNING, position)) >= 0:
        size = 16 + struct.unpack_from("<Q", data, position + 8)[0]
        found.append(data[position : position + size])
        position += size
    return found


def by_cuobjdump(cuda_home: Path, folder: Path, code: list[bytes]) -> Counter[tuple[str, str]]:
    """(kind, arch) of each image, without the suffix f; 'hidden' for what only NVIDIA can read."""
    (folder / "code").write_bytes(b"".join(one + bytes(-len(one) % 8) for one in code))
    command = ["objcopy", "-I", "binary", "-O", "elf64-x86-64", "-B", "i386:x86-64"]
    subprocess.run(
        [*command, "--rename-section", ".data=.nv_fatbin", folder / "code", folder / "code.o"],
        check=True,
    )
    counted: Counter[tuple[str, str]] = Counter()
    for option in ("-lelf", "-lptx"):
        done = subprocess.run(
            [cuda_home / "bin" / "cuobjdump", option, folder / "code.o"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        counted.update(
            (kind, arch) for arch, kind in re.findall(r"\.sm_(\w+)\.(cubin|ptx)$", said, re.M)
        )
        counted["hidden", ""] = said.count("deobfuscate entry")
    return counted


def by_inspect(place: dict[str, Any]) -> Counter[tuple[str, str]]:
    counted: Counter[tuple[str, str]] = Counter()
    for image in place["images"]:
        kind = {"elf": "cubin"}.get(image["kind"], image["kind"])
        counted[kind, image["arch"].partition("_")[2].removesuffix("f")] += image["count"]
    return counted


def inspected(bench: Workbench, path: Path) -> dict[str, Any]:
    done = bench.invoke("inspect", str(path), "--json")
    assert done.code == 0, done.err
    report: dict[str, Any] = json.loads(done.out)
    return report


def test_what_a_project_keeps_in_its_data(
    cuda_home: Path, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    nvcc = cuda_home / "bin" / "nvcc"
    codes = [f"-gencode={code}" for code in CODES]
    for command in (
        [nvcc, SAMPLE, *codes, "-fatbin", "-o", "a.fatbin"],
        [nvcc, SAMPLE, "-arch=sm_100a", "-cubin", "-o", "a.cubin"],
        [tool("g++"), "-shared", "-x", "assembler", "a.s", "-o", "a.so"],
    ):
        (tmp_path / "a.s").write_text(DATA)
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    report = inspected(Workbench(tmp_path / "bench"), tmp_path / "a.so")
    [binary] = report["binaries"]
    found = {place["place"]: place for place in binary["embedded"]}
    assert found.keys() == {".data", ".rodata"}
    fatbin = (tmp_path / "a.fatbin").read_bytes()
    theirs = by_cuobjdump(cuda_home, tmp_path, containers(fatbin))
    assert by_inspect(found[".data"]) == +theirs
    assert theirs == {("cubin", "80"): 1, ("ptx", "80"): 1, ("cubin", "90a"): 1, ("hidden", ""): 0}
    assert found[".data"]["bytes"] == len(fatbin)
    assert found[".rodata"]["cubins"] == 1
    assert found[".rodata"]["bytes"] == (tmp_path / "a.cubin").stat().st_size
    assert by_inspect(found[".rodata"]) == {("cubin", "100a"): 1}
    assert set(report["coverage"].values()) == {"unknown"}


@pytest.mark.slow
@pytest.mark.long  # what it loads by itself; smaller libraries that do are in every run
def test_cufft(cuda_home: Path, tmp_path: Path) -> None:
    wheel, name = subject("cufft-linux"), "nvidia/cufft/lib/libcufft.so.11"
    report = inspected(Workbench(tmp_path / "bench"), wheel)
    [binary] = [one for one in report["binaries"] if one["path"] == name]
    [place] = binary["embedded"]
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(name, tmp_path)
    with (tmp_path / name).open("rb") as stream:
        held = containers(ELFFile(stream).get_section_by_name(".data").data())
    assert (place["place"], place["containers"]) == (".data", len(held))
    assert place["bytes"] == sum(map(len, held))
    ours, theirs = by_inspect(place), by_cuobjdump(cuda_home, tmp_path, held)
    hidden = theirs.pop(("hidden", ""))
    linked = Counter({key: count for key, count in ours.items() if key[0] == "lto"})
    assert ours - linked == theirs
    assert hidden <= linked.total() == len(held) - theirs.total(), "each container has one image"
    # Compute capabilities of 5.0 to 12.0: nobody can tell, and none is said to have no code.
    assert set(report["coverage"].values()) == {"unknown"}
    done = Workbench(tmp_path / "thin").invoke("thin", str(wheel), "--arch", "90")
    assert "nothing to select: libraries load its device code themselves" in done.err
    assert f"{name}: {len(held):,} containers in .data (" in done.err


@pytest.mark.slow
def test_a_library_for_windows_with_code_that_only_nvidia_can_read(
    cuda_home: Path, tmp_path: Path
) -> None:
    wheel, name = subject("mathdx-windows"), "nvidia/cu12/bin/mathdx64_0.dll"
    report = inspected(Workbench(tmp_path / "bench"), wheel)
    [binary] = [one for one in report["binaries"] if one["path"] == name]
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(name, tmp_path)
    image = lief.PE.parse(str(tmp_path / name))
    assert image is not None
    [section] = [section for section in image.sections if section.name == ".data"]
    data = (tmp_path / name).read_bytes()
    held = containers(data[section.offset :][: section.size])
    assert by_cuobjdump(cuda_home, tmp_path, held) == {("hidden", ""): 1}
    [place] = binary["embedded"]
    assert (place["place"], place["containers"], place["bytes"]) == (".data", 1, len(held[0]))
    assert by_inspect(place) == {("lto", "70"): 1}
    assert len(containers(data)) == 1, "there is none outside of .data"
