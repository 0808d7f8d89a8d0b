"""Wheels unpacked once for all environments: <cache>/packages/<sha256>/, see `unpack`.

Everything here may be deleted at any time; it is made again when it is needed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .. import files
from ..cache import VARIABLE
from ..errors import StoreError
from ..events import Emit
from ..model import Package
from .fetch import fetch, place
from .turns import one_at_a_time
from .unpack import is_unpacked, unpack_all

_UNPACKED = 1.9  # bytes on disk per byte of wheel, with some to spare (measured: 1.7)


def folder_of(package: Package, cache: Path) -> Path:
    """Where a package lies once it is unpacked."""
    return cache / "packages" / package.sha256


def ensure_unpacked(packages: Sequence[Package], cache: Path, emit: Emit) -> None:
    """Fetch and unpack what is not there yet. Processes that want the same wait for each other.

    Raises StoreError (no space), ToolchainError (no sound wheel), and what `fetch` raises.
    """
    if missing(packages, cache):
        with alone(cache, emit):
            unpack_missing(packages, cache, emit)


def missing(packages: Sequence[Package], cache: Path) -> list[Package]:
    """Those that are not unpacked, or no longer whole."""
    return [package for package in packages if not is_unpacked(folder_of(package, cache))]


@contextmanager
def alone(cache: Path, emit: Emit) -> Iterator[None]:
    """Hold the lock on environments and packages; say so when that takes waiting.

    What killed runs left half-made is gone then. What goes wrong with the disk inside of the block
    ends in StoreError.
    """
    folder = cache / "envs"
    try:
        folder.mkdir(exist_ok=True)
        with one_at_a_time(folder, "making a toolchain's environment", emit):
            _sweep(cache)
            yield
    except OSError as error:
        raise files.disk_error(
            error, "make the toolchain's environment", cache, f"{VARIABLE}=FOLDER"
        ) from error


def unpack_missing(
    packages: Sequence[Package], cache: Path, emit: Emit, toolchain: str = ""
) -> None:
    """Bring all packages into <cache>/packages; only while being `alone`.

    toolchain: the one that they belong to, for what an error says.
    """
    (cache / "packages").mkdir(exist_ok=True)
    absent = missing(packages, cache)
    _check_space(absent, cache)
    for package in absent:
        shutil.rmtree(folder_of(package, cache), ignore_errors=True)
    downloads = cache / "downloads"
    fetch(absent, downloads, emit, toolchain=toolchain)
    unpack_all({place(package, downloads): folder_of(package, cache) for package in absent}, emit)


def _sweep(cache: Path) -> None:
    """Delete what killed runs left half-made. Only under the lock: else it may be in use."""
    for folder in ("envs", "packages"):
        for part in (cache / folder).glob(".*.part"):
            shutil.rmtree(part)


def _check_space(absent: Sequence[Package], cache: Path) -> None:
    needed = int(sum(package.size for package in absent) * _UNPACKED)
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise StoreError(
            f"the toolchain needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free",
            where=str(cache),
            hint=f"free some space, or name a folder on another disk: {VARIABLE}=FOLDER",
        )
