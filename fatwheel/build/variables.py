"""The variables that programs see, where Linux and Windows differ. Standard library only."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def bare_variables() -> dict[str, str]:
    """What every compiler sees: nothing of the user's but where programs are."""
    kept = {name: os.environ[name] for name in _SYSTEMS if name in os.environ}
    return {**kept, "PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}


if sys.platform == "win32":
    # Without them neither Python nor cmd, through which nvcc works, start.
    _SYSTEMS: tuple[str, ...] = (
        "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "PROCESSOR_ARCHITECTURE",
    )  # fmt: skip
    # link takes these options after all others. Objects of a capture are empty, and what they
    # should define is missing; a finished library must hold neither times nor, as it does where it
    # has a PDB, a path.
    _LINK = {"capture": "/FORCE:UNRESOLVED", "assemble": "/INCREMENTAL:NO /Brepro /DEBUG:NONE"}

    def upstreams_variables(mode: str, tools: Sequence[Path], compilers: Path) -> dict[str, str]:
        """What upstream's build sees of the system. Its variables are those of the container;
        it finds its compiler by PATH."""
        path = [*map(str, (compilers, *tools)), os.environ.get("PATH", "")]
        return {**os.environ, "PATH": os.pathsep.join(path), "_LINK_": _LINK[mode]}

    def real_compilers_variables() -> Mapping[str, str]:
        """What compilers must see otherwise than upstream's build: nvcc looks for cl in PATH."""
        return {"PATH": os.environ.get("PATH", "")}

else:
    _SYSTEMS: tuple[str, ...] = ()

    def upstreams_variables(mode: str, tools: Sequence[Path], compilers: Path) -> dict[str, str]:
        """What upstream's build sees of the system."""
        inherited = {"TMPDIR": os.environ["TMPDIR"]} if "TMPDIR" in os.environ else {}
        path = [*map(str, tools), os.environ.get("PATH", os.defpath)]
        return {
            **inherited,
            "PATH": os.pathsep.join(path),
            "CC": str(compilers / "gcc"),
            "CXX": str(compilers / "g++"),
        }

    def real_compilers_variables() -> Mapping[str, str]:
        """What compilers must see otherwise than upstream's build: nothing."""
        return {}
