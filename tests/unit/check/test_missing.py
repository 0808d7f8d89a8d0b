"""Missing libraries, symbols and versions, in packages that are compiled here. The system's own
loader is the oracle: what it refuses is wrong, and is told; what it loads is not."""

from __future__ import annotations

import ctypes.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.check import loader
from fatwheel.check.cures import Symptom, in_order
from fatwheel.check.environment import CheckedPython, Packages, find_torch
from fatwheel.check.loader import link
from fatwheel.check.missing import (
    library_findings,
    symbol_findings,
    torch_findings,
    twice_findings,
    version_findings,
)
from fatwheel.check.subject import read_installed, read_wheel
from fatwheel.verify.libraries import imports_of

from ...helpers.environments import install, install_torch, target
from ...helpers.tinywheels import Draft

Tool = Callable[[str], str]
NAME = "_C.cpython-311-x86_64-linux-gnu.so"
MODULE = "void *PyInit__C(void) { return 0; }\n"
BLOCKS = "int main;\n"
OF_TORCH = (
    "_ZN3c106detail14torchCheckFailEPKcS2_jRKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
)
OLD = OF_TORCH.replace("NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE", "Ss")


class Compiler:
    def __init__(self, folder: Path, tool: Tool) -> None:
        self._folder = folder
        self._tool = tool

    def library(self, name: str, source: str, *options: str) -> bytes:
        """With an own name; options come behind the source."""
        self._folder.mkdir(exist_ok=True)
        (self._folder / "a.c").write_text(source)
        command = [self._tool("gcc"), "-shared", "-fPIC", "a.c", f"-Wl,-soname,{name}", "-o", name]
        command += [f"-L{self._folder}", "-Wl,--no-as-needed", *options]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True)
        return (self._folder / name).read_bytes()


@pytest.fixture
def compiler(tmp_path: Path, tool: Tool) -> Compiler:
    return Compiler(tmp_path / "compiled", tool)


@pytest.fixture(autouse=True)
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever CUDA this machine has."""
    known = {
        name: places for name, places in loader._cached().items()
        if imports_of([name], ())[0].origin not in ("cuda", "driver")
    }  # fmt: skip
    monkeypatch.setattr(loader, "_cached", lambda: known)


def findings(of: CheckedPython, name: str = "demo") -> list[Symptom]:
    packages = Packages(of.path)
    found = packages.find(name)
    assert found
    subject = read_installed(found)
    linking = link(of, packages, find_torch(of, packages), subject)
    symbols = list(symbol_findings(linking))
    said = any(one.cause == "torch" for one in symbols)
    others = (torch_findings(linking, said=said), library_findings(linking))
    rest = (version_findings(linking), twice_findings(linking))
    return list(in_order([*symbols, *(one for each in (*others, *rest) for one in each)]))


def loads(place: Path, *before: Path) -> str:
    """What the system's loader says against a library; '' where it loads."""
    lines = [f"ctypes.CDLL({str(one)!r}, os.RTLD_NOW | os.RTLD_GLOBAL)" for one in (*before, place)]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(["import ctypes, os", *lines])],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def test_a_sound_module(tmp_path: Path, compiler: Compiler) -> None:
    source = "#include <stdio.h>\n" + MODULE + 'void f(void) { puts(""); }'
    install(tmp_path, "demo", "1.0", {f"demo/{NAME}": compiler.library("_C.so", source)})
    assert not loads(tmp_path / "demo" / NAME)
    assert findings(target(tmp_path, base=Path(sys.executable).resolve())) == []


def test_a_library_that_is_missing(tmp_path: Path, compiler: Compiler) -> None:
    compiler.library("libone.so.1", "int one;")
    built = compiler.library("_C.so", MODULE, "-l:libone.so.1")
    install(tmp_path, "demo", "1.0", {f"demo/{NAME}": built})
    said = loads(tmp_path / "demo" / NAME)
    [finding] = findings(target(tmp_path))
    assert any(name in said for name in finding.names)
    assert (finding.cause, finding.severity) == ("libraries", "warning"), "of a name nobody knows"
    assert finding.details == (f"needed by demo/{NAME}",)


@pytest.mark.parametrize(
    ("library", "cause", "package"),
    [
        ("libcudart.so.12", "libraries", "nvidia-cuda-runtime-cu12"),
        ("libcudart.so.13", "libraries", "nvidia-cuda-runtime"),
        ("libcufft.so.11", "libraries", "nvidia-cufft-cu12"),
        ("libcublas.so.12", "libraries", "nvidia-cublas-cu12"),
        ("libcudnn.so.9", "libraries", ""),  # of which CUDA, its name does not say
        ("libcuda.so.1", "driver", ""),
        ("libgomp.so.99", "libraries", ""),
    ],
)
def test_who_brings_a_library(
    library: str, cause: str, package: str, tmp_path: Path, compiler: Compiler
) -> None:
    if cause == "driver" and ctypes.util.find_library("cuda"):
        pytest.skip("there is a driver here")
    compiler.library(library, "int one;")
    rpath = "-Wl,-rpath,$ORIGIN/../nvidia/lib"
    built = compiler.library("_C.so", MODULE, f"-l:{library}", rpath)
    install(tmp_path, "demo", "1.0", {f"demo/{NAME}": built})
    [finding] = findings(target(tmp_path))
    assert (finding.cause, finding.severity) == (cause, "wrong")
    assert finding.cure
    expected = f"/nowhere/venv/bin/python -m pip install {package}" if package else ""
    assert finding.cure.command == expected


def test_a_package_is_no_cure_where_nobody_looks_for_it(tmp_path: Path, compiler: Compiler) -> None:
    compiler.library("libcudart.so.12", "int one;")
    built = compiler.library("_C.so", MODULE, "-l:libcudart.so.12")
    install(tmp_path, "demo", "1.0", {f"demo/{NAME}": built})
    [finding] = findings(target(tmp_path))
    assert finding.cure
    assert not finding.cure.command


def test_a_file_that_went_is_installed_again(tmp_path: Path, compiler: Compiler) -> None:
    compiler.library("libcudart.so.13", "int one;")
    built = compiler.library("_C.so", MODULE, "-l:libcudart.so.13")
    install(tmp_path, "demo", "1.0", {f"demo/{NAME}": built})
    gone = ("nvidia/cu13/lib/libcudart.so.13",)
    install(tmp_path, "nvidia-cuda-runtime", "13.0.96", listed=gone)
    [finding] = findings(target(tmp_path))
    assert finding.cure
    assert finding.cure.command == (
        "/nowhere/venv/bin/python -m pip install --force-reinstall --no-deps "
        "nvidia-cuda-runtime==13.0.96"
    )


def test_a_missing_symbol(tmp_path: Path, compiler: Compiler) -> None:
    source = MODULE + "extern int gone(void); extern int weak(void) __attribute__((weak));\n"
    source += "int f(void) { return gone() + (weak ? weak() : 0); }"
    install(tmp_path, "demo", "1.0", {f"demo/{NAME}": compiler.library("_C.so", source)})
    assert "undefined symbol: gone" in loads(tmp_path / "demo" / NAME)
    [finding] = findings(target(tmp_path, base=Path(sys.executable).resolve()))
    assert (finding.cause, finding.severity, finding.details) == ("symbols", "wrong", ("gone",))


def test_a_symbol_of_another_library_of_the_package(tmp_path: Path, compiler: Compiler) -> None:
    compiler.library("libother.so", "int f(void) { return 1; }")
    other = (tmp_path / "compiled" / "libother.so").read_bytes()
    source = MODULE + "extern int f(void); int g(void) { return f(); }"
    built = compiler.library("_C.so", source)
    install(tmp_path, "demo", "1.0", {f"demo/{NAME}": built, "demo/libother.so": other})
    assert not loads(tmp_path / "demo" / NAME, tmp_path / "demo" / "libother.so")
    assert findings(target(tmp_path, base=Path(sys.executable).resolve())) == []


def test_a_version_that_the_system_does_not_have(tmp_path: Path, compiler: Compiler) -> None:
    """As of a library that was linked on a newer system."""
    folder = tmp_path / "compiled"
    folder.mkdir()
    (folder / "map").write_text("NEW_9.9 { f; };\n")
    compiler.library("libver.so", "int f(void) { return 1; }", "-Wl,--version-script=map")
    source = MODULE + "extern int f(void); int g(void) { return f(); }"
    built = compiler.library("_C.so", source, "-l:libver.so", "-Wl,-rpath,$ORIGIN")
    (folder / "map").write_text("OLD_1.0 { f; };\n")
    older = compiler.library("libver.so", "int f(void) { return 1; }", "-Wl,--version-script=map")
    install(tmp_path, "demo", "1.0", {f"demo/{NAME}": built, "demo/libver.so": older})
    assert "version `NEW_9.9' not found" in loads(tmp_path / "demo" / NAME)
    [finding] = findings(target(tmp_path, base=Path(sys.executable).resolve()))
    assert finding.what == "it needs NEW_9.9 of libver.so, which the one here does not have"


# -- torch -----------------------------------------------------------------------------------------


def torch_of(
    compiler: Compiler, site: Path, *names: str, version: str = "2.11.0+cu130", cuda: str = "13.0"
) -> None:
    """A torch whose libraries define these names."""
    install_torch(site, version, cuda)
    source = "".join(f"int {name}(void) {{ return 0; }}\n" for name in names) or "int one;"
    library = compiler.library("libc10.so", source)
    python = compiler.library(
        "libtorch_python.so", "int two;", "-l:libc10.so", "-Wl,-rpath,$ORIGIN"
    )
    (site / "torch" / "lib").mkdir()
    (site / "torch" / "lib" / "libc10.so").write_bytes(library)
    (site / "torch" / "lib" / "libtorch_python.so").write_bytes(python)


def of_torch(compiler: Compiler, *names: str) -> bytes:
    """A module that uses names of torch's; it finds the library as all do, loaded already."""
    uses = "".join(f"extern int {name}(void);\n" for name in names)
    calls = " + ".join(f"{name}()" for name in names)
    compiler.library("libc10.so", "int one;")
    return compiler.library(
        "_C.so", f"{MODULE}{uses}int f(void) {{ return {calls}; }}", "-l:libc10.so"
    )


def test_the_right_torch(tmp_path: Path, compiler: Compiler) -> None:
    built = of_torch(compiler, OF_TORCH)
    torch_of(compiler, tmp_path, OF_TORCH)
    install(tmp_path, "demo", "1.0+cu130torch2.11", {f"demo/{NAME}": built})
    lib = tmp_path / "torch" / "lib" / "libtorch_python.so"
    assert not loads(tmp_path / "demo" / NAME, lib)
    assert findings(target(tmp_path)) == []


@pytest.mark.parametrize(
    ("version", "metadata", "what", "command"),
    [
        ("1.0+cu128torch2.8", "", "it was built for torch 2.8; torch 2.11.0+cu130",
         "torch==2.8.* --index-url https://download.pytorch.org/whl/cu128"),
        ("1.0", "Requires-Dist: torch==2.5.1\n", "it was built for torch 2.5; torch 2.11.0+cu130",
         "--upgrade demo torch==2.11.0"),
        ("1.0", "", "it was built for another torch: torch 2.11.0+cu130", ""),
    ],
)  # fmt: skip
def test_another_torch(
    version: str, metadata: str, what: str, command: str, tmp_path: Path, compiler: Compiler
) -> None:
    built = of_torch(compiler, OF_TORCH, "_ZN2at5otherEv")
    torch_of(compiler, tmp_path, "_ZN2at5otherEv", OF_TORCH.replace("torchCheckFail", "torchOther"))
    install(tmp_path, "demo", version, {f"demo/{NAME}": built}, metadata=metadata)
    lib = tmp_path / "torch" / "lib" / "libtorch_python.so"
    assert f"undefined symbol: {OF_TORCH}" in loads(tmp_path / "demo" / NAME, lib)
    [finding] = findings(target(tmp_path))
    assert (finding.cause, finding.severity) == ("torch", "wrong")
    assert finding.what == f"{what} (CUDA 13.0) lacks 1 name that it uses"
    assert finding.details[-1] == OF_TORCH
    assert finding.cure
    said = finding.cure.command.replace("'", "")
    assert said == (f"/nowhere/venv/bin/python -m pip install {command}" if command else "")


@pytest.mark.parametrize(("wanted", "here"), [(OF_TORCH, OLD), (OLD, OF_TORCH)])
def test_torch_with_the_other_c_plus_plus_abi(
    wanted: str, here: str, tmp_path: Path, compiler: Compiler
) -> None:
    built = of_torch(compiler, wanted)
    torch_of(compiler, tmp_path, here)
    install(tmp_path, "demo", "1.0", {f"demo/{NAME}": built})
    [finding] = findings(target(tmp_path))
    assert "_GLIBCXX_USE_CXX11_ABI" in finding.what


def test_no_torch(tmp_path: Path, compiler: Compiler) -> None:
    """Its libraries are not told besides."""
    built = of_torch(compiler, OF_TORCH)
    install(tmp_path, "demo", "1.0+cu130torch2.11", {f"demo/{NAME}": built})
    [finding] = findings(target(tmp_path))
    assert finding.what == "it needs torch, which is not installed here"
    assert finding.cure
    assert "'torch==2.11.*'" in finding.cure.command


def test_torch_without_cuda(tmp_path: Path, compiler: Compiler) -> None:
    compiler.library("libc10_cuda.so", "int one;")
    built = compiler.library("_C.so", MODULE, "-l:libc10_cuda.so")
    torch_of(compiler, tmp_path, version="2.11.0+cpu", cuda="")
    install(tmp_path, "demo", "1.0+cu130torch2.11", {f"demo/{NAME}": built})
    [finding] = findings(target(tmp_path))
    assert finding.what == "it needs a torch with CUDA; here is torch 2.11.0+cpu (no CUDA)"
    assert finding.cure
    assert finding.cure.command.endswith(
        "--force-reinstall torch==2.11.0 --index-url https://download.pytorch.org/whl/cu130"
    )


def test_another_cuda_than_torch_s(tmp_path: Path, compiler: Compiler) -> None:
    compiler.library("libcudart.so.12", "int one;")
    compiler.library("libc10.so", "int one;")
    built = compiler.library("_C.so", MODULE, "-l:libc10.so", "-l:libcudart.so.12")
    torch_of(compiler, tmp_path)
    install(tmp_path, "demo", "1.0+cu128torch2.11", {f"demo/{NAME}": built})
    [finding] = findings(target(tmp_path))
    assert finding.cause == "torch"
    assert finding.what.startswith("it was built for CUDA 12 (libcudart.so.12); here is torch")
    assert finding.cure
    assert finding.cure.command.endswith(
        "torch==2.11.0 --index-url https://download.pytorch.org/whl/cu128"
    )


def test_a_library_of_torch_s_own_that_is_missing(tmp_path: Path, compiler: Compiler) -> None:
    torch_of(compiler, tmp_path)
    compiler.library("libcudnn.so.9", "int one;")
    lib = tmp_path / "torch" / "lib"
    (lib / "libc10.so").write_bytes(compiler.library("libc10.so", "int one;", "-l:libcudnn.so.9"))
    [finding] = findings(target(tmp_path), "torch")
    assert (finding.severity, finding.what) == (
        "wrong",
        "torch does not load: libcudnn.so.9 is missing",
    )
    assert finding.cure
    assert finding.cure.command.endswith("pip install nvidia-cudnn-cu13")


def test_two_cudas_in_one_process(tmp_path: Path, compiler: Compiler) -> None:
    torch_of(compiler, tmp_path)
    files = {}
    for major in ("12", "13"):
        name = f"libcudart.so.{major}"
        files[f"demo/{name}"] = compiler.library(name, f"int of{major};")
    needs = ("-l:libcudart.so.12", "-l:libcudart.so.13", "-Wl,-rpath,$ORIGIN")
    files[f"demo/{NAME}"] = compiler.library("_C.so", MODULE, *needs)
    install(tmp_path, "demo", "1.0", files)
    [finding] = findings(target(tmp_path))
    assert finding.what == "one process loads libcudart.so.12 and libcudart.so.13"


def test_a_wheel_that_is_not_installed(tmp_path: Path, compiler: Compiler) -> None:
    """Its libraries find each other where they would lie."""
    compiler.library("libown.so", "int f(void) { return 1; }")
    own = (tmp_path / "compiled" / "libown.so").read_bytes()
    compiler.library("libgone.so", "int one;")
    source = MODULE + "extern int f(void); int g(void) { return f(); }"
    built = compiler.library(
        "_C.so", source, "-l:libown.so", "-l:libgone.so", "-Wl,-rpath,$ORIGIN/../demo.libs"
    )
    files = {f"demo/{NAME}": built, "demo.libs/libown.so": own}
    path = Draft(files=files).write(tmp_path)
    of = replace(target(tmp_path / "site"), base=Path(sys.executable).resolve())
    packages = Packages(of.path)
    linking = link(of, packages, None, read_wheel(path, tmp_path / "site"))
    assert list(symbol_findings(linking)) == []
    [finding] = library_findings(linking)
    assert finding.what == "libgone.so is missing"
