"""Proving with real workers and a stand-in for nvcc."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fatwheel.arch import parse_arch, parse_arch_list
from fatwheel.config.model import Target, Toolchain
from fatwheel.engines.base import Build, Limits
from fatwheel.engines.local import LocalCapture, LocalWorkplace
from fatwheel.engines.process import ProcessWorker
from fatwheel.errors import CompileError, ConfigError, UsageError
from fatwheel.events import Emit, Event, Note, Planned
from fatwheel.model import Front
from fatwheel.pipeline import prove as prove_module
from fatwheel.pipeline.proof import Proof, find_proofs
from fatwheel.pipeline.prove import ProveRequest, prove
from fatwheel.pipeline.resolve import ToolchainRequest
from fatwheel.storage.cache import Stores
from fatwheel.worker.upstream import Captured

from ...helpers.plaintargets import plain_recipe, plain_toolchain
from ...helpers.standins import calls, cpp_unit, cuda_unit, make_context

KNOWN = [parse_arch(name) for name in ("80", "86", "90a")]


class Bench:
    """A recipe with two CUDA units, whose environment is the stand-in's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.recipe = plain_recipe(
            folder,
            folder=folder / "kernels" / "demo",
            archs=("80", "86"),
            memory=1 << 20,
            seconds=1,
        )
        self.compiler_id = make_context(folder).device_id
        monkeypatch.setenv("FATWHEEL_CACHE", str(folder / "cache"))
        for name in ("a.cu", "b.cu", "c.cpp"):
            self.write(name, f"int {name[0]};\n")
        monkeypatch.setattr(prove_module, "resolve", self.resolve)
        monkeypatch.setattr(prove_module, "captured", self.captured)
        monkeypatch.setattr(prove_module, "local_workplace", self.prepare)

    def write(self, name: str, text: str) -> None:
        (self.folder / "src" / name).write_text(text)

    def resolve(
        self, kernel: str, asked: ToolchainRequest, archs: str, recipes: None
    ) -> tuple[Target, ...]:
        tools = plain_toolchain()
        wanted = parse_arch_list(archs or "80,86", KNOWN)
        return (Target(self.recipe, tools, "3.11", "2.11.0", wanted),)

    @staticmethod
    def prepare(target: Target, emit: object) -> LocalWorkplace:
        return LocalWorkplace(Any, ProcessWorker)  # type: ignore[arg-type]

    @contextmanager
    def captured(
        self,
        target: Target,
        fronts: tuple[Front, ...],
        workplace: LocalWorkplace,
        limits: Limits,
        stores: Stores,
        emit: Emit,
    ) -> Iterator[tuple[Build, LocalCapture]]:
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        build = Build(
            target, fronts, unpack=Any, stores=stores, scope="", limits=limits,
            work=self.folder, logs=logs,
        )  # type: ignore[arg-type] # fmt: skip
        units = (cuda_unit("a"), cuda_unit("b"), cpp_unit("c"))
        context = make_context(self.folder, fronts=tuple(fronts))
        found = Captured(units, (), (), "demo-1.0-cp311-cp311-linux_x86_64.whl")
        yield build, LocalCapture(build, workplace, Any, found, context, emit)  # type: ignore[arg-type]

    def prove(self, archs: str | None = None, units: str | None = None) -> Proof:
        request = ProveRequest("demo", archs, units, "tools", None, jobs=2, memory=1 << 30)
        return prove(request, self.events.append)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(tmp_path, monkeypatch)


def test_the_same_code_both_ways_is_a_proof(bench: Bench) -> None:
    proof = bench.prove()
    assert (proof.same, [unit.name for unit in proof.units]) == (True, ["a", "b"])
    assert (proof.front.name, [arch.name for arch in proof.archs]) == ("80", ["80", "86"])
    assert proof.kernels == 4, "two kernels in either unit"
    assert find_proofs(bench.recipe, bench.compiler_id) == [proof]


def test_other_code_is_a_counter_example_and_kept_too(bench: Bench) -> None:
    bench.write("b.cu", "// stand-in: own code\nint b;\n")
    proof = bench.prove()
    assert not proof.same
    assert proof.different == ["b: sm_86 scale"]
    assert find_proofs(bench.recipe, bench.compiler_id) == [proof]


def test_an_installed_recipe_is_copied_and_stays_as_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed, work = bench.recipe.folder, bench.folder / "work"
    (installed / "src" / "__pycache__").mkdir(parents=True)
    for name in ("recipe.toml", "src/a.cu", "src/__pycache__/setup.pyc"):
        (installed / name).write_text(name)
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr("fatwheel.shipped._DATA", bench.folder / "kernels")
    before = sorted(bench.folder.joinpath("kernels").rglob("*"))
    proof = bench.prove()
    own = work / "kernels" / "demo"
    assert sorted(bench.folder.joinpath("kernels").rglob("*")) == before
    assert (own / "src" / "a.cu").read_text() == "src/a.cu"
    assert [path.name for path in (own / "src").iterdir()] == ["a.cu"]
    assert proof.path.resolve().parent == own / "proofs"
    assert find_proofs(replace(bench.recipe, folder=own), bench.compiler_id) == [
        replace(proof, path=proof.path.resolve())
    ]
    assert Note("kernels/demo: a copy of the recipe that comes with fatwheel") in bench.events
    assert [path.name for path in own.parent.iterdir()] == ["demo"]
    with pytest.raises(ConfigError, match="cannot copy the recipe"):
        bench.prove()
    assert [path.name for path in own.parent.iterdir()] == ["demo"]


def test_only_device_code_is_made_once_for_each_front(bench: Bench) -> None:
    bench.prove(units="a")
    made = calls(bench.folder / "cuda")
    assert sorted(call[call.index("-gencode") + 1] for call in made) == [
        "arch=compute_80,code=[sm_80]",
        "arch=compute_80,code=[sm_86]",  # sm_80 of this front is there already
        "arch=compute_86,code=[sm_86]",
    ]
    assert all("-fatbin" in call for call in made)
    planned = [event for event in bench.events if isinstance(event, Planned)]
    assert [(plan.front, plan.slices, plan.hits) for plan in planned] == [
        ("own fronts", 2, 0), ("shared front", 2, 1),
    ]  # fmt: skip


def test_a_second_proof_compiles_nothing(bench: Bench) -> None:
    first = bench.prove()
    before = len(calls(bench.folder / "cuda"))
    assert bench.prove() == first
    assert len(calls(bench.folder / "cuda")) == before


@pytest.mark.parametrize("archs", ["80", "80,90a", "90a"])
def test_a_proof_needs_several_architectures_of_one_family(bench: Bench, archs: str) -> None:
    with pytest.raises(UsageError, match="one front shared by several") as caught:
        bench.prove(archs)
    assert caught.value.where == f"--arch {archs}"


def test_a_glob_that_fits_nothing_shows_what_there_is(bench: Bench) -> None:
    with pytest.raises(UsageError) as caught:
        bench.prove(units="nothing*")
    assert caught.value.where == "--units nothing*"
    assert caught.value.details == ("a", "b"), "C++ has no front"


def test_a_unit_that_does_not_compile_is_no_proof(bench: Bench) -> None:
    bench.write("a.cu", "#error no\n")
    with pytest.raises(CompileError):
        bench.prove()
    assert find_proofs(bench.recipe, bench.compiler_id) == []


def test_windows_is_no_place_for_proofs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toolchain, "brings_all", True)
    with pytest.raises(UsageError, match="proofs are made with toolchains for Linux"):
        bench.prove("80,86")
