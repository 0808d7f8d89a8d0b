"""Builds on the workers of a real Dask cluster, each with a cache of its own: whatever becomes of
them, the wheel is the one that processes make."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from .conftest import ARCHS, Outcome, Workbench
from .daskcluster import SOON, Cluster, certificates, until
from .test_builds import sha256
from .test_stages import said_to_take_long, stages_of

pytestmark = pytest.mark.slow

# The system's own g++ by another path: it says the same of itself. Where it compiles, it tells so
# and waits.
_SLOW = """#!/bin/sh
case "$*" in -v|*-print-prog-name*|*-dM*|*stdc++.h*|*/dev/null) exec g++ "$@";; esac
touch {folder}/begun
while [ ! -e {folder}/go ]; do sleep 0.1; done
exec g++ "$@"
"""
# One of another build, by its own words.
_OTHER = """#!/bin/sh
[ "$*" = -v ] && g++ -v 2>&1 | sed 's/^Configured with: /&--enable-other /' && exit
exec g++ "$@"
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(tmp_path / "cluster")
    yield found
    found.close()


def begin(bench: Workbench, cluster: Cluster) -> subprocess.Popen[str]:
    command = bench.build_command("--arch", ARCHS, "--scheduler", cluster.address)
    return subprocess.Popen(
        command, cwd=bench.home, env=bench.variables(**cluster.settings), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(bench: Workbench, build: subprocess.Popen[str]) -> Outcome:
    out, err = build.communicate(timeout=SOON)
    return Outcome(build.returncode, out, err, bench.wheels())


def compilers_below(folder: Path) -> list[str]:
    """The processes that run in a worker's folders."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            if place.readlink().is_relative_to(folder):
                found.append(place.parent.name)
    return found


@pytest.fixture
def guarded(tmp_path: Path, tool: Callable[[str], str]) -> Iterator[Cluster]:
    """A cluster with certificates."""
    tool("openssl")
    found = Cluster(tmp_path / "cluster", settings=certificates(tmp_path / "tls"))
    yield found
    found.close()


def test_workers_make_the_same_wheel_and_others_are_refused_by_name(
    sample: tuple[Workbench, Outcome], bench: Workbench, guarded: Cluster
) -> None:
    cluster = guarded
    cluster.worker("other", _OTHER)
    good = cluster.worker("good")
    outcome = ended(bench, begin(bench, cluster))
    assert sha256(outcome.wheel()) == sha256(sample[1].wheel())
    told = " ".join(outcome.err.split())
    assert "worker other is not used: not as on the build's machine: C++ compiler" in told
    assert "distributed." not in outcome.err, "Dask writes on our board"
    assert not (good / "cache" / "store").exists(), "a worker keeps nothing"
    eve = {**cluster.settings, **certificates(bench.cache.parent / "eve")}
    task = ("worker", cluster.address, "--unchecked", "--jobs", "1", "--memory", "1GiB")
    refused = bench.invoke(*task, **eve)
    assert refused.code == 14
    assert "both sides need certificates of one authority" in " ".join(refused.err.split())
    assert "Traceback" not in refused.err
    cluster.kill("good", signal.SIGTERM)
    assert cluster.started["good"].wait(SOON) == 0
    assert not list((good / "cache" / "work").glob("build-*"))


@pytest.mark.long  # as one that is cut off
def test_a_killed_worker_costs_only_its_jobs(
    sample: tuple[Workbench, Outcome], bench: Workbench, cluster: Cluster
) -> None:
    slow = cluster.worker("slow", _SLOW)
    build = begin(bench, cluster)
    until((slow / "begun").exists, "a job runs", build)
    cluster.worker("good")
    cluster.kill("slow")
    outcome = ended(bench, build)
    assert sha256(outcome.wheel()) == sha256(sample[1].wheel())
    assert "worker slow was lost" in outcome.err


@pytest.mark.long  # a killed worker, and compilers that a machine kills, have tests of their own
def test_compilers_that_are_ended_before_their_worker_break_no_build(
    sample: tuple[Workbench, Outcome], bench: Workbench, cluster: Cluster
) -> None:
    """As queues and systemd end all processes of a worker, in an order of their own."""
    slow = cluster.worker("slow", _SLOW)
    build = begin(bench, cluster)
    until((slow / "begun").exists, "a job runs")
    cluster.worker("good")
    for process in compilers_below(slow):
        os.kill(int(process), signal.SIGTERM)
    time.sleep(0.3)
    cluster.kill("slow", signal.SIGTERM)
    outcome = ended(bench, build)
    assert sha256(outcome.wheel()) == sha256(sample[1].wheel())
    assert "worker slow was lost" in outcome.err
    assert cluster.started["slow"].wait(SOON) == 0


def test_an_interrupted_build_leaves_nothing_running(bench: Workbench, cluster: Cluster) -> None:
    slow = cluster.worker("slow", _SLOW)
    build = begin(bench, cluster)
    until((slow / "begun").exists, "a job runs", build)
    assert compilers_below(slow)
    build.send_signal(signal.SIGINT)
    assert ended(bench, build).code == 130
    until(lambda: not compilers_below(slow), "its compilers end")
    assert cluster.started["slow"].poll() is None, "the worker waits for the next build"


def test_a_scheduler_that_goes_away_ends_build_and_workers(
    bench: Workbench, cluster: Cluster
) -> None:
    slow = cluster.worker("slow", _SLOW)
    build = begin(bench, cluster)
    until((slow / "begun").exists, "a job runs", build)
    cluster.kill("scheduler")
    outcome = ended(bench, build)
    assert outcome.code == 14
    assert f"the scheduler at {cluster.address} went away" in " ".join(outcome.err.split())
    assert "Traceback" not in outcome.err
    assert cluster.started["slow"].wait(SOON) == 14
    assert not compilers_below(slow)


# Tells of each front, of which g++ makes the text.
_TELLS = """#!/bin/sh
case "$*" in *.cpp1.ii*) echo front >> {folder}/fronts;; esac
exec g++ "$@"
"""


@pytest.mark.long  # a unit test has the same of the demo, and test_stages the real compilers
def test_stages_run_on_any_worker_and_no_front_runs_twice(
    bench: Workbench, cluster: Cluster, tmp_path: Path
) -> None:
    kernel = said_to_take_long(tmp_path / "kernel")
    asked = ("--arch", "80,86,89", "--front", "shared")
    workers = [cluster.worker(name, _TELLS, jobs=3) for name in ("one", "two")]
    built = bench.build(*asked, "--scheduler", cluster.address, kernel=kernel)
    assert stages_of(built.err) == {"front", "ptxas", "host"}, built.err
    ran = [(folder / "fronts").read_text().split() for folder in workers]
    units = set(re.findall(r"^\[\d+/\d+\] (\S+) \[", built.err, re.MULTILINE))
    assert sum(map(len, ran)) == len(units) == 3
    assert all(ran), "each ran some"
    whole = Workbench(tmp_path / "whole").build(*asked, "--jobs", "1", kernel=kernel)
    assert stages_of(whole.err) == set()
    assert sha256(built.wheel()) == sha256(whole.wheel())


# -- a network -------------------------------------------------------------------------------------


@contextmanager
def another_machine() -> Iterator[tuple[str, str, str]]:
    """A network namespace: its name, this machine's address as it is seen from there, and the name
    of the cable."""
    name = f"fw{os.getpid()}"
    ours, theirs, net = f"{name}a", f"{name}b", f"10.{os.getpid() % 200 + 20}.77"
    commands = [
        f"ip netns add {name}",
        f"ip link add {ours} type veth peer name {theirs} netns {name}",
        f"ip addr add {net}.1/24 dev {ours}",
        f"ip link set {ours} up",
        f"ip -n {name} addr add {net}.2/24 dev {theirs}",
        f"ip -n {name} link set {theirs} up",
        f"ip -n {name} link set lo up",
    ]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {command}: {done.stderr.strip()}")
        yield name, f"{net}.1", ours
    finally:
        subprocess.run(["ip", "link", "del", ours], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def test_a_worker_that_is_cut_off_costs_only_its_jobs(
    sample: tuple[Workbench, Outcome], bench: Workbench, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    tool("ip")
    if os.geteuid():
        pytest.skip("only root makes network namespaces")
    with another_machine() as (name, host, cable):
        cluster = Cluster(tmp_path / "cluster", host)
        try:
            far = cluster.worker("far", _SLOW, ["ip", "netns", "exec", name])
            build = begin(bench, cluster)
            until((far / "begun").exists, "a job runs", build)
            cluster.worker("near")
            subprocess.run(["ip", "link", "set", cable, "down"], check=True)
            outcome = ended(bench, build)
        finally:
            cluster.close()
    assert sha256(outcome.wheel()) == sha256(sample[1].wheel())
    assert "worker far was lost" in outcome.err
