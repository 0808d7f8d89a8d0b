"""Small libraries with device code from real nvcc, and independent readers of what is in them."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from fatwheel.model import Environment

Tool = Callable[[str], str]

# Each `run` gives what its kernel wrote, 42, or 1000 + the error of CUDA that it met.
_RUN = """
#include <cuda_runtime.h>
%(kernel)s
extern "C" int %(name)s() {
    int *at = 0, result = -1;
    int error = cudaMalloc(&at, sizeof result);
    if (error) return 1000 + error;
    %(name)s_kernel<<<1, 1>>>(at);
    error = cudaGetLastError();
    if (!error) error = cudaMemcpy(&result, at, sizeof result, cudaMemcpyDeviceToHost);
    return error ? 1000 + error : result;
}
"""
RIGHT = 42
NO_FUNCTION = 1098  # cudaErrorInvalidDeviceFunction: the host's code does not know the kernel
NO_IMAGE = 1209  # cudaErrorNoKernelImageForDevice
NO_SYMBOL = 1500  # cudaErrorSymbolNotFound: what becomes of it where device code was linked


def running(name: str, kernel: str | None = None) -> str:
    """A source with a function `name` that runs a kernel."""
    kernel = kernel or f"__global__ void {name}_kernel(int *result) {{ *result = 42; }}"
    return _RUN % {"name": name, "kernel": kernel}


CALLER = running(
    "run",
    "__device__ int other(int);\n__global__ void run_kernel(int *result) { *result = other(20); }",
)
# A tile is copied by the bulk tensor copy engine, which its descriptor, a parameter of 128 bytes,
# leads to the data. Only GPUs from 9.0 on have one.
TMA = """
#include <cuda.h>
#include <cuda_runtime.h>
#include <cstdint>
__global__ void tma_kernel(int n, const __grid_constant__ CUtensorMap map, int *result) {
#if __CUDA_ARCH__ >= 900
    __shared__ alignas(128) int tile[32];
    __shared__ alignas(8) uint64_t arrived;
    uint32_t bar = __cvta_generic_to_shared(&arrived), to = __cvta_generic_to_shared(tile);
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(bar));
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 128;" ::"r"(bar) : "memory");
    asm volatile("cp.async.bulk.tensor.1d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%2}], [%3];" ::"r"(to), "l"(&map), "r"(0), "r"(bar) : "memory");
    for (int done = 0; !done;)
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0;"
                     " selp.s32 %0, 1, 0, p; }" : "=r"(done) : "r"(bar) : "memory");
    *result = tile[7] + n;
#else
    *result = -3;
#endif
}
extern "C" int run() {
    int values[32] = {0}, *data = 0, *at = 0, result = -1;
    values[7] = 40;
    int error = cudaMalloc(&data, sizeof values);
    if (!error) error = cudaMalloc(&at, sizeof result);
    if (!error) error = cudaMemcpy(data, values, sizeof values, cudaMemcpyHostToDevice);
    void *encode = 0;
    cudaDriverEntryPointQueryResult found;
    if (!error)
        error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000,
                                                 cudaEnableDefault, &found);
    if (error) return 1000 + error;
    CUtensorMap map;
    cuuint64_t size = 32, stride = 0;
    cuuint32_t box = 32, step = 1;
    error = ((decltype(&cuTensorMapEncodeTiled))encode)(
        &map, CU_TENSOR_MAP_DATA_TYPE_INT32, 1, data, &size, &stride, &box, &step,
        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (error) return 2000 + error;
    tma_kernel<<<1, 1>>>(2, map, at);
    error = cudaGetLastError();
    if (!error) error = cudaMemcpy(&result, at, sizeof result, cudaMemcpyDeviceToHost);
    return error ? 1000 + error : result;
}
"""
CALLED = "__device__ int other(int value) { return 2 * value + 2; }\n"


@dataclass(frozen=True)
class Compiler:
    """nvcc and g++ in a folder."""

    cuda_home: Path
    gxx: str
    folder: Path

    @property
    def runtime(self) -> Path:
        """The CUDA runtime that the libraries are linked to."""
        return next((self.cuda_home / "lib").glob("libcudart.so*"))

    def objects(self, sources: dict[str, str], *options: str) -> list[Path]:
        """Sources by their names, compiled."""
        for name, source in sources.items():
            (self.folder / f"{name}.cu").write_text(source)
        names = [f"{name}.cu" for name in sources]
        self._nvcc("-c", "-Xcompiler=-fPIC", *options, *names)
        return [self.folder / f"{name}.o" for name in sources]

    def library(self, name: str, objects: Sequence[Path]) -> Path:
        self._run(self.gxx, "-shared", *objects, self.runtime, "-o", name)
        return self.folder / name

    def library_of_linked_code(self, name: str, *options: str) -> Path:
        """A kernel calls a function of another unit: nvcc -rdc=true, and nvcc -dlink."""
        sources = {"caller": CALLER, "called": CALLED}
        objects = self.objects(sources, "-rdc=true", *options)
        self._nvcc("-dlink", "-Xcompiler=-fPIC", *options, *objects, "-o", "linked.o")
        return self.library(name, [*objects, self.folder / "linked.o"])

    def _nvcc(self, *arguments: str | Path) -> None:
        self._run(self.cuda_home / "bin" / "nvcc", *arguments)

    def _run(self, *command: str | Path) -> None:
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command} failed:\n{done.stdout}{done.stderr}"


def compiler_in(folder: Path, environment: Environment, tool: Tool) -> Compiler:
    folder.mkdir(parents=True, exist_ok=True)
    return Compiler(environment.cuda_home, tool("g++"), folder)


def listed(cuda_home: Path, file: Path, *options: str) -> list[str]:
    """The images that cuobjdump finds, in its order, such as `elf 80`.

    Of device code that was linked it shows only that; with -all what it was linked from follows.
    """
    command = [cuda_home / "bin" / "cuobjdump", *options, "-lelf", "-lptx", file]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.findall(r"\.sm_(\w+)\.(cubin|ptx)$", done.stdout, re.MULTILINE)
    return [f"{'elf' if kind == 'cubin' else kind} {arch}" for arch, kind in found]


def section(data: bytes, name: str) -> tuple[int, bytes]:
    """Address and content of a section, as pyelftools reads them."""
    found = ELFFile(io.BytesIO(data)).get_section_by_name(name)
    assert found is not None, f"there is no section {name}"
    return found["sh_addr"], found.data()


def loaded(
    environment: Environment,
    files: dict[Path, Sequence[Path]],
    folder: Path,
    *,
    module: str = "",
    modules: Sequence[str] = (),
    libraries: Sequence[Path] = (),
) -> list[bytes]:
    """What the wrappers of libraries lead to once processes have loaded them, all relocations
    done: containers one after another, by library.

    files: libraries by the folder that `module`, if any, is imported from. What is imported or
    loaded before: modules and libraries.
    """
    folder.mkdir()
    outs: list[Path] = []
    jobs = []
    for place, paths in files.items():
        job: dict[str, object] = {"folder": str(place), "import": module}
        rows = []
        for path in paths:
            outs.append(folder / str(len(outs)))
            address, wrappers = section(path.read_bytes(), ".nvFatBinSegment")
            rows.append((str(path), address, len(wrappers), str(outs[-1])))
        jobs.append({**job, "files": rows})
    asked = {"modules": list(modules), "libraries": list(map(str, libraries)), "jobs": jobs}
    done = subprocess.run(
        [environment.python, Path(__file__).with_name("show_loaded.py")],
        input=json.dumps(asked), env={**os.environ, "LD_BIND_NOW": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [out.read_bytes() for out in outs]


def run_function(
    python: Path, runtime: Path, library: Path, function: str = "run", **variables: str
) -> int:
    """What a function of a library gives, in a process of its own."""
    call = (
        "import ctypes, os, sys; runtime, library, function = sys.argv[1:]; "
        "ctypes.CDLL(runtime, ctypes.RTLD_GLOBAL); "
        "print(ctypes.CDLL(library, os.RTLD_NOW)[function]())"
    )
    done = subprocess.run(
        [python, "-c", call, runtime, library, function], env={**os.environ, **variables},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
