"""Tests a wheel on the GPU: how the driver loads each container, and whether results are right."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import text
from ..arch import coverage, parse_capability
from ..doctor.facts import GpuFacts
from ..errors import ToolchainError
from ..fatbin.binary import HEAD, is_binary, read_binary
from ..fatbin.container import container_pieces
from ..fatbin.images import shorten
from ..verify.contents import Archs, Contents
from ..verify.evidence import Evidence, Finding, note, warning, wrong
from ..wheels.archive import open_wheel
from . import driver_script
from .children import Ended, Trial, results_of
from .environment import Clean, run_python, try_modules

MODES = ("EAGER", "LAZY")  # of CUDA_MODULE_LOADING
_LIMIT = 1800.0  # seconds; PTX of a large project takes its time
# CUDA's environment variables: without PTX, only native code loads.
_NO_JIT = {"CUDA_DISABLE_PTX_JIT": "1"}
_MODE = "CUDA_MODULE_LOADING"


@dataclass(frozen=True)
class ContainerPlace:
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
class DriverGpu:
    """The GPU that the driver runs things on; cuda is the newest that the driver knows: `13.0`."""

    name: str
    capability: str
    cuda: str


@dataclass(frozen=True)
class LoadedContainer:
    """What became of one container: 'native', 'jit' or 'none'.

    code: the driver's error where it is none. versions: kernels by the versions of their machine
    code and of its PTX. missing: kernels that the driver does not find in it.
    """

    place: ContainerPlace
    how: str
    code: int
    versions: Mapping[str, int]
    missing: tuple[str, ...]

    def expected_on(self, gpu: DriverGpu) -> str:
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
class LoadedWheel:
    """All containers of a wheel on one GPU."""

    gpu: DriverGpu
    units: tuple[LoadedContainer, ...]
    times: tuple[Time, ...]


def take_out(wheel: Path, evidence: Evidence, folder: Path) -> tuple[ContainerPlace, ...]:
    """Write the containers with kernels of each binary into a file in `folder`.

    Raises FormatError, OSError.
    """
    with_kernels = {
        binary.contents.path: binary.contents
        for binary in evidence.binaries
        if any(unit.container is not None for unit in binary.contents.units)
    }
    places: list[ContainerPlace] = []
    with open_wheel(wheel) as opened:
        for member in opened.members:
            contents = with_kernels.get(member.name)
            if contents is None or not is_binary(opened.start(member.name, HEAD)):
                continue
            file = folder / f"{len(places)}.fatbin"
            with opened.mapped(member.name) as data:
                places += _write(data, contents, file)
    return tuple(places)


def _write(data: memoryview, contents: Contents, file: Path) -> Iterator[ContainerPlace]:
    containers = read_binary(data).containers
    with file.open("wb") as stream:
        for unit in contents.units:
            if unit.container is None:
                continue
            offset = stream.tell()
            for piece in container_pieces(containers[unit.container].entries):
                stream.write(piece)
            size = stream.tell() - offset
            yield ContainerPlace(
                binary=contents.path,
                container=unit.container,
                file=file,
                offset=offset,
                size=size,
                kernels=unit.kernels,
                archs=unit.archs,
                linked=bool(unit.relocatable),
            )


def load_all(clean: Clean, places: Sequence[ContainerPlace]) -> LoadedWheel:
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
    return LoadedWheel(gpu, units, times)


def ask_driver(
    clean: Clean, places: Sequence[ContainerPlace], variables: Mapping[str, str]
) -> tuple[DriverGpu, list[dict[str, Any]]]:
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


def _gpu(said: Mapping[str, Any]) -> DriverGpu:
    cuda = int(said["cuda"])
    return DriverGpu(
        str(said["gpu"]), f"{said['major']}.{said['minor']}", f"{cuda // 1000}.{cuda % 1000 // 10}"
    )


def _became(
    place: ContainerPlace, without: Mapping[str, Any], all_of: Mapping[str, Any]
) -> LoadedContainer:
    if without["code"] == 0:
        how, best = "native", without
    else:
        how, best = ("jit" if all_of["code"] == 0 else "none"), all_of
    return LoadedContainer(
        place, how, best["code"], best.get("versions", {}), tuple(best.get("missing", ()))
    )


def _unusable(ended: Ended, failed: Mapping[str, Any] | None) -> ToolchainError:
    what = f"{failed['failed']}, error {failed['code']}" if failed else ended.how
    return ToolchainError(
        f"NVIDIA's driver cannot be used: {what}",
        details=ended.last,
        hint="`invoke doctor` shows what is known about the driver and the GPU",
    )


# -- GPUs ------------------------------------------------------------------------------------------

# Whether this machine's GPU runs a wheel: what its driver loads, what the recipe's check says.


NO_GPU = 77  # how a recipe's script ends where it finds none
_CHECK_LIMIT = 3600.0  # seconds for a recipe's script
_CASE = re.compile(r"(?P<name>\S.*?)\s+(?:right|WRONG: (?P<why>.*))")
_WORDS = {"native": "natively", "jit": "by JIT", "none": "not at all"}
# CUDA driver API, CUresult.
_ERRORS = {
    -1: "it ended the process",
    2: "out of memory",
    200: "the image is invalid",
    209: "no kernel image for this GPU",
    218: "its PTX cannot be compiled",
    221: "no JIT compiler available",
    222: "its PTX is newer than the driver",
}


@dataclass(frozen=True)
class Case:
    """One line of a recipe's script; why is '' where it is right."""

    name: str
    why: str


@dataclass(frozen=True)
class Checked:
    """The result of a recipe's script: its file, how it ended, its cases."""

    script: Path
    ended: Ended
    cases: tuple[Case, ...]


def check_machine(facts: GpuFacts) -> None:
    """Raise ToolchainError where this machine has no GPU that can be used."""
    hint = "without --gpu, everything that needs no GPU is checked; --import tries the import"
    if facts.trouble:
        raise ToolchainError(f"NVIDIA's driver does not answer: {facts.trouble}", hint=hint)
    if not facts.driver:
        there = "" if not facts.cards else ", although there is a GPU"
        raise ToolchainError(f"there is no NVIDIA driver here{there}", hint=hint)
    if not facts.gpus:
        raise ToolchainError(f"driver {facts.driver} finds no GPU", hint=hint)


def try_modes(clean: Clean, modules: Sequence[str]) -> dict[str, Trial]:
    """Import and first use of the GPU in each mode of loading."""
    return {mode: try_modules(clean, modules, gpu="gpu", mode=mode) for mode in MODES}


def run_script(clean: Clean, script: Path) -> Checked:
    """Run a recipe's script; its protocol is in docs/recipes.md."""
    ended = run_python(clean, [str(script)], {}, _CHECK_LIMIT)
    matches = (_CASE.fullmatch(line.strip()) for line in ended.said)
    cases = tuple(Case(match["name"], match["why"] or "") for match in matches if match)
    return Checked(script, ended, cases)


def gpu_findings(driver: str, loading: LoadedWheel, trials: dict[str, Trial]) -> Iterator[Finding]:
    """The GPU, each binary's units on it, and what it took."""
    gpu = loading.gpu
    yield note(f"on {gpu.name} ({gpu.capability}), driver {driver} for CUDA {gpu.cuda}")
    if not loading.units:
        yield warning("it has no device code to load")
    for binary in dict.fromkeys(one.place.binary for one in loading.units):
        units = [one for one in loading.units if one.place.binary == binary]
        yield from _binary_findings(binary, units, gpu)
    for time in loading.times:
        both = f"{time.containers * 1000:.0f} ms, their kernels in {time.kernels * 1000:.0f} ms"
        yield note(f"{time.mode}: the driver loads all units in {both}")
    for mode, trial in trials.items():
        yield from _trial_findings(mode, trial)


def _binary_findings(
    binary: str, units: Sequence[LoadedContainer], gpu: DriverGpu
) -> Iterator[Finding]:
    count = Counter(one.how for one in units)
    ways = ", ".join(f"{count[how]} {words}" for how, words in _WORDS.items() if count[how])
    yield note(f"its units load: {ways}", binary)
    lost = [one for one in units if one.how == "none" and not one.place.linked]
    if lost:
        what = f"{len(lost)} of its {len(units)} units do not load on this GPU ({gpu.capability})"
        yield wrong(what, binary, shorten(map(_lost, lost)))
    relinked = [one for one in units if one.how == "none" and one.place.linked]
    if relinked:
        units_here = text.count(len(relinked), "unit")
        yield note(f"{units_here} of linked code would be linked again", binary)
    other = [one for one in units if one.how != "none" and one.how != one.expected_on(gpu)]
    if other:
        what = "the driver loads images differently than expected"
        yield warning(what, binary, shorten(_unexpected(one, gpu) for one in other))
    unfound = [one for one in units if one.missing]
    if unfound:
        what = f"the driver does not find some kernels, in {len(unfound)} of {len(units)} units"
        yield warning(what, binary, shorten(_missing(one) for one in unfound))


def _lost(one: LoadedContainer) -> str:
    reason = _ERRORS.get(one.code, f"error {one.code}")
    return f"container {one.place.container}, with {one.place.kernels[0]}: {reason}"


def _unexpected(one: LoadedContainer, gpu: DriverGpu) -> str:
    expected = one.expected_on(gpu)
    place = f"container {one.place.container}"
    return f"{place}: expected {_WORDS[expected]}, loaded {_WORDS[one.how]}"


def _missing(one: LoadedContainer) -> str:
    return f"container {one.place.container}: {one.missing[0]}"


def _trial_findings(mode: str, trial: Trial) -> Iterator[Finding]:
    if trial.first_use is not None:
        took = sum(trial.seconds.values())
        yield note(
            f"{mode}: import {took:.1f} s, then first use of the GPU {trial.first_use:.1f} s"
        )
    else:
        yield wrong(f"{mode}: {_stopped(trial)}", details=trial.ended.last)


def _stopped(trial: Trial) -> str:
    if trial.failed:
        return f"import {next(iter(trial.failed))} fails"
    return f"{trial.unfinished or 'Python'}: {trial.ended.how}"


def script_findings(checked: Checked) -> Iterator[Finding]:
    """What the recipe's script found."""
    ended, cases = checked.ended, checked.cases
    name = f"{checked.script.parent.name}/{checked.script.name}"
    bad = [case for case in cases if case.why]
    if ended.code == NO_GPU:
        yield wrong(f"{name}: torch sees no GPU", details=ended.last)
    elif bad:
        lines = [f"{case.name}: {case.why}" for case in bad]
        yield wrong(f"{name}: {len(bad)} of {len(cases)} cases are wrong", details=lines)
    elif ended.code != 0:
        yield wrong(f"{name}: {ended.how}", details=ended.last)
    elif not cases:
        yield wrong(f"{name} checked nothing", details=ended.last)
    else:
        yield note(f"{name}: all {len(cases)} cases are right, in {ended.seconds:.0f} s")


def figures_of(driver: str, loading: LoadedWheel, trials: dict[str, Trial]) -> dict[str, Any]:
    """For the report: the GPU, units per binary, seconds per mode."""
    gpu = loading.gpu
    return {
        "name": gpu.name,
        "capability": gpu.capability,
        "driver": driver,
        "cuda": gpu.cuda,
        "binaries": [
            _binary_figures(binary, [one for one in loading.units if one.place.binary == binary])
            for binary in dict.fromkeys(one.place.binary for one in loading.units)
        ],
        "modes": [
            {
                "mode": time.mode,
                "containers": time.containers,
                "kernels": time.kernels,
                "import": sum(trials[time.mode].seconds.values()),
                "first_use": trials[time.mode].first_use,
            }
            for time in loading.times
        ],
    }


def _binary_figures(binary: str, units: Sequence[LoadedContainer]) -> dict[str, Any]:
    count = Counter(one.how for one in units)
    versions: Counter[str] = Counter()
    for one in units:
        versions.update(one.versions)
    return {
        "path": binary,
        "units": len(units),
        **{how: count[how] for how in _WORDS},
        "kernels": [
            {"code": f"sm_{code}", "ptx": f"compute_{ptx}", "count": versions[key]}
            for key in sorted(versions)
            for code, _, ptx in [key.partition("/")]
        ],
    }


def script_figures(checked: Checked) -> dict[str, Any]:
    """For the report: the script's end and its cases."""
    return {
        "script": f"{checked.script.parent.name}/{checked.script.name}",
        "exit_code": checked.ended.code,
        "seconds": checked.ended.seconds,
        "cases": [asdict(case) for case in checked.cases],
    }
