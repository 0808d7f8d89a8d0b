"""A stand-in for nvcc (see standin_nvcc.py), and the contexts and units to use it with."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fatwheel.arch import parse_arch
from fatwheel.model import Front, Job, Unit
from fatwheel.worker.context import Context
from fatwheel.worker.view import Places

DATA = Path(__file__).parent.parent / "data" / "device"
NVCC = Path(__file__).with_name("standin_nvcc.py")


def write_nvcc(folder: Path) -> Path:
    """A CUDA_HOME below `folder` whose nvcc and tools are the stand-in."""
    home = folder / "cuda"
    (home / "bin").mkdir(parents=True)
    for name in ("nvcc", "ptxas", "fatbinary", "cudafe++"):
        program = home / "bin" / name
        words = [sys.executable, "-I", "-S", str(NVCC), str(home / "calls.jsonl"), name]
        program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        program.chmod(0o755)
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
        (folder / name).mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {
        "nvcc": "@cuda@/bin/nvcc",
        "cxx": shutil.which("g++") or "g++",
        "device_id": "device",
        "host_id": "host",
        "seeded": True,
        "fronts": (Front(parse_arch("80"), ("sm_80",)),),
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


def fronts_of_list(*numbers: int) -> tuple[Front, ...]:
    """Fronts by which __CUDA_ARCH_LIST__ is this: 800, 900."""
    return tuple(front(str(number // 10)) for number in numbers)


def job(unit: Unit, front: Front | None, host: bool = False) -> Job:
    return Job(unit, front, host or front is None, memory=0, seconds=0)


def alive(pid: int) -> bool:
    """Whether a process exists and is not only waiting to be reaped."""
    try:
        return _stat(pid)[1] != "Z"
    except FileNotFoundError:
        return False


def descendants(pid: int, until: str) -> list[int]:
    """All processes below one, as soon as one of them runs a program of this name."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = _below(pid)
        if any(name == until for name in found.values()):
            return list(found)
        time.sleep(0.02)
    raise AssertionError(f"{until} never ran below process {pid}: {found}")


def _below(pid: int) -> dict[int, str]:
    """Descendants by number, with the names of their programs."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name, _, parent = _stat(int(entry.name))
            parents[int(entry.name)] = (parent, name)
    found: dict[int, str] = {}
    for _ in range(8):
        for child, (parent, name) in parents.items():
            if parent == pid or parent in found:
                found[child] = name
    return found


def _stat(pid: int) -> tuple[str, str, int]:
    """Name, state and parent of a process (proc(5))."""
    head, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    state, parent = rest.split()[:2]
    return head.partition("(")[2], state, int(parent)
