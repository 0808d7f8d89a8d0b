"""Environments to be checked: folders of packages, and what their Python would say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fatwheel.check.environment import CheckedPython, FoundDriver, FoundGpu, Windows

from .tinywheels import record_hash

LINUX = CheckedPython(
    executable=Path("/nowhere/venv/bin/python"),
    base=Path("/nowhere/bin/python3.11"),
    version=(3, 11, 7),
    implementation="cpython",
    free_threaded=False,
    debug=False,
    soabi="cpython-311-x86_64-linux-gnu",
    system="Linux",
    machine="x86_64",
    bits=64,
    platform="linux-x86_64",
    libc=("glibc", "2.36"),
    prefix=Path("/nowhere/venv"),
    base_prefix=Path("/nowhere"),
    path=(),
    libraries=(),
    pip=True,
    windows=None,
    driver=FoundDriver(trouble="libcuda.so.1: cannot open shared object file"),
)
WINDOWS = replace(
    LINUX,
    executable=Path(r"C:\venv\Scripts\python.exe"),
    soabi="cp311-win_amd64",
    system="Windows",
    platform="win-amd64",
    libc=("", ""),
    windows=Windows(Path("/nowhere/System32"), 0, True),
)


def target(*path: Path, **changes: Any) -> CheckedPython:
    """A Linux with these folders on Python's path."""
    return replace(LINUX, path=path, **changes)


def driver(
    capability: str = "8.9", *, version: str = "", cuda: tuple[int, int] | None = None
) -> FoundDriver:
    return FoundDriver(version, cuda, (FoundGpu("NVIDIA L4", capability),))


def install(
    site: Path,
    name: str,
    version: str,
    files: Mapping[str, bytes] | None = None,
    *,
    metadata: str = "",
    tag: str = "py3-none-any",
    listed: tuple[str, ...] = (),
) -> Path:
    """An installed package, as installers leave it; its dist-info folder. listed: files of RECORD
    that are not there."""
    info = f"{name}-{version}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    contents = {
        **(files or {}),
        f"{info}/METADATA": f"{head}{metadata}".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
    }
    rows = [f"{path},{record_hash(data)},{len(data)}" for path, data in contents.items()]
    rows += [f"{path},," for path in (*listed, f"{info}/RECORD")]
    contents[f"{info}/RECORD"] = "".join(f"{row}\n" for row in rows).encode()
    for path, data in contents.items():
        place = site / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return site / info


def install_torch(site: Path, version: str = "2.11.0+cu130", cuda: str | None = "13.0") -> None:
    """A torch without libraries."""
    said = f"__version__ = {version!r}\ncuda: Optional[str] = {cuda!r}\n".encode()
    files = {"torch/__init__.py": b"", "torch/version.py": said}
    install(site, "torch", version.partition("+")[0], files)
