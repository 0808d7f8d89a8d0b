"""A stand-in for nvcc (see standin_nvcc.py), and the contexts and units to use it with."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fatwheel.arch import parse_arch
from fatwheel.build.context import Context
from fatwheel.build.view import Places
from fatwheel.model import Front, Job, Unit

NVCC = Path(__file__).with_name("standin_nvcc.py")


def write_nvcc(folder: Path) -> Path:
    """A CUDA_HOME below `folder` whose nvcc is the stand-in."""
    home = folder / "cuda"
    (home / "bin").mkdir(parents=True)
    nvcc = home / "bin" / "nvcc"
    words = [sys.executable, "-I", "-S", str(NVCC), str(home / "calls.jsonl")]
    nvcc.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    nvcc.chmod(0o755)
    return home


def calls(home: Path) -> list[list[str]]:
    """The arguments of each call of the stand-in, those with --dryrun left out."""
    log = home / "calls.jsonl"
    found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [arguments for arguments in found if "--dryrun" not in arguments]


def make_context(folder: Path, **changes: Any) -> Context:
    """A context whose sources are folder/src, whose nvcc is the stand-in, with an empty store."""
    cuda = folder / "cuda"
    if not cuda.exists():
        write_nvcc(folder)
    for name in ("src", "scratch", "site"):
        (folder / name).mkdir(exist_ok=True)
    facts: dict[str, Any] = {
        "nvcc": "@cuda@/bin/nvcc",
        "cxx": shutil.which("g++") or "g++",
        "device_id": "device",
        "host_id": "host",
        "seeded": True,
        "archlist": (800,),
        "places": Places(
            str(folder / "src"), (("site", str(folder / "site")), ("cuda", str(cuda))), "listing"
        ),
        "environment": (("PATH", "/usr/bin:/bin"), ("LC_ALL", "C.UTF-8")),
        "scratch": str(folder / "scratch"),
        "store_root": str(folder / "store"),
        "store_limit": 1 << 30,
    }
    return Context(**{**facts, **changes})


def cuda_unit(name: str = "a", *preprocessor: str, codegen: Sequence[str] = ()) -> Unit:
    return Unit(name, "cuda", f"@src@/{name}.cu", tuple(codegen), preprocessor)


def cpp_unit(name: str = "b", *preprocessor: str, codegen: Sequence[str] = ()) -> Unit:
    return Unit(name, "c++", f"@src@/{name}.cpp", tuple(codegen), preprocessor)


def front(virtual: str, *codes: str) -> Front:
    return Front(parse_arch(virtual), codes or (f"sm_{virtual}",))


def job(unit: Unit, front: Front | None, host: bool = False) -> Job:
    return Job(unit, front, host or front is None, memory=0, seconds=0)
