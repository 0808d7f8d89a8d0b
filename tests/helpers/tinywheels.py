"""Wheels of a few bytes, written without fatwheel or installer, and a toolchain made of them."""

from __future__ import annotations

import base64
import hashlib
import platform
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fatwheel.arch import Arch
from fatwheel.config.pinned import Package
from fatwheel.config.toolchain import Toolchain, TorchBuild

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
NVCC = "#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n"
# When every member was written, so that a wheel of the same files has the same bytes.
_WRITTEN = (2023, 5, 6, 7, 8, 10)
CUDA_H = """
#define cuMemAlloc cuMemAlloc_v2
typedef int CUresult;
#ifdef __cplusplus
extern "C" {
#endif
CUresult cuInit(unsigned int Flags);
CUresult cuMemAlloc(void **p, unsigned long n);
#ifdef __cplusplus
}
#endif
"""


def record_hash(content: bytes) -> str:
    """As PEP 376 wants it."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    return f"sha256={digest}"


def write_wheel(
    folder: Path,
    name: str,
    version: str,
    members: Mapping[str, str],
    *,
    role: str = "runtime",
    tag: str = "py3-none-any",
    programs: tuple[str, ...] = (),
    record: Mapping[str, str] | None = None,
) -> Package:
    """A wheel in `folder`, and its pin. record replaces entries of RECORD by path."""
    info = f"{name}-{version}.dist-info"
    contents = {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    rows = {
        path: f"{path},{record_hash(text.encode())},{len(text.encode())}"
        for path, text in contents.items()
    }
    rows[f"{info}/RECORD"] = f"{info}/RECORD,,"
    rows.update(record or {})
    contents[f"{info}/RECORD"] = "".join(f"{row}\n" for row in rows.values() if row)
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, text in contents.items():
            entry = zipfile.ZipInfo(member, _WRITTEN)
            entry.external_attr = (0o100755 if member in programs else 0o100664) << 16
            archive.writestr(entry, text)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Package(name, version, path.name, len(content), digest, role)


@dataclass
class Draft:
    """A wheel of any files that tests can spoil before it is written.

    rows: lines of RECORD, by path, in place of the right ones; None leaves the line out. requires:
    in METADATA, unless that is given as a whole.
    """

    project: str = "demo"
    version: str = "1.0"
    tag: str = "cp311-cp311-linux_x86_64"
    files: dict[str, bytes] = field(default_factory=dict)
    rows: dict[str, str | None] = field(default_factory=dict)
    filename: str = ""
    dist_info: str = ""
    metadata: str = ""
    wheel: str = ""
    requires: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        """The wheel in `folder`."""
        info = self.dist_info or f"{self.project}-{self.version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {self.project}\nVersion: {self.version}\n"
        metadata += "".join(f"Requires-Dist: {one}\n" for one in self.requires)
        wheel = f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {self.tag}\n"
        contents = {
            **self.files,
            f"{info}/METADATA": (self.metadata or metadata).encode(),
            f"{info}/WHEEL": (self.wheel or wheel).encode(),
        }
        rows: dict[str, str | None] = {
            name: f"{name},{record_hash(data)},{len(data)}" for name, data in contents.items()
        }
        rows[f"{info}/RECORD"] = f"{info}/RECORD,,"
        rows.update(self.rows)
        lines = [row for row in rows.values() if row is not None]
        contents[f"{info}/RECORD"] = "".join(f"{line}\n" for line in lines).encode("utf-8")
        path = folder / (self.filename or f"{self.project}-{self.version}-{self.tag}.whl")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in contents.items():
                entry = zipfile.ZipInfo(name, _WRITTEN)
                entry.compress_type = archive.compression
                entry.external_attr = 0o600 << 16
                archive.writestr(entry, data)
        return path


def nvcc_wheel(folder: Path, script: str = NVCC) -> Package:
    """A CUDA whose nvcc only says its version."""
    nvcc = "nvidia/cu13/bin/nvcc"
    members = {
        nvcc: script,
        "nvidia/cu13/include/cuda.h": CUDA_H,
        "nvidia/cu13/lib/libcudart.so.13": "a library\n",
    }
    return write_wheel(
        folder, "nvidia_cuda_nvcc", "13.0.88", members, role="compiler", programs=(nvcc,)
    )


def torch_wheel(folder: Path, code: str = "__version__ = '2.11.0+cu130'\n") -> Package:
    """A torch that only says its version, and has a command."""
    members = {
        "torch/__init__.py": code,
        "torch-2.11.0.data/scripts/torch-script": "#!python\nimport sys; print(sys.prefix)\n",
        "torch-2.11.0.dist-info/entry_points.txt": "[console_scripts]\ntorchrun = torch:main\n",
    }
    return write_wheel(
        folder,
        "torch",
        "2.11.0",
        members,
        programs=("torch-2.11.0.data/scripts/torch-script",),
    )


def tiny_toolchain(folder: Path, *more: Package, **replaced: Package) -> Toolchain:
    """A toolchain for this machine and Python whose wheels lie in `folder`.

    replaced: nvcc or torch, instead of the ones above.
    """
    nvcc = replaced.get("nvcc") or nvcc_wheel(folder)
    torch = replaced.get("torch") or torch_wheel(folder)
    return Toolchain(
        name="tiny",
        platform=f"{platform.system()}-{platform.machine()}".lower(),
        cuda="13.0",
        nvcc="13.0.88",
        archs=(Arch(80),),
        gcc=(1, 99),
        packages=(nvcc, *more),
        builds=(TorchBuild("2.11.0", PYTHON, (torch,)),),
        digest="0" * 64,
        default_torch="2.11.0",
    )
