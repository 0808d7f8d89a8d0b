"""What a project's own build compiles, and with what: nothing is left out, or made unseen."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fatwheel.arch import Arch
from fatwheel.errors import UpstreamError
from fatwheel.model import Environment, Front
from fatwheel.worker.archs import arch_variables

from ..helpers.schemas import schema_of
from ..helpers.toolchains import shipped_toolchain
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


def test_units_for_some_architectures_are_compiled_for_those_alone(bench: Workbench) -> None:
    kernel = "tests/data/byunit"
    outcome = bench.build("--arch", "80,89,90a", kernel=kernel)
    wheel = outcome.wheel()
    assert slices_of(wheel) == {
        "csrc/ampere": ["sm_80", "sm_89"],
        "csrc/base": ["sm_80", "sm_89", "sm_90a"],
        "csrc/hopper": ["sm_90a"],
    }
    assert "80, 89: csrc/ampere; 90a: csrc/hopper" in outcome.err
    with zipfile.ZipFile(wheel) as archive:
        [library] = [name for name in archive.namelist() if name.endswith(".so")]
        assert b"list 800,890\0" in archive.read(library), "that of the unit's own architectures"
    thin = bench.wheel_in(bench.out / "thin", "thin", str(wheel), "--arch", "89")
    assert slices_of(thin) == {
        "csrc/ampere": ["sm_89"], "csrc/base": ["sm_89"], "csrc/hopper": [],
    }  # fmt: skip
    verified(bench, thin)
    report = verified(bench, wheel)
    served = {gpu: how for gpu, how in report["coverage"].items() if how != "none"}
    assert served == dict.fromkeys(("8.0", "8.6", "8.9", "9.0"), "native")
    assert report["units_served"]["8.9"] == {"native": 2, "jit": 0, "none": 0}


def test_a_unit_for_none_of_the_architectures_has_host_code_alone(bench: Workbench) -> None:
    kernel = "tests/data/byunit"
    outcome = bench.build("--arch", "89", kernel=kernel)
    assert slices_of(outcome.wheel()) == {
        "csrc/ampere": ["sm_89"], "csrc/base": ["sm_89"], "csrc/hopper": [],
    }  # fmt: skip
    assert "none: csrc/hopper" in outcome.err
    assert verified(bench, outcome.wheel())["coverage"]["8.9"] == "native"
    refused = bench.build("--arch", "89,90", kernel=kernel)
    assert refused.code == UpstreamError.exit_code
    assert "csrc/hopper is for 90a, not for 90" in refused.err


def test_a_capture_shows_what_would_be_compiled(bench: Workbench) -> None:
    kernel = "tests/data/byunit"
    done = bench.invoke("capture", "--kernel", kernel, "--arch", "80,90a", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    jsonschema.Draft202012Validator(schema_of("capture")).validate(report)
    assert [(unit["name"], unit["own"], unit["images"]) for unit in report["units"]] == [
        ("csrc/ampere", ["sm_80"], ["sm_80"]),
        ("csrc/base", ["sm_80", "sm_90a"], ["sm_80", "sm_90a"]),
        ("csrc/hopper", ["sm_90a"], ["sm_90a"]),
        ("csrc/module", [], []),
    ]
    [link] = report["links"]
    assert (link[0], "-lcudart" in link) == ("g++", True)
    assert not bench.store.exists() or not list(bench.store.glob("refs/slice/*"))
    shown = bench.invoke("capture", "--kernel", kernel, "--arch", "90a")
    assert "4 units, 3 with device code" in shown.out
    assert re.search(r"csrc/ampere +cuda +sm_80 +none", shown.out)


@pytest.mark.parametrize(
    ("kernel", "units", "of_cuda"),
    [("torch-cluster", 23, 7), pytest.param("gsplat", 29, 20, marks=pytest.mark.long)],
)
def test_all_units_of_real_projects_are_found(
    bench: Workbench, kernel: str, units: int, of_cuda: int
) -> None:
    """As many as objects come out of their builds with nvcc and g++ alone."""
    done = bench.invoke("capture", "--kernel", kernel, "--arch", "80", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)["units"]
    assert (len(found), sum(bool(unit["images"]) for unit in found)) == (units, of_cuda)
    assert "went past fatwheel" not in done.err


# Of real projects, causal-conv1d is compiled in every run, and torch-cluster captured.
@pytest.mark.long
def test_a_real_project_is_built_and_imports(bench: Workbench, trier: Workbench) -> None:
    """All libraries that it was asked for; of one, Python's part is C++ that SWIG writes."""
    wheel = bench.build("--arch", "80", kernel="tests/data/cuvec").wheel()
    folder = "CMakeFiles/example"
    units = [
        "CMakeFiles/cuvec_cpython.dir/src/cpython",
        f"src/example_cpython/{folder}_cpython.dir/example_mod",
        f"src/example_swig/{folder}_swig.dir/example_swig",
    ]  # fmt: skip
    assert slices_of(wheel) == {unit: ["sm_80"] for unit in units}
    done = trier.invoke("verify", str(wheel), "--import")
    assert done.code == 0, done.out


@pytest.mark.long
def test_a_real_project_that_calls_nvcc_itself_is_built_and_rebuilt(
    bench: Workbench, trier: Workbench
) -> None:
    """setup.py has nvcc in the compiler's place, and Cython writes Python's part."""
    wheel = bench.build("--arch", "80", kernel="tests/data/pycudwt").wheel()
    names = ("common", "haar", "nonseparable", "separable", "utils", "wt")
    assert slices_of(wheel) == {f"pdwt/src/{name}": ["sm_80"] for name in names}
    done = trier.invoke("verify", str(wheel), "--import")
    assert done.code == 0, done.out
    shutil.rmtree(bench.store)
    done = bench.invoke("rebuild", str(wheel), "--yes")
    assert done.code == 0, done.err
    assert "6 slices: 6 compiled, 0 from the store\nidentical: sha256" in done.out


def test_what_a_failing_build_printed_is_kept_and_named(bench: Workbench, tmp_path: Path) -> None:
    """A version other than the recipe's is reported before anything is compiled."""
    project = tmp_path / "byunit"
    shutil.copytree(ROOT / "tests/data/byunit", project)
    recipe, setup = project / "recipe.toml", project / "src" / "setup.py"
    recipe.write_text(recipe.read_text().replace('version = "1.0"', 'version = "1.1"'))
    done = bench.build("--arch", "90a", kernel=str(project))
    assert done.code == UpstreamError.exit_code
    assert "the project builds fatwheel_byunit 1.0, and the recipe says" in done.err
    setup.write_text('print("needle")\nraise SystemExit("no way")\n')
    done = bench.build("--arch", "90a", kernel=str(project))
    assert done.code == UpstreamError.exit_code
    [log] = re.findall(r"All of its output: (\S+)", done.err)
    assert "needle" in Path(log).read_text()


def slices_of(wheel: Path) -> dict[str, list[str]]:
    units = record_of(wheel)["units"]
    assert isinstance(units, list)
    return {unit["name"]: sorted(unit["slices"]) for unit in units}


def verified(bench: Workbench, wheel: Path) -> dict[str, Any]:
    """What verify says of a wheel in which nothing is amiss."""
    done = bench.invoke("verify", "--json", str(wheel))
    report: dict[str, Any] = json.loads(done.out)
    found = [one for check in report["checks"] for one in check["findings"]]
    assert [one for one in found if one["severity"] != "note"] == []
    assert done.code == 0
    return report


ASKS = """
import os, sys
from torch.utils.cpp_extension import _get_cuda_arch_flags
for line in sys.stdin:
    os.environ["TORCH_CUDA_ARCH_LIST"] = line.strip()
    print(*_get_cuda_arch_flags())
"""


def test_torch_takes_every_architecture_of_the_toolchain(environment: Environment) -> None:
    """Those that it knows exactly so, with and without PTX; all others too."""
    known = shipped_toolchain("linux-cuda13.0").archs
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


def test_a_recipe_s_flags_come_behind_those_of_the_project(
    bench: Workbench, tmp_path: Path
) -> None:
    """setup.py says -std=c++17, and the sources compile as C++20 alone; one is not for Windows."""
    kernel = "tests/data/flags"
    outcome = bench.build(kernel=kernel)
    assert outcome.code == 0, outcome.err
    plain = shutil.copytree(ROOT / kernel, tmp_path / "plain")
    recipe = plain / "recipe.toml"
    recipe.write_text(recipe.read_text().partition("[[flags]]")[0])
    failed = bench.build(kernel=str(plain))
    assert failed.code == 8, failed.err
    assert "C++20" in failed.err


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


def test_compilers_are_answered_however_they_are_called(
    bench: Workbench, tool: Callable[[str], str]
) -> None:
    """By names, variables and the paths of CUDA_HOME, by commands that are several, and by CMake
    with any paths. Only what links by a path is told."""
    tool("make")
    said = subprocess.run([tool("cmake"), "--version"], capture_output=True, text=True, check=True)
    has_old = tuple(map(int, re.findall(r"\d+", said.stdout)[:2])) < (3, 27)
    outcome = bench.build("--arch", "80", kernel="tests/data/ways")
    assert units_of(outcome.wheel()) == [
        "CMakeFiles/cmake.dir/csrc/target",
        *["CMakeFiles/cuda_compile_1.dir/csrc/cuda_compile_1_generated_old"] * has_old,
        "by_cuda_home", "by_make", "by_name", "by_pytorch_nvcc", "by_real_path", "by_variable",
        "csrc/onestep", "first", "second",
    ]  # fmt: skip
    [past] = [line for line in outcome.err.splitlines() if "went past fatwheel" in line]
    assert re.search(r": /usr/bin/g\+\+ .*-o \S+/libcmake\.so ", past)
    verified(bench, outcome.wheel())


# -- CMake -------------------------------------------------------------------------------------


def test_cmake_builds_the_same_wheel_wherever_its_folders_are(
    environment: Environment, tool: Callable[[str], str], tmp_path: Path
) -> None:
    tool("cmake")
    wheels = []
    for name in ("one", "another-folder"):
        bench = Workbench(tmp_path / name)
        temporary = tmp_path / f"{name}-temporary"
        temporary.mkdir()
        kernel = "tests/data/cmake"
        outcome = bench.build("--arch", "80", kernel=kernel, TMPDIR=str(temporary))
        wheels.append(outcome.wheel())
        assert "went past fatwheel" not in outcome.err
        assert "wrote the folder of this build" not in outcome.err
    assert units_of(wheels[0]) == [
        "CMakeFiles/_C.dir/csrc/more",
        "CMakeFiles/kernels.dir/csrc/kernels",
        "csrc/custom",
    ]
    assert wheels[0].read_bytes() == wheels[1].read_bytes()
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(tmp_path / "unpacked")
    [module] = (tmp_path / "unpacked").glob("*/_C.*.so")
    done = subprocess.run(
        [tool("readelf"), "-d", module], capture_output=True, text=True, check=True
    )
    assert re.findall(r"Library r\w+path: \[(.*)\]", done.stdout) == ["$ORIGIN"]
    verified(bench, wheels[0])


def test_scikit_build_core_and_cmake_come_pinned_from_the_recipe(bench: Workbench) -> None:
    kernel = "tests/data/scikit"
    asked = ("--python", f"{sys.version_info.major}.{sys.version_info.minor}")
    locked = bench.invoke("lock", "--kernel", kernel, *asked, "--check", "--json")
    assert locked.code == 0, locked.err
    outcome = bench.build("--arch", "80,90", kernel=kernel)
    assert units_of(outcome.wheel()) == ["CMakeFiles/scaled.dir/csrc/scaled"]
    assert "the project" not in outcome.err, "nothing is amiss, and the setting is known"
    verified(bench, outcome.wheel())


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
