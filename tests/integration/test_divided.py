"""What `--device-from linux` leans on, with NVIDIA's real programs: cicc in two parts makes the
bytes of a whole call; from the same input, programs of both systems make the same ones."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from fatwheel.compilers.cicc import divided
from fatwheel.compilers.dryrun import read_listing

from .msvc import CUDA_WHEELS, install_cuda
from .windows import Wine

pytestmark = pytest.mark.slow

SOURCE = """
template <int N> struct Bytes { long a; unsigned char b[N]; };
static __constant__ float table[16];
__managed__ int counter;

template <int N> __global__ void shift(int *x, Bytes<N> bytes) {
    int i = threadIdx.x + blockIdx.x * blockDim.x;
    x[i] = x[i] * table[i & 15] + bytes.a + bytes.b[i % N];
    atomicAdd(&counter, 1);
}

extern "C" __global__ void scale(float *x, float factor) {
    __shared__ float sum[256];
    sum[threadIdx.x] = x[threadIdx.x] * factor;
    __syncthreads();
    for (int i = 0; i < 256; i++) x[threadIdx.x] += sinf(sum[i]) / (sqrtf(sum[255 - i]) + 1.0);
}

void run(int *x) {
    shift<3><<<1, 1>>>(x, Bytes<3>());
    shift<4><<<1, 1>>>(x, Bytes<4>());
}
"""
OPTIONS = {
    "75": (),
    "86": ("-std=c++17", "--use_fast_math", "--expt-relaxed-constexpr", "--expt-extended-lambda"),
    "90a": ("-maxrregcount=32", "-diag-suppress", "549", "-frandom-seed", "abc"),
    "120f": ("-std=c++20", "-ftz=true", "-prec-div=false", "-prec-sqrt=false", "-fmad=false"),
}


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an nvcc call, which is the current one."""
    (tmp_path / "keep").mkdir()
    (tmp_path / "one.cu").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*command: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, input="", check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def words_of_cicc(nvcc: Path, arch: str, options: Sequence[str]) -> list[str]:
    """Run nvcc, and say what it gives cicc."""
    code = f"arch=compute_{arch},code=sm_{arch}"
    command = (nvcc, *options, "--keep", "--keep-dir", "keep", "-gencode", code, "-c", "one.cu")
    call(*command, "-o", "one.o")
    steps = read_listing(call(*command, "-o", "one.o", "--dryrun")).steps
    [cicc] = [step for step in steps if step.program == "cicc"]
    return list(cicc.words[1:])


@pytest.mark.parametrize("arch", OPTIONS)
def test_both_parts_of_cicc_make_what_it_makes(job: Path, cuda_home: Path, arch: str) -> None:
    parts = divided(words_of_cicc(cuda_home / "bin" / "nvcc", arch, OPTIONS[arch]))
    assert parts, "an option is not known"
    files = [Path(name) for name in (parts.ptx, *parts.written)]
    whole = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    cicc = cuda_home / "nvvm" / "bin" / "cicc"
    call(cicc, *parts.front)
    call(cicc, *parts.back)
    assert [file.read_bytes() for file in files] == whole


def test_programs_of_both_systems_make_the_same(
    job: Path, cuda_home: Path, wine: Wine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Device code of Linux' front end, which optimiser and ptxas do not know."""
    windows = install_cuda(tmp_path_factory.mktemp("cuda"))
    if "V13.0.88" not in call(cuda_home / "bin" / "ptxas", "--version"):
        pytest.skip(f"this CUDA is not that of {CUDA_WHEELS[0]}")
    for arch in ("80", "120"):
        parts = divided(words_of_cicc(cuda_home / "bin" / "nvcc", arch, ()))
        assert parts
        call(cuda_home / "nvvm" / "bin" / "cicc", *parts.front)
        call(cuda_home / "nvvm" / "bin" / "cicc", *parts.back)
        assembled = (f"-arch=sm_{arch}", "-m64", parts.ptx, "-o", "one.cubin")
        call(cuda_home / "bin" / "ptxas", *assembled)
        own = [Path(name).read_bytes() for name in (parts.ptx, "one.cubin")]
        for program, words in (("nvvm/bin/cicc.exe", parts.back), ("bin/ptxas.exe", assembled)):
            done = wine.run(windows / program, *words)
            assert done.returncode == 0, done.stdout + done.stderr
        ptx, cubin = (Path(name).read_bytes() for name in (parts.ptx, "one.cubin"))
        assert ptx.replace(b"\r\n", b"\n") == own[0]
        assert (b"\r\n" in ptx) == (b"Based on NVVM 7." in ptx), "its ends of lines"
        assert cubin == own[1]
