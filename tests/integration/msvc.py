"""Where Windows has Microsoft's compiler and CUDA: stand-ins for cl.exe and link.exe, made of
clang and lld, and NVIDIA's own Windows programs.

They lie where Microsoft's own are unpacked to, so that they are found as those are.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fatwheel.provision.msvc import VCVARS, ReadyMsvc, find_msvc

from .windows import Wine, on_one_core, subject

DATA = Path(__file__).parent.parent / "data" / "windows" / "msvc"
CL = "19.38.33130"
TOOLS = "VC/Tools/MSVC/14.38.33130"
RUN_TIME_LIBRARY = "VC/Redist/MSVC/14.38.33135/x64/Microsoft.VC143.CRT/msvcp140.dll"
KIT = "Windows Kits/10"
SDK = "10.0.22621.0"
CUDA_WHEELS = ("nvcc-windows", "nvvm-windows", "crt-windows", "cudart-windows", "cuobjdump-windows")
# Headers that CUDA's includes, of which it needs nothing but that they are there.
EMPTY_HEADERS = (
    "assert.h", "corecrt.h", "cstdarg", "cstddef", "cstdio", "cstdlib", "cstring", "ctype.h",
    "float.h", "functional", "limits.h", "new", "stdarg.h", "stddef.h", "stdint.h", "stdio.h",
    "string.h", "time.h", "vcruntime.h",
)  # fmt: skip
# What compiled code calls: of CUDA, whose own import library wants more of a C run time than is
# here, and of Windows.
IMPORTS = {
    ("cudart", "cudart64_13.dll"): """
        __cudaGetKernel __cudaInitModule __cudaLaunchKernel __cudaPopCallConfiguration
        __cudaPushCallConfiguration __cudaRegisterFatBinary __cudaRegisterFatBinaryEnd
        __cudaRegisterFunction __cudaUnregisterFatBinary cudaGetLastError cudaLaunchKernel
        """,
    ("ucrt", "ucrtbase.dll"): """
        _j0 _j1 _jn _y0 _y1 _yn cos erfc exp exp2 floor log log1p log2 pow round sin sqrt
        """,
}
RUN_TIME = """
extern "C" {
int _fltused = 1;
__declspec(noreturn) void exit(int) { for (;;) {} }
int atexit(void (*)()) { return 0; }
void *memset(void *to, int value, unsigned long long count) {
    for (unsigned long long at = 0; at < count; at++) ((volatile char *)to)[at] = (char)value;
    return to;
}
void *memcpy(void *to, const void *from, unsigned long long count) {
    for (unsigned long long at = 0; at < count; at++)
        ((volatile char *)to)[at] = ((const char *)from)[at];
    return to;
}
}
"""


@dataclass(frozen=True)
class BuildTools:
    """cl.exe and CUDA, in their folders."""

    home: Path
    msvc: ReadyMsvc
    cuda_home: Path

    def calls(self, program: str) -> str:
        """What the stand-in for cl or link was called with so far."""
        return self.msvc.path.with_name(f"{program}.exe.calls").read_text()


def install_build_tools(folder: Path, gcc: str, wine: Wine) -> BuildTools:
    """Stand-ins and CUDA in a new folder, whose name has spaces as `Program Files` has."""
    home = folder / "Build Tools"
    install_msvc(home, gcc)
    with on_one_core():
        msvc = find_msvc(home, CL, wine.runner)
    return BuildTools(home, msvc, install_cuda(folder / "cuda home"))


def install_msvc(home: Path, gcc: str) -> None:
    """The stand-ins in the folders of MSVC and of a Windows SDK."""
    kit = [
        *(f"{KIT}/Include/{SDK}/{name}/empty.h" for name in ("ucrt", "shared", "um", "winrt")),
        *(f"{KIT}/Lib/{SDK}/{name}/x64/empty.lib" for name in ("ucrt", "um")),
        f"{KIT}/bin/{SDK}/x64/rc.exe",
    ]
    for name in (*kit, VCVARS, RUN_TIME_LIBRARY):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).touch()
    place = home / TOOLS / "bin" / "Hostx64" / "x64"
    place.mkdir(parents=True)
    subprocess.run(
        [gcc, "-municode", "-O1", str(DATA / "standin.c"), "-o", str(place / "cl.exe")], check=True
    )
    shutil.copyfile(place / "cl.exe", place / "link.exe")
    for name in ("standin.py", "c1xx.dll", "c2.dll"):
        shutil.copyfile(DATA / "standin.py", place / name)
    headers = home / TOOLS / "include"
    shutil.copytree(DATA / "include", headers)
    for name in EMPTY_HEADERS:
        (headers / name).write_text("#include <crtdefs.h>\n")
    libraries = home / TOOLS / "lib" / "x64"
    libraries.mkdir(parents=True)
    for name in ("libcmt.lib", "msvcrt.lib"):
        (libraries / name).touch()
    (libraries / "runtime.cpp").write_text(RUN_TIME)
    subprocess.run(
        ["clang", "--target=x86_64-pc-windows-msvc", "-ffreestanding", "-c", "runtime.cpp",
         "-o", "runtime.obj"],
        cwd=libraries, check=True,
    )  # fmt: skip
    for (name, library), calls in IMPORTS.items():
        _make_import_library(libraries / f"{name}.lib", library, calls.split(), gcc)


# What the stand-ins call, for containers: this machine's own programs, with the libraries that are
# not also a compiler's for Linux.
_OF_THE_BASE = ("ld-linux", "linux-vdso", "libc.", "libm.", "libgcc_s.", "libstdc++.")
_BASE = r"""
FROM {base}
COPY programs/ /opt/clang/
RUN for name in clang lld-link; do printf '#!/bin/sh\nLD_LIBRARY_PATH=/opt/clang exec /opt/clang/%s "$@"\n' $name >/usr/bin/$name; chmod 755 /usr/bin/$name; done
"""  # noqa: E501


def base_with_stand_ins(base: str) -> bytes:
    """A build context for an image on which the stand-ins work; base has a Python and a g++."""
    found = {name: Path(str(shutil.which(name))).resolve() for name in ("clang", "lld-link")}
    found |= {path.name: path for program in tuple(found.values()) for path in _libraries(program)}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        text = _BASE.format(base=base).encode()
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
        for name, path in sorted(found.items()):
            info = tarfile.TarInfo(f"programs/{name}")
            info.size, info.mode = path.stat().st_size, 0o755
            with path.open("rb") as file:
                tar.addfile(info, file)
    return stream.getvalue()


def _libraries(program: Path) -> Iterator[Path]:
    said = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    for name, path in re.findall(r"(\S+) => (/\S+)", said):
        if not name.startswith(_OF_THE_BASE):
            yield Path(path)


def _make_import_library(path: Path, library: str, names: Sequence[str], gcc: str) -> None:
    definition = path.with_suffix(".def")
    definition.write_text("\n".join([f'LIBRARY "{library}"', "EXPORTS", *names]))
    dlltool = gcc.replace("gcc", "dlltool")
    subprocess.run([dlltool, "-d", str(definition), "-l", str(path)], check=True)


def install_cuda(folder: Path) -> Path:
    """The CUDA home that NVIDIA's packages for Windows make together."""
    for name in CUDA_WHEELS:
        with zipfile.ZipFile(subject(name)) as wheel:
            wheel.extractall(folder)
    return folder / "nvidia" / "cu13"


def run_tool(wine: Wine, tools: BuildTools, program: str, *arguments: str, cwd: Path) -> str:
    """Run one of CUDA's programs in a folder; what it says. A failure fails the test."""
    own = dict(tools.msvc.variables)
    environment = {**wine.environment, "WINEPATH": own.pop("PATH"), **own}
    with on_one_core():
        done = subprocess.run(
            [wine.wine, str(tools.cuda_home / "bin" / program), *arguments], cwd=cwd,
            env=environment, input="", capture_output=True, encoding="utf-8", errors="replace",
            timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0, f"{program} {arguments}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr
