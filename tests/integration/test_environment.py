"""The real toolchain: its parts agree with its TOML, and with what build systems expect."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.config.toolchain import Toolchain
from fatwheel.events import Event, silent
from fatwheel.model import Environment
from fatwheel.storage.cache import cache_folder
from fatwheel.toolchain.environment import ensure_environment

from ..helpers.toolchains import shipped_toolchain

pytestmark = pytest.mark.slow

# Without <torch/extension.h>, which takes g++ and nvcc a minute and more.
EXTENSION = """
#include <Python.h>
#include <c10/cuda/CUDAException.h>
#include <cuda.h>
#include <cublas_v2.h>

__global__ void twice(float *p) { p[threadIdx.x] *= 2; }

static PyObject *run(PyObject *, PyObject *) {
  twice<<<1, 1>>>(nullptr);
  C10_CUDA_CHECK(cudaGetLastError());
  cublasHandle_t handle;
  cublasCreate(&handle);
  cuInit(0);
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"run", run, METH_NOARGS, ""}, {}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "tiny", "", -1, methods};
PyMODINIT_FUNC PyInit_tiny() { return PyModule_Create(&module); }
"""

SETUP = """
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CUDAExtension

setup(
    name="tiny",
    ext_modules=[CUDAExtension("tiny", ["tiny.cu"], libraries=["cublas", "cuda"])],
    cmdclass={"build_ext": BuildExtension},
)
"""


@pytest.fixture(scope="module")
def toolchain() -> Toolchain:
    return shipped_toolchain("linux-cuda13.0")


def run(*command: object, **options: object) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, **options
    )  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


def test_it_is_made_once(environment: Environment, toolchain: Toolchain) -> None:
    events: list[Event] = []
    python = ".".join(environment.python_version.split(".")[:2])
    again = ensure_environment(toolchain, python, environment.torch, cache_folder(), events.append)
    assert again == environment
    assert events == []


def test_pip_finds_no_missing_or_contradicting_package(environment: Environment) -> None:
    pip = ["-m", "pip", "--disable-pip-version-check", "--python", environment.python]
    assert "No broken requirements" in run(sys.executable, *pip, "check")


def test_nvcc_knows_exactly_the_archs_that_the_toolchain_lists(
    environment: Environment, toolchain: Toolchain, tmp_path: Path
) -> None:
    nvcc = environment.cuda_home / "bin" / "nvcc"
    source = tmp_path / "x.cu"
    source.write_text("__global__ void k() {}\n")
    plain = set(re.findall(r"sm_(\d+)", run(nvcc, "--list-gpu-code")))
    assert {arch.name for arch in toolchain.archs if not arch.suffix} == plain

    def accepts(name: str) -> bool:
        command = [nvcc, "--dryrun", "-cubin", f"-arch=sm_{name}", source]
        return subprocess.run(command, capture_output=True, cwd=tmp_path).returncode == 0

    variants = {f"{number}{suffix}" for number in plain for suffix in "af"}
    accepted = {name for name in variants if accepts(name)}
    assert {arch.name for arch in toolchain.archs if arch.suffix} == accepted


def test_the_range_of_g_plus_plus_is_that_of_the_headers(
    environment: Environment, toolchain: Toolchain
) -> None:
    nvidia = (environment.cuda_home / "include/crt/host_config.h").read_text()
    torch = (environment.site / "torch/include/c10/util/C++17.h").read_text()
    highest = re.search(r"^#if __GNUC__ > (\d+)$", nvidia, re.MULTILINE)
    lowest = re.search(r"__GNUC__ < (\d+)$", torch, re.MULTILINE)
    assert highest is not None
    assert lowest is not None
    assert toolchain.gcc == (int(lowest[1]), int(highest[1]))


def test_the_programs_run(environment: Environment) -> None:
    for program in ("nvcc", "ptxas", "fatbinary", "cudafe++", "cuobjdump", "nvdisasm"):
        run(environment.cuda_home / "bin" / program, "--version")
    assert os.access(environment.cuda_home / "nvvm" / "bin" / "cicc", os.X_OK)
    run(environment.root / "bin" / "ninja", "--version")


def test_every_library_has_its_linker_name_and_every_file_the_same_time(
    environment: Environment,
) -> None:
    assert (environment.cuda_home / "lib64" / "libcudart.so").resolve().name == "libcudart.so.13"
    for library in (environment.site / "nvidia").glob("*/lib/lib*.so.*"):
        name = re.sub(r"\.so\.[\d.]+$", ".so", library.name)
        assert library.with_name(name).exists(), f"{library} has no {name}"
    headers = (environment.cuda_home / "include").rglob("*.h")
    assert {path.stat().st_mtime for path in headers} == {1577836800}  # 2020-01-01 00:00 UTC


def test_a_torch_extension_builds_with_it(
    environment: Environment, tool: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "tiny.cu").write_text(EXTENSION)
    (tmp_path / "setup.py").write_text(SETUP)
    variables = {
        **os.environ,
        "CUDA_HOME": str(environment.cuda_home),
        "LIBRARY_PATH": str(environment.cuda_home / "lib" / "stubs"),
        "PATH": f"{environment.root / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "TORCH_CUDA_ARCH_LIST": "8.0",
    }
    run(environment.python, "setup.py", "build_ext", "--inplace", cwd=tmp_path, env=variables)
    [built] = tmp_path.glob("tiny*.so")
    dynamic = run(tool("readelf"), "-d", built)
    for name in ("libcudart.so.13", "libcublas.so.13", "libcuda.so.1"):
        assert f"[{name}]" in dynamic
    assert "sm_80" in run(environment.cuda_home / "bin" / "cuobjdump", "--list-elf", built)


def test_another_environment_is_links_to_the_same_files(
    environment: Environment, toolchain: Toolchain, on_disk: Path
) -> None:
    shared, cache = cache_folder() / "packages", on_disk / "other"
    (cache / "packages").mkdir(parents=True)
    for package in shared.iterdir():
        if len(package.name) == 64:  # a sha256, and not what is just being unpacked
            (cache / "packages" / package.name).symlink_to(package)
    python = ".".join(environment.python_version.split(".")[:2])
    other = ensure_environment(toolchain, python, environment.torch, cache, silent)
    assert other.root != environment.root
    assert other.compiler_id == environment.compiler_id
    if shared.stat().st_dev == cache.stat().st_dev:
        library = Path("lib", "libcublasLt.so.13")
        assert (other.cuda_home / library).samefile(environment.cuda_home / library)
