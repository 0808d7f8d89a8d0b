"""Whether installed tools run and are those that were pinned."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ..errors import ToolchainError

_NVCC_VERSION = re.compile(r"\bV(\d+(?:\.\d+)+)\b")
# More than `import torch` needs: what builds import is then compiled once, in the image.
_IMPORTS = "import setuptools, torch, torch.utils.cpp_extension; print(torch.__version__)"
_IMPORT = "import torch; print(torch.__version__)"
_LAST = 10  # lines of a failing tool's output that are shown


def check_nvcc(cuda_home: Path, wanted: str) -> None:
    """Raise ToolchainError unless the nvcc of a CUDA home is of this version (`13.0.88`)."""
    found = _NVCC_VERSION.search(run([str(cuda_home / "bin" / "nvcc"), "--version"]))
    same("nvcc", wanted, found[1] if found else "of no version")


def check_torch(python: Path, wanted: str, *, warm: bool = False) -> None:
    """Raise ToolchainError unless `import torch` gives this version, whatever its local part.

    warm: also import what builds import, so that Python keeps the compiled modules.
    """
    found = run([str(python), "-I", "-c", _IMPORTS if warm else _IMPORT])
    same("torch", wanted, found.strip().partition("+")[0])


def same(name: str, wanted: str, found: str) -> None:
    """Raise ToolchainError where an installed tool is not the one that was wanted."""
    if wanted != found:
        raise ToolchainError(
            f"the installed {name} is {found}, and the toolchain says {wanted}",
            hint="the pins in the toolchain's file contradict each other",
        )


def run(command: Sequence[str] | str) -> str:
    """What a command prints. Raises ToolchainError with its last lines where it fails.

    A text instead of arguments is a whole command line, for Windows.
    """
    name = command.split()[0] if isinstance(command, str) else command[0]
    # LD_LIBRARY_PATH could put another CUDA's libraries in the place of these.
    own = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    try:
        answer = subprocess.run(command, capture_output=True, text=True, errors="replace", env=own)
    except OSError as error:
        raise ToolchainError(f"cannot run {name}: {error.strerror}") from error
    if answer.returncode:
        raise ToolchainError(
            f"{Path(name).name} fails",
            where=command if isinstance(command, str) else " ".join(command),
            details=(answer.stderr or answer.stdout).strip().splitlines()[-_LAST:],
        )
    return answer.stdout
