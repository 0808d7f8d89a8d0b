"""Proving with real workers and a stand-in for nvcc."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fatwheel.arch import parse_arch, parse_arch_list
from fatwheel.compilers.nvcc import PARTS
from fatwheel.config.recipe import Target
from fatwheel.engines.base import Build, Limits
from fatwheel.engines.local import LocalCapture, LocalWorkplace
from fatwheel.engines.process import ProcessWorker
from fatwheel.errors import CompileError, ConfigError, StoreError, ToolchainError, UsageError
from fatwheel.events import Emit, Event, Note, Planned
from fatwheel.model import Unit
from fatwheel.pipeline import prove as prove_module
from fatwheel.pipeline.plan import PlannedWheel
from fatwheel.pipeline.proof import Proof, find_proofs, joined
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
        self.units: tuple[Unit, ...] = (cuda_unit("a"), cuda_unit("b"), cpp_unit("c"))
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
        monkeypatch.setattr(prove_module, "engine_for", lambda toolchain, asked: self)
        monkeypatch.setattr(prove_module, "build_of", lambda *about: None)
        monkeypatch.setattr(prove_module, "compiler_id", lambda *about: self.compiler_id)

    def write(self, name: str, text: str) -> None:
        (self.folder / "src" / name).write_text(text)

    def resolve(
        self, kernel: str, asked: ToolchainRequest, archs: str | None, recipes: None
    ) -> tuple[Target, ...]:
        tools = plain_toolchain()
        wanted = parse_arch_list(archs or "80,86", KNOWN)
        return (Target(self.recipe, tools, "3.11", "2.11.0", wanted),)

    name = "process"

    @staticmethod
    def prepare(target: Target, emit: object) -> LocalWorkplace:
        return LocalWorkplace(Any, ProcessWorker)  # type: ignore[arg-type]

    @contextmanager
    def captured(
        self,
        wheel: PlannedWheel,
        workplace: LocalWorkplace,
        limits: Limits,
        stores: Stores,
        emit: Emit,
    ) -> Iterator[tuple[Build, LocalCapture]]:
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        build = Build(
            wheel.target, wheel.fronts, unpack=Any, stores=Stores(self.folder / "store"), scope="",
            limits=limits, work=self.folder, logs=logs,
        )  # type: ignore[arg-type] # fmt: skip
        context = make_context(self.folder, fronts=wheel.fronts)
        found = Captured(self.units, (), (), "demo-1.0-cp311-cp311-linux_x86_64.whl")
        yield build, LocalCapture(build, workplace, Any, found, context, emit)  # type: ignore[arg-type]

    def prove(
        self, archs: str | None = None, units: str | None = None, ways: str | None = None
    ) -> Proof:
        request = ProveRequest(
            "demo", archs, units, "tools", None, jobs=2, memory=1 << 30, ways=ways
        )
        return prove(request, self.events.append)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(tmp_path, monkeypatch)


def test_the_same_code_both_ways_is_a_proof(bench: Bench) -> None:
    proof = bench.prove()
    assert proof.same == ("shared", "split", "both")
    assert [unit.name for unit in proof.units] == ["a", "b"]
    assert (proof.front.name, [arch.name for arch in proof.archs]) == ("80", ["80", "86"])
    assert proof.kernels == 4, "two kernels in either unit"
    assert find_proofs(bench.recipe, bench.compiler_id) == [proof]


def test_other_code_is_a_counter_example_and_kept_too(bench: Bench) -> None:
    bench.write("b.cu", "// stand-in: own code\nint b;\n")
    proof = bench.prove()
    assert proof.same == ("split",)
    assert proof.different("shared") == proof.different("both") == ["b: sm_86 scale"]
    assert find_proofs(bench.recipe, bench.compiler_id) == [proof]


def test_code_that_splitting_changes_forbids_only_that(bench: Bench) -> None:
    bench.write("a.cu", "// stand-in: split code\nint a;\n")
    proof = bench.prove()
    assert proof.same == ("shared",)
    assert proof.different("split") == ["a: sm_80 scale", "a: sm_86 scale"]
    assert proof.different("both") == proof.different("split")


@pytest.mark.parametrize(
    ("archs", "asked", "tried"),
    [
        ("80,86", None, ("shared", "split", "both")),
        ("80,86", "both, shared", ("shared", "both")),
        ("80", None, ("split",)),
        ("80,90a", "split", ("split",)),
    ],
)
def test_the_ways_that_are_asked_for_are_tried(
    bench: Bench, archs: str, asked: str | None, tried: tuple[str, ...]
) -> None:
    proof = bench.prove(archs, ways=asked)
    assert proof.ways == tried
    assert [arch.name for arch in proof.archs] == archs.split(",")


@pytest.mark.parametrize("ways", ["", "fast", "shared,exact"])
def test_other_ways_are_refused(bench: Bench, ways: str) -> None:
    with pytest.raises(UsageError, match="is not a valid choice") as caught:
        bench.prove(ways=ways)
    assert caught.value.where == "--ways"


def test_an_nvcc_that_cannot_split_proves_sharing_alone(bench: Bench) -> None:
    (bench.folder / "cuda" / "old").touch()
    with pytest.raises(ToolchainError, match="this nvcc has no --split-compile"):
        bench.prove()
    assert calls(bench.folder / "cuda") == [], "before anything is compiled"
    assert find_proofs(bench.recipe, bench.compiler_id) == []
    proof = bench.prove(ways="shared")
    assert (proof.same, proof.parts) == (("shared",), 0)


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
    split = "--split-compile=4"
    assert sorted((call[call.index("-gencode") + 1], split in call) for call in made) == [
        ("arch=compute_80,code=[sm_80]", False),
        ("arch=compute_80,code=[sm_80]", True),
        ("arch=compute_86,code=[sm_86]", False),
        ("arch=compute_86,code=[sm_86]", True),  # those of shared fronts are made from PTX
    ]
    assert all("-fatbin" in call for call in made)
    planned = [event for event in bench.events if isinstance(event, Planned)]
    assert [(plan.front, plan.slices, plan.hits) for plan in planned] == [
        ("split fronts", 2, 0), ("shared and split", 2, 1), ("own fronts", 2, 0),
        ("shared front", 2, 1),
    ]  # fmt: skip


def test_a_second_proof_compiles_nothing(bench: Bench) -> None:
    first = bench.prove()
    before = len(calls(bench.folder / "cuda"))
    assert bench.prove() == first
    assert len(calls(bench.folder / "cuda")) == before


def test_another_way_is_added_to_what_was_proven(bench: Bench) -> None:
    bench.write("b.cu", "// stand-in: own code\nint b;\n")
    shared = bench.prove(ways="shared")
    split = bench.prove(ways="split")
    assert (split.ways, split.same, split.parts) == (("shared", "split"), ("split",), PARTS)
    assert split.different("shared") == shared.different("shared") == ["b: sm_86 scale"]
    again = bench.prove(units="a", ways="shared")
    assert [unit.name for unit in again.units] == ["a", "b"]
    assert again.same == ("split",), "one unit alone takes no other's place"
    assert find_proofs(bench.recipe, bench.compiler_id) == [again]


def test_what_would_only_take_the_place_of_a_proof_is_refused(bench: Bench) -> None:
    known = bench.prove(units="a", ways="shared")
    compiled = calls(bench.folder)
    with pytest.raises(UsageError, match="an earlier proof compares 1 unit") as caught:
        bench.prove(units="b", ways="split")
    assert calls(bench.folder) == compiled
    assert find_proofs(bench.recipe, bench.compiler_id) == [known]
    assert "--ways shared,split --units a,b;" in (caught.value.hint or "")
    both = bench.prove(units="a,b", ways="shared,split")
    assert both.ways == ("shared", "split")


def test_the_hint_to_try_all_of_it_names_units_and_no_others(bench: Bench) -> None:
    """Others are called like the last part of a name, or are what a name says as a glob."""
    names = ("a", "[a] b")
    (bench.folder / "src" / "old").mkdir()
    for name in (*names, "a b", "old/a"):
        bench.write(f"{name}.cu", "int a;\n")
    bench.units = tuple(map(cuda_unit, (*names, "a b", "old/a")))
    bench.prove(units=names[0], ways="shared")
    with pytest.raises(UsageError) as caught:
        bench.prove(units=names[1], ways="split")
    words = shlex.split((caught.value.hint or "").partition(": ")[2].partition(";")[0])
    assert words[0::2] == ["--ways", "--units"]
    proof = bench.prove(ways=words[1], units=words[3])
    assert {unit.name for unit in proof.units} == set(names)


def test_what_another_run_proves_meanwhile_is_kept(bench: Bench) -> None:
    known = bench.prove(units="a")
    text = known.path.read_bytes()
    known.path.unlink()

    def meanwhile(event: Event) -> None:
        if isinstance(event, Planned):
            known.path.write_bytes(text)

    request = ProveRequest("demo", None, "b", "tools", None, jobs=2, memory=1 << 30)
    assert [unit.name for unit in prove(request, meanwhile).units] == ["a", "b"]


def test_units_of_one_name_are_joined_each_with_itself(bench: Bench) -> None:
    """One source, compiled in two ways."""
    bench.units = (cuda_unit("a"), replace(cuda_unit("a"), codegen=("-G",)))
    proof = bench.prove()
    one, two = proof.units
    other = replace(one, different={**one.different, "shared": ("sm_86 scale",)})
    before = replace(proof, units=(other, two))
    assert joined(before, replace(proof, units=(other, two))) == before
    assert bench.prove().units == (one, two)


def test_a_proof_of_other_sources_gives_way(bench: Bench) -> None:
    bench.prove()
    bench.recipe = replace(bench.recipe, environment={"OTHER": "1"})
    proof = bench.prove(ways="split")
    assert proof.ways == ("split",)


@pytest.mark.parametrize("archs", ["80,90a", "80"])
def test_a_proof_needs_several_architectures_of_one_family(bench: Bench, archs: str) -> None:
    with pytest.raises(UsageError, match="one front shared by several") as caught:
        bench.prove(archs, ways="shared,split")
    assert caught.value.where == f"--arch {archs}"


def test_a_glob_that_fits_nothing_shows_what_there_is(bench: Bench) -> None:
    with pytest.raises(UsageError) as caught:
        bench.prove(units="nothing*")
    assert caught.value.where == "--units nothing*"
    assert caught.value.details == ("a", "b"), "C++ has no front"


def test_where_no_proof_can_be_written_nothing_is_compiled(bench: Bench) -> None:
    bench.recipe.folder.mkdir(parents=True)
    (bench.recipe.folder / "proofs").touch()
    with pytest.raises(StoreError, match="cannot write the proof"):
        bench.prove()
    assert calls(bench.folder / "cuda") == []


def test_a_unit_that_does_not_compile_is_no_proof(bench: Bench) -> None:
    bench.write("a.cu", "#error no\n")
    with pytest.raises(CompileError):
        bench.prove()
    assert find_proofs(bench.recipe, bench.compiler_id) == []


def test_a_project_without_units_has_nothing_to_prove(bench: Bench) -> None:
    bench.units = (cuda_unit("a", codegen=()), cpp_unit("c"))
    bench.units = tuple(replace(unit, images=("sm_80",)) for unit in bench.units)
    with pytest.raises(UsageError, match="there is nothing to compare"):
        bench.prove()
