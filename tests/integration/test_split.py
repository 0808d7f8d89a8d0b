"""Split fronts with the real nvcc: proven, asked for without proof, and the same bytes anywhere."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fatwheel.compilers.nvcc import PARTS
from fatwheel.decoders import payload
from fatwheel.fatbin.container import Entry
from fatwheel.model import Front, Job
from fatwheel.pipeline.costs import apart
from fatwheel.pipeline.proof import compare
from fatwheel.worker.preprocess import Texts, pass_of
from fatwheel.worker.slices import known_host_key, load_slice, run_job, slice_key

from ..helpers.preloaded import run_command
from .conftest import ROOT, SAMPLE, Captured, Workbench, record_of
from .engine import LentEngine
from .slim import TOOLCHAIN, Slim

pytestmark = pytest.mark.slow

CODES = ("sm_80", "sm_86")


def test_split_code_depends_neither_on_cores_nor_on_stages(
    bench: Workbench, capture: Callable[..., Captured], tmp_path: Path
) -> None:
    captured = capture(bench, SAMPLE, "80")
    unit = next(unit for unit in captured.ready.units if unit.kind == "cuda")
    exact = Front(captured.fronts[0].virtual, CODES)
    split = replace(exact, split=PARTS)

    def made(how: str, front: Front, jobs: tuple[Job, ...]) -> tuple[list[bytes], bytes]:
        root = str(tmp_path / how)
        context = replace(captured.context, fronts=(front,), store_root=root)
        store = context.store()
        texts = Texts(context, store)
        for job in jobs:
            run_job(context, store, texts, job)
        text = texts.recorded(unit, pass_of(front))
        host = known_host_key(texts, context, store, unit, front)
        assert text
        assert host
        keys = [("slice", slice_key(context, unit, front, code, text)) for code in CODES]
        found = [store.get(kind, key) for kind, key in [*keys, ("host", host)]]
        slices = [data for data in found if data is not None]
        assert len(slices) == len(found)
        return slices[:-1], slices[-1]

    whole = Job(unit, split, True, 0, 0)
    cores = os.sched_getaffinity(0)
    assert len(cores) > 1, "on one core this shows nothing"
    all_cores = made("all", split, (whole,))
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert made("one", split, (whole,)) == all_cores
    finally:
        os.sched_setaffinity(0, cores)
    assert made("stages", split, apart(whole)) == all_cores
    slices, host = made("exact", exact, (replace(whole, front=exact),))
    assert host == all_cores[1], "host objects have no device code"
    words = b"-split-compile %d" % PARTS
    own, other = _entries(slices), _entries(all_cores[0])
    assert [words in bytes(payload(entry)) for entry in own.values()] == [False, False]
    assert [words in bytes(payload(entry)) for entry in other.values()] == [True, True]
    assert compare(unit.name, own, {"split": other}).different == {"split": ()}


def _entries(slices: list[bytes]) -> dict[str, Entry]:
    return {code: load_slice(data)[0] for code, data in zip(CODES, slices, strict=True)}


def test_what_is_proven_is_split_and_what_is_fast_says_so(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = tmp_path / "kernels" / "sample"
    shutil.copytree(ROOT / SAMPLE, kernel)
    asked = ("--arch", "80", "--jobs", "2")
    exact = bench.build(*asked, "--front", "auto", kernel=str(kernel)).wheel()
    assert "split" not in json.dumps(record_of(exact)["fronts"]), "nothing is proven yet"
    proven = bench.invoke("prove", "--kernel", str(kernel), "--arch", "80")
    assert "same code with split fronts for 80" in proven.out, proven.err
    [proof] = (kernel / "proofs").iterdir()
    assert json.loads(proof.read_text())["same"] == ["split"]

    bench.forget_wheels()
    auto = bench.build(*asked, "--front", "auto", kernel=str(kernel)).wheel()
    found = record_of(auto)
    assert (found["front"], found["fronts"]) == (
        "auto", [{"virtual": "compute_80", "codes": ["sm_80"], "split": PARTS}],
    )  # fmt: skip
    assert "may differ" not in bench.invoke("verify", str(auto)).out

    bench.forget_wheels()
    fast = bench.build(*asked, "--fast", kernel=str(kernel)).wheel()
    for command in ("inspect", "verify"):
        told = bench.invoke(command, str(fast)).out
        assert "built with --fast: its machine code may differ" in told, told
    monkeypatch.setattr(Workbench, "home", tmp_path)  # where the recipe's sources are looked for
    again = bench.run([sys.executable, "-m", "fatwheel", "rebuild", str(fast), "--yes"])
    assert again.code == 0, again.err


@pytest.mark.long  # proofs are made of what jobs answer, which containers are tested for
def test_containers_prove_what_processes_prove(
    docker_engine: LentEngine, slim: Slim, tmp_path: Path
) -> None:
    kernel = tmp_path / "kernels" / "kernel"
    shutil.copytree(ROOT / SAMPLE, kernel)
    bench = Workbench(tmp_path / "bench", slim=slim)
    proven = bench.invoke(
        "prove", "--kernel", str(kernel), "--toolchain", TOOLCHAIN, "--engine", "docker",
        "--arch", "80,86", "--python", "3.11", **docker_engine.variables,
    )  # fmt: skip
    assert proven.code == 0, proven.err
    [proof] = (kernel / "proofs").iterdir()
    found = json.loads(proof.read_text())
    assert (found["same"], found["parts"]) == (["split"], PARTS), proven.out
    assert "different code with a shared front for 80, 86" in proven.out, "a unit reads the list"
    built = bench.invoke(
        "build", "--kernel", str(kernel), "--toolchain", TOOLCHAIN, "--engine", "docker", "--arch",
        "80,86", "--python", "3.11", "--out", str(bench.out), **docker_engine.variables,
    )  # fmt: skip
    assert built.code == 0, built.err
    [wheel] = bench.wheels()
    record: dict[str, Any] = record_of(wheel)
    [front] = record["fronts"]
    assert (front["virtual"], front["codes"]) == ("compute_80", ["sm_80", "sm_86"])
    every = {unit["name"] for unit in record["units"]}
    assert 0 < len(record["front_units"]) < len(every)
    assert every > set(record["front_units"])
    assert {tuple(unit["slices"]) for unit in record["units"]} == {("sm_80", "sm_86")}
    verified = bench.invoke("verify", str(wheel))
    assert verified.code == 0, verified.out
    rebuild = [sys.executable, "-m", "fatwheel", "rebuild", str(wheel), "--yes"]
    again = run_command(  # where its recipe is found
        [*rebuild, "--engine", "docker", "--from-store", "never"],
        tmp_path,
        bench.variables(**docker_engine.variables),
    )
    assert again.returncode == 0, again.stderr
    assert "identical" in again.stdout
