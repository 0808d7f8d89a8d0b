"""Reads NVIDIA's redistributable manifests, and what a release's compilers accept.

Sources: redistrib_X.Y.Z.json, a table for each component with one for each platform, beside which
the archives lie; crt/host_config.h, which refuses host compilers; `ptxas --help`, which lists the
architectures that it compiles for.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from ..arch import Arch
from ..config import fields
from ..config.load import dotted
from ..config.parts import NVIDIA_PLATFORMS, Archive
from ..errors import ConfigError, FormatError
from ..storage.documents import read_object
from ..toolchain.installedcuda import archs_in_help
from ..toolchain.pipconfig import RefusedError
from ..toolchain.web import Web

# The compilers, and the headers and import libraries that torch's headers ask for. A release has
# those of its time: cuda_crt and libnvvm were once parts of cuda_nvcc, and cccl of another name.
COMPONENTS = (
    "cuda_nvcc", "cuda_crt", "libnvvm", "cuda_cudart", "cuda_cccl", "cccl", "cuda_nvrtc",
    "cuda_nvtx", "cuda_profiler_api", "cuda_nvml_dev", "libcublas", "libcusparse", "libcusolver",
    "libcurand", "cuda_cuobjdump", "cuda_nvdisasm",
)  # fmt: skip

_MANIFEST = re.compile(r"redistrib_([0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4})\.json")
_HEADER, _PTXAS = "crt/host_config.h", "bin/ptxas"
_MOST_HEADER, _MOST_PTXAS = 1 << 20, 512 << 20  # bytes
_PATIENCE = 60.0  # seconds that `ptxas --help` may take


# -- manifests -------------------------------------------------------------------------------------


def newest_release(word: str, folder: str, web: Web) -> str | None:
    """The newest release `13.2.1` of `13.2` that has a manifest in NVIDIA's folder.

    A release named in full is taken at its word. Raises TransientError or RefusedError.
    """
    if word.count(".") == 2:
        return word
    page = web.read(f"{folder}/").decode("utf-8", "replace")
    known = {found for found in _MANIFEST.findall(page) if found.startswith(f"{word}.")}
    return max(known, key=lambda found: int(found.rpartition(".")[2]), default=None)


def manifest_url(version: str, folder: str) -> str:
    return f"{folder}/redistrib_{version}.json"


def archives_in(url: str, web: Web) -> tuple[Archive, ...]:
    """The archives of a release that are used. Raises TransientError or RefusedError."""
    try:
        document = read_object(web.read(url), url)
        found = tuple(_archives(document))
    except FormatError as error:
        raise RefusedError(f"is not a CUDA release manifest: {error.what}") from None
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{dotted(first['loc'])}: {first['msg'].removeprefix('Value error, ')}"
        raise RefusedError(f"is not a CUDA release manifest: {what}") from None
    if not any(one.name == COMPONENTS[0] for one in found):
        raise RefusedError(f"is not a CUDA release manifest: it has no {COMPONENTS[0]}")
    return found


def _archives(document: Mapping[str, Any]) -> Iterator[Archive]:
    for name in COMPONENTS:
        component = document.get(name)
        if not isinstance(component, dict):
            continue
        for platform_name in NVIDIA_PLATFORMS.values():
            entry = component.get(platform_name)
            if not isinstance(entry, dict):
                continue
            one = fields.adapter(Archive).validate_python(
                {
                    "name": name,
                    "version": component.get("version"),
                    "platform": platform_name,
                    "size": _number(entry.get("size")),
                    "sha256": entry.get("sha256"),
                }
            )
            if entry.get("relative_path") != one.path:
                raise FormatError(f"{name} is not at {one.path}")
            yield one


def _number(text: object) -> object:
    """NVIDIA writes sizes as strings."""
    return int(text) if isinstance(text, str) and re.fullmatch(r"\d{1,15}", text) else text


# -- what compilers accept -------------------------------------------------------------------------


@dataclass(frozen=True)
class NvccLimits:
    """The newest major version of g++, the first and last _MSC_VER, the architectures."""

    gcc: int
    msvc: tuple[int, int]
    archs: tuple[Arch, ...]


def limits_in(files: Iterable[Path], version: str) -> NvccLimits:
    """What a release accepts, from its own files: archives or wheels for Linux on x86-64.

    Raises ConfigError where they do not tell.
    """
    header: str | None = None
    archs: tuple[Arch, ...] = ()
    for file in files:
        for name, content in _members(file):
            if name.endswith(_HEADER):
                header = content.decode("utf-8", "replace")
            else:
                archs = archs_in_help(_help_of(content))
    gcc, msvc = host_limits(header or "")
    known = {"gcc": gcc, "msvc": msvc, "archs": archs}
    missing = [name for name, value in known.items() if not value]
    if missing or gcc is None or msvc is None:
        raise ConfigError(
            f"the files of CUDA {version} do not tell what its nvcc accepts",
            details=[f"not found: {', '.join(missing)}"],
            hint=f"write toolchains/parts/cuda/{version}.toml with these by hand "
            "(docs/toolchains.md), and lock again. archs can be read on Linux on x86-64 only",
        )
    return NvccLimits(gcc, msvc, archs)


def host_limits(header: str) -> tuple[int | None, tuple[int, int] | None]:
    """The newest g++ and the range of _MSC_VER that crt/host_config.h lets pass."""
    gcc = re.search(r"#\s*if\s+__GNUC__\s*>\s*(\d{1,3})\b", header)
    msvc = re.search(r"#\s*if\s+_MSC_VER\s*<\s*(\d{4})\s*\|\|\s*_MSC_VER\s*>=\s*(\d{4})\b", header)
    return (
        int(gcc[1]) if gcc else None,
        (int(msvc[1]), int(msvc[2]) - 1) if msvc else None,
    )


def _help_of(program: bytes) -> str:
    """What ptxas says of itself; '' on a machine that cannot run it."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return ""
    with TemporaryDirectory(prefix="fatwheel-") as folder:
        file = Path(folder, "ptxas")
        file.write_bytes(program)
        file.chmod(0o700)
        with suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(
                [str(file), "--help"],
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                env={"PATH": os.defpath},
            ).stdout
    return ""


def _members(file: Path) -> Iterator[tuple[str, bytes]]:
    """The header and ptxas, where a file has them. Raises ConfigError for one that is damaged."""
    try:
        yield from _wheel_members(file) if file.suffix == ".whl" else _tar_members(file)
    except (
        *(zipfile.BadZipFile, tarfile.TarError, LZMAError),
        *(EOFError, OSError, ValueError, RuntimeError),  # the last: it is encrypted
    ) as error:
        raise ConfigError(f"cannot be read: {error}", where=file.name) from error


def _wheel_members(file: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if most := _most_of(entry.filename):
                with archive.open(entry) as stream:
                    yield entry.filename, stream.read(most)


def _tar_members(file: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(file, "r:xz") as archive:
        for member in archive:
            if member.isfile() and (most := _most_of(member.name)):
                stream = archive.extractfile(member)
                assert stream is not None, "it is a file"
                yield member.name, stream.read(most)


def _most_of(name: str) -> int:
    """How much of a member is read, in bytes; 0 for what is not wanted."""
    if name.endswith(f"/{_HEADER}"):
        return _MOST_HEADER
    return _MOST_PTXAS if name.endswith(f"/{_PTXAS}") else 0
