"""The mode and the time of every file that is installed, whatever the umask and the clock say.

A header's time can end up in what nvcc makes of it (-lineinfo), so it must be the same on every
machine and in every image.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import ToolchainError
from .compilers import HostCompiler

MTIME = 1577836800  # 2020-01-01 00:00 UTC, in seconds


def finish(path: Path, executable: bool = False) -> None:
    """Give a written file its mode and its time."""
    path.chmod(0o755 if executable else 0o644)
    os.utime(path, (MTIME, MTIME))


def symlink(path: Path, target: str) -> None:
    """Make a link that has that time itself."""
    path.symlink_to(target)
    os.utime(path, (MTIME, MTIME), follow_symlinks=False)


def stamp(folder: Path) -> None:
    """Give everything below a folder that time; links themselves, not what they point to.

    What has it already is not touched: in an image that would copy the file into a new layer.
    """
    follow = os.utime not in os.supports_follow_symlinks  # Windows cannot do otherwise
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(parent, name)
            if path.lstat().st_mtime != MTIME:
                os.utime(path, (MTIME, MTIME), follow_symlinks=follow)


# -- adds to an installed CUDA what NVIDIA leaves out and build systems look for -------------------

# - `libcudart.so` and its like: wheels have `libcudart.so.13` only, so `-lcudart` fails.
# - `lib64`: where torch's cpp_extension and CMake's FindCUDAToolkit look first.
# - `lib/stubs/libcuda.so`: CMake's CUDA::cuda_driver and `-lcuda` need it, and the driver itself
#   is not part of a build machine. As in NVIDIA's toolkit, it has the driver's function names
#   and no code, and says that the real library is libcuda.so.1.


_VERSIONED = re.compile(r"(lib.+\.so)\.[\d.]+")
_DRIVER_FUNCTION = re.compile(r"\bCUresult\s+(cu[A-Z]\w*)\s*\(")


def mend_packages(nvidia: Path) -> None:
    """Mend the libraries of the packages below `nvidia` (site-packages/nvidia)."""
    for folder in sorted(nvidia.glob("*/lib")):
        link_names(folder)


def mend_home(cuda_home: Path, compiler: HostCompiler) -> None:
    """Mend a CUDA home, be it one of those packages or made of archives."""
    (cuda_home / "lib").mkdir(exist_ok=True)
    link_names(cuda_home / "lib")
    if not (cuda_home / "lib64").exists():
        symlink(cuda_home / "lib64", "lib")
    _driver_stub(cuda_home, compiler)


def link_names(folder: Path) -> None:
    """For each `libX.so.N` without a `libX.so`, make that link; the highest N wins."""
    for path in sorted(folder.iterdir(), reverse=True):
        match = _VERSIONED.fullmatch(path.name)
        if match and not (folder / match[1]).exists():
            symlink(folder / match[1], path.name)


def _driver_stub(cuda_home: Path, compiler: HostCompiler) -> None:
    stub = cuda_home / "lib" / "stubs" / "libcuda.so"
    header = cuda_home / "include" / "cuda.h"
    if stub.exists() or not header.is_file():
        return
    stub.parent.mkdir(exist_ok=True)
    declared = _run([str(compiler.path), "-E", "-P", str(header)])
    names = sorted(set(_DRIVER_FUNCTION.findall(declared)))
    with TemporaryDirectory() as folder:
        source = Path(folder, "cuda.cpp")
        source.write_text("".join(f'extern "C" void {name}() {{}}\n' for name in names))
        soname = "-Wl,-soname,libcuda.so.1"
        arguments = ["-shared", "-fPIC", "-nostdlib", soname, str(source), "-o", str(stub)]
        _run([str(compiler.path), *arguments])
    finish(stub, executable=True)


def _run(command: list[str]) -> str:
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise ToolchainError(
            "the C++ compiler does not work",
            where=" ".join(command),
            details=answer.stderr.strip().splitlines()[-10:],
        )
    return answer.stdout
