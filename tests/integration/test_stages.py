"""nvcc calls in stages, with the real nvcc: the same bytes, and no front where one is kept."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.model import Front, Job, Unit
from fatwheel.pipeline.costs import apart
from fatwheel.worker.context import Context
from fatwheel.worker.preprocess import Texts, pass_of
from fatwheel.worker.slices import known_host_key, run_job, slice_key

from .conftest import ROOT, SAMPLE, Captured, Workbench, build_in_containers
from .engine import LentEngine
from .slim import Slim

pytestmark = pytest.mark.slow

CODES = ("sm_80", "sm_86", "sm_89", "compute_80")
# More options than the sample's units have: `-lineinfo` is among these.
OPTIONS = [("-maxrregcount", "32"), ("-Xptxas", "-O2,-v"), ("-G",)]


def _made(context: Context, jobs: tuple[Job, ...], unit: Unit, front: Front) -> dict[str, object]:
    """What jobs put into a store: digests of slices and of the host object, and what is kept."""
    store = context.store()
    texts = Texts(context, store)
    for job in jobs:
        run_job(context, store, texts, job)
    text = texts.recorded(unit, pass_of(front))
    assert text
    found: dict[str, object] = {}
    for code in CODES:
        key = slice_key(context, unit, front, code, text)
        found[code] = store.digest("slice", key)
        found[f"abi of {code}"] = store.get_json("abi", key)
    host = known_host_key(texts, context, store, unit, front)
    return {**found, "host": host and store.digest("host", host)}


def test_stages_make_the_bytes_of_one_call(
    bench: Workbench, capture: Callable[..., Captured], tmp_path: Path
) -> None:
    captured = capture(bench, SAMPLE, "80")
    front = Front(captured.fronts[0].virtual, CODES)
    units = [unit for unit in captured.ready.units if unit.kind == "cuda"]
    assert any("-lineinfo" in unit.codegen for unit in units)
    variants = [replace(units[0], codegen=(*units[0].codegen, *more)) for more in OPTIONS]
    # nvcc runs its steps by a shell, which makes a 7 of this.
    by_shell = [word.replace("FACTOR=2", "FACTOR=${NOTHING:-7}") for word in units[0].preprocessor]
    assert by_shell != list(units[0].preprocessor)
    variants.append(replace(units[0], preprocessor=tuple(by_shell)))
    for number, unit in enumerate([*units, *variants]):
        whole = Job(unit, front, True, 0, 0)
        stages = apart(whole)
        assert len(stages) == 5
        found = []
        for how, jobs in (("whole", (whole,)), ("stages", stages)):
            root = str(tmp_path / f"{how}{number}")
            context = replace(captured.context, fronts=(front,), store_root=root)
            found.append(_made(context, jobs, unit, front))
        assert None not in found[0].values(), unit
        assert found[1] == found[0], f"{unit.name} {unit.codegen}: the stages made something else"


def test_a_build_in_stages_makes_the_same_wheel_and_runs_no_front_twice(
    bench: Workbench, tmp_path: Path
) -> None:
    kernel = said_to_take_long(tmp_path / "kernel")
    shared = ("--front", "shared", "--jobs")
    first = bench.build("--arch", "80,86", *shared, "8", kernel=kernel)
    first.wheel()
    assert stages_of(first.err) == {"front", "ptxas", "host"}, first.err
    bench.forget_wheels()
    more = bench.build("--arch", "80,86,89", *shared, "8", kernel=kernel)
    assert stages_of(more.err) == {"ptxas"}, more.err
    whole = Workbench(tmp_path / "whole")
    once = whole.build("--arch", "80,86,89", *shared, "1", kernel=kernel)
    assert stages_of(once.err) == set()
    assert more.wheel().read_bytes() == once.wheel().read_bytes()


@pytest.mark.long  # stages without containers, and containers without stages, are in every run
def test_stages_in_containers_make_the_same_wheel(
    docker_engine: LentEngine, slim: Slim, tmp_path: Path
) -> None:
    kernel = said_to_take_long(tmp_path / "kernel")
    found = []
    for jobs, stages in (("8", {"front", "ptxas", "host"}), ("1", set())):
        bench = Workbench(tmp_path / jobs, slim=slim)
        asked = ("--arch", "80,86", "--python", "3.11", "--front", "shared", "--jobs", jobs)
        built = build_in_containers(bench, docker_engine, *asked, kernel=kernel).outcome
        found.append(built.wheel().read_bytes())
        assert stages_of(built.err) == stages, built.err
    assert found[0] == found[1]


def said_to_take_long(folder: Path) -> str:
    """The sample, by whose recipe it is worth while to take calls apart."""
    shutil.copytree(ROOT / SAMPLE, folder)
    recipe = folder / "recipe.toml"
    text, number = re.subn("^seconds = 1$", "seconds = 100", recipe.read_text(), flags=re.MULTILINE)
    assert number == 1
    recipe.write_text(text)
    return str(folder)


def stages_of(log: str) -> set[str]:
    """The stages of the jobs that a build tells of."""
    return set(re.findall(r"^\[\d+/\d+\] \S+ \[[^\]]+\] (front|ptxas|host) ", log, re.MULTILINE))
