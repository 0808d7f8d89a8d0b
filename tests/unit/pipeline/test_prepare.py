from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fatwheel.config.recipe import Target
from fatwheel.config.toolchain import TorchBuild
from fatwheel.engines import local
from fatwheel.engines.local import LocalCapture, LocalWorkplace, ready_tools
from fatwheel.engines.process import ProcessWorker
from fatwheel.errors import StoreError, UpstreamError, UsageError
from fatwheel.events import Emit, Event, Note, StepFinished, StepStarted, silent, step
from fatwheel.model import Front
from fatwheel.pipeline import resolve as resolve_module
from fatwheel.pipeline.capture import captured
from fatwheel.pipeline.plan import PlannedWheel
from fatwheel.pipeline.resolve import ToolchainRequest, resolve
from fatwheel.storage.cache import users_stores

from ...helpers.demoproject import Demo
from ...helpers.standins import cuda_unit, front

FRONTS = (front("80"),)


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]) -> Demo:
    tool("g++")
    demo = Demo(tmp_path, monkeypatch)
    for name in ("load_recipe", "load_toolchain"):
        monkeypatch.setattr(resolve_module, name, getattr(demo, name))
    return demo


# -- what was asked for ------------------------------------------------------------------------


def ask(
    archs: str | None = None, pythons: str | None = "3.11", torch: str | None = None
) -> tuple[Target, ...]:
    asked = ToolchainRequest("tools", "tools", pythons=pythons, torches=torch)
    return resolve("demo", asked, archs)


def refusal(**wanted: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        ask(**wanted)
    return caught.value


def test_by_default_the_recipes_architectures_are_built(demo: Demo) -> None:
    assert [str(item) for item in ask()[0].archs] == ["80", "86"]
    assert [str(item) for item in ask("90a,80+ptx")[0].archs] == ["80+ptx", "90a"]


def test_there_is_a_target_for_each_python(demo: Demo) -> None:
    targets = ask(pythons="3.12,3.11")
    assert [(target.python, target.torch) for target in targets] == [
        ("3.12", "2.11.0"), ("3.11", "2.11.0"),
    ]  # fmt: skip


def test_by_default_this_python_is_built_for_if_it_is_served(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", _Version(3, 11))
    assert [one.python for one in ask(pythons=None)] == ["3.11"]
    monkeypatch.setattr(sys, "version_info", _Version(3, 99))
    assert [one.python for one in ask(pythons=None)] == ["3.12"], "else the newest"


class _Version(tuple[int, int]):
    def __new__(cls, major: int, minor: int) -> _Version:
        return super().__new__(cls, (major, minor))

    major = property(lambda self: self[0])
    minor = property(lambda self: self[1])


@pytest.mark.parametrize(
    ("text", "named"),
    [("3.9", ["'3.9'"]), ("", ["''"]), ("3.11,3.9,x", ["'3.9'", "'x'"]), ("3.11,3.11", ["3.11"]),
     ("python3.11", ["'python3.11'"])],
)  # fmt: skip
def test_pythons_that_cannot_be_are_named_with_those_that_can(
    demo: Demo, text: str, named: list[str]
) -> None:
    error = refusal(pythons=text)
    assert error.where == f"--python {text}"
    assert [detail.split()[0] for detail in error.details] == named
    assert error.hint == "tools supports Python 3.11, 3.12"


def test_the_newest_torch_is_taken(demo: Demo) -> None:
    assert ask()[0].torch == "2.11.0"
    assert ask(torch="2.10.0")[0].torch == "2.10.0"


@pytest.mark.parametrize(
    ("pythons", "torch"),
    [("3.11", "1.0"), ("3.12", "2.10.0"), ("3.11,3.12", "2.10.0")],
)
def test_a_torch_that_is_not_there_for_a_python_is_refused_before_anything_is_done(
    demo: Demo, pythons: str, torch: str
) -> None:
    error = refusal(pythons=pythons, torch=torch)
    assert error.where == f"--torch {torch}"
    assert pythons.replace(",", ", ") in error.what
    assert error.hint == "valid: 2.10.0 for Python 3.11; 2.11.0 for Python 3.11, 3.12"


def test_by_default_a_torch_is_taken_that_all_pythons_have(demo: Demo) -> None:
    pairs = [("2.10.0", "3.11"), ("2.10.0", "3.12"), ("2.11.0", "3.11"), ("2.12.0", "3.12")]
    builds = tuple(TorchBuild(torch, python, ()) for torch, python in pairs)
    demo.toolchain = dataclasses.replace(demo.toolchain, builds=builds)
    assert ask(pythons="3.12")[0].torch == "2.12.0"
    assert ask(pythons="3.11,3.12")[0].torch == "2.10.0"


# -- tools and steps ---------------------------------------------------------------------------


def test_the_compiler_is_found_before_gigabytes_are_fetched(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(local, "host_compiler_for", lambda *_: order.append("compiler"))

    def ensure(*arguments: object) -> object:
        order.append("environment")
        return arguments

    monkeypatch.setattr(local, "ensure_environment", ensure)
    events: list[Event] = []
    tools = ready_tools(ask()[0], events.append)
    assert order == ["compiler", "environment"]
    assert tools.environment[1:4] == ("3.11", "2.11.0", demo.cache)  # type: ignore[index]
    assert [type(event) for event in events] == [StepStarted, StepFinished]


def test_a_step_says_when_it_began_and_how_long_it_took() -> None:
    events: list[Event] = []
    with step(events.append, "capture", "demo"):
        assert events == [StepStarted("capture", "demo")]
    [_, finished] = events
    assert isinstance(finished, StepFinished)
    assert (finished.step, finished.detail) == ("capture", "demo")
    assert finished.seconds >= 0


def test_a_step_that_fails_never_finished() -> None:
    events: list[Event] = []
    with pytest.raises(UpstreamError), step(events.append, "capture"):
        raise UpstreamError("no")
    assert events == [StepStarted("capture")]


# -- preparing ---------------------------------------------------------------------------------


@contextmanager
def prepared(demo: Demo, emit: Emit, fronts: tuple[Front, ...] = FRONTS) -> Iterator[LocalCapture]:
    workplace = LocalWorkplace(demo.tools, ProcessWorker)
    target, limits = ask()[0], workplace.capacity
    wheel = PlannedWheel(target, fronts)
    with captured(wheel, workplace, limits, users_stores(), emit) as (_, capture):
        yield capture


def test_units_are_captured_and_their_sources_are_in_the_view(demo: Demo) -> None:
    events: list[Event] = []
    with prepared(demo, events.append) as ready:
        assert [unit.name for unit in ready.units] == ["csrc/a", "csrc/b", "csrc/c"]
        places = ready.context.places
        source = Path(places.source)
        assert source == demo.folder / "view" / "demo-1.0" / "src"
        assert (source / "csrc" / "a.cu").read_text() == "int a;\n"
        assert ready.build.work.is_dir()
        assert dict(places.links) == {
            "site": str(demo.folder / "env" / "site"), "env": str(demo.folder / "env"),
            "cuda": str(demo.home), "python": str(demo.folder / "env" / "python"),
        }  # fmt: skip
    assert [event.step for event in events if isinstance(event, StepStarted)] == [
        "source", "capture",
    ]  # fmt: skip


def test_a_build_says_so_where_compilers_see_sources_at_another_path(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    (demo.folder / "view").write_text("in the way")
    mount = demo.folder / "bin" / "mount"
    mount.parent.mkdir()
    mount.write_text("#!/bin/sh\nexit 32\n")
    mount.chmod(0o755)
    monkeypatch.setenv("PATH", f"{mount.parent}:{os.environ['PATH']}")
    events: list[Event] = []
    with prepared(demo, events.append) as ready:
        assert Path(ready.context.places.source).is_relative_to(demo.cache / "refuge")
    [said] = [event.text for event in events if isinstance(event, Note)]
    assert "will differ" in said
    assert str(demo.folder / "view") in said


@pytest.mark.parametrize(
    ("cuda", "seeded"), [("11.8", False), ("12.8", False), ("12.9", True), ("13.0", True)]
)
def test_seeds_are_given_to_nvccs_that_know_them(demo: Demo, cuda: str, seeded: bool) -> None:
    demo.toolchain = dataclasses.replace(demo.toolchain, cuda=cuda)
    with prepared(demo, silent) as ready:
        assert ready.context.seeded is seeded


def test_compilers_see_none_of_the_users_variables(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CPATH", "NVCC_APPEND_FLAGS", "CPLUS_INCLUDE_PATH", "GCC_EXEC_PREFIX", "TMPDIR"):
        monkeypatch.setenv(name, "/users")
    monkeypatch.setenv("TMPDIR", str(demo.folder))
    with prepared(demo, silent) as ready:
        variables = ready.context.variables(demo.folder)
    assert sorted(variables) == ["LC_ALL", "PATH", "PWD", "SOURCE_DATE_EPOCH", "TMPDIR"]
    assert variables["SOURCE_DATE_EPOCH"] == "1700000000"
    assert variables["TMPDIR"] == "/proc/self/cwd", "a killed compiler's files go with its job's"


def test_the_fronts_decide_the_list_of_architectures(demo: Demo) -> None:
    with prepared(demo, silent) as ready:
        assert ready.context.archlist(cuda_unit()) == (800,)
        both = replace(ready.context, fronts=(front("80"), front("90a")))
        assert both.archlist(cuda_unit()) == (800, 900)


def test_another_file_is_another_listing(demo: Demo) -> None:
    listings = []
    for extra in ("", "csrc/extra.h"):
        if extra:
            demo.write(extra, "int extra;\n")
        with prepared(demo, silent) as ready:
            listings.append(ready.context.places.listing)
    assert listings[0] != listings[1]


# -- work folders ------------------------------------------------------------------------------


def test_the_work_folder_goes_with_the_build(demo: Demo) -> None:
    with prepared(demo, silent):
        assert len(demo.work_folders()) == 1
    assert demo.work_folders() == []


def test_the_work_folder_goes_when_the_build_fails(demo: Demo) -> None:
    demo.write("own_backend.py", "raise SystemExit('no')")
    with pytest.raises(UpstreamError), prepared(demo, silent):
        pass
    assert demo.work_folders() == []


def test_a_cache_that_cannot_be_written_is_named(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    (demo.folder / "file").write_text("")
    monkeypatch.setenv("FATWHEEL_CACHE", str(demo.folder / "file"))
    with pytest.raises(StoreError) as caught, prepared(demo, silent):
        pass
    assert "FATWHEEL_CACHE" in (caught.value.hint or "")


def test_nothing_of_ours_is_open_in_the_compilers(demo: Demo) -> None:
    """A child that kept the lock would keep the folder of a killed build for ever."""
    with prepared(demo, silent):
        held = [fd for fd in os.listdir("/proc/self/fd") if _is_work(f"/proc/self/fd/{fd}")]
        assert len(held) == 1
        assert not os.get_inheritable(int(held[0]))


def _is_work(link: str) -> bool:
    try:
        return os.path.basename(os.readlink(link)).startswith("build-")
    except OSError:
        return False
