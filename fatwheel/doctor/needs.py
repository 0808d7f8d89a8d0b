"""What a toolchain needs: files to download, disk space for environments and images.

Sizes are bytes. Those of images are estimates on the safe side: what an installer makes is
known only once it ran.
"""

from __future__ import annotations

from ..config.model import Download, Package, Toolchain

UNPACKED = 1.9  # bytes on disk per byte of an archive (measured on wheels: 1.7)
# In an image the archives lie in one layer and what was installed from them in the next (measured:
# 2.8 bytes per byte in both); and the engine takes a copy of the whole context first.
IN_IMAGE = 2 + UNPACKED

GB = 10**9
_BASES = {"linux": GB, "windows": 6 * GB}
_MSVC = 9 * GB  # Build Tools with one toolset and one Windows SDK
WORK = 10 * GB  # sources, objects and the wheel of one build


def files_for(toolchain: Toolchain, python: str) -> tuple[Package | Download, ...]:
    """All files that it takes to build for one Python and its torch in containers, once each."""
    return toolchain.only(python, toolchain.usual_torch(python)).files


def packages_for(toolchain: Toolchain, python: str) -> tuple[Package | Download, ...]:
    """Those of an environment on this machine, which needs no pip of its own."""
    files = files_for(toolchain, python)
    return tuple(file for file in files if getattr(file, "role", "") != "installer")


def size_of(files: tuple[Package | Download, ...]) -> int:
    return sum(file.size for file in files)


def image_size(toolchain: Toolchain, python: str) -> int:
    """Disk that the images for one Python take at most, while they are being built."""
    files = size_of(files_for(toolchain, python))
    return base_size(toolchain) + int(files * IN_IMAGE)


def base_size(toolchain: Toolchain) -> int:
    """What of that is no pinned file: the system, and what MSVC's installer fetches itself."""
    os = toolchain.containers.os if toolchain.containers else "linux"
    return _BASES[os] + (_MSVC if toolchain.msvc else 0)


def container_size(toolchain: Toolchain, python: str) -> int:
    """What one container must be able to hold: all of the image, and its own work."""
    return image_size(toolchain, python) + WORK
