"""What runs in the container with an older nvcc: fatwheel's own code, and one plain nvcc call.

Each of selftest's units below is compiled as slices, each by an nvcc process of its own, and
stitched; and once more by one nvcc call for all architectures. Both objects and their cubins,
which cuobjdump of the same toolkit extracts, are left in a folder for the test. Besides the units
there are two objects of one plain call each, without the anchor of the module id. And some units of
selftest are made and linked: that can be done anywhere, with any number of workers.

Standard library only: it runs on the container's own Python.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

from fatwheel.arch import Arch
from fatwheel.compilers.hosts import Family
from fatwheel.model import Front, Job, Unit
from fatwheel.worker import preprocess, slices
from fatwheel.worker.assemble import object_of
from fatwheel.worker.context import Context
from fatwheel.worker.slices import further_stages
from fatwheel.worker.view import Places

from .monolithic import compile_monolithic, cubins

CODE, SOURCES, OUT = "/fatwheel/code", "/fatwheel/sources", "/fatwheel/out"
ARCHS = ("sm_80", "sm_89")
UNITS = ("templates", "statics", "cub", "lineinfo")
# Those whose names nvcc makes of the module id, and what is told of lines. Not cub, which takes as
# long as the others together.
LINKED = ("templates", "statics", "anonymous", "lineinfo")
LIBRARY = "library.so"
STAGED = ("templates", "lineinfo")  # compiled once more, as one call and in stages
UNANCHORED = ("unanchored-1", "unanchored-2")  # folders of two objects of the first unit
_NVCC = "/usr/lib/nvidia-cuda-toolkit"
_WORKERS = 2


def unit_of(name: str) -> Unit:
    """A unit as setup.py of selftest has it compiled, less torch's headers."""
    lines = ("-lineinfo",) if name == "lineinfo" else ()
    return Unit(
        name=f"csrc/{name}",
        kind="cuda",
        source=f"@src@/csrc/{name}.cu",
        codegen=("-O3", "-std=c++17", "-Xcompiler", "-fPIC", *lines),
        preprocessor=("-I", "@src@/csrc", "-D", "SELFTEST_FACTOR=2.0f"),
    )


def fronts() -> tuple[Front, ...]:
    """A front for each architecture."""
    numbers = (int(name.removeprefix("sm_")) for name in ARCHS)
    archs = [Arch(number) for number in numbers]
    return tuple(Front(arch, (arch.sm,)) for arch in archs)


def context(out: str = OUT) -> Context:
    """The context of an nvcc without -frandom-seed: nothing but the anchor fixes the module id.

    out: where the store is, and where jobs work.
    """
    return Context(
        nvcc="@cuda@/bin/nvcc",
        cxx="/usr/bin/g++-13",
        device_id="nvcc 12.4",
        host_id="g++ 13",
        seeded=False,
        fronts=fronts(),
        places=Places(SOURCES, (("cuda", _NVCC),), ""),
        environment=(("PATH", "/usr/bin:/bin"), ("LC_ALL", "C.UTF-8"), ("SOURCE_DATE_EPOCH", "0")),
        scratch=f"{out}/scratch",
        store_root=f"{out}/store",
        store_limit=1 << 30,
    )


def main() -> None:
    """Compile everything, a few units at a time; a failure of any of them is the script's."""
    Path(OUT, "scratch").mkdir()
    tasks: list[Callable[[], None]] = [
        step for name in UNITS for step in (partial(_sliced, name), partial(_monolithic, name))
    ]
    with ThreadPoolExecutor(_WORKERS) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()
    for name in STAGED:
        _in_stages(name)
    with patch.object(preprocess, "unit_header", _unanchored_header):
        for folder in UNANCHORED:
            _compile_plainly(unit_of(UNITS[0]), folder)


def library(out: str, workers: int) -> None:
    """Make LINKED in the folder `out`, and a library of it."""
    where = context(out)
    Path(where.scratch).mkdir(exist_ok=True)
    with ThreadPoolExecutor(workers) as pool:
        made = pool.map(
            lambda name: object_of(where, where.store(), unit_of(name), fronts()), LINKED
        )
        for name, data in zip(LINKED, made, strict=True):
            Path(out, f"{name}.o").write_bytes(data)
    command = [where.cxx, "-shared", "-o", LIBRARY, *(f"{name}.o" for name in LINKED)]
    subprocess.run(command, cwd=out, check=True)


def _sliced(name: str) -> None:
    where = context()
    (obj := Path(OUT, f"{name}.sliced.o")).write_bytes(
        object_of(where, where.store(), unit_of(name), fronts())
    )
    _extract(obj)


def _monolithic(name: str) -> None:
    _extract(_compile_plainly(unit_of(name), f"{name}.monolithic"))


def _in_stages(name: str) -> None:
    """A front for all architectures, its images and the host object: as one call and in stages."""
    shared = Front(Arch(int(ARCHS[0].removeprefix("sm_"))), ARCHS)
    whole = Job(unit_of(name), shared, True, 0, 0)
    front = replace(whole, front=Front(shared.virtual, ()), host=False, stage="front")
    for way, jobs in (
        ("whole", [whole]),
        ("stages", [front, *further_stages(whole, ARCHS, host=True)]),
    ):
        store = str(Path(OUT, f"{name}.{way}.store"))
        where = replace(context(), fronts=(shared,), store_root=store)
        with patch.object(slices, "run_measured", wraps=slices.run_measured) as calls:
            for job in jobs:
                slices.run_job(where, where.store(), preprocess.Texts(where, where.store()), job)
        assert calls.call_count == 1, f"{way}: nvcc ran {calls.call_count} times"
        made = object_of(where, where.store(), whole.unit, where.fronts)
        Path(OUT, f"{name}.{way}.o").write_bytes(made)


def _compile_plainly(unit: Unit, folder: str) -> Path:
    made = compile_monolithic(context(), unit, fronts(), Path(OUT, folder))
    return Path(shutil.copy(made, Path(OUT, f"{folder}.o")))


def _extract(obj: Path) -> None:
    folder = obj.with_suffix(".cubins")
    for arch, cubin in cubins(Path("/usr/bin/cuobjdump"), obj, folder).items():
        (folder / arch).write_bytes(cubin)


_anchored_header = preprocess.unit_header


def _unanchored_header(unit: Unit, numbers: tuple[int, ...], family: Family) -> str:
    """The list of architectures alone."""
    lines = _anchored_header(unit, numbers, family).splitlines(keepends=True)
    kept = [line for line in lines if line.startswith("#")]
    assert len(kept) == len(lines) - 1, "the anchor is no longer one line of the header"
    return "".join(kept)
