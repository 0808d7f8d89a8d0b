"""CUDA as archives, made of the wheels of the same parts: what NVIDIA publishes in both forms."""

from __future__ import annotations

import hashlib
import io
import lzma
import re
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fatwheel.config.pinned import Download, Package

# What the archives are called that have what is in the wheels of a package.
NAMES = {
    "nvidia-cuda-cccl": "cuda_cccl",
    "nvidia-cuda-crt": "cuda_crt",
    "nvidia-cuda-nvcc": "cuda_nvcc",
    "nvidia-cuda-runtime": "cuda_cudart",
    "nvidia-nvvm": "libnvvm",
}
_INSIDE = re.compile(r"nvidia/cu\d+/(.+)")
_LIBRARY = re.compile(r"(lib/lib.+\.so)\.[\d.]+")
_NEEDLESS = re.compile(r"lib/libnvvm.+|bin/nvlink")  # large, and no part of compiling
# Makes little effort, as NVIDIA's files take five times the time.
_XZ = {"id": lzma.FILTER_LZMA2, "preset": 0, "mf": lzma.MF_HC3, "depth": 1, "nice_len": 8}


Member = tuple[bytes, int] | str  # content and mode of a file, or what a link says


@dataclass(frozen=True)
class Archives:
    """Archives in a folder, and their pins, whose URLs begin with a server's."""

    folder: Path
    files: tuple[Download, ...]

    def tables(self) -> str:
        """As a toolchain's file has them."""
        return "".join(map(_table, self.files))


def _table(file: Download) -> str:
    return (
        f'\n[[cuda_files]]\nname = "{file.name}"\nversion = "{file.version}"\nurl = "{file.url}"\n'
        f'size = {file.size}\nsha256 = "{file.sha256}"\n'
    )


def make_archives(wheels: Sequence[tuple[Package, Path]], folder: Path, url: str) -> Archives:
    """An archive in `folder` for each wheel: the same files, and the links that archives have."""
    made = [_archive(package, wheel, folder, url) for package, wheel in wheels]
    return Archives(folder, tuple(made))


def _archive(package: Package, wheel: Path, folder: Path, url: str) -> Download:
    members: dict[str, Member] = {}
    with zipfile.ZipFile(wheel) as packed:
        for info in packed.infolist():
            inside = _INSIDE.fullmatch(info.filename)
            if inside and not info.is_dir() and not _NEEDLESS.fullmatch(inside[1]):
                members[inside[1]] = packed.read(info), info.external_attr >> 16 & 0o777
                if library := _LIBRARY.fullmatch(inside[1]):
                    members[library[1]] = Path(inside[1]).name
    return write_archive(NAMES[package.name], package.version, members, folder, url)


def write_archive(
    name: str, version: str, members: Mapping[str, Member], folder: Path, url: str
) -> Download:
    """An archive in `folder`, as NVIDIA makes them, and its pin, whose URL begins with `url`."""
    top = f"{name}-linux-x86_64-{version}-archive"
    path = folder / f"{top}.tar.xz"
    with (
        lzma.open(path, "wb", filters=[_XZ]) as stream,
        tarfile.open(fileobj=stream, mode="w") as tar,
    ):
        for inside, member in {"LICENSE": (b"a licence\n", 0o644), **members}.items():
            info = tarfile.TarInfo(f"{top}/{inside}")
            if isinstance(member, str):
                info.type, info.linkname = tarfile.SYMTYPE, member
                tar.addfile(info)
            else:
                info.size, info.mode = len(member[0]), member[1]
                tar.addfile(info, io.BytesIO(member[0]))
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Download(name, version, f"{url}/{path.name}", path.name, len(content), digest)
