"""Whether this machine's GPU runs a wheel: what its driver loads, what the recipe's check says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import text
from ..doctor.facts import GpuFacts
from ..errors import ToolchainError
from ..fatbin.parity import shorten
from ..verify.findings import Finding, note, warning, wrong
from .children import Ended, run_python
from .clean import Clean
from .importing import Trial, try_modules
from .loading import MODES, Gpu, Loaded, Loading

NO_GPU = 77  # how a recipe's script ends where it finds none
_LIMIT = 3600.0  # seconds for a recipe's script
_CASE = re.compile(r"(?P<name>\S.*?)\s+(?:right|WRONG: (?P<why>.*))")
_WORDS = {"native": "natively", "jit": "by JIT", "none": "not at all"}
# CUDA driver API, CUresult.
_ERRORS = {
    -1: "it ended the process",
    2: "out of memory",
    200: "the image is invalid",
    209: "no kernel image for this GPU",
    218: "its PTX cannot be compiled",
    221: "there is no JIT compiler",
    222: "its PTX is newer than the driver",
}


@dataclass(frozen=True)
class Case:
    """One line of a recipe's script; why is '' where it is right."""

    name: str
    why: str


@dataclass(frozen=True)
class Checked:
    """What a recipe's script said: its file, how it ended, its cases."""

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
    ended = run_python(clean, [str(script)], {}, _LIMIT)
    matches = (_CASE.fullmatch(line.strip()) for line in ended.said)
    cases = tuple(Case(match["name"], match["why"] or "") for match in matches if match)
    return Checked(script, ended, cases)


def gpu_findings(driver: str, loading: Loading, trials: dict[str, Trial]) -> Iterator[Finding]:
    """The GPU, each binary's units on it, and what it took."""
    gpu = loading.gpu
    yield note(f"on {gpu.name} ({gpu.capability}), driver {driver} for CUDA {gpu.cuda}")
    if not loading.units:
        yield warning("there is no device code in it to load")
    for binary in dict.fromkeys(one.place.binary for one in loading.units):
        units = [one for one in loading.units if one.place.binary == binary]
        yield from _binary_findings(binary, units, gpu)
    for time in loading.times:
        both = f"{time.containers * 1000:.0f} ms, their kernels in {time.kernels * 1000:.0f} ms"
        yield note(f"{time.mode}: the driver loads all units in {both}")
    for mode, trial in trials.items():
        yield from _trial_findings(mode, trial)


def _binary_findings(binary: str, units: Sequence[Loaded], gpu: Gpu) -> Iterator[Finding]:
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
        yield note(f"{units_here} of linked code would be linked anew", binary)
    other = [one for one in units if one.how != "none" and one.how != one.expected_on(gpu)]
    if other:
        what = "the driver does not do what its images promise"
        yield warning(what, binary, shorten(_unexpected(one, gpu) for one in other))
    unfound = [one for one in units if one.missing]
    if unfound:
        what = f"kernels that the driver does not find, in {len(unfound)} of {len(units)} units"
        yield warning(what, binary, shorten(_missing(one) for one in unfound))


def _lost(one: Loaded) -> str:
    reason = _ERRORS.get(one.code, f"error {one.code}")
    return f"container {one.place.container}, with {one.place.kernels[0]}: {reason}"


def _unexpected(one: Loaded, gpu: Gpu) -> str:
    expected = one.expected_on(gpu)
    place = f"container {one.place.container}"
    return f"{place}: expected {_WORDS[expected]}, it loads {_WORDS[one.how]}"


def _missing(one: Loaded) -> str:
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


def figures_of(driver: str, loading: Loading, trials: dict[str, Trial]) -> dict[str, Any]:
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


def _binary_figures(binary: str, units: Sequence[Loaded]) -> dict[str, Any]:
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
