"""Whether installed tools run and are those that were pinned."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ToolchainError

_NVCC_VERSION = re.compile(r"\bV(\d+(?:\.\d+)+)\b")
# More than `import torch` needs: what builds import is then compiled once, in the image.
_IMPORTS = "import setuptools, torch, torch.utils.cpp_extension; print(torch.__version__)"
_IMPORT = "import torch; print(torch.__version__)"
_LAST = 10  # lines of a failing tool's output that are shown

Run = Callable[[Sequence[str]], str]  # runs a command; what it prints. Raises ToolchainError


def same(name: str, wanted: str, found: str) -> None:
    """Raise ToolchainError where an installed tool is not the one that was wanted."""
    if wanted != found:
        raise ToolchainError(
            f"the installed {name} is {found}, and the toolchain says {wanted}",
            hint="the pins in the toolchain's file contradict each other",
        )


def run(command: Sequence[str]) -> str:
    """What a command prints. Raises ToolchainError with its last lines where it fails."""
    # LD_LIBRARY_PATH could put another CUDA's libraries in the place of these.
    own = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    try:
        answer = subprocess.run(command, capture_output=True, text=True, errors="replace", env=own)
    except OSError as error:
        raise ToolchainError(f"cannot run {command[0]}: {error.strerror}") from error
    if answer.returncode:
        raise ToolchainError(
            f"{Path(command[0]).name} fails",
            where=" ".join(command),
            details=(answer.stderr or answer.stdout).strip().splitlines()[-_LAST:],
        )
    return answer.stdout


def check_nvcc(cuda_home: Path, wanted: str, run: Run = run) -> None:
    """Raise ToolchainError unless the nvcc of a CUDA home is of this version (`13.0.88`).

    run: what runs it, where that is not this system.
    """
    programs = (cuda_home / "bin" / name for name in ("nvcc.exe", "nvcc"))
    nvcc = next((path for path in programs if path.is_file()), cuda_home / "bin" / "nvcc")
    found = _NVCC_VERSION.search(run([str(nvcc), "--version"]))
    same("nvcc", wanted, found[1] if found else "of no version")


def check_ptxas(ptxas: Path, wanted: str) -> None:
    """Raise ToolchainError unless a ptxas for this system belongs to the nvcc of this version."""
    found = _NVCC_VERSION.search(run([str(ptxas), "--version"]))
    same("ptxas", wanted, found[1] if found else "of no version")


def check_torch(python: Path, wanted: str, *, warm: bool = False, run: Run = run) -> None:
    """Raise ToolchainError unless `import torch` gives this version, whatever its local part.

    warm: also import what builds import, so that Python keeps the compiled modules. run: what runs
    it, where that is not this system.
    """
    found = run([str(python), "-I", "-c", _IMPORTS if warm else _IMPORT])
    same("torch", wanted, found.strip().partition("+")[0])


# -- finds the C++ compiler that nvcc calls for host code ------------------------------------------


_VERSION = re.compile(r"^gcc version (\d+)(\S*)", re.MULTILINE)
_IDENTITY = re.compile(r"^(?:Target: |Configured with: |Thread model: |gcc version ).*$", re.M)
_PARTS = ("cc1plus", "as")  # the programs whose bytes decide what host code is made


@dataclass(frozen=True)
class HostCompiler:
    """A g++: its path, its version (`12.2.0`), and a digest of what it is made of.

    The digest covers what `g++ -v` says and the compiler proper and assembler that it calls.
    """

    path: Path
    version: str
    id: str


def find_host_compiler(cuda: str, gcc: tuple[int, int] | None) -> HostCompiler:
    """The g++ to use: CXX if it is set, else g++, c++ or a g++-N on PATH.

    cuda is that CUDA's version, for messages; gcc the major versions that its nvcc accepts, both
    included, None where it accepts MSVC only. Raises ToolchainError where CXX cannot be used, or
    where there is none that nvcc accepts; the error says how to install one.
    """
    if gcc is None:
        raise ToolchainError(f"this CUDA {cuda} takes MSVC as its C++ compiler, which is not here")
    seen: list[str] = []
    for candidate in _candidates(gcc):
        answer = _examine(candidate, gcc)
        if isinstance(answer, HostCompiler):
            return answer
        seen.append(answer)
    low, high = gcc
    raise ToolchainError(
        f"there is no C++ compiler here that CUDA {cuda} works with",
        where=f"CXX={os.environ['CXX']}" if os.environ.get("CXX") else None,
        details=seen or ["no g++ or c++ on PATH"],
        hint=(
            f"install g++ {low} to {high}: apt install g++ (Debian, Ubuntu), "
            "dnf install gcc-c++ (Fedora, RHEL); or name one: CXX=/path/to/g++"
        ),
    )


def _candidates(gcc: tuple[int, int]) -> Iterator[str]:
    named = os.environ.get("CXX")
    if named:
        yield named
        return
    low, high = gcc
    for name in ("g++", "c++", *(f"g++-{major}" for major in range(high, low - 1, -1))):
        found = shutil.which(name)
        if found:
            yield found


def _examine(candidate: str, gcc: tuple[int, int]) -> HostCompiler | str:
    """The compiler behind a name, or why it is of no use."""
    found = shutil.which(candidate)
    if found is None:
        return f"{candidate}: no such program"
    words = _ask(found, "-v")
    version = _VERSION.search(words)
    if version is None:
        return f"{found}: is not g++ (`{found} -v` names no gcc version)"
    low, high = gcc
    if not low <= int(version[1]) <= high:
        return f"{found}: g++ {version[1]}{version[2]}, but {low} to {high} is needed"
    digest = hashlib.sha256("\n".join(_IDENTITY.findall(words)).encode())
    for part in _PARTS:
        program = shutil.which(_ask(found, f"-print-prog-name={part}").strip())
        if program is None:
            return f"{found}: its {part} is missing, so it cannot compile C++"
        content = hashlib.sha256(Path(program).read_bytes()).hexdigest()
        digest.update(f"\n{part} {content}".encode())
    return HostCompiler(Path(found).absolute(), f"{version[1]}{version[2]}", digest.hexdigest())


def _ask(compiler: str, option: str) -> str:
    """What the compiler prints; nothing where it does not run."""
    try:
        answer = subprocess.run(
            [compiler, option],
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
        )
    except OSError:
        return ""
    return answer.stdout + answer.stderr
