"""A container's life, on an engine that misbehaves in ways a real one rarely shows."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fatwheel.containers import running
from fatwheel.containers.client import connect
from fatwheel.containers.layouts import ContainerSpec, Ending, Mount
from fatwheel.containers.roster import Roster
from fatwheel.containers.running import RunningContainer
from fatwheel.errors import EngineError, StoreError

from ...helpers.fakeengine import (
    CONTAINER,
    CREATED,
    WINDOWS_INFO,
    WINDOWS_VERSION,
    Fake,
    event,
    fake_engine,
)
from ...helpers.fakeengine import frame as frame_of

SPEC = ContainerSpec("shard 1", "fatwheel/x:y", ("python",), (), 1, 1 << 30, "linux")
WINDOWS = ContainerSpec("shard 1", "fatwheel/x:y", ("python",), (), 1, 1 << 30, "windows", 20348)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setattr(running, "_REMOVAL", 2.0)
    monkeypatch.setattr(running, "_AGAIN", (0.01, 0.01))
    with fake_engine(tmp_path) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.host)
        yield engine


def container(tmp_path: Path, lines: list[str], spec: ContainerSpec = SPEC) -> RunningContainer:
    roster = Roster(tmp_path / "roster", {"fatwheel": "id"})
    return RunningContainer(connect(), spec, roster, lines.append, tmp_path / "log")


def run(tmp_path: Path, spec: ContainerSpec = SPEC) -> Ending:
    made = container(tmp_path, [], spec)
    made.start()
    return made.wait()


# -- the disk ------------------------------------------------------------------------------------


def test_a_container_that_fills_the_disk_is_ended(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(running, "_FLOOR", shutil.disk_usage(tmp_path).total + 1)
    monkeypatch.setattr(running, "_AGAIN", (2.0,))
    fake.events = [[], [event("die", 1, exitCode="137"), event("destroy", 1)]]  # when it is killed
    incoming = Mount(str(tmp_path), "/fatwheel/incoming", writable=True)
    made = container(tmp_path, [], dataclasses.replace(SPEC, mounts=(incoming,)))
    made.start()
    deadline = time.monotonic() + 60
    while not fake.asked("POST", f"/containers/{CONTAINER}/kill") and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(StoreError) as caught:
        made.wait()
    assert caught.value.where == str(tmp_path)
    assert "shard 1" in caught.value.what


# -- starting ------------------------------------------------------------------------------------


def test_it_listens_before_it_starts(fake: Fake, tmp_path: Path) -> None:
    """Whatever a container says or does at once is heard."""
    run(tmp_path)
    order = [path.partition("?")[0].rpartition("/")[2] for _, path, _ in fake.requests]
    assert order.index("create") < order.index("attach") < order.index("start")
    [events] = [path for _, path, _ in fake.requests if path.startswith("/events")]
    assert CREATED.startswith("2024-05-17T08:49:03")
    assert "since=1715935743" in events, "by the engine's clock, which may be another"
    assert CONTAINER in events


def test_what_is_asked_for(fake: Fake, tmp_path: Path) -> None:
    run(tmp_path)
    [body] = fake.asked("POST", "/containers/create")
    assert body["Image"] == "fatwheel/x:y"
    assert body["Labels"]["fatwheel"] == "id"


def test_warnings_are_kept(fake: Fake, tmp_path: Path) -> None:
    warning = "Your kernel does not support swap limit capabilities"
    fake.answers["POST /containers/create"] = (201, {"Id": CONTAINER, "Warnings": [warning]})
    made = container(tmp_path, [])
    made.start()
    made.wait()
    assert made.warnings == (warning,)


@pytest.mark.parametrize(
    ("status", "message", "says"),
    [
        (404, "No such image: fatwheel/x:y", "image not found"),
        (400, "invalid mount config for type \"bind\": bind source path does not exist: /x",
         "not shared"),
        (500, "open /var/lib/docker/x: no space left on device", "disk is full"),
        (409, 'Conflict. The container name "/x" is already in use by container "y".',
         "of that name"),
        (400, "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the "
         "cgroup is not mounted", "cannot limit"),
        (500, "the unexpected", "the unexpected"),
    ],
)  # fmt: skip
def test_it_cannot_be_made(
    fake: Fake, tmp_path: Path, status: int, message: str, says: str
) -> None:
    fake.answers["POST /containers/create"] = (status, {"message": message})
    with pytest.raises(EngineError) as error:
        container(tmp_path, []).start()
    assert "cannot start the container for shard 1" in error.value.what
    assert says in error.value.what
    assert message in str(error.value), "the engine's own words are shown too"


def test_one_that_cannot_be_started_is_removed(fake: Fake, tmp_path: Path) -> None:
    message = (
        "hcs::CreateComputeSystem 4f: The container operating system does not match the host "
        "operating system."
    )
    fake.answers[f"POST /containers/{CONTAINER}/start"] = (500, {"message": message})
    with pytest.raises(EngineError, match="host is too old"):
        container(tmp_path, []).start()
    assert ("DELETE", f"/containers/{CONTAINER}") in [
        (method, path.partition("?")[0]) for method, path, _ in fake.requests
    ]


def test_a_log_that_cannot_be_written(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(OSError, match="directory"):
        container(tmp_path, []).start()
    assert not fake.asked("POST", "/containers/create"), "nothing is made that nobody follows"


# -- what it says --------------------------------------------------------------------------------


def test_streams_are_told_apart(fake: Fake, tmp_path: Path) -> None:
    fake.output = (
        frame_of(1, b"a line, ") + frame_of(2, b"an error\n") + frame_of(1, b"in two\nand half")
    )
    lines: list[str] = []
    made = container(tmp_path, lines)
    made.start()
    made.send("one\n")
    ending = made.wait()
    assert lines == ["a line, in two"]
    assert ending.last_lines == ("an error", "and half")
    assert (tmp_path / "log").read_text() == "an error\nand half\n"
    assert fake.heard == b"one\n"


@pytest.mark.parametrize(
    ("stats", "used"),
    [
        # As `docker stats` counts: control groups of version 1, version 2, and Windows.
        ({"usage": 5000, "stats": {"total_inactive_file": 1000, "inactive_file": 7}}, 4000),
        ({"usage": 5000, "stats": {"inactive_file": 500}}, 4500),
        ({"privateworkingset": 1234, "commitbytes": 9999}, 1234),
        ({}, 0),
    ],
)
def test_memory_as_engines_tell_it(
    fake: Fake, tmp_path: Path, stats: dict[str, Any], used: int
) -> None:
    assert running._in_use({"memory_stats": stats}) == used


# -- how it ends ---------------------------------------------------------------------------------


def test_exit_codes(fake: Fake, tmp_path: Path) -> None:
    fake.events = [[event("die", 1, exitCode="3"), event("destroy", 1)]]
    assert run(tmp_path).code == 3


def test_killed_for_memory(fake: Fake, tmp_path: Path) -> None:
    fake.events = [[event("oom", 1.0), event("die", 1.1, exitCode="137"), event("destroy", 1.2)]]
    assert run(tmp_path) == Ending(137, True, ())


def test_killed_long_after_something_in_it_was_killed_for_memory(
    fake: Fake, tmp_path: Path
) -> None:
    fake.events = [[event("oom", 1), event("die", 60, exitCode="137"), event("destroy", 60)]]
    assert run(tmp_path) == Ending(137, False, ())


def test_killed_by_us(fake: Fake, tmp_path: Path) -> None:
    """Whatever happened in it shortly before."""
    fake.events = [[event("oom", 1), event("die", 1.1, exitCode="137"), event("destroy", 1.2)]]
    made = container(tmp_path, [])
    made.kill()  # before it is started, even
    made.start()
    assert made.wait() == Ending(137, False, ())
    assert fake.asked("POST", f"/containers/{CONTAINER}/kill")


def test_exit_codes_of_windows(fake: Fake, tmp_path: Path) -> None:
    fake.info, fake.version = dict(WINDOWS_INFO), dict(WINDOWS_VERSION)
    fake.events = [[event("die", 1, exitCode="3221225495"), event("destroy", 1)]]
    assert run(tmp_path, WINDOWS) == Ending(0xC0000017, True, ())


def test_events_that_break_off_are_asked_for_again(fake: Fake, tmp_path: Path) -> None:
    fake.events = [
        [event("oom", 1)],
        [],
        [event("oom", 1), event("die", 1.5, exitCode="137"), event("destroy", 2)],
    ]
    assert run(tmp_path) == Ending(137, True, ())


def test_the_engine_is_gone(fake: Fake, tmp_path: Path) -> None:
    """It was stopped: the streams end, and it does not know the container any more."""
    fake.events = [[]]
    fake.answers[f"GET /containers/{CONTAINER}/json"] = (200, {"Created": CREATED})
    made = container(tmp_path, [])
    made.start()
    fake.answers[f"GET /containers/{CONTAINER}/json"] = (404, {"message": "No such container"})
    with pytest.raises(EngineError, match="lost the container for shard 1") as error:
        made.wait()
    assert "finished work is kept" in str(error.value.hint)


def test_the_engine_is_killed(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stream breaks off in the middle; no thread ends in an exception."""
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    fake.dies = True
    fake.events = []
    fake.samples = [{"memory_stats": {"usage": 5}}]
    made = container(tmp_path, [])
    made.start()
    made.memory()
    with pytest.raises(EngineError, match="the connection to the engine was lost"):
        made.wait()
    made._sampler.join(60)
    assert not made._sampler.is_alive()
    assert raised == []


def test_the_engine_does_not_answer_any_more(fake: Fake, tmp_path: Path) -> None:
    fake.events = []
    made = container(tmp_path, [])
    made.start()
    fake.answers[f"GET /containers/{CONTAINER}/json"] = (500, {"message": "shutting down"})
    with pytest.raises(EngineError, match="shutting down"):
        made.wait()


def test_one_that_the_engine_does_not_remove_is_removed(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_REMOVAL", 0.2)
    monkeypatch.setattr(running, "_AGAIN", (5.0,))
    fake.events = [[event("die", 1, exitCode="0")]]
    assert run(tmp_path).code == 0
    assert fake.asked("DELETE", f"/containers/{CONTAINER}")
