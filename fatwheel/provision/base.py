"""Whether a base image has what a toolchain builds on."""

from __future__ import annotations

import platform
import sysconfig
from pathlib import Path

from ..errors import ToolchainError
from .hostcompiler import find_host_compiler


def check_base(python: str, cuda: str, gcc: tuple[int, int]) -> None:
    """Check the Python that runs this (`3.11`), its header files, and the g++ on PATH.

    Raises ToolchainError that says what the base image lacks.
    """
    found = ".".join(platform.python_version_tuple()[:2])
    if found != python:
        raise ToolchainError(f"the base image's python{python} is Python {found}")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise ToolchainError(
            f"the base image has Python {python} without its header files",
            where=str(header),
            hint=f"make a base image with them: package python{python}-dev, or python3-dev, of "
            "Debian and Ubuntu",
        )
    find_host_compiler(cuda, gcc)
