"""Run by the environment's Python: loads libraries as programs do and writes down the containers
that their wrappers lead to in memory, so after relocation.

Standard input is JSON: `modules` to import and `libraries` to load once, before all else, and
`jobs`. Each job has a process of its own, in which `import` (or nothing) is imported from `folder`.
Of each of its `files`, a path, the address and size of its wrappers' section (.nvFatBinSegment)
and a path to write to, all containers are written in the order of the wrappers.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import struct
import sys
import traceback
from pathlib import Path

WRAPPER = struct.Struct("<IIQQ")
CONTAINER = struct.Struct("<IHHQ")


def main() -> None:
    asked = json.load(sys.stdin)
    for name in asked["modules"]:
        importlib.import_module(name)
    for path in asked["libraries"]:
        ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
    for job in asked["jobs"]:
        child = os.fork()
        if not child:
            try:
                do(job)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"what is in {job['folder']} does not load")


def do(job: dict) -> None:
    if job["import"]:
        sys.path.insert(0, job["folder"])
        found = importlib.import_module(job["import"]).__file__
        if not Path(found).is_relative_to(job["folder"]):
            raise AssertionError(f"another {job['import']} was imported: {found}")
    for path, address, size, out in job["files"]:
        ctypes.CDLL(path, os.RTLD_NOW)
        Path(out).write_bytes(b"".join(containers(base_of(path) + address, size)))


def base_of(path: str) -> int:
    """Where a library is in memory; the first of its segments has address 0 in the file."""
    real = os.path.realpath(path)
    with open("/proc/self/maps") as maps:
        for line in maps:
            if line.rstrip("\n").endswith(f" {real}"):
                return int(line.partition("-")[0], 16)
    raise AssertionError(f"{path} is not loaded")


def containers(start: int, size: int):
    for magic, _, pointer, _ in WRAPPER.iter_unpack(ctypes.string_at(start, size)):
        if magic != 0x466243B1:
            raise AssertionError(f"no wrapper, but {magic:#x}")
        if not pointer:
            continue
        container, _, header, length = CONTAINER.unpack(ctypes.string_at(pointer, CONTAINER.size))
        if container != 0xBA55ED50:
            raise AssertionError(f"a wrapper leads to {container:#x}, where no container is")
        yield ctypes.string_at(pointer, header + length)


main()
