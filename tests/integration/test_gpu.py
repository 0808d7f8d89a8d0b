"""What builds make runs right on a GPU. Without one these tests are skipped, in CI too."""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fatwheel.model import Environment

from ..helpers.deviceimages import write_wheel
from .conftest import ROOT, Workbench
from .guarded import guarded_project
from .linkedcode import (
    NO_FUNCTION,
    NO_IMAGE,
    NO_SYMBOL,
    RIGHT,
    TMA,
    Compiler,
    compiler_in,
    run_function,
    running,
)

pytestmark = [pytest.mark.slow, pytest.mark.gpu]

KERNEL = "selftest"  # whose verify.py checks results on a GPU


@pytest.fixture(scope="module")
def capability(environment: Environment) -> int:
    """This machine's GPU as an architecture number: 90."""
    question = (
        "import torch; print(*torch.cuda.get_device_capability() if torch.cuda.is_available() "
        "else [])"
    )
    answer = subprocess.run(
        [str(environment.python), "-c", question], capture_output=True, text=True, check=True
    ).stdout.split()
    if not answer:
        pytest.skip("no NVIDIA GPU on this machine")
    return int("".join(answer))


def verify(wheel: Path, environment: Environment, folder: Path, *options: str) -> tuple[int, str]:
    """Run the recipe's verify.py against an unpacked wheel: exit code and output."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    script = ROOT / "kernels" / "selftest" / "verify.py"
    done = subprocess.run(
        [str(environment.python), str(script), *options], env={"PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_native_code_runs(
    bench: Workbench, environment: Environment, capability: int, tmp_path: Path
) -> None:
    wheel = bench.build("--arch", f"80,{capability}", kernel=KERNEL).wheel()
    code, output = verify(wheel, environment, tmp_path / "w", "--code", str(capability))
    assert code == 0, output


def test_ptx_runs_by_jit(
    bench: Workbench, environment: Environment, capability: int, tmp_path: Path
) -> None:
    if capability < 90:
        pytest.skip("this GPU runs sm_80 code natively")
    wheel = bench.build("--arch", "80+ptx", kernel=KERNEL).wheel()
    code, output = verify(wheel, environment, tmp_path / "w")
    assert code == 0, output


def test_a_gpu_that_is_not_covered_says_so(
    bench: Workbench, environment: Environment, capability: int, tmp_path: Path
) -> None:
    other = 90 if capability // 10 == 8 else 80
    wheel = bench.build("--arch", str(other), kernel=KERNEL).wheel()
    code, output = verify(wheel, environment, tmp_path / "w")
    assert code == 1, output
    assert "no kernel image" in output


# -- invoke verify --gpu -------------------------------------------------------------------------


def tried(bench: Workbench, wheel: Path) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """The exit code of `invoke verify --gpu`, its check "gpu", and its figures of that."""
    done = bench.invoke("verify", str(wheel), "--gpu", "--json")
    report = json.loads(done.out)
    [check] = [check for check in report["checks"] if check["name"] == "gpu"]
    return done.code, check, report["runtime"]["gpu"]


def units(figures: dict[str, Any]) -> dict[str, int]:
    """selftest's units by how they load: 7 in one binary, 2 in the other."""
    return {
        how: sum(one[how] for one in figures["binaries"])
        for how in ("units", "native", "jit", "none")
    }


def test_verify_tells_native_code(bench: Workbench, capability: int) -> None:
    wheel = bench.build("--arch", str(capability), kernel=KERNEL).wheel()
    code, check, figures = tried(bench, wheel)
    assert (code, check["result"]) == (0, "ok"), check
    assert units(figures) == {"units": 9, "native": 9, "jit": 0, "none": 0}
    assert {one["code"] for binary in figures["binaries"] for one in binary["kernels"]} == {
        f"sm_{capability}"
    }
    assert [one["mode"] for one in figures["modes"]] == ["EAGER", "LAZY"]
    assert all(one["first_use"] > 0 for one in figures["modes"])
    assert figures["verify"]["exit_code"] == 0
    assert len(figures["verify"]["cases"]) == 8


def test_verify_tells_jit(bench: Workbench, capability: int) -> None:
    if capability < 90:
        pytest.skip("this GPU runs sm_80 code natively")
    code, check, figures = tried(bench, bench.build("--arch", "80+ptx", kernel=KERNEL).wheel())
    assert (code, check["result"]) == (0, "ok"), check
    assert units(figures) == {"units": 9, "native": 0, "jit": 9, "none": 0}
    assert {one["ptx"] for binary in figures["binaries"] for one in binary["kernels"]} == {
        "compute_80"
    }


def test_verify_tells_a_gpu_that_is_not_covered(bench: Workbench, capability: int) -> None:
    other = 90 if capability // 10 == 8 else 80
    code, check, figures = tried(bench, bench.build("--arch", str(other), kernel=KERNEL).wheel())
    assert (code, check["result"]) == (13, "wrong")
    assert units(figures) == {"units": 9, "native": 0, "jit": 0, "none": 9}
    details = [line for finding in check["findings"] for line in finding["details"]]
    assert any("no kernel image for this GPU" in line for line in details), check


# -- thinned and stitched wheels -----------------------------------------------------------------


@dataclass(frozen=True)
class Fat:
    """selftest for this GPU and others; `other` is an architecture whose code it cannot run."""

    bench: Workbench
    wheel: Path
    other: int

    def thin(self, folder: Path, arch: int, *options: str) -> Path:
        return self.bench.wheel_in(
            folder / f"for {arch}", "thin", str(self.wheel), "--arch", str(arch), *options
        )


@pytest.fixture(scope="module")
def fat(environment: Environment, capability: int, tmp_path_factory: pytest.TempPathFactory) -> Fat:
    other = 90 if capability // 10 == 8 else 80
    bench = Workbench(tmp_path_factory.mktemp("fat"))
    archs = sorted({80, other, capability})
    wheel = bench.build(
        "--arch", ",".join(map(str, archs)).replace("80", "80+ptx"), kernel=KERNEL
    ).wheel()
    return Fat(bench, wheel, other)


def test_thinned_code_runs(
    fat: Fat, environment: Environment, capability: int, tmp_path: Path
) -> None:
    wheel = fat.thin(tmp_path, capability)
    code, output = verify(wheel, environment, tmp_path / "w", "--code", str(capability))
    assert code == 0, output


def test_ptx_that_was_kept_runs_by_jit(
    fat: Fat, environment: Environment, capability: int, tmp_path: Path
) -> None:
    if capability < 90:
        pytest.skip("this GPU runs sm_80 code natively, or no code for it")
    wheel = fat.thin(tmp_path, 80, "--keep-ptx")
    code, output = verify(wheel, environment, tmp_path / "w", "--code", "80")
    assert code == 0, output


def test_a_gpu_that_was_thinned_away_says_so(
    fat: Fat, environment: Environment, tmp_path: Path
) -> None:
    code, output = verify(fat.thin(tmp_path, fat.other), environment, tmp_path / "w")
    assert code == 1, output
    assert "no kernel image" in output


def test_stitched_back_it_runs_natively(
    fat: Fat, environment: Environment, capability: int, tmp_path: Path
) -> None:
    parts = [str(fat.thin(tmp_path, arch)) for arch in (fat.other, capability)]
    wheel = fat.bench.wheel_in(tmp_path / "stitched", "stitch", *parts)
    code, output = verify(wheel, environment, tmp_path / "w", "--code", str(capability))
    assert code == 0, output


# -- single libraries ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Libraries:
    """A compiler, and what thin makes of a library that it made."""

    compiler: Compiler
    bench: Workbench
    python: Path

    def thin(self, library: Path, arch: int, *options: str) -> Path:
        out = library.parent / f"for {arch} {' '.join(options)}"
        done = self.bench.invoke(
            "thin", str(library), "--arch", str(arch), "--out", str(out), *options
        )
        assert done.code == 0, done.err
        return out / library.name

    def run(self, library: Path, function: str = "run", **variables: str) -> int:
        return run_function(self.python, self.compiler.runtime, library, function, **variables)


@pytest.fixture
def libraries(
    environment: Environment, capability: int, tool: Callable[[str], str], tmp_path: Path
) -> Libraries:
    compiler = compiler_in(tmp_path / "compiled", environment, tool)
    return Libraries(compiler, Workbench(tmp_path / "bench"), environment.python)


def gencode(arch: int, code: str = "sm_{0}") -> str:
    return f"-gencode=arch=compute_{arch},code=[{code.format(arch)}]"


def test_linked_code_runs_once_thinned(libraries: Libraries, capability: int) -> None:
    """Natively; where only PTX is left, the driver links it anew; without an image it says so."""
    if capability < 80:
        pytest.skip("this GPU runs none of the code")
    others = [gencode(capability)] if capability > 80 else []
    library = libraries.compiler.library_of_linked_code(
        "linked.so", gencode(80, "sm_{0},compute_{0}"), *others
    )
    assert libraries.run(library) == RIGHT
    assert libraries.run(libraries.thin(library, capability)) == RIGHT
    if capability >= 90:  # older ones run sm_80 code
        assert libraries.run(libraries.thin(library, 80, "--keep-ptx")) == RIGHT
        assert libraries.run(libraries.thin(library, 80)) == NO_SYMBOL


@pytest.mark.parametrize("loading", ["LAZY", "EAGER"])
def test_kernels_that_were_given_up_do_not_trouble_others(
    libraries: Libraries, capability: int, loading: str
) -> None:
    foreign = 120 if capability // 10 == 10 else 100
    make = libraries.compiler.objects
    objects = [
        *make({"here": running("here")}, gencode(capability)),
        *make({"elsewhere": running("elsewhere")}, gencode(foreign)),
    ]
    library = libraries.compiler.library("partial.so", objects)
    thin = libraries.thin(library, capability, "--partial")
    for file in (library, thin):
        assert libraries.run(file, "here", CUDA_MODULE_LOADING=loading) == RIGHT
        assert libraries.run(file, "elsewhere", CUDA_MODULE_LOADING=loading) == NO_IMAGE


def test_a_kernel_with_a_tensor_map_runs_once_stitched(
    libraries: Libraries, capability: int, tmp_path: Path
) -> None:
    """Parameters have other places in each image; the driver takes those of what it loads."""
    if capability < 90:
        pytest.skip("this GPU has no bulk tensor copies")
    here = f"{capability}a"
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in ("80", here)]
    [unit] = libraries.compiler.objects({"tma": TMA}, *codes)
    library = libraries.compiler.library("tma.so", [unit])
    assert libraries.run(library) == RIGHT
    wheel = write_wheel(tmp_path, {"demo/tma.so": library.read_bytes()})
    bench = libraries.bench
    parts = [
        bench.wheel_in(tmp_path / arch, "thin", str(wheel), "--arch", arch) for arch in ("80", here)
    ]
    stitched = bench.wheel_in(tmp_path / "stitched", "stitch", *map(str, parts))
    for number, one in enumerate((parts[1], stitched)):
        with zipfile.ZipFile(one) as archive:
            path = Path(archive.extract("demo/tma.so", tmp_path / str(number)))
        assert libraries.run(path) == RIGHT, one.name
    assert bench.invoke("verify", str(stitched)).code == 0


# -- kernels that only some architectures have -----------------------------------------------------


def guarded(libraries: Libraries, folder: Path, archs: tuple[int, int]) -> Path:
    """A library built for two architectures, of which the second has kernels of its own."""
    kernel = guarded_project(folder / "project", archs[1] * 10)
    wheel = libraries.bench.build("--arch", ",".join(map(str, archs)), kernel=kernel).wheel()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    [library] = folder.glob("fatwheel_sample/_cases*.so")
    return library


def test_kernels_that_older_gpus_lack_run(
    libraries: Libraries, capability: int, tmp_path: Path
) -> None:
    if capability <= 80:
        pytest.skip("this GPU is the older one")
    library = guarded(libraries, tmp_path / "built", (80, capability))
    for loading in ("LAZY", "EAGER"):
        for function in ("everywhere", "fresh"):
            assert libraries.run(library, function, CUDA_MODULE_LOADING=loading) == RIGHT


def test_kernels_that_this_gpu_lacks_do_not_trouble_others(
    libraries: Libraries, capability: int, tmp_path: Path
) -> None:
    """The host's code is that of the newer GPU's front, as if nvcc had compiled for both."""
    if capability >= 120:
        pytest.skip("this GPU is the newer one")
    library = guarded(libraries, tmp_path / "built", (capability, 120))
    for loading in ("LAZY", "EAGER"):
        expected = {"fresh": NO_SYMBOL, "old": NO_FUNCTION, "everywhere": RIGHT}
        for function, result in expected.items():
            found = libraries.run(library, function, CUDA_MODULE_LOADING=loading)
            assert found == result, function
