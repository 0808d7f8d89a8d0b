"""What one nvcc call for all architectures makes of a unit: the reference for stitched objects.

The call is the upstream build's own, with plain -gencode flags for every architecture, in the
same folder layout and with the same pre-included header (without these nvcc's internal
names differ from run to run).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from fatwheel.model import Front, Job, Unit
from fatwheel.worker.context import Context
from fatwheel.worker.preprocess import lay_out
from fatwheel.worker.slices import commands_of


def compile_monolithic(
    context: Context, unit: Unit, fronts: tuple[Front, ...], folder: Path, threads: int = 1
) -> Path:
    """The object that one `nvcc -c` with all of `fronts` makes."""
    folder.mkdir(parents=True)
    lay_out(context, unit, folder)
    command = commands_of(context, Job(unit, fronts[0], True, 0, 0))
    place = command.index("-gencode")
    gencodes = [
        word
        for front in fronts
        for word in ("-gencode", f"arch={front.virtual.compute},code=[{','.join(front.codes)}]")
    ]
    command[place : place + 2] = gencodes
    command += ["--threads", str(threads), "--keep", "--keep-dir", "keep", "-o", "output"]
    done = subprocess.run(
        command, cwd=folder, env=dict(context.environment), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{unit.name}: nvcc failed:\n{done.stdout}{done.stderr}"
    return folder / "output"


def section(objcopy: str, obj: Path, name: str) -> bytes:
    """A section's bytes, read by binutils."""
    out = obj.with_name(f"{obj.name}{name}")
    subprocess.run(
        [objcopy, "-O", "binary", "--only-section", name, "--set-section-flags", f"{name}=alloc",
         str(obj), str(out)], check=True,
    )  # fmt: skip
    return out.read_bytes()


def cubins(cuobjdump: Path, obj: Path, folder: Path) -> dict[str, bytes]:
    """Every cubin of an object, extracted by NVIDIA's own tool: name → bytes."""
    folder.mkdir(parents=True)
    subprocess.run([str(cuobjdump), "-xelf", "all", str(obj)], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    # Names are `OBJECT.N.sm_80.cubin`: the architecture is what both objects share.
    return {path.name.split(".")[-2]: path.read_bytes() for path in folder.iterdir()}
