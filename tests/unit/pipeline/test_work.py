from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.config.model import Cost, Recipe
from fatwheel.model import Front, Job, Unit
from fatwheel.pipeline.compile import estimated, make_shards, plan_work
from fatwheel.storage.store import Store
from fatwheel.worker.assemble import Lookup, look_up, object_of
from fatwheel.worker.slices import cost_key

from ...helpers.plaintargets import plain_recipe
from ...helpers.standins import calls, cpp_unit, cuda_unit, front, fronts_of_list, make_context

GIB = 1 << 30
FRONTS = (front("80", "sm_80", "sm_86"), front("90a"))


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return plain_recipe(
        tmp_path,
        memory=4 * GIB,
        seconds=100.0,
        costs=(Cost("*/bwd_*", 6 * GIB, 300.0), Cost("*", 1 * GIB, 10.0)),
    )


# -- what a job is expected to cost ------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", 1 << 30)


def expected(job: Job, store: Store, recipe: Recipe) -> tuple[float, float]:
    """GiB and seconds."""
    found = estimated(job, store, recipe)
    assert dataclasses.replace(found, memory=job.memory, seconds=job.seconds) == job
    return found.memory / GIB, found.seconds


def test_before_anything_was_measured_the_recipe_says_it(store: Store, recipe: Recipe) -> None:
    job = Job(cuda_unit("csrc/fwd"), front("80"), False, 0, 0)
    assert expected(job, store, dataclasses.replace(recipe, costs=())) == (4, 100)


def test_the_first_cost_that_fits_counts(store: Store, recipe: Recipe) -> None:
    bwd = Job(cuda_unit("csrc/bwd_64"), front("80"), False, 0, 0)
    fwd = Job(cuda_unit("csrc/fwd_64"), front("80"), False, 0, 0)
    assert expected(bwd, store, recipe) == (6, 300)
    assert expected(fwd, store, recipe) == (1, 10)


def test_a_further_image_from_one_front_costs_its_ptxas_alone(store: Store, recipe: Recipe) -> None:
    # facts: of 110 s, ptxas takes 16.
    job = Job(cuda_unit("csrc/bwd_64"), front("80", "sm_80", "sm_86", "sm_89"), False, 0, 0)
    assert expected(job, store, recipe) == (6, pytest.approx(300 * 1.3))


def test_cpp_costs_what_the_recipe_says(store: Store, recipe: Recipe) -> None:
    assert expected(Job(cpp_unit("csrc/api"), None, True, 0, 0), store, recipe) == (1, 10)


def test_what_was_measured_counts_for_more(store: Store, recipe: Recipe) -> None:
    job = Job(cuda_unit("csrc/bwd_64"), front("80"), False, 0, 0)
    store.put_json("cost", cost_key(job), {"seconds": 99.0, "cpu": 50.0, "rss": 2 * GIB})
    memory, seconds = expected(job, store, recipe)
    assert 2 < memory < 2.3, "the next run may need a little more"
    assert seconds == 50, "CPU seconds: wall time depends on what else ran"
    other = dataclasses.replace(job, front=front("86"))
    assert expected(other, store, recipe) == (6, 300), "another job was never measured"


# -- shards ------------------------------------------------------------------------------------


def job(name: str, arch: str | None, seconds: float = 1.0) -> Job:
    if arch is None:
        return Job(cpp_unit(name), None, True, 0, seconds)
    return Job(cuda_unit(name), front(arch), False, 0, seconds)


def shown(jobs: list[Job], count: int) -> dict[str, list[str]]:
    return {
        shard.name: [item.unit.name for item in shard.jobs] for shard in make_shards(jobs, count)
    }


JOBS = [job(f"{unit}{arch}", arch) for arch in ("80", "86", "89") for unit in "abcd"]


def test_one_shard_for_each_architecture() -> None:
    assert sorted(shown(JOBS, 3).values()) == [
        ["a80", "b80", "c80", "d80"], ["a86", "b86", "c86", "d86"], ["a89", "b89", "c89", "d89"],
    ]  # fmt: skip


def test_shards_are_named_after_their_fronts() -> None:
    names = list(shown(JOBS, 3))
    assert [name.partition(":")[0] for name in names] == ["1", "2", "3"]
    assert sorted(name.partition(":")[2] for name in names) == [
        "compute_80", "compute_86", "compute_89",
    ]  # fmt: skip


def test_more_shards_split_a_fronts_units() -> None:
    for members in shown(JOBS, 6).values():
        assert len(members) == 2
        assert len({name[1:] for name in members}) == 1, "one architecture each"


def test_fewer_shards_join_fronts() -> None:
    found = shown(JOBS, 2)
    assert sorted(map(len, found.values())) == [4, 8]


def test_a_shared_front_is_split_by_units() -> None:
    jobs = [job(name, "80") for name in "abcdef"]
    sizes = list(map(len, shown(jobs, 3).values()))
    assert len(sizes) == 3
    assert max(sizes) <= 3, "halved at least once"


def test_cpp_goes_where_there_is_least_to_do() -> None:
    jobs = [job("long", "80", 100), job("short", "86", 5), job("host", None, 10)]
    assert sorted(shown(jobs, 2).values()) == [["long"], ["short", "host"]]


def test_cpp_alone_is_spread_too() -> None:
    jobs = [job(name, None) for name in "abcd"]
    assert sorted(map(len, shown(jobs, 2).values())) == [2, 2]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 12, 100])
def test_every_job_is_in_exactly_one_shard(count: int) -> None:
    jobs = [*JOBS, job("host", None, 3), job("api", None, 1)]
    shards = make_shards(jobs, count)
    placed = [item for shard in shards for item in shard.jobs]
    assert sorted(map(str, placed)) == sorted(map(str, jobs))
    assert len(shards) <= count
    assert all(shard.jobs for shard in shards), "a worker without work"
    assert len({shard.name for shard in shards}) == len(shards)


def test_nothing_to_do_needs_no_shard() -> None:
    assert make_shards([], 3) == ()


# -- what the store has already ----------------------------------------------------------------


class Bench:
    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder = folder
        self.recipe = recipe
        self.context = make_context(folder)
        for name in ("a.cu", "b.cu", "c.cpp"):
            self.write(name, f"int {name[0]};\n")
        self.units = (cuda_unit("a"), cuda_unit("b"), cpp_unit("c"))

    def write(self, name: str, text: str) -> None:
        (self.folder / "src" / name).write_text(text)

    def plan(
        self, fronts: tuple[Front, ...] = FRONTS, archlist: tuple[int, ...] = (800,)
    ) -> Lookup:
        context = dataclasses.replace(self.context, fronts=fronts_of_list(*archlist))
        lookup = look_up(self.units, fronts, context, threads=2)
        return plan_work(lookup, context.store(), self.recipe)

    def compile(
        self, unit: Unit, fronts: tuple[Front, ...] = FRONTS, archlist: tuple[int, ...] = (800,)
    ) -> None:
        context = dataclasses.replace(self.context, fronts=fronts_of_list(*archlist))
        object_of(context, context.store(), unit, fronts)


@pytest.fixture
def bench(tmp_path: Path, recipe: Recipe, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(tmp_path, recipe)


def labels(work: Lookup) -> list[str]:
    return [job.label + (" host" if job.host else "") for job in work.pending]


def seconds(work: Lookup) -> float:
    return sum(job.seconds for job in work.pending)


def test_with_an_empty_store_everything_is_pending(bench: Bench) -> None:
    work = bench.plan()
    assert labels(work) == [
        "a [sm_80,sm_86]", "a [sm_90a] host", "b [sm_80,sm_86]", "b [sm_90a] host", "c host",
    ]  # fmt: skip
    assert (work.units, work.slices, work.hits) == (3, 6, 0)
    assert seconds(work) == pytest.approx(2 * (11.5 + 10) + 10)
    assert work.archlist_units == ()


def test_what_is_in_the_store_is_not_done_again(bench: Bench) -> None:
    bench.compile(cuda_unit("a"))
    work = bench.plan()
    assert labels(work) == ["b [sm_80,sm_86]", "b [sm_90a] host", "c host"]
    assert (work.slices, work.hits) == (6, 3)
    for unit in bench.units:
        bench.compile(unit)
    work = bench.plan()
    assert (work.pending, work.hits) == ((), 6)


def test_another_architecture_is_pending_alone(bench: Bench) -> None:
    for unit in bench.units:
        bench.compile(unit, FRONTS[:1])
    work = bench.plan(archlist=(800, 900))
    assert labels(work) == ["a [sm_90a] host", "b [sm_90a] host"], (
        "host objects depend on what the new front registers"
    )


def test_texts_that_changed_on_the_surface_are_hits_after_a_look(bench: Bench) -> None:
    for unit in bench.units:
        bench.compile(unit)
    before = len(calls(bench.folder / "cuda"))
    bench.write("a.cu", "int a; // a comment more\n")
    assert bench.plan().pending == ()
    assert len(calls(bench.folder / "cuda")) == before


def test_units_that_read_the_list_are_pending_and_named(bench: Bench) -> None:
    bench.write("a.cu", "int list[] = {__CUDA_ARCH_LIST__};\n")
    for unit in bench.units:
        bench.compile(unit, FRONTS[:1])
    work = bench.plan(archlist=(800, 900))
    assert labels(work) == ["a [sm_80,sm_86]", "a [sm_90a] host", "b [sm_90a] host"]
    assert work.archlist_units == ("a",)
