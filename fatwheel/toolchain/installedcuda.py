"""Asks an installed CUDA who it is: its version, its architectures, and which files make code.

nvcc itself says where it looks for its programs: `nvcc --dryrun` lists its variables, as they are
in nvcc.profile. So however a system lays out its CUDA, the files that are read here are those that
run. Of the headers, crt and fatbinary_section.h are read too: what nvcc generates includes them,
and no preprocessed text of a unit tells of that. The others are in those texts, as far as they are
used.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Timer

from ..arch import Arch, parse_arch
from ..config.toolchain import InstalledFile
from ..errors import ToolchainError, UsageError
from ..provision.tools import find_host_compiler
from ..storage.cache import mistake_in
from ..worker.processes import bare_variables

OPTION = "--cuda-home"

# Where Debian's packages keep nvcc, below the folder in whose bin they have a script of that name.
_DEBIAN = Path("lib", "nvidia-cuda-toolkit", "bin", "nvcc")
_PROGRAMS = ("cudafe++", "cicc", "ptxas", "fatbinary", "nvlink")
_SYSTEMS = Path("/usr/include")  # where every g++ looks by itself
_ELF = b"\x7fELF"
_WHOLE = "install the whole toolkit of this CUDA: compilers, runtime and headers"
_VERSION = re.compile(r"release ([0-9]{1,3}\.[0-9]{1,3}), V([0-9]{1,3}(?:\.[0-9]{1,5}){1,3})")
_VARIABLE = re.compile(r"^#\$ (PATH|CICC_PATH|NVVMIR_LIBRARY_DIR)=(.*)$", re.MULTILINE)
_NEWEST_GCC = re.compile(r"^#\s*if\s+__GNUC__ > ([0-9]{1,3})\b", re.MULTILINE)
_LAST = 10  # lines of what nvcc says that are shown
_LONGEST = 60  # characters of a word of it
_MOST = 1 << 20  # bytes of what it says
_PATIENCE = 300.0  # seconds that it may take: on a cluster's disks, the first start is slow


@dataclass(frozen=True)
class InstalledCuda:
    """home: as the user named it. cuda, nvcc: its versions, `12.8` and `12.8.93`. newest_gcc: the
    newest major version of g++ that it takes.

    links: names below a CUDA home, and what is there to be a link to, where the home itself does
    not have what build systems look for in one; else nothing.
    """

    home: Path
    cuda: str
    nvcc: str
    archs: tuple[Arch, ...]
    newest_gcc: int
    files: tuple[InstalledFile, ...]
    links: tuple[tuple[str, Path], ...]


def ask_cuda(home: Path, oldest_gcc: int) -> InstalledCuda:
    """The CUDA in a folder. oldest_gcc: the oldest major version of g++ that torch takes.

    Raises ToolchainError where there is none, where it is not complete, or where no g++ here goes
    with it.
    """
    nvcc = _nvcc_in(home)
    include = _include_of(home, nvcc)
    libraries = _libraries_of(home, include)
    said = _ask(nvcc, "--version")
    version = _VERSION.search(said)
    if version is None:
        raise _unusable(nvcc, "does not say which CUDA it is", said.splitlines()[-_LAST:])
    newest = _newest_gcc(include)
    compiler = find_host_compiler(version[1], (oldest_gcc, newest))
    dry_run = _ask(nvcc, "--dryrun", "-ccbin", str(compiler.path), "-c", "x.cu")
    variables: dict[str, str] = dict(_VARIABLE.findall(dry_run))
    programs = {name: _program(name, nvcc, variables) for name in _PROGRAMS}
    return InstalledCuda(
        home=home,
        cuda=version[1],
        nvcc=version[2],
        archs=_archs(nvcc, programs["ptxas"]),
        newest_gcc=newest,
        files=tuple(_files(nvcc, programs, variables, include)),
        links=tuple(_links(home, nvcc, include, libraries)),
    )


# -- where things are ------------------------------------------------------------------------------


def _nvcc_in(home: Path) -> Path:
    """Its nvcc: the program itself."""
    if not os.path.isdir(home):
        raise ToolchainError("no such folder", where=f"{OPTION} {home}")
    mistake = mistake_in(home)
    if mistake:
        raise ToolchainError(f"this CUDA cannot be used: {mistake}", where=f"{OPTION} {home}")
    named = home / "bin" / "nvcc"
    if not named.is_file():
        raise ToolchainError(
            "there is no CUDA here: it has no bin/nvcc",
            where=f"{OPTION} {home}",
            hint="name the folder whose bin has nvcc, such as /usr/local/cuda (Debian's own: /usr)",
        )
    for nvcc in (named, home / _DEBIAN):
        if _is_program(nvcc):
            return nvcc
    real = named.resolve()
    what = "a script" if _begins(real) != _ELF else f"a link to {real}"
    raise ToolchainError(
        f"its bin/nvcc is {what}, and not NVIDIA's compiler",
        where=f"{OPTION} {home}",
        hint="name the folder of the CUDA that this starts (ccache, modules and distributions put "
        "such programs in front of it)",
    )


def _is_program(nvcc: Path) -> bool:
    """Whether it is nvcc: many names may be links to one program that goes by them."""
    return nvcc.is_file() and nvcc.resolve().name.startswith("nvcc") and _begins(nvcc) == _ELF


def _begins(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(len(_ELF))
    except OSError as error:
        raise ToolchainError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _include_of(home: Path, nvcc: Path) -> Path:
    """The folder of its headers."""
    target = Path("targets", f"{platform.machine()}-linux")
    for folder in (home, nvcc.parent.parent, home / target):
        include = folder / "include"
        if all((include / name).is_file() for name in ("cuda_runtime.h", "crt/host_config.h")):
            return include
    raise ToolchainError(
        "this CUDA is not complete: include/cuda_runtime.h or include/crt/host_config.h is missing",
        where=f"{OPTION} {home}",
        hint=_WHOLE,
    )


def _libraries_of(home: Path, include: Path) -> Path:
    """The folder of its runtime's library."""
    target = f"{platform.machine()}-linux"
    beside = include.parent
    for folder in (home / "lib64", home / "lib", beside / "lib", beside / "lib" / f"{target}-gnu"):
        if any(folder.glob("libcudart.so*")):
            return folder
    raise ToolchainError(
        "this CUDA is not complete: the library libcudart.so is missing",
        where=f"{OPTION} {home}",
        hint=_WHOLE,
    )


def _links(home: Path, nvcc: Path, include: Path, libraries: Path) -> Iterator[tuple[str, Path]]:
    """What a CUDA home must be made of where this is none that torch and CMake can use."""
    usual = (home / "bin" / "nvcc", home / "include", home / "lib64" / "libcudart.so")
    if nvcc == usual[0] and include == usual[1] and usual[2].exists() and not _is_systems(include):
        return
    for name in ("nvvm", "targets"):
        if (home / name).is_dir():
            yield name, (home / name).resolve()
    for path in sorted(nvcc.parent.iterdir()):
        yield f"bin/{path.name}", path.absolute()
    # Those of the system every compiler finds by itself, and in this order.
    if not _is_systems(include):
        yield "include", include.resolve()
        for path in sorted(libraries.iterdir()):
            if path.name != "stubs" or (path / "libcuda.so").exists():
                yield f"lib/{path.name}", path.absolute()


def _is_systems(include: Path) -> bool:
    return include.resolve() == _SYSTEMS


# -- what it is ------------------------------------------------------------------------------------


def _newest_gcc(include: Path) -> int:
    header = include / "crt" / "host_config.h"
    try:
        found = _NEWEST_GCC.search(header.read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        raise ToolchainError(f"cannot be read: {error.strerror}", where=str(header)) from error
    if found is None:
        raise ToolchainError("it does not say which g++ this CUDA takes", where=str(header))
    return int(found[1])


def _archs(nvcc: Path, ptxas: Path) -> tuple[Arch, ...]:
    """What it makes code for: what nvcc lists, and of each the variants that its ptxas lists. (To
    ask nvcc for every variant starts it some thirty times, which takes a minute on a cluster.)"""
    listed = set()
    for code in _ask(nvcc, "--list-gpu-code").split():
        if not re.fullmatch("sm_[0-9]{2,3}", code):
            raise _unusable(nvcc, "lists no architectures", [code[:_LONGEST]])
        listed.add(parse_arch(code))
    variants = archs_in_help(_ask(ptxas, "--help"))
    numbers = {one.number for one in listed}
    return tuple(sorted({*listed, *(one for one in variants if one.number in numbers)}))


def archs_in_help(text: str) -> tuple[Arch, ...]:
    """The architectures that `ptxas --help` lists for --gpu-name."""
    part = re.search(r"--gpu-name\b(.*?)(?=\n--|\Z)", text, re.DOTALL)
    found = set()
    for name in re.findall(r"'sm_(\w+)'", part[1] if part else ""):
        with suppress(UsageError):
            found.add(parse_arch(name))
    return tuple(sorted(found))


def _files(
    nvcc: Path, programs: Mapping[str, Path], variables: Mapping[str, str], include: Path
) -> Iterator[InstalledFile]:
    """What of it decides which code is made."""
    yield _file("nvcc", nvcc)
    profile = nvcc.parent / "nvcc.profile"
    if profile.is_file():
        yield _file(profile.name, profile)
    for name, path in programs.items():
        yield _file(name, path)
    libraries = sorted(Path(variables.get("NVVMIR_LIBRARY_DIR", "")).glob("libdevice*.bc"))
    if not libraries:
        raise _incomplete("libdevice", nvcc)
    nvvm = programs["cicc"].parent.parent
    for path in (*libraries, *sorted(nvvm.glob("lib*/libnvvm.so"))):
        yield _file(path.name, path)
    generated = [
        *include.glob("crt/*"),
        include / "fatbinary_section.h",
        *nvcc.parent.glob("crt/*"),
    ]
    lines = sorted(f"{path.name} {_sha256(path)}" for path in generated if path.is_file())
    yield InstalledFile("crt", hashlib.sha256("\n".join(lines).encode()).hexdigest())


def _program(name: str, nvcc: Path, variables: Mapping[str, str]) -> Path:
    """The program that nvcc starts."""
    places = ":".join(variables.get(place, "") for place in ("CICC_PATH", "PATH"))
    found = shutil.which(name, path=places)
    if found is None:
        raise _incomplete(name, nvcc)
    return Path(found).resolve()


def _file(name: str, path: Path) -> InstalledFile:
    return InstalledFile(name, _sha256(path))


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            digest = hashlib.sha256()
            while piece := stream.read(1 << 20):
                digest.update(piece)
            return digest.hexdigest()
    except OSError as error:
        raise ToolchainError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _ask(program: Path, *arguments: str) -> str:
    """What nvcc or another of its programs says, in a folder with an empty x.cu, and with none of
    the user's variables but PATH, as builds start it."""
    with TemporaryDirectory() as folder:
        Path(folder, "x.cu").touch()
        try:
            process = subprocess.Popen(
                [str(program.absolute()), *arguments], cwd=folder, env=bare_variables(),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise _unusable(program, f"does not run: {error.strerror}", []) from error
        said, in_time = _said(process)
    if not in_time:
        raise _unusable(program, f"does not answer within {_PATIENCE:.0f} seconds", [])
    if len(said) > _MOST:
        raise _unusable(program, f"says more than {_MOST >> 20} MiB", [])
    lines = said.decode(errors="replace")
    if process.returncode:
        asked = f"{program.name} {' '.join(arguments)}"
        raise _unusable(program, f"fails: {asked}", lines.splitlines()[-_LAST:])
    return lines


def _said(process: subprocess.Popen[bytes]) -> tuple[bytes, bool]:
    """What a program says, and one byte more at most than it may; and whether it did in time. It
    has ended by then, with all that it started."""
    late = Event()

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def end_late() -> None:
        late.set()
        end()

    timer = Timer(_PATIENCE, end_late)
    timer.start()
    try:
        with process:
            assert process.stdout is not None, "it is a pipe"
            said = process.stdout.read(_MOST + 1)
            if len(said) > _MOST:
                end()
    finally:
        timer.cancel()
    return said, not late.is_set()


def _unusable(program: Path, why: str, details: list[str]) -> ToolchainError:
    return ToolchainError(f"its {program.name} {why}", where=str(program), details=details)


def _incomplete(name: str, nvcc: Path) -> ToolchainError:
    return ToolchainError(
        f"this CUDA is not complete: nvcc finds no {name}", where=str(nvcc), hint=_WHOLE
    )
