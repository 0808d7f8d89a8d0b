from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.config.recipe import Cost, Recipe
from fatwheel.model import Front, Job, Unit
from fatwheel.pipeline.compile import make_shards
from fatwheel.pipeline.costs import apart, estimated, in_stages, plan_work
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


def test_a_split_front_is_given_more_memory_than_the_recipe_says(
    store: Store, recipe: Recipe
) -> None:
    split = dataclasses.replace(front("80"), split=4)
    job = Job(cuda_unit("csrc/bwd_64"), split, False, 0, 0)
    memory, seconds = expected(job, store, recipe)
    assert (round(memory, 1), seconds) == (13.2, 300)  # measured: 2.5 GB in place of 1.2


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


def test_stages_are_measured_by_themselves_and_tell_of_the_call(
    store: Store, recipe: Recipe
) -> None:
    call = Job(cuda_unit("csrc/bwd_64"), front("80", "sm_80", "sm_86"), True, 0, 0)
    parts = apart(call)
    for number, part in enumerate(parts, 1):
        assert expected(call, store, recipe) == (6, pytest.approx(300 * 1.15)), "not all are known"
        cost = {"seconds": 0.0, "cpu": 10.0 * number, "rss": number * GIB}
        store.put_json("cost", cost_key(part), cost)
    memory, seconds = expected(call, store, recipe)
    assert 4 < memory < 4.5, "one after the other"
    assert seconds == 10 + 20 + 30 + 40
    store.put_json("cost", cost_key(call), {"seconds": 0.0, "cpu": 95.0, "rss": 5 * GIB})
    assert expected(call, store, recipe)[1] == 95, "it was measured itself"
    _, alone = expected(parts[1], store, recipe)
    assert alone == 20


def test_a_stage_that_was_never_measured_is_a_share_of_a_call(store: Store, recipe: Recipe) -> None:
    [_, ptxas, host] = apart(Job(cuda_unit("csrc/bwd_64"), front("80"), True, 0, 0))
    assert expected(ptxas, store, recipe) == (1.5, pytest.approx(45))
    assert expected(host, store, recipe) == (3, pytest.approx(45))


def in_words(jobs: tuple[Job, ...]) -> list[str]:
    return [f"{job.label} {job.seconds:.1f}" for job in jobs]


def test_calls_are_taken_apart_where_cores_would_have_nothing_to_do(store: Store) -> None:
    call = Job(cuda_unit("a"), front("80", "sm_80", "sm_86", "compute_80"), True, GIB, 115)
    assert in_stages([call], store, cores=1, memory=GIB, lend=False) == (call,)
    found = in_stages([call], store, cores=2, memory=2 * GIB, lend=False)
    assert [one.label for one in found] == [
        "a [compute_80] front", "a [sm_80] ptxas", "a [sm_86] ptxas", "a [compute_80] host",
    ]  # fmt: skip
    assert sum(one.seconds for one in found) == pytest.approx(115, rel=0.02)
    assert [one.memory / GIB for one in found] == [1, 0.25, 0.25, 0.5]
    assert len(in_stages([call], store, cores=2, memory=GIB, lend=False)) == 4, "all follow it"
    assert in_stages([call], store, cores=2, memory=GIB // 8, lend=False) == (call,), "no memory"
    enough = [dataclasses.replace(call, unit=cuda_unit(str(number))) for number in range(16)]
    assert in_stages(enough, store, cores=2, memory=9 * GIB, lend=False) == tuple(enough)


def test_what_takes_seconds_stays_one_call(store: Store) -> None:
    call = Job(cuda_unit("a"), front("80", "sm_80", "sm_86", "sm_89"), True, 0, 6)
    assert in_stages([call], store, cores=8, memory=GIB, lend=False) == (call,)


@pytest.mark.parametrize(
    "call",
    [
        Job(cuda_unit("a"), front("80"), False, 0, 100),
        Job(cuda_unit("a"), front("80", "sm_80", "compute_80"), False, 0, 100),
        Job(cuda_unit("a"), front("80", "compute_80"), True, 0, 100),
        Job(cpp_unit("a"), None, True, 0, 100),
    ],
)
def test_what_would_not_run_side_by_side_stays_one_call(call: Job) -> None:
    assert apart(call) == (call,)


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


def test_the_stages_of_a_unit_stay_together() -> None:
    calls = [Job(cuda_unit(name), front("80", "sm_80", "sm_86"), True, 0, 9) for name in "abcd"]
    jobs = [part for call in calls for part in apart(call)]
    for shard in make_shards(jobs, 3):
        for unit in {job.unit for job in shard.jobs}:
            assert len([job for job in shard.jobs if job.unit == unit]) == 4
    assert len(make_shards(jobs, 3)) == 3
    assert len(make_shards(jobs, 9)) == 4


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
