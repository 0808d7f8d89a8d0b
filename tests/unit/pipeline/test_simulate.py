"""Builds simulated on clusters: what is read and written of their costs, and what limits them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fatwheel.config.recipe import Cost
from fatwheel.engines.base import Limits
from fatwheel.engines.simulation import Cluster, Losses, Network
from fatwheel.errors import EngineError, FatwheelError, FormatError, UsageError
from fatwheel.events import Event, JobStarted, Note
from fatwheel.pipeline.build import build
from fatwheel.pipeline.plan import plan_build
from fatwheel.pipeline.simulate import LIMITS, Request, bound_of, run, shortest_path, simulate
from fatwheel.pipeline.workload import (
    Call,
    Record,
    Workload,
    check_costs_place,
    keep_workload,
    read_workload,
    workload_of,
)

from ...helpers.schemas import schema_of
from ...helpers.sharingbench import Bench
from ...helpers.workstations import WINDOWS_TOOLCHAIN

GIB = 1 << 30
MIB = 1 << 20


def call(name: str, seconds: float, *codes: str, memory: int = GIB, **more: Any) -> Call:
    """A call with a host object; of C++ where it has no images."""
    wanted: dict[str, Any] = {
        "unit": name, "kind": "cuda" if codes else "c++", "source": f"@src@/{name}.cu",
        "options": "", "front": "compute_80" if codes else "", "codes": codes, "host": True,
        "memory": memory, "seconds": seconds, "made": 1000, "left": 1000, "records": (),
    }  # fmt: skip
    return Call(**{**wanted, **more})


def load(*calls: Call, sources: int | None = 1000) -> Workload:
    return Workload(1, "demo", "1.0", "tools", ("80", "86"), sources, calls)


PLAIN = load(*(call(f"u{number}", 10) for number in range(12)))


def request(*workers: int, **more: Any) -> Request:
    wanted: dict[str, Any] = {
        "workers": workers, "each": Limits(2, 8 * GIB), "network": Network(), "losses": Losses(),
    }  # fmt: skip
    return Request(**{**wanted, **more})


def rows(workload: Workload, asked: Request) -> list[tuple[float, str]]:
    """How long it takes on each cluster, and what limits it."""
    return [
        (round(row.seconds, 3), row.limit)
        for row in simulate(workload, asked, lambda event: None).rows
    ]


# -- what limits -----------------------------------------------------------------------------------


def test_cores_limit_until_there_is_one_for_each_job() -> None:
    """Twelve jobs of 10 s in rounds of 2, 4, 12 and more at a time."""
    assert rows(PLAIN, request(1, 2, 6, 1000)) == [
        (60, "cores"), (30, "cores"), (10, "critical path"), (10, "critical path"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        ({"each": Limits(2, 1 * GIB)}, "memory"),
        ({"network": Network(overhead=20)}, "overhead"),
        ({"network": Network(bandwidth=50)}, "transfers"),
        ({"network": Network(of_worker=20)}, "transfers"),
        ({"network": Network(latency=60)}, "transfers"),
        ({"losses": Losses(at=(5, 9), replaced=20)}, "losses"),
    ],
)
def test_what_limits_is_what_it_would_end_soonest_without(
    change: dict[str, Any], limit: str
) -> None:
    [row] = simulate(PLAIN, request(2, **change), lambda event: None).rows
    assert row.limit == limit
    assert sum(row.parts) == pytest.approx(row.seconds)
    assert all(part >= 0 for part in row.parts)
    assert row.bound == 30 < row.seconds


def test_calls_are_taken_apart_where_that_ends_the_build_sooner() -> None:
    """As in a build: 100 s for three images and a host object are 70 : 3 × 15 : 15 parts of 130."""
    some = load(call("a", 130, "sm_80", "sm_86", "sm_89"))
    [one, many] = simulate(some, request(1, 8, each=Limits(1, 8 * GIB)), lambda event: None).rows
    assert (one.jobs, one.stages, one.seconds) == (1, False, 130)
    assert (many.jobs, many.stages) == (5, True)
    assert many.seconds == pytest.approx(70 + 15 + 0.2), "each stage costs a tenth of a second"
    assert shortest_path(some) == many.seconds
    assert bound_of(some, 1) == 130


def test_what_was_measured_of_stages_counts() -> None:
    records = (
        Record("front", (), 50, 3 * GIB), Record("ptxas", ("sm_80",), 30, GIB),
        Record("ptxas", ("sm_86",), 20, GIB), Record("host", (), 10, GIB),
    )  # fmt: skip
    some = load(call("a", 999, "sm_80", "sm_86", records=records), call("b", 1))
    assert some.measured == 1
    [row] = simulate(some, request(4), lambda event: None).rows
    assert row.seconds == 80


def test_what_travels_back_of_stages_is_what_the_call_makes() -> None:
    some = load(call("a", 130, "sm_80", "sm_86", made=1_000_000, left=70_000))
    assert some.made(some.jobs[0]) == 1_070_000
    [row] = simulate(some, request(8), lambda event: None).rows
    assert row.received == 70_000 + 1_000_000
    assert row.sent in (8 * 1000, 8 * 1000 + 70_000, 8 * 1000 + 140_000)


def test_a_cluster_that_loses_all_fails_and_says_so_and_others_do_not() -> None:
    report = simulate(PLAIN, request(1, 9, losses=Losses(at=(3,))), lambda event: None)
    first, second = report.rows
    assert isinstance(report.failure, EngineError)
    assert report.failure.what == (
        "on 1 worker: no worker is left after 4.0 s: the one that there was is lost"
    )
    assert report.failure.details == ("0 of 12 jobs were done",)
    assert (first.seconds, first.limit, first.parts, first.done) == (34, "", (), 0)
    assert (second.error, second.lost) == (None, 1)


def test_what_is_assumed_is_told() -> None:
    events: list[Event] = []
    simulate(load(call("a", 5), call("b", 5, made=None)), request(1), events.append)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes == [
        "2 of 2 calls were never measured: they are taken to cost what the recipe says",
        "how much 1 of 2 calls make is not known: sizes are those of flash-attention's units",
    ]


def test_calls_that_need_more_than_a_worker_has_are_told() -> None:
    """A real cluster runs them all the same, and kills them once they need as much."""
    large = load(call("a", 10, memory=8 * GIB + 1), call("b", 10, memory=8 * GIB))
    events: list[Event] = []
    simulate(large, request(1, 2), events.append)
    [told] = [event.text for event in events if isinstance(event, Note) and "memory" in event.text]
    assert told.startswith("1 of 2 calls may need more memory than a worker has, up to 8.0 GiB")


def test_the_report_is_as_its_schema_says() -> None:
    losses = Losses(at=(3,), rate=0.001, seed=4)
    for asked in (request(1, 2, network=Network(1e6, 1e6, 0.1, 0.1)),
                  request(1, 50, network=Network(1e6, 1e6), losses=losses)):  # fmt: skip
        found = json.loads(json.dumps(simulate(PLAIN, asked, lambda event: None).to_json()))
        jsonschema.validate(found, schema_of("simulate"))
        assert found["work"] == 120
        assert [set(row["parts"] or LIMITS) == set(LIMITS) for row in found["rows"]]


def test_too_many_workers_are_refused() -> None:
    with pytest.raises(UsageError, match="10001 workers"):
        request(10_001)


# -- costs as a file -------------------------------------------------------------------------------

SOME = load(
    call("a", 9, "sm_80", "sm_86", records=(Record("front", (), 5.5, GIB),), made=None),
    call("a", 9, "sm_80", options="ab"), call("b", 2.5, left=None), sources=None,
)  # fmt: skip


def test_costs_that_are_written_are_read_again(tmp_path: Path) -> None:
    file = tmp_path / "costs.json"
    keep_workload(file, SOME)
    assert read_workload(file) == SOME
    jsonschema.validate(json.loads(file.read_bytes()), schema_of("costs"))


def test_a_file_of_costs_is_written_whole_and_over_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "costs.json"
    check_costs_place(file)
    keep_workload(file, SOME)
    check_costs_place(file)
    file.write_text('{"mine": 1}')
    with pytest.raises(UsageError, match="is there, and no list of costs"):
        check_costs_place(file)
    with pytest.raises(UsageError, match="is no name of a list of costs"):
        check_costs_place(tmp_path / "costs.txt")
    with pytest.raises(FatwheelError, match="cannot write the costs"):
        keep_workload(tmp_path / "none" / "costs.json", SOME)


def changed(**fields: Any) -> bytes:
    """The file, with its first call or itself changed."""
    content = json.loads(json.dumps(asdict(SOME)))
    own = {name: value for name, value in fields.items() if name in content}
    content["calls"][0].update({k: v for k, v in fields.items() if k not in own})
    content.update(own)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"PK\x03\x04", b"{}", b'{"format": 2}', changed(format=2), changed(calls=[]),
        changed(seconds=-1), changed(seconds=1e300), changed(seconds="soon"), changed(memory=-1),
        changed(memory=1 << 60), changed(kind="rust"), changed(front="compute_x"),
        changed(front=""), changed(kind="c++"), changed(codes=["../up"]), changed(unit=""),
        changed(codes=["sm_80", "sm_80", "sm_86"]),
        changed(records=[{"stage": "last", "codes": [], "cpu": 1, "rss": 1}]),
        changed(options="ab", codes=["sm_80"]), changed(made=-5), changed(archs=[]),
        changed(seconds=1).replace(b'"seconds": 1,', b'"seconds": 1e999,'),
        changed(seconds=1).replace(b'"seconds": 1,', b'"seconds": NaN,'),
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_file_of_costs_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "costs.json"
    file.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        read_workload(file)
    assert str(file) in str(caught.value.where)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json", Path("/dev/zero")):
        with pytest.raises(UsageError, match="cannot read this file"):
            read_workload(path)


# -- of a project ----------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(tmp_path, monkeypatch)


def test_no_build_for_windows_is_simulated(bench: Bench) -> None:
    """nvcc.exe's calls are never taken apart, as simulated ones are."""
    plan = plan_build(bench.request("here"))
    [wheel] = plan.wheels
    target = replace(wheel.target, toolchain=WINDOWS_TOOLCHAIN)
    with pytest.raises(UsageError, match="is for Windows, for which no build is simulated"):
        workload_of(replace(plan, wheels=(replace(wheel, target=target),)), bench.events.append)


def test_costs_of_a_project_are_the_recipes_until_it_was_built(bench: Bench) -> None:
    bench.on("here")
    plan = plan_build(bench.request("here"))
    before = workload_of(plan, bench.events.append)
    recipe = bench.recipe
    assert [(one.unit, one.front, one.codes, one.host) for one in before.calls] == [
        ("csrc/a", "compute_80", ("sm_80",), False), ("csrc/a", "compute_86", ("sm_86",), True),
        ("csrc/b", "compute_80", ("sm_80",), False), ("csrc/b", "compute_86", ("sm_86",), True),
        ("csrc/c", "", (), True),
    ]  # fmt: skip
    assert {(one.memory, one.seconds) for one in before.calls} == {(recipe.memory, recipe.seconds)}
    assert (before.measured, before.sized) == (0, 0)
    assert before.sources
    assert bench.nvcc_calls() == 0
    bench.events.clear()
    build(plan, bench.events.append)
    after = workload_of(plan, bench.events.append)
    assert (after.measured, after.sized) == (5, 5)
    assert all(one.made for one in after.calls)
    assert [one.left is not None for one in after.calls] == [True, True, True, True, False]
    assert replace(after, calls=()) == replace(before, calls=())
    [row] = simulate(after, request(1), lambda event: None).rows
    assert row.seconds > 0


def test_jobs_are_started_in_the_order_of_a_real_build(bench: Bench) -> None:
    """One at a time: each costs something else by its recipe."""
    costs = tuple(Cost(f"*/{name}", 1 << 20, seconds) for name, seconds in zip("abc", (3, 9, 5)))  # noqa: B905
    bench.recipe = replace(bench.recipe, costs=costs)
    bench.on("here")
    plan = plan_build(bench.request("here", jobs=1))
    found = workload_of(plan, lambda event: None)
    build(plan, bench.events.append)
    real = [event.job.label for event in bench.events if isinstance(event, JobStarted)]
    assert real == [
        "csrc/b [sm_80]", "csrc/b [sm_86]", "csrc/c", "csrc/a [sm_80]", "csrc/a [sm_86]",
    ]  # fmt: skip
    _, outcome = run(found, Cluster(1, Limits(1, GIB)))
    assert [one.job.label for one in outcome.runs] == real
    assert outcome.seconds == 2 * 9 + 5 + 2 * 3


def test_one_wheel_is_simulated_at_a_time(bench: Bench) -> None:
    plan = plan_build(bench.request("here"))
    with pytest.raises(UsageError, match="one wheel is simulated at a time"):
        workload_of(replace(plan, wheels=plan.wheels * 2), lambda event: None)
