"""The CUDA of this machine, and a torch that is installed here, as a toolchain.

Nothing of it is pinned. It is asked what it is, and the files of its compilers are read: by these
the store tells one CUDA from another, and the lock says with what a wheel was built.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.version import Version
from pydantic import ValidationError

from ..config import fields
from ..config.toolchain import InstalledTools, Toolchain, TorchBuild
from ..errors import ToolchainError
from ..events import Emit, Note
from ..machine import this_platform
from ..model import Environment
from ..provision.archives import mend_home
from ..provision.tools import HostCompiler
from ..storage.cache import cache_folder, mistake_in
from ..storage.permissions import gap_of
from ..worker.processes import bare_variables
from .installedcuda import OPTION, InstalledCuda, ask_cuda
from .interpreters import answer_of
from .unpack import alone

TORCH = "--torch-from"

_TIMEOUT = 300.0  # seconds: a first import of torch from a cluster's disks takes minutes
_OLDEST_GCC = re.compile(r"__GNUC__ < ([0-9]{1,3})\b")
# What is to be made of the answers: they get into labels, names of files and locks.
_GRAMMARS: dict[str, Any] = {
    "version": fields.FullPython, "torch": fields.AnyVersion, "cuda": fields.Release,
}  # fmt: skip
_PATHS = ("executable", "prefix", "site", "include")

# In a virtual environment prefix is its folder, include that of the interpreter behind it.
_QUESTION = """
import json, os, platform, sys, sysconfig
facts = {
    "implementation": platform.python_implementation(),
    "version": platform.python_version(),
    "threads": "t" in getattr(sys, "abiflags", ""),
    "executable": sys.executable,
    "prefix": sys.prefix,
    "include": sysconfig.get_path("include"),
    "missing": "",
}
try:
    import setuptools
    import torch
    facts["torch"] = torch.__version__
    facts["cuda"] = torch.version.cuda
    facts["site"] = os.path.dirname(os.path.dirname(os.path.abspath(torch.__file__)))
except ImportError as error:
    facts["missing"] = str(error)
print(json.dumps(facts))
"""


@dataclass(frozen=True)
class _Python:
    """An environment with torch. named: as the user named it. site: the folder with torch in it.
    cuda: what torch was built for."""

    named: Path
    executable: Path
    root: Path
    site: Path
    include: Path
    version: str
    torch: str
    cuda: str


def find_installed(cuda_home: Path | None, torch_from: Path | None) -> Toolchain:
    """The toolchain of what is installed.

    cuda_home: the folder of a CUDA; None for the packages of CUDA beside torch. torch_from: a
    Python, or the folder of its virtual environment; None for the Python that runs. Raises
    ToolchainError where one of them cannot be used, or where they do not go together.
    """
    if sys.platform == "win32":
        raise ToolchainError(f"{OPTION} and {TORCH} work on Linux only")
    python = _ask_python(torch_from)
    cuda = ask_cuda(cuda_home or _packages_of(python), _oldest_gcc(python.site))
    if cuda.cuda.partition(".")[0] != python.cuda.partition(".")[0]:
        raise ToolchainError(
            f"torch {python.torch} was built for CUDA {python.cuda}, and this is CUDA {cuda.cuda}: "
            "their major versions must be the same",
            where=f"{OPTION} {cuda.home}, torch of {python.named}",
            hint=f"name another CUDA, or a Python with another torch: {TORCH} PYTHON",
        )
    return _toolchain(cuda, python)


def _toolchain(cuda: InstalledCuda, python: _Python) -> Toolchain:
    torch = Version(python.torch).public
    minor = ".".join(python.version.split(".")[:2])
    installed = InstalledTools(torch=python.torch, torch_cuda=python.cuda, files=cuda.files)
    gcc = (_oldest_gcc(python.site), cuda.newest_gcc)
    name = f"system-cuda{cuda.cuda}"
    meaning = [name, this_platform(), cuda.nvcc, list(map(str, cuda.archs)), gcc, python.torch]
    text = json.dumps([*meaning, python.cuda, installed.compiler_id])
    return Toolchain(
        name=name,
        platform=this_platform(),
        cuda=cuda.cuda,
        nvcc=cuda.nvcc,
        archs=cuda.archs,
        gcc=gcc,
        packages=(),
        builds=(TorchBuild(torch, minor, ()),),
        default_torch=torch,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        installed=_placed(installed, cuda, python),
    )


def _placed(installed: InstalledTools, cuda: InstalledCuda, python: _Python) -> InstalledTools:
    """With what only this machine knows."""
    environment = Environment(
        root=python.root,
        python=python.executable,
        site=python.site,
        cuda_home=_home_of(cuda),
        include=python.include,
        python_version=python.version,
        torch=Version(python.torch).public,
        compiler_id=installed.compiler_id,
    )
    return replace(installed, cuda_home=cuda.home, environment=environment, links=cuda.links)


# -- torch -----------------------------------------------------------------------------------------


def _ask_python(named: Path | None) -> _Python:
    python = Path(sys.executable) if named is None else _executable(named)
    where = f"{TORCH} {named}" if named else str(python)
    facts = answer_of(python, _QUESTION, _TIMEOUT, bare_variables())
    if isinstance(facts, str):
        raise ToolchainError(f"this Python {facts}", where=where)
    if facts.get("missing"):
        raise ToolchainError(
            f"this Python has no torch, or no setuptools, that can be imported: {facts['missing']}",
            where=where,
            hint=f"name one that has: {TORCH} PYTHON"
            if named is None
            else "install them into it; what lies in a user's home (~/.local) does not count",
        )
    if not facts.get("cuda"):
        said = fields.shown(str(facts.get("torch")))
        raise ToolchainError(f"its torch {said} was built without CUDA", where=where)
    for mistake in _odd_answers(facts):
        raise ToolchainError(f"this Python cannot be used: {mistake}", where=where)
    found = _Python(
        named=named or python,
        executable=Path(facts["executable"]),
        root=Path(facts["prefix"]),
        site=Path(facts["site"]),
        include=Path(facts["include"]),
        version=facts["version"],
        torch=facts["torch"],
        cuda=facts["cuda"],
    )
    for mistake in _mistakes(found):
        raise ToolchainError(f"this Python cannot be used: {mistake}", where=where)
    return found


def _executable(named: Path) -> Path:
    """The Python itself, where the folder of an environment was named."""
    python = named / "bin" / "python" if os.path.isdir(named) else named
    if not os.path.isfile(python):
        raise ToolchainError(
            f"there is no {python}",
            where=f"{TORCH} {named}",
            hint="name a Python, or the folder of an environment with bin/python in it",
        )
    return python.absolute()


def _mistakes(python: _Python) -> Iterator[str]:
    for folder in (python.root, python.site):
        if mistake := mistake_in(folder):
            yield mistake
    if not (python.include / "Python.h").is_file():
        yield (
            f"there is no {python.include}/Python.h; install its header files (Debian, Ubuntu: "
            "python3-dev; Fedora: python3-devel)"
        )


def _odd_answers(facts: Mapping[str, Any]) -> Iterator[str]:
    """What no Python with torch says of itself."""
    for name in _PATHS:
        if not isinstance(facts.get(name), str) or "\0" in facts[name]:
            yield f"its {name} is no path"
    for name, kind in _GRAMMARS.items():
        try:
            fields.adapter(kind).validate_python(facts.get(name))
        except ValidationError as error:
            yield f"its {name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
            return
    if Version(facts["torch"]).epoch:
        yield f"its torch has an epoch: {facts['torch']}"


def _packages_of(python: _Python) -> Path:
    """The CUDA home that the packages beside torch make, where one of them has nvcc."""
    home = python.site / "nvidia" / f"cu{python.cuda.partition('.')[0]}"
    if not (home / "bin" / "nvcc").is_file():
        raise ToolchainError(
            "the packages of this Python have no nvcc",
            where=f"{TORCH} {python.named}",
            details=[f"there is no {home / 'bin' / 'nvcc'}"],
            hint=f"name a CUDA: {OPTION} /usr/local/cuda",
        )
    return home


def _oldest_gcc(site: Path) -> int:
    """The oldest g++ that torch's headers take; 1 where they do not say."""
    header = site / "torch" / "include" / "c10" / "util" / "C++17.h"
    try:
        found = _OLDEST_GCC.search(header.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return 1
    return int(found[1]) if found else 1


# -- ready to build --------------------------------------------------------------------------------

#     <cache>/systems/<digest>/cuda    a CUDA home made of links


def _home_of(cuda: InstalledCuda) -> Path:
    """What CUDA_HOME will be: the user's folder, or one made of links in the cache."""
    if not cuda.links:
        return cuda.home.resolve()
    text = json.dumps([[name, str(path)] for name, path in cuda.links])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return cache_folder() / "systems" / digest / "cuda"


def ready_installed(toolchain: Toolchain, compiler: HostCompiler, emit: Emit) -> Environment:
    """The environment of what is installed, with a CUDA home in it that works as one.

    Says who else can change it, and that the wheel cannot be rebuilt elsewhere. Raises
    ToolchainError, StoreError.
    """
    installed = toolchain.installed
    assert installed is not None, "else an environment is made"
    environment = installed.environment
    assert environment is not None, "it was found on this machine"
    if installed.links and not environment.cuda_home.exists():
        with alone(cache_folder(), emit):
            _make_home(installed, environment.cuda_home, compiler)
    emit(
        Note(
            f"built with the CUDA in {installed.cuda_home} and torch {installed.torch} of "
            f"{environment.python}: the wheel cannot be rebuilt elsewhere"
        )
    )
    gaps = map(gap_of, (installed.cuda_home / "bin", environment.root, environment.site))
    for who, folder in dict.fromkeys((gap.who, gap.folder) for gap in gaps if gap):
        emit(Note(f"{who} can write to {folder}, and so could change what you build"))
    return environment


def _make_home(installed: InstalledTools, home: Path, compiler: HostCompiler) -> None:
    if home.exists():  # another build made it meanwhile
        return
    part = home.parent.with_name(f".{secrets.token_hex(8)}.part")
    try:
        for name in ("bin", "include", "lib"):
            if name not in dict(installed.links):
                (part / "cuda" / name).mkdir(parents=True)
        for name, path in installed.links:
            (part / "cuda" / name).symlink_to(path)
        mend_home(part / "cuda", compiler)
        part.rename(home.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
