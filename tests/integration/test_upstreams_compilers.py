"""What a project's own build compiles, and with what: nothing is left out, or made unseen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fatwheel.arch import Arch
from fatwheel.config.toolchains import load_toolchain
from fatwheel.model import Environment, Front
from fatwheel.worker.archs import arch_variables

from .conftest import ROOT, Workbench, record_of

pytestmark = pytest.mark.slow

_FINISHED = re.compile(r"^\[\d+/\d+\] (.+?) \d", re.MULTILINE)


def units_of(wheel: Path) -> list[str]:
    units = record_of(wheel)["units"]
    assert isinstance(units, list)
    return [unit["name"] for unit in units]


# -- architectures -----------------------------------------------------------------------------


def test_a_source_that_newer_architectures_need_is_compiled_for_them(bench: Workbench) -> None:
    kernel = "tests/data/byarch"
    older = bench.build("--arch", "80", kernel=kernel)
    assert units_of(older.wheel()) == ["csrc/base"]
    bench.forget_wheels()
    both = bench.build("--arch", "80,89", kernel=kernel)
    assert units_of(both.wheel()) == ["csrc/base", "csrc/newer"]
    assert set(_FINISHED.findall(both.err)) == {
        "csrc/base [sm_89]", "csrc/newer [sm_80]", "csrc/newer [sm_89]",
    }, "a slice of sm_80 is the same, whatever else is asked for"  # fmt: skip


ASKS = """
import os, sys
from torch.utils.cpp_extension import _get_cuda_arch_flags
for line in sys.stdin:
    os.environ["TORCH_CUDA_ARCH_LIST"] = line.strip()
    print(*_get_cuda_arch_flags())
"""


def test_torch_takes_every_architecture_of_the_toolchain(environment: Environment) -> None:
    """Those that it knows exactly so, with and without PTX; all others too."""
    known = load_toolchain("linux-cuda13.0", ROOT / "toolchains").archs
    asked = [(arch, codes) for arch in known for codes in ((arch.sm,), (arch.sm, arch.compute))]
    told = [arch_variables([Front(arch, codes)], environment.site) for arch, codes in asked]
    lines = [f"{one['TORCH_CUDA_ARCH_LIST']}\n" for one in told]
    done = subprocess.run(
        [environment.python, "-c", ASKS], input="".join(lines), capture_output=True, text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for (arch, codes), options in zip(asked, done.stdout.splitlines(), strict=True):
        if arch in (Arch(80), Arch(86), Arch(90), Arch(90, "a"), Arch(120), Arch(120, "a")):
            expected = [f"-gencode=arch={arch.compute},code={code}" for code in codes]
            assert options.split() == sorted(expected)
        else:
            assert options


# -- compilers that are called past the stand-ins ----------------------------------------------


def test_compilers_that_go_past_the_stand_ins_are_told_and_name_no_folder(
    environment: Environment, tmp_path: Path
) -> None:
    """CXX=g++ and cc are taken over; programs called by their paths are told of."""
    wheels = []
    for name in ("one", "another-folder"):
        bench = Workbench(tmp_path / name)
        outcome = bench.build("--arch", "80", kernel="tests/data/bypass")
        wheels.append(outcome.wheel())
        assert units_of(wheels[-1]) == ["kernel.cu"]
        notes = [line for line in outcome.err.splitlines() if "the project" in line]
        past = [line.partition(": ")[2] for line in notes if "went past fatwheel" in line]
        folder = "fatwheel-bypass-1.0"
        assert {(line.split()[0], line.split()[-1]) for line in past} == {
            ("/usr/bin/g++", f"{folder}/build/{build_folder()}/bypath.cpp.o"),
            ("/usr/bin/g++", f"build/{library_folder()}/fatwheel_bypass/libother.so"),
            ("/usr/bin/gcc", f"{folder}/build/{build_folder()}/assembled.S.o"),
            ("cuda/bin/nvcc", f"{folder}/build/{build_folder()}/bypath.cu.o"),
        }
        [linked] = [line for line in notes if "links objects" in line]
        build = f"{folder}/build/{build_folder()}"
        assert linked.endswith(f": {build}/brought.o, {build}/libstatic.a(archived.o)")
        assert "wrote the folder of this build" not in outcome.err
    libraries = [libraries_of(wheel) for wheel in wheels]
    for data in (*libraries[0], *libraries[1]):
        assert str(tmp_path).encode() not in data
    # An nvcc that is called by its path names a file after its process.
    one, other = ([re.sub(rb"tmpxft_[0-9a-f]{8}", b"", d) for d in found] for found in libraries)
    assert one == other


def libraries_of(wheel: Path) -> list[bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return [archive.read(name) for name in archive.namelist() if name.endswith(".so")]


def build_folder() -> str:
    return f"temp.linux-x86_64-cpython-{sys.version_info.major}{sys.version_info.minor}"


def library_folder() -> str:
    return build_folder().replace("temp", "lib")


# -- sources above the project's folder --------------------------------------------------------


def test_sources_above_the_subdirectory_are_units(bench: Workbench) -> None:
    outcome = bench.build("--arch", "80,90", kernel="tests/data/above")
    assert units_of(outcome.wheel()) == ["../csrc/absolute", "build/csrc/relative"]
    assert "went past fatwheel" not in outcome.err
    with zipfile.ZipFile(outcome.wheel()) as archive:
        [library] = [name for name in archive.namelist() if name.endswith(".so")]
        data = archive.read(library)
    assert b"/tmp/fatwheel/fatwheel-above-1.0/src/csrc/absolute.cu" in data
    assert str(bench.cache).encode() not in data
