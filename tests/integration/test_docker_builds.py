"""`invoke build --engine docker`, for real: images, containers, and what can happen to them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fatwheel.fatbin.binary import read_binary

from ..conftest import ROOT
from .conftest import (
    CPP_UNITS,
    SAMPLE,
    UNITS,
    Contained,
    Workbench,
    build_in_containers,
    record_of,
)
from .engine import LentEngine
from .slim import TOOLCHAIN, Slim

pytestmark = pytest.mark.slow

ARCHS = ("--arch", "80,89")
GIB = 1 << 30
PATIENCE = 300  # seconds, on a machine that does much else


def device_code(wheel: Path, folder: Path) -> dict[str, list[bytes]]:
    """For each library of a wheel, by the start of its name, its raw fatbin entries."""
    subprocess.run(["unzip", "-q", str(wheel), "-d", str(folder)], check=True)
    return {
        path.name.partition(".")[0]: [
            bytes(entry.raw)
            for container in read_binary(path.read_bytes()).containers
            for entry in container.entries
        ]
        for path in folder.rglob("*.so")
    }


# -- what a project requires ----------------------------------------------------------------------


@pytest.mark.long  # test_upstreams_compilers has it without containers
def test_pinned_packages_of_a_project_are_there_in_containers(
    docker_engine: LentEngine, slim: Slim, tmp_path: Path
) -> None:
    """Its back end, and CMake, which finds the compilers of the image."""
    bench = Workbench(tmp_path / "bench", slim=slim)
    kernel = str(ROOT / "tests" / "data" / "scikit")
    asked = ("--arch", "80,90", "--python", "3.11")
    made = build_in_containers(bench, docker_engine, *asked, kernel=kernel)
    [unit] = record_of(made.outcome.wheel())["units"]
    assert (unit["name"], sorted(unit["slices"])) == (
        "CMakeFiles/scaled.dir/csrc/scaled", ["sm_80", "sm_90"],
    )  # fmt: skip
    assert "went past fatwheel" not in made.outcome.err
    assert bench.invoke("verify", str(made.outcome.wheel())).code == 0


@pytest.mark.long  # test_linked_code has more of it, without containers
def test_device_code_is_linked_in_containers(
    docker_engine: LentEngine, slim: Slim, tmp_path: Path
) -> None:
    """Relocatable device code, when the wheel is assembled: as on this machine."""
    bench = Workbench(tmp_path / "bench", slim=slim)
    kernel = str(ROOT / "tests" / "data" / "linked")
    asked = ("--arch", "80", "--python", "3.11")
    made = build_in_containers(bench, docker_engine, *asked, kernel=kernel)
    wheel = made.outcome.wheel()
    assert bench.invoke("verify", str(wheel)).code == 0
    here = Workbench(tmp_path / "here", slim=slim)
    local = here.build(*asked, "--find", str(slim.folder / "wheels"), kernel=kernel).wheel()
    assert record_of(wheel)["units"] == record_of(local)["units"], "the same images, by digest"
    assert device_code(wheel, tmp_path / "theirs") == device_code(local, tmp_path / "ours")


# -- one build for two Pythons --------------------------------------------------------------------


def test_a_wheel_for_each_python(contained: Contained) -> None:
    assert contained.outcome.code == 0, contained.outcome.err
    tags = [wheel.name.split("-")[2] for wheel in contained.outcome.wheels]
    assert tags == ["cp311", "cp313"]


def test_each_shard_has_a_container_and_the_second_python_compiles_no_device_code(
    contained: Contained,
) -> None:
    assert contained.outcome.code == 0, contained.outcome.err
    counts = Counter(purpose.partition(" ")[0] for purpose in contained.purposes)
    assert (counts["capture"], counts["assemble"]) == (2, 2), contained.purposes
    first = contained.purposes[: contained.purposes.index("assemble")]
    assert {"shard 1:compute_80", "shard 2:compute_89"} <= set(first)
    [of_311, of_313] = [
        (folder, sorted(path.read_text() for path in folder.glob("shard*.log")))
        for folder in sorted((contained.bench.cache / "logs").glob("fatwheel-sample-*"))
    ]
    made = "\n".join(of_311[1]).count("made in"), "\n".join(of_313[1]).count("made in")
    assert made == (2 * UNITS + CPP_UNITS, CPP_UNITS), "the second Python has C++ to compile"
    assert "[sm_" not in "".join(of_313[1]), of_313


def test_device_code_is_that_of_the_process_engine(
    contained: Contained, warm: Workbench, tmp_path: Path
) -> None:
    """Though this machine has another C++ compiler. test_reproducible_engines has a project with
    torch, and units of more kinds."""
    local = warm.build(*ARCHS).wheel()
    wheel = contained.outcome.wheels[0]
    there = device_code(wheel, tmp_path / "there")
    assert there == device_code(local, tmp_path / "here")
    assert sum(map(len, there.values())) == 2 * UNITS
    assert record_of(wheel)["units"] == record_of(local)["units"], "the same slices, by digest"


def test_a_rebuild_starts_no_shard_container(contained: Contained, tmp_path: Path) -> None:
    """Neither with the finished wheel in the store, nor without it; and the bytes are the same."""
    bench = Workbench(tmp_path / "again", contained.bench.store, slim=contained.bench.slim)
    again = build_in_containers(bench, contained.lent, *ARCHS, "--python", "3.11")
    assert again.outcome.code == 0, again.outcome.err
    assert again.purposes == ()
    bench.forget_wheels()
    assembled = build_in_containers(bench, contained.lent, *ARCHS, "--python", "3.11")
    assert assembled.purposes == ("capture", "assemble"), assembled.outcome.err
    assert assembled.outcome.wheel().read_bytes() == contained.outcome.wheels[0].read_bytes()


def test_images_are_not_built_again(contained: Contained) -> None:
    done = contained.bench.invoke(
        "image", "--toolchain", TOOLCHAIN, "--python", "3.11,3.13", "--json",
        **contained.lent.variables,
    )  # fmt: skip
    assert done.code == 0, done.err
    images = json.loads(done.out)["images"]
    # A toolchain's image need not be there any more for those that were built on it.
    assert [image["kind"] for image in images].count("env") == 2
    assert not any(image["built"] for image in images)


# -- containers that end badly -------------------------------------------------------------------


class Watched:
    """A build in containers that goes on while the test looks at the engine."""

    def __init__(
        self, bench: Workbench, lent: LentEngine, *arguments: str, kernel: str = SAMPLE
    ) -> None:
        self.bench = bench
        self.client = lent.client()
        asked = ("--engine", "docker", "--python", "3.11", *ARCHS, *arguments)
        command = bench.build_command(*asked, kernel=kernel)
        self.log = bench.cache / "build.log"
        with self.log.open("w") as stream:
            self.process = subprocess.Popen(
                command, cwd=bench.home, env=bench.variables(**lent.variables), stdout=stream,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def containers(self) -> dict[str, Any]:
        """By purpose, what the engine has of this build, in any state."""
        label = f"fatwheel.cache={self.bench.cache}"
        found = self.client.containers(all=True, filters={"label": label})
        return {container["Labels"]["fatwheel.purpose"]: container for container in found}

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"no {what} after {PATIENCE} s:\n{self.log.read_text()}"
            time.sleep(0.2)

    def said(self, words: str) -> bool:
        return words in self.log.read_text()


@pytest.fixture
def watch(contained: Contained, tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    """Starts builds from an empty store; the images are there."""
    started: list[Watched] = []

    def start(*arguments: str, kernel: str = SAMPLE) -> Watched:
        bench = Workbench(tmp_path / f"bench{len(started)}", slim=contained.bench.slim)
        started.append(Watched(bench, contained.lent, *arguments, kernel=kernel))
        return started[-1]

    yield start
    for build in started:
        build.process.kill()
        build.process.wait()


def test_a_build_that_is_killed_leaves_no_container_and_loses_nothing(
    watch: Callable[..., Watched], contained: Contained
) -> None:
    build = watch()
    build.wait_for(lambda: build.said("[4/8]"), "finished jobs")
    assert any(name.startswith("shard") for name in build.containers())
    build.process.kill()
    build.process.wait()
    build.wait_for(lambda: not build.containers(), "end of all containers")
    again = build_in_containers(build.bench, contained.lent, *ARCHS, "--python", "3.11")
    again.outcome.wheel()
    begun = int(again.outcome.err.partition("work       ")[2].split()[0])
    assert begun <= 4, "what was finished is not compiled again"
    assert again.outcome.wheel().read_bytes() == contained.outcome.wheels[0].read_bytes()
    assert sorted(os.listdir(build.bench.cache / "work")) == ["lock"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_containers(
    watch: Callable[..., Watched], number: signal.Signals, code: int
) -> None:
    build = watch()
    build.wait_for(lambda: build.said("[1/8]"), "finished job")
    os.killpg(build.process.pid, number)
    assert build.process.wait(PATIENCE) == code, build.log.read_text()
    assert build.containers() == {}


def test_a_container_that_is_killed_from_outside_is_replaced(
    watch: Callable[..., Watched], contained: Contained
) -> None:
    build = watch()
    purpose = "shard 1:compute_80"
    build.wait_for(lambda: purpose in build.containers() and build.said("compile:"), purpose)
    time.sleep(1)
    build.client.kill(build.containers()[purpose]["Id"])
    assert build.process.wait(PATIENCE) == 0, build.log.read_text()
    assert build.said("exited with code 137"), build.log.read_text()
    assert build.said("it will run again, alone")
    [wheel] = build.bench.wheels()
    assert wheel.read_bytes() == contained.outcome.wheels[0].read_bytes()


# Four million numbers, for which g++ needs 0.8 GiB.
GREEDY = """
#define A(x) x, x, x, x, x, x, x, x
extern const int numbers[] = {A(A(A(A(A(A(A(1))))))), A(A(A(A(A(A(A(2)))))))};
"""


def test_memory_is_a_limit_and_the_message_has_the_figures(
    watch: Callable[..., Watched], tmp_path: Path
) -> None:
    """Half a GiB is too little for one of the C++ units, alone or not; all others are made."""
    project = tmp_path / "greedy"
    shutil.copytree(ROOT / SAMPLE, project)
    (project / "src" / "csrc" / "greedy.cpp").write_text(GREEDY)
    setup = project / "src" / "setup.py"
    setup.write_text(setup.read_text().replace('["csrc/', '["csrc/greedy.cpp", "csrc/', 1))
    build = watch("--memory", "512MiB", kernel=str(project))
    assert build.process.wait(PATIENCE) == 9, build.log.read_text()
    text = build.log.read_text()
    assert "its worker's limit is 512.0 MiB" in text
    assert "csrc/greedy: it failed even when run alone" in text
    assert build.containers() == {}
    kept = [path for path in (build.bench.store / "refs" / "slice").rglob("*") if path.is_file()]
    assert len(kept) == 2 * UNITS, "what was made is kept"


def test_a_container_holds_what_it_should(watch: Callable[..., Watched]) -> None:
    """No network, one writable folder, no rights, and limits within those of the build."""
    build = watch("--memory", "4GiB", "--jobs", "2")
    names = {"shard 1:compute_80", "shard 2:compute_89"}
    build.wait_for(lambda: names <= set(build.containers()), "two shards")
    facts = [build.client.inspect_container(build.containers()[name]["Id"]) for name in names]
    assert sum(fact["HostConfig"]["Memory"] for fact in facts) <= 4 * GIB
    for fact in facts:
        host, config = fact["HostConfig"], fact["Config"]
        assert host["NetworkMode"] == "none"
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert host["Memory"] == host["MemorySwap"] > 0
        assert host["NanoCpus"] == 2 * 10**9
        assert host["PidsLimit"] > 0
        assert config["User"].partition(":")[0] not in ("", "0", "root")
        writable = [mount["Destination"] for mount in fact["Mounts"] if mount["RW"]]
        assert [place for place in writable if place != "/tmp"] == ["/fatwheel/incoming"]
    build.process.send_signal(signal.SIGINT)
    build.process.wait(PATIENCE)


# -- engines that cannot ---------------------------------------------------------------------------


def test_no_engine(contained: Contained, tmp_path: Path) -> None:
    bench = Workbench(tmp_path / "bench")
    done = bench.build("--engine", "docker", *ARCHS, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert done.code == 14
    assert "Traceback" not in done.err
    assert str(tmp_path / "none.sock") in done.err
