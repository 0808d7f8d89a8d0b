"""`inspect_file` against NVIDIA's cuobjdump, on files that nvcc made and on a real library."""

from __future__ import annotations

import re
import subprocess
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.verify.inspect import inspect_file

SAMPLE = Path(__file__).parent.parent / "data" / "device" / "sample.cu"
CODES = ("arch=compute_80,code=[sm_80,compute_80]", "arch=compute_90a,code=sm_90a")
KERNELS = 6  # of sample.cu, counted by hand


@pytest.fixture(scope="module")
def built(
    cuda_home: Path, tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]
) -> Path:
    """A folder with sample.cu as .o, .so, .fatbin, .cubin, and all but the first in a wheel."""
    folder = tmp_path_factory.mktemp("built")
    codes = [f"-gencode={code}" for code in CODES]

    def run(*command: str | Path) -> None:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"

    nvcc = cuda_home / "bin" / "nvcc"
    run(nvcc, SAMPLE, *codes, "-Xcompiler=-fPIC", "-c", "-o", "a.o")
    run(nvcc, SAMPLE, *codes, "-fatbin", "--compress-mode=size", "-o", "a.fatbin")
    run(nvcc, SAMPLE, "-arch=sm_120f", "-cubin", "-o", "a.cubin")
    run(nvcc, SAMPLE, *codes, "-rdc=true", "-Xcompiler=-fPIC", "-c", "-o", "rdc.o")
    run(nvcc, *codes, "-Xcompiler=-fPIC", "-dlink", "rdc.o", "-o", "linked.o")
    library = next((cuda_home / "lib").glob("libcudart.so*"))
    run(tool("g++"), "-shared", "a.o", "a.o", library, "-Wl,-z,muldefs", "-o", "a.so")
    run(tool("g++"), "-shared", "rdc.o", "linked.o", library, "-o", "rdc.so")
    with zipfile.ZipFile(folder / "a.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        for name in ("a.so", "a.fatbin", "a.cubin"):
            wheel.write(folder / name, f"thing/{name}")
        wheel.writestr("thing-1.dist-info/METADATA", "Name: thing\nVersion: 1\n")
        wheel.writestr("thing-1.dist-info/WHEEL", "Tag: py3-none-linux_x86_64\n")
        wheel.writestr("thing-1.dist-info/RECORD", "")
    return folder


def cuobjdump(cuda_home: Path, path: Path, *options: str) -> str:
    command = [cuda_home / "bin" / "cuobjdump", *options, path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def images_by_cuobjdump(cuda_home: Path, path: Path) -> Counter[tuple[str, str]]:
    """(arch, kind) of each image; cuobjdump does not show the suffix f."""
    listing = cuobjdump(cuda_home, path, "-lelf")
    if "ptx" in cuobjdump(cuda_home, path, "-all", "-lptx"):
        listing += cuobjdump(cuda_home, path, "-lptx")
    return Counter(re.findall(r"\.sm_(\w+)\.(cubin|ptx)$", listing, re.MULTILINE))


def images_by_inspect(binary: dict[str, Any]) -> Counter[tuple[str, str]]:
    counted: Counter[tuple[str, str]] = Counter()
    for image in binary["images"]:
        arch = image["arch"].partition("_")[2].removesuffix("f")
        counted[arch, {"elf": "cubin", "ptx": "ptx"}[image["kind"]]] += image["count"]
    return counted


def kernels_by_cuobjdump(cuda_home: Path, path: Path) -> set[str]:
    usage = cuobjdump(cuda_home, path, "-res-usage")
    return set(re.findall(r"^\s*Function (\S+):$", usage, re.MULTILINE))


@pytest.mark.parametrize(
    ("name", "kernels", "functions"),
    [
        ("a.o", KERNELS, set()),
        ("a.so", KERNELS, set()),
        ("a.fatbin", KERNELS, set()),
        # Not linked yet, `helper` is a function of its own, which cuobjdump lists too.
        ("rdc.o", KERNELS, {"_Z6helperf"}),
        # The device linker keeps what the host code launches.
        ("rdc.so", 3, set()),
    ],
)
def test_images_and_kernels_are_those_of_cuobjdump(
    cuda_home: Path, built: Path, name: str, kernels: int, functions: set[str]
) -> None:
    (binary,) = inspect_file(built / name)["binaries"]
    assert images_by_inspect(binary) == images_by_cuobjdump(cuda_home, built / name)
    theirs = kernels_by_cuobjdump(cuda_home, built / name) - functions
    assert binary["kernels"] == len(theirs) == kernels


def test_a_cubin(cuda_home: Path, built: Path) -> None:
    report = inspect_file(built / "a.cubin")
    (binary,) = report["binaries"]
    assert images_by_inspect(binary) == images_by_cuobjdump(cuda_home, built / "a.cubin")
    assert (binary["format"], binary["kernels"], binary["containers"]) == ("cubin", KERNELS, 0)
    assert binary["images"][0]["bytes"] == (built / "a.cubin").stat().st_size


def test_coverage_and_containers(built: Path) -> None:
    report = inspect_file(built / "a.so")
    assert report["binaries"][0]["containers"] == 2  # a.o was linked twice
    native = {gpu for gpu, how in report["coverage"].items() if how == "native"}
    assert native == {"8.0", "8.6", "8.9", "9.0"}
    assert report["coverage"]["7.5"] == "none"
    assert report["coverage"]["12.0"] == "jit"


def test_a_wheel_holds_what_its_files_hold(built: Path) -> None:
    report = inspect_file(built / "a.whl")
    alone = [inspect_file(built / name)["binaries"][0] for name in ("a.so", "a.fatbin", "a.cubin")]
    assert report["binaries"] == [{**binary, "path": f"thing/{binary['path']}"} for binary in alone]
    # The library decides; the other two serve 8.0 or 12.0, if something loads them.
    assert report["coverage"]["12.0"] == "jit"
    assert report["coverage"]["8.0"] == "native"
    assert report["coverage"]["7.5"] == "unknown"


def test_a_library_of_nvidia(cuda_home: Path) -> None:
    """127 MB with 109 images, the PTX among them compressed."""
    found = sorted((cuda_home / "lib").glob("libcurand.so*"))
    if not found:
        pytest.skip("libcurand is not part of this CUDA_HOME")
    (binary,) = inspect_file(found[0])["binaries"]
    assert images_by_inspect(binary) == images_by_cuobjdump(cuda_home, found[0])
    assert binary["kernels"] == len(kernels_by_cuobjdump(cuda_home, found[0]))
