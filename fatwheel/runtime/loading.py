"""What the driver makes of each container of a wheel: native code, code by JIT, or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..arch import coverage, parse_capability
from ..errors import ToolchainError
from ..fatbin.binary import HEAD, is_binary, read_binary
from ..fatbin.container import container_pieces
from ..verify.contents import Archs, Contents
from ..verify.evidence import Evidence
from ..wheels.archive import open_wheel
from . import driver as driver_script
from .children import Ended, results_of, run_python
from .clean import Clean

MODES = ("EAGER", "LAZY")  # of CUDA_MODULE_LOADING
_LIMIT = 1800.0  # seconds; PTX of a large project takes its time
# CUDA's environment variables: without PTX, only native code loads.
_NO_JIT = {"CUDA_DISABLE_PTX_JIT": "1"}
_MODE = "CUDA_MODULE_LOADING"


@dataclass(frozen=True)
class Place:
    """A container in a file of its own binary's containers: bytes from `offset` on.

    linked: whether it was linked from relocatable code, from which programs let the driver link
    it anew where it has nothing for a GPU.
    """

    binary: str
    container: int
    file: Path
    offset: int
    size: int
    kernels: tuple[str, ...]
    archs: Archs
    linked: bool


@dataclass(frozen=True)
class Gpu:
    """The GPU that the driver runs things on; cuda is the newest that the driver knows: `13.0`."""

    name: str
    capability: str
    cuda: str


@dataclass(frozen=True)
class Loaded:
    """What became of one container: 'native', 'jit' or 'none'.

    code: the driver's error where it is none. versions: kernels by the versions of their machine
    code and of its PTX. missing: kernels that the driver does not find in it.
    """

    place: Place
    how: str
    code: int
    versions: Mapping[str, int]
    missing: tuple[str, ...]

    def expected_on(self, gpu: Gpu) -> str:
        """What should become of it by NVIDIA's rules."""
        archs = self.place.archs
        return coverage(archs.cubins, archs.ptx, parse_capability(gpu.capability))


@dataclass(frozen=True)
class Time:
    """Seconds that loading all containers took in one mode, and all their kernels."""

    mode: str
    containers: float
    kernels: float


@dataclass(frozen=True)
class Loading:
    """All containers of a wheel on one GPU."""

    gpu: Gpu
    units: tuple[Loaded, ...]
    times: tuple[Time, ...]


def take_out(wheel: Path, evidence: Evidence, folder: Path) -> tuple[Place, ...]:
    """Write the containers with kernels of each binary into a file in `folder`.

    Raises FormatError, OSError.
    """
    with_kernels = {
        binary.contents.path: binary.contents
        for binary in evidence.binaries
        if any(unit.container is not None for unit in binary.contents.units)
    }
    places: list[Place] = []
    with open_wheel(wheel) as opened:
        for member in opened.members:
            contents = with_kernels.get(member.name)
            if contents is None or not is_binary(opened.start(member.name, HEAD)):
                continue
            file = folder / f"{len(places)}.fatbin"
            with opened.mapped(member.name) as data:
                places += _write(data, contents, file)
    return tuple(places)


def _write(data: memoryview, contents: Contents, file: Path) -> Iterator[Place]:
    containers = read_binary(data).containers
    with file.open("wb") as stream:
        for unit in contents.units:
            if unit.container is None:
                continue
            offset = stream.tell()
            for piece in container_pieces(containers[unit.container].entries):
                stream.write(piece)
            size = stream.tell() - offset
            yield Place(
                binary=contents.path,
                container=unit.container,
                file=file,
                offset=offset,
                size=size,
                kernels=unit.kernels,
                archs=unit.archs,
                linked=bool(unit.relocatable),
            )


def load_all(clean: Clean, places: Sequence[Place]) -> Loading:
    """Have the driver load every container: without JIT first, then in each mode.

    ToolchainError where the driver cannot be used at all.
    """
    gpu, native = ask_driver(clean, places, {_MODE: "EAGER", **_NO_JIT})
    runs = [ask_driver(clean, places, {_MODE: mode})[1] for mode in MODES]
    units = tuple(
        _became(place, without, all_of)
        for place, without, all_of in zip(places, native, runs[0], strict=True)
    )
    times = tuple(
        Time(mode, sum(one["load"] for one in run), sum(one["kernels"] for one in run))
        for mode, run in zip(MODES, runs, strict=True)
    )
    return Loading(gpu, units, times)


def ask_driver(
    clean: Clean, places: Sequence[Place], variables: Mapping[str, str]
) -> tuple[Gpu, list[dict[str, Any]]]:
    """The GPU, and what the driver says to each container, in a process of its own.

    A container that ends the process gets the code -1, as do those behind it.
    """
    job, results = clean.root / "units.json", clean.root / "loaded.json"
    units = [
        {"file": str(one.file), "offset": one.offset, "size": one.size, "kernels": one.kernels}
        for one in places
    ]
    job.write_text(json.dumps({"units": units}), encoding="utf-8")
    results.unlink(missing_ok=True)
    script = str(Path(driver_script.__file__).resolve())
    ended = run_python(clean, [script, str(job), str(results)], variables, _LIMIT)
    said = results_of(results)
    failed = next((one for one in said if "failed" in one), None)
    if failed or not said or "gpu" not in said[0]:
        raise _unusable(ended, failed)
    answers = [one for one in said if "unit" in one]
    lost = {"code": -1, "load": 0.0, "kernels": 0.0}
    answers += [lost] * (len(places) - len(answers))
    return _gpu(said[0]), answers


def _gpu(said: Mapping[str, Any]) -> Gpu:
    cuda = int(said["cuda"])
    return Gpu(
        str(said["gpu"]), f"{said['major']}.{said['minor']}", f"{cuda // 1000}.{cuda % 1000 // 10}"
    )


def _became(place: Place, without: Mapping[str, Any], all_of: Mapping[str, Any]) -> Loaded:
    if without["code"] == 0:
        how, best = "native", without
    else:
        how, best = ("jit" if all_of["code"] == 0 else "none"), all_of
    return Loaded(
        place, how, best["code"], best.get("versions", {}), tuple(best.get("missing", ()))
    )


def _unusable(ended: Ended, failed: Mapping[str, Any] | None) -> ToolchainError:
    what = f"{failed['failed']}, error {failed['code']}" if failed else ended.how
    return ToolchainError(
        f"NVIDIA's driver cannot be used: {what}",
        details=ended.last,
        hint="invoke doctor tells what is known of driver and GPU",
    )
