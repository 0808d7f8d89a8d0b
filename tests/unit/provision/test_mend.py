"""What is added to NVIDIA's wheels; the linker and readelf judge it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.errors import ToolchainError
from fatwheel.provision.compilers import HostCompiler
from fatwheel.provision.mend import link_names, mend_home, mend_packages

from ...helpers.tinywheels import CUDA_H

YEAR_2020 = 1577836800  # date -u -d 2020-01-01 +%s


@pytest.fixture
def compiler(tool: Callable[[str], str]) -> HostCompiler:
    return HostCompiler(Path(tool("g++")), "?", "?")


@pytest.fixture
def cuda_home(tmp_path: Path) -> Path:
    home = tmp_path / "nvidia" / "cu13"
    (home / "include").mkdir(parents=True)
    (home / "lib").mkdir()
    (home / "include" / "cuda.h").write_text(CUDA_H)
    return home


def test_libraries_get_the_name_that_the_linker_looks_for(tmp_path: Path) -> None:
    for name in (
        "libcudart.so.13",
        "libnvrtc-builtins.so.13.0",
        "libnvrtc.alt.so.13",
        "libtwo.so.1",
        "libtwo.so.2",
        "libplain.so",
        "libthere.so",
        "libthere.so.4",
        "libcudart_static.a",
        "notes.so.txt",
    ):
        (tmp_path / name).write_text(name)
    link_names(tmp_path)
    links = {path.name: path.readlink().name for path in tmp_path.iterdir() if path.is_symlink()}
    assert links == {
        "libcudart.so": "libcudart.so.13",
        "libnvrtc-builtins.so": "libnvrtc-builtins.so.13.0",
        "libnvrtc.alt.so": "libnvrtc.alt.so.13",
        "libtwo.so": "libtwo.so.2",
    }
    assert (tmp_path / "libcudart.so").lstat().st_mtime == YEAR_2020


def test_every_package_is_mended_and_a_second_time_changes_nothing(
    cuda_home: Path, compiler: HostCompiler
) -> None:
    nccl = cuda_home.parent / "nccl" / "lib"
    nccl.mkdir(parents=True)
    (nccl / "libnccl.so.2").touch()
    mend_packages(cuda_home.parent)
    mend_home(cuda_home, compiler)
    stub = cuda_home / "lib" / "stubs" / "libcuda.so"
    before = stub.read_bytes()
    mend_packages(cuda_home.parent)
    mend_home(cuda_home, compiler)
    assert (nccl / "libnccl.so").readlink() == Path("libnccl.so.2")
    assert (cuda_home / "lib64").readlink() == Path("lib")
    assert stub.read_bytes() == before


def test_programs_link_against_the_driver_stub_and_load_the_real_one(
    cuda_home: Path, compiler: HostCompiler, tool: Callable[[str], str], tmp_path: Path
) -> None:
    mend_home(cuda_home, compiler)
    source = tmp_path / "use.cpp"
    source.write_text(
        '#include "cuda.h"\nint use() { void *p; return cuInit(0) + cuMemAlloc(&p, 1); }\n'
    )
    # As Ubuntu's g++ links by default; and without leave for undefined names.
    linking = ["-Wl,--as-needed", "-Wl,-z,defs", f"-L{cuda_home}/lib64/stubs", "-lcuda"]
    out = tmp_path / "use.so"
    include = f"-I{cuda_home}/include"
    command = [compiler.path, "-shared", "-fPIC", include, source, "-o", out, *linking]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    dynamic = subprocess.run(
        [tool("readelf"), "-d", out], capture_output=True, text=True, check=True
    )
    assert "[libcuda.so.1]" in dynamic.stdout


def test_a_home_of_archives_is_mended_alike(cuda_home: Path, compiler: HostCompiler) -> None:
    (cuda_home / "lib" / "libcudart.so.13").touch()
    mend_home(cuda_home, compiler)
    assert (cuda_home / "lib" / "libcudart.so").readlink() == Path("libcudart.so.13")
    stub = cuda_home / "lib" / "stubs" / "libcuda.so"
    stub.write_text("that of an archive")
    mend_home(cuda_home, compiler)
    assert stub.read_text() == "that of an archive"


def test_no_driver_header_no_stub(cuda_home: Path, compiler: HostCompiler) -> None:
    (cuda_home / "include" / "cuda.h").unlink()
    mend_home(cuda_home, compiler)
    assert not (cuda_home / "lib" / "stubs").exists()


def test_a_compiler_that_fails_is_shown(cuda_home: Path) -> None:
    with pytest.raises(ToolchainError, match="the C\\+\\+ compiler does not work"):
        mend_home(cuda_home, HostCompiler(Path("/bin/false"), "?", "?"))
