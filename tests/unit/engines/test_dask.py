"""Builds on a Dask cluster: of this machine's own, whose worker lives in the tests' process."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from dask import config as dask_config
from distributed import Client, LocalCluster
from distributed.security import Security

from fatwheel.config.recipe import Target
from fatwheel.config.sourcetree import tree_digest
from fatwheel.config.toolchain import InstalledMsvc, Toolchain
from fatwheel.engines import bundle, cluster, dask, daskbench, daskworker, pool, process, windows
from fatwheel.engines.base import JobBroken, JobMade, Limits, Report, Reports
from fatwheel.engines.daskbench import Settlement, read_settlement
from fatwheel.engines.local import Tools
from fatwheel.engines.members import check_facts, check_identity, members_of, used_by
from fatwheel.engines.pool import Pool
from fatwheel.engines.registry import engine_named
from fatwheel.errors import (
    CompileError,
    EngineError,
    OutOfMemoryError,
    StoreError,
    ToolchainError,
    UsageError,
)
from fatwheel.events import Emit, Event, JobFailed, JobFinished, Note, Planned, ShardSaid
from fatwheel.model import Job
from fatwheel.pipeline import resolve
from fatwheel.pipeline.build import build
from fatwheel.pipeline.plan import BuildRequest, plan_build
from fatwheel.worker import surroundings
from fatwheel.worker.processes import KILLS_VARIABLE, kills
from fatwheel.worker.slices import Made

from ...helpers.demoproject import Demo
from ...helpers.processcontainers import ROOT
from ...helpers.standins import calls
from ...helpers.workstations import WINDOWS_TOOLCHAIN


class Bench(Demo):
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.events: list[Event] = []
        self.patch = monkeypatch
        for name in ("load_recipe", "load_toolchain"):
            monkeypatch.setattr(resolve, name, getattr(self, name))
        for module in (process, dask, daskworker):
            monkeypatch.setattr(module, "ready_tools", self.ready_tools)

    def build(self, engine: str) -> bytes:
        """The wheel that an engine makes from nothing."""
        self.events.clear()
        request = BuildRequest(
            kernel="demo", archs="80,86", pythons="3.11", torch=None, toolchain="tools",
            engine=engine, shards=None, jobs=2, memory=1 << 30, front="exact",
            out=self.folder / engine,
        )  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FATWHEEL_CACHE", str(self.folder / f"cache-{engine}"))
            [made] = build(plan_build(request), self.events.append)
        assert made.compiled == 4
        return Path(made.path).read_bytes()

    @property
    def notes(self) -> str:
        return "\n".join(event.text for event in self.events if isinstance(event, Note))

    def answer(self, change: Callable[[str, bytes], tuple[str, bytes]]) -> None:
        """Have other answers to jobs arrive than the worker gives."""
        real = Pool._report
        self.patch.setattr(
            Pool,
            "_report",
            lambda pool, member, task, made: real(pool, member, task, change(*made)),
        )


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]
) -> Iterator[Bench]:
    tool("g++")
    monkeypatch.delenv("FATWHEEL_SCHEDULER", raising=False)
    yield Bench(tmp_path, monkeypatch)
    gc.collect()  # what Dask leaves is some ten megabytes a cluster, and all in circles


def test_a_cluster_of_this_machine_gives_the_same_bytes(bench: Bench) -> None:
    expected = bench.build("process")
    assert bench.build("dask") == expected
    [planned] = [event for event in bench.events if isinstance(event, Planned)]
    assert planned.engine == "dask"
    assert sum(isinstance(event, JobFinished) for event in bench.events) == 5
    assert any(isinstance(event, ShardSaid) for event in bench.events)
    assert os.listdir(bench.folder / "cache-dask" / "work") == ["lock"], "nothing is left"
    assert not daskworker._BENCHES
    [log] = (bench.folder / "cache-dask" / "logs").glob("*/dask.log")
    assert "Traceback" not in log.read_text()


def test_a_build_that_waits_for_its_first_worker_says_so(bench: Bench) -> None:
    def slow(target: Target, emit: Emit) -> Tools:
        time.sleep(3)
        return bench.ready_tools(target, emit)

    bench.patch.setattr(daskworker, "ready_tools", slow)
    bench.patch.setattr("fatwheel.engines.pool._SILENCE", 0.0)
    bench.build("dask")
    assert bench.notes.count("waiting until a worker has the toolchain: 0") == 1


def test_a_job_fails_by_name_with_the_compilers_words(bench: Bench) -> None:
    bench.write("csrc/c.cpp", "#error not yet\n")
    with pytest.raises(CompileError) as caught:
        bench.build("dask")
    assert caught.value.where == "csrc/c"
    assert any("not yet" in line for line in caught.value.details)
    assert "on 0: cd " in (caught.value.hint or "")
    assert sum(isinstance(event, JobFinished) for event in bench.events) == 4, "others are made"


def test_a_job_that_no_worker_can_hold_is_told_and_gets_the_largest(bench: Bench) -> None:
    bench.patch.setattr(dask, "free_memory", lambda: 1 << 19)  # a job is expected to need twice
    bench.build("dask")
    assert "csrc/a [sm_80] may need 1.0 MiB, more than any worker has" in bench.notes


def test_a_killed_job_is_run_again_alone_and_then_given_up(bench: Bench) -> None:
    def killed(text: str, made: bytes) -> tuple[str, bytes]:
        return json.dumps({"outcome": "killed", "rss": 5 << 20}), b""

    bench.answer(killed)
    with pytest.raises(OutOfMemoryError, match="5 of 5 jobs failed"):
        bench.build("dask")
    failures = [event for event in bench.events if isinstance(event, JobFailed)]
    assert sorted(event.retry for event in failures) == [False] * 5 + [True] * 5


def test_a_job_whose_process_ended_is_run_again(bench: Bench) -> None:
    answers: list[str] = []

    def lost(text: str, made: bytes) -> tuple[str, bytes]:
        answers.append(text)
        if len(answers) == 1:
            return json.dumps({"outcome": "lost", "reason": "ended by SIGSEGV"}), b""
        return text, made

    bench.answer(lost)
    bench.build("dask")
    [failure] = [event for event in bench.events if isinstance(event, JobFailed)]
    assert failure.retry
    assert "ended by SIGSEGV" in failure.reason


def _archs_in_stages(bench: Bench, archs: str) -> tuple[bytes, set[str], int]:
    """The wheel for these architectures, from one front a unit, by a build that takes calls apart;
    which stages it had, and how often a front ran."""
    bench.events.clear()
    before = len(calls(bench.home))
    request = BuildRequest(
        kernel="demo", archs=archs, pythons="3.11", torch=None, toolchain="tools", engine="dask",
        shards=None, jobs=8, memory=1 << 30, front="shared", out=bench.folder / archs,
    )  # fmt: skip
    [made] = build(plan_build(request), bench.events.append)
    jobs = [event.job for event in bench.events if isinstance(event, JobFinished)]
    return (
        Path(made.path).read_bytes(),
        {job.stage for job in jobs},
        len(calls(bench.home)) - before,
    )


@pytest.fixture
def long_bench(bench: Bench) -> Bench:
    """One whose jobs are said to take so long that calls are taken apart."""
    bench.recipe = replace(bench.recipe, seconds=100)
    bench.patch.setattr(dask, "cores", lambda: 8)
    bench.patch.setattr(dask, "free_memory", lambda: 1 << 30)
    return bench


def test_stages_have_what_their_front_left_wherever_that_ran(long_bench: Bench) -> None:
    bench = long_bench
    _, stages, fronts = _archs_in_stages(bench, "80")
    assert (stages, fronts) == ({"whole"}, 2), "a front for each of two units"
    # The worker of this build is a new one, which has nothing of the first.
    wheel, stages, fronts = _archs_in_stages(bench, "80,86")
    assert (stages, fronts) == ({"ptxas"}, 0)
    bench.patch.setenv("FATWHEEL_CACHE", str(bench.folder / "another"))
    found = _archs_in_stages(bench, "80,86")
    assert found == (wheel, {"front", "ptxas", "host", "whole"}, 2), "C++ is one call"


def test_a_stage_whose_front_is_not_brought_runs_it_once_more(long_bench: Bench) -> None:
    bench = long_bench
    _archs_in_stages(bench, "80")
    bench.patch.setattr(Pool, "_left", lambda pool, job: None)
    _, stages, fronts = _archs_in_stages(bench, "80,86")
    assert (stages, fronts) == ({"ptxas"}, 2)


def _other_slice(text: str, made: bytes) -> tuple[str, bytes]:
    files = bundle.unpack(made, 1 << 30)
    changed = {name: data + b"!" if name[:5] == "slice" else data for name, data in files.items()}
    return text, bundle.pack(changed)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda text, made: ("{}", b""), "invalid message"),
        (lambda text, made: ("[1]", b""), "not one JSON object"),
        (lambda text, made: ("\ud800", b""), "surrogates not allowed"),
        (lambda text, made: (text, b""), "cannot be used"),
        (lambda text, made: (text, made[:-1]), "cannot be used"),
        (lambda text, made: [text, made, made], "invalid message"),
        (lambda text, made: (text.replace('"made"', '"captured"'), made), "invalid message"),
        (_other_slice, "does not match its digest"),
    ],
)  # fmt: skip
def test_a_worker_that_sends_nonsense_is_refused_by_name(
    bench: Bench, answer: Callable[[str, bytes], Any], why: str
) -> None:
    bench.answer(answer)
    bench.patch.setattr("fatwheel.engines.pool.PATIENCE", 0.5)
    with pytest.raises(EngineError, match="none of the workers at this machine can be used") as it:
        bench.build("dask")
    assert any(line.startswith("0: ") and why in line for line in it.value.details)


# -- who is taken in -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fact", "why"),
    [
        ({"fatwheel": "0.0.1"}, "it runs fatwheel 0.0.1, and this machine"),
        ({"distributed": "2020.1"}, "it runs distributed 2020.1, and this machine"),
        ({"python": "3.9"}, "it runs python 3.9, and this machine"),
        ({"code": "ab" * 32}, "its code differs"),
    ],
)
def test_a_worker_with_another_program_is_refused(fact: dict[str, str], why: str) -> None:
    same = json.loads(daskworker.facts())
    check_facts(json.dumps(same))
    with pytest.raises(EngineError, match=why):
        check_facts(json.dumps({**same, **fact}))


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ModuleNotFoundError("No module named 'fatwheel'"), "it has no fatwheel"),
        (AttributeError("facts"), "another one"),
        (OSError("the line is dead"), "the line is dead"),
    ],
)
def test_a_worker_that_cannot_say_what_it_is_is_refused(error: Exception, why: str) -> None:
    with pytest.raises(EngineError, match=why):
        check_facts(error)


@pytest.mark.parametrize(
    "what",
    [
        "C++ compiler",
        "CUDA compiler",
        "Python",
        "headers of Python",
        "headers of the system",
        "names of the system's headers",
    ],
)
def test_a_worker_with_another_compiler_or_headers_is_refused(bench: Bench, what: str) -> None:
    real = daskbench.identity_of

    def other(tools: Any) -> dict[str, str]:
        return {**real(tools), what: "ab" * 32}

    # Of the build's machine, which asks its own module's.
    bench.patch.setattr(dask, "identity_of", other)
    with pytest.raises(EngineError, match="none of the workers") as caught:
        bench.build("dask")
    [line] = caught.value.details
    assert line.startswith(f"0: not as on the build's machine: {what}")


@pytest.mark.parametrize(
    "found", [None, [], "yes", {}, {"Python": {"a": 1}}, {"Python": "\x1b" * 9}]
)
def test_what_a_worker_says_that_it_has_may_be_nonsense(found: Any) -> None:
    check_identity({"Python": "3.11.2", "more": 5}, {"Python": "3.11.2"})
    with pytest.raises(ToolchainError, match="not as on the build's machine: Python") as caught:
        check_identity(found, {"Python": "3.11.2"})
    [line] = caught.value.details
    assert line.isprintable()
    assert line.endswith(" there, 3.11.2 here")


def test_headers_are_those_that_the_compiler_finds(bench: Bench) -> None:
    before = daskbench.identity_of(bench.tools)
    assert daskbench.identity_of(bench.tools) == before
    header = bench.tools.environment.include / "Python.h"
    header.parent.mkdir(exist_ok=True)
    header.write_text("// another\n")
    after = daskbench.identity_of(bench.tools)
    assert {key for key in before if before[key] != after[key]} == {"headers of Python"}
    bench.patch.setenv("CPLUS_INCLUDE_PATH", str(bench.folder / "more"))
    other = bench.folder / "more" / "bits" / "stdc++.h"
    other.parent.mkdir(parents=True)
    other.write_text("int more;\n")
    assert surroundings.headers_of(bench.tools.compiler.path) != before["headers of the system"]


SETTLEMENT = Settlement(
    build="ab" * 16, lock="", name="demo-1.0", epoch=0, subdirectory="", seeded=True, fronts=(),
    scope="", sources="cd" * 32, source="", listing="",
)  # fmt: skip


@pytest.mark.parametrize(
    "names",
    [
        {"build": "../up"}, {"build": ""}, {"sources": "/etc"}, {"name": "../up"}, {"name": "a/b"},
        {"name": ""}, {"subdirectory": "../up"}, {"subdirectory": "/etc"},
    ],
)  # fmt: skip
def test_a_builds_names_lead_nowhere_else(names: dict[str, str]) -> None:
    assert read_settlement(SETTLEMENT.to_text()) == SETTLEMENT
    with pytest.raises(EngineError, match="names that cannot be"):
        read_settlement(json.dumps({**vars(SETTLEMENT), **names}))


# -- a scheduler -----------------------------------------------------------------------------------


@contextmanager
def scheduler(**options: Any) -> Iterator[str]:
    """A scheduler in the tests' process, without workers; its address."""
    here = "127.0.0.1:0"
    with LocalCluster(
        n_workers=0, processes=False, host="127.0.0.1", dashboard_address=here,
        **{"protocol": "tcp", **options},
    ) as found:  # fmt: skip
        yield found.scheduler_address


def test_without_workers_nothing_is_waited_for(bench: Bench) -> None:
    with scheduler() as address:
        bench.patch.setenv("FATWHEEL_SCHEDULER", address)
        with pytest.raises(EngineError, match="no worker is left at tcp://") as caught:
            bench.build("dask")
    assert caught.value.hint == f"start some, on any machine: fatwheel worker {address}"


def test_what_is_for_the_processor_at_hand_is_compiled_on_one_machine(bench: Bench) -> None:
    backend = (bench.source / "own_backend.py").read_text()
    bench.write("own_backend.py", backend.replace('"-g"]', '"-g", "-march=native"]'))
    source = replace(bench.recipe.source, sha256=tree_digest(bench.source))
    bench.recipe = replace(bench.recipe, source=source)
    with scheduler() as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FATWHEEL_SCHEDULER", address)
        bench.patch.setattr(dask, "_capacity", lambda address, emit: Limits(2, 1 << 30))
        with pytest.raises(EngineError, match="-march=native") as caught:
            bench.build("dask")
    assert caught.value.where == "csrc/c"
    assert bench.build("dask"), "this machine's own cluster has one processor"


def test_workers_of_others_are_left_alone(bench: Bench) -> None:
    ours = {"name": "ours", "resources": {daskworker.CORES: 4, daskworker.MEMORY: 1e9}}
    info = {"workers": {"tcp://b:1": {"name": 7, "resources": {}}, "tcp://a:1": ours}}
    [member] = members_of(info)
    assert (member.name, member.limits) == ("ours", Limits(4, 10**9))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), "four", None, -1])
def test_a_worker_that_lends_no_number_is_left_alone(number: Any) -> None:
    lent = {daskworker.CORES: 4, daskworker.MEMORY: 1e9}
    for name in lent:
        facts = {"name": "odd", "resources": {**lent, name: number}}
        assert members_of({"workers": {"tcp://a:1": facts}}) == []


@pytest.mark.parametrize("said", [None, 5, {"fatwheel": None}, {"fatwheel": {"memory": "much"}}])
def test_what_a_worker_says_of_its_memory_may_be_nonsense(said: Any) -> None:
    assert used_by({"metrics": {"fatwheel": {"memory": 7}}}) == 7
    assert used_by({"metrics": said}) == 0


@pytest.mark.parametrize("host", ["a..b", "a" * 70])
def test_what_can_be_no_host_is_told(host: str) -> None:
    with pytest.raises(EngineError, match=f"there is no scheduler at tcp://{host}:8786"):
        cluster.reach(f"tcp://{host}:8786")


def test_a_worker_whose_name_is_taken_is_told(bench: Bench) -> None:
    bench.patch.setenv("FATWHEEL_CACHE", str(bench.folder / "worker"))
    here = "127.0.0.1:0"
    with LocalCluster(
        n_workers=0, processes=False, host="127.0.0.1", dashboard_address=here, protocol="tcp"
    ) as found:
        found.scheduler.aliases["ben"] = "tcp://127.0.0.1:1"
        with pytest.raises(EngineError, match="has a worker ben already") as caught:
            cluster.serve(found.scheduler_address, "ben", Limits(1, 1 << 30), "process", print)
    assert "another --name" in (caught.value.hint or "")


def test_nobody_at_the_address_is_told_at_once(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    bench.patch.setenv("FATWHEEL_SCHEDULER", f"127.0.0.1:{port}")
    with pytest.raises(EngineError) as caught:
        bench.build("dask")
    assert caught.value.what == (
        f"there is no scheduler at tcp://127.0.0.1:{port}: Connection refused"
    )
    assert "give another address" in (caught.value.hint or "")


def test_something_else_at_the_address_is_told(bench: Bench) -> None:
    bench.patch.setattr(cluster, "_GREET", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent_one:
        port = silent_one.getsockname()[1]
        bench.patch.setenv("FATWHEEL_SCHEDULER", f"tcp://127.0.0.1:{port}")
        with pytest.raises(EngineError, match="does not answer as one") as caught:
            bench.build("dask")
    assert "One with certificates is at tls://" in (caught.value.hint or "")


def test_a_scheduler_of_another_version_is_refused(bench: Bench) -> None:
    with scheduler() as address:
        bench.patch.setenv("FATWHEEL_SCHEDULER", address)
        bench.patch.setattr(cluster, "version", lambda name: "2020.1.0")
        with pytest.raises(EngineError, match=r"runs distributed .*, and this machine 2020\.1\.0"):
            bench.build("dask")


@pytest.mark.parametrize(
    ("changed", "scheme", "says"),
    [
        ({}, "tls", "does not answer as one"),  # none but those of another authority
        ({}, "tcp", "One with certificates is at tls://"),
        ({"client.cert": None}, "tls", "distributed.comm.tls.client.cert is not set"),
        ({"client.cert": 5}, "tls", "tls.client.cert names no file: 5"),
        ({"client.key": "/none/k.pem"}, "tls", "tls.client.key: cannot read /none/k.pem"),
        ({"ca-file": "no\ncertificate"}, "tls", "docs/cluster.md#certificates"),
    ],
)
def test_without_the_right_certificates_it_says_what_is_wrong(
    bench: Bench, changed: dict[str, object], scheme: str, says: str
) -> None:
    other = Security.temporary().get_tls_config_for_role("client")
    found = {"ca-file": other["ca_file"], "client.cert": other["cert"], "client.key": other["key"]}
    settings = {f"distributed.comm.tls.{name}": to for name, to in {**found, **changed}.items()}
    with (
        scheduler(protocol="tls", security=Security.temporary()) as address,
        dask_config.set(settings),
        pytest.raises(EngineError) as caught,
    ):
        cluster.greet(address.replace("tls", scheme), "client")
    error = caught.value
    assert says in "\n".join([error.what, *error.details, error.hint or ""])


def test_settings_of_tls_that_cannot_be_are_told_before_all_else() -> None:
    with (
        dask_config.set({"distributed.comm.tls.min-version": "x"}),
        pytest.raises(ToolchainError) as caught,
    ):
        cluster.check_installed()
    assert "distributed.comm.tls.min-version='x' is not supported" in caught.value.details[0]


def test_a_worker_that_was_lost_before_the_build_needed_it_is_waited_for(bench: Bench) -> None:
    bench.patch.setattr(pool, "PATIENCE", 1.0)
    with (
        scheduler() as address,
        Client(address, set_as_default=False) as client,
        Pool(client, address, "ab" * 16, "", {}) as found,
    ):
        began = time.monotonic()
        with pytest.raises(EngineError, match="no worker is left"):
            found.wait(print)
        assert time.monotonic() - began < 1.0, "there was none"
        found._lost_one, found._without_since = True, time.monotonic()
        with pytest.raises(EngineError, match="no worker is left"):
            found.wait(print)
        assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("pool:8786", "tcp://pool:8786"),
        ("tls://10.0.0.1:443", "tls://10.0.0.1:443"),
        ("tcp://[::1]:8786", "tcp://[::1]:8786"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert cluster.address_of(text, "--scheduler") == address


@pytest.mark.parametrize(
    "text", ["", "pool", "http://pool:8786", "pool:0", "pool:65536", "tcp://a b:1", "tcp://p:1/x"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a scheduler"):
        cluster.address_of(text, "--scheduler")


def test_a_machine_that_compiles_for_no_build_is_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.check_worker("docker")
    with pytest.raises(UsageError, match="is not a valid choice"):
        cluster.check_worker("dask")
    monkeypatch.setattr(cluster, "this_platform", lambda: "win-amd64")
    cluster.check_worker("process")
    monkeypatch.setattr(cluster, "this_platform", lambda: "darwin-arm64")
    with pytest.raises(UsageError, match="workers compile on Linux and Windows"):
        cluster.check_worker("process")


def test_who_waits_for_a_job_hears_of_an_end_that_goes_wrong(tmp_path: Path) -> None:
    class Equipment:
        tells_ends = True

        @contextmanager
        def at_work(self, *asked: object) -> Iterator[tuple[object, None]]:
            yield SimpleNamespace(start=started.set), None
            raise OSError("the disk is gone")

    class Started(threading.Event):
        def set(self, job: object = None) -> None:
            super().set()

    started = Started()
    bench = daskbench.Bench(None, Equipment(), tmp_path, tmp_path / "build")  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(bench.made, None)  # type: ignore[arg-type]
        assert started.wait(10)
        bench.close()
        outcome, _ = answer.result(10)
    assert outcome == {"outcome": "lost", "reason": "the build is over"}


class AtOnce:
    """Equipment whose worker answers a job at once."""

    def __init__(self, answer: Callable[[Job], Report], tells_ends: bool) -> None:
        self.answer, self.tells_ends = answer, tells_ends

    @contextmanager
    def at_work(
        self, what: object, origin: object, folder: object, reports: Reports
    ) -> Iterator[tuple[object, None]]:
        yield SimpleNamespace(start=lambda job: reports.put(self.answer(job))), None


def test_a_bad_end_of_a_job_is_kept_back_in_case_that_this_worker_ends_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(daskbench, "time", SimpleNamespace(sleep=waited.append))
    job: Any = "a job"

    def end(answer: Callable[[Job], Report], tells_ends: bool = True) -> None:
        equipment: Any = AtOnce(answer, tells_ends)
        bench = daskbench.Bench(None, equipment, tmp_path, tmp_path / "build")  # type: ignore[arg-type]
        try:
            bench.made(job)
        finally:
            bench.close()

    end(lambda job: JobMade(job, Made(1.0, 1.0, 1), ()))
    assert not waited, "what was made is sent at once"
    with pytest.raises(CompileError, match="exit code -15"):
        end(lambda job: JobBroken(job, CompileError("nvcc failed with exit code -15")))
    assert waited == [daskbench._DOUBT]
    # In Wine, a compiler that was killed looks like one that has done all that it should.
    end(lambda job: JobMade(job, Made(1.0, 1.0, 1), ()), tells_ends=False)
    assert waited == [daskbench._DOUBT] * 2


# -- a worker's log --------------------------------------------------------------------------------


def test_workers_that_share_a_cache_have_logs_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    one, other = cluster._log_of_worker(), cluster._log_of_worker()
    assert one != other
    assert one.parent.parent == tmp_path / "cache" / "logs" / "workers"
    assert one.parent.is_dir()


def test_a_worker_deletes_no_log_of_one_that_may_still_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They open it only when `distributed` is loaded, and all of a cluster may start at once."""
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    logs = [cluster._log_of_worker() for _ in range(200)]
    assert [log for log in logs if not log.parent.is_dir()] == []


def test_a_worker_that_cannot_keep_a_log_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path))
    (tmp_path / "logs").write_text("")
    with pytest.raises(StoreError, match="cannot keep logs"):
        cluster._log_of_worker()


# -- the engine ------------------------------------------------------------------------------------


def test_without_dask_it_says_how_to_get_it(bench: Bench) -> None:
    real = importlib.util.find_spec
    bench.patch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "distributed" else real(name)
    )
    with pytest.raises(ToolchainError) as caught:
        bench.build("dask")
    assert caught.value.hint == "python -m pip install 'fatwheel[dask]'"


def test_settings_that_dask_cannot_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "fatwheel.yaml").write_text("distributed: [\n")
    done = subprocess.run(
        [sys.executable, "-m", "fatwheel", "worker", "127.0.0.1:1", "--unchecked"],
        capture_output=True, text=True, env={**os.environ, "DASK_CONFIG": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == ToolchainError.exit_code
    assert "error: Dask cannot be loaded" in done.stderr
    assert "fatwheel.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_engine_is_known_without_loading_dask() -> None:
    """It takes a second."""
    program = (
        "import sys\nfrom fatwheel.engines.registry import engine_named\nengine_named('dask')\n"
        "print('distributed' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_it_builds_for_this_system_from_what_all_can_fetch(bench: Bench) -> None:
    def obstacle(toolchain: Toolchain) -> str:
        return engine_named("dask").obstacle(toolchain)

    assert obstacle(bench.toolchain) == ""
    assert "is for windows-x86_64" in obstacle(replace(bench.toolchain, platform="win-amd64"))
    bench.patch.setattr(windows, "this_platform", lambda: "win-amd64")
    bench.patch.setattr(windows, "windows_build", lambda: 20348)
    assert obstacle(WINDOWS_TOOLCHAIN) == ""
    assert WINDOWS_TOOLCHAIN.msvc
    own = replace(WINDOWS_TOOLCHAIN.msvc, installed=InstalledMsvc(sdk="10.0", files=()))
    assert "no other machine can fetch" in obstacle(replace(WINDOWS_TOOLCHAIN, msvc=own))


# -- a worker --------------------------------------------------------------------------------------


# A process of its own, because other children of this one are none of the guard's business.
GUARDED = """
    import subprocess, sys, time
    sys.path.insert(0, sys.argv[1])
    from fatwheel.engines import cluster
    hog = "import time; x = b'x' * (200 << 20); time.sleep(60)"
    with cluster.guarded(100 << 20, lambda: print("one")):
        large = subprocess.Popen([sys.executable, "-c", hog])
        small = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        large.wait()
        time.sleep(1.5)
    later = subprocess.Popen([sys.executable, "-c", hog])
    time.sleep(1.5)
    print(large.returncode, small.poll(), later.poll())
    small.kill()
    later.kill()
"""


def test_a_worker_kills_the_largest_compiler_beyond_its_limit() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(GUARDED), str(ROOT)], capture_output=True, text=True
    )
    assert done.stdout == "one\n-9 None None\n", done.stderr


def test_compilers_are_also_those_that_have_no_parent_as_in_wine(tmp_path: Path) -> None:
    told = tmp_path / "orphan"
    script = f"(sleep 60 & echo $! > {told}.part; mv {told}.part {told}); sleep 60"
    leader = subprocess.Popen(["sh", "-c", script], start_new_session=True)
    try:
        end = time.monotonic() + 60
        while not told.exists() and time.monotonic() < end:
            time.sleep(0.02)
        orphan = int(told.read_text())
        assert psutil.Process(orphan).ppid() != leader.pid
        found = [one.pid for one in cluster._below(os.getpid())]
        assert found.count(orphan) == 1
        assert os.getpid() not in found
    finally:
        os.killpg(leader.pid, signal.SIGKILL)
        leader.wait()


def test_what_a_worker_kills_is_counted_as_linux_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "linux").write_text("low 0\noom_kill 4\n")
    counted = daskworker.killed()
    monkeypatch.setenv(KILLS_VARIABLE, os.pathsep.join([str(tmp_path / "linux"), str(counted)]))
    try:
        assert kills() == 4
        daskworker.count_kill()
        daskworker.count_kill()
        assert kills() == 6
    finally:
        daskworker.clear()
