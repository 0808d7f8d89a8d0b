"""Plans as people read them, as snapshots (see test_ui)."""

from __future__ import annotations

import pytest

from fatwheel.cli.plans import show_plan
from fatwheel.pipeline.plan import BuildPlan

from ...helpers.plandocuments import EVERY, LINUX, WINDOWS, with_footprint
from .test_ui import check_snapshot


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")


def shown(plan: BuildPlan, capsys: pytest.CaptureFixture[str]) -> str:
    show_plan(plan)
    printed = capsys.readouterr()
    assert printed.err == "", "a plan is a result: all of it goes to stdout"
    return printed.out


@pytest.mark.parametrize("name", EVERY)
def test_plans(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_snapshot(f"plan-document-{name}", shown(EVERY[name], capsys))


def test_every_command_stands_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """So that a line can be copied; those for which nothing will run have none."""
    lines = {line.strip() for line in shown(WINDOWS, capsys).splitlines()}
    commands = [image.command for image in WINDOWS.footprint.images]
    commands += [group.command for group in WINDOWS.footprint.containers if group.most]
    assert [command for command in commands if command not in lines] == []
    assert sum(line.startswith("docker ") for line in lines) == len(set(commands))


def test_a_plan_with_nothing_to_lock_does_not_speak_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "lock" not in shown(LINUX, capsys)
    assert "invoke lock --toolchain windows-msvc17.8-cuda12.3" in shown(WINDOWS, capsys)


def test_how_windows_containers_are_isolated(capsys: pytest.CaptureFixture[str]) -> None:
    assert "hyperv on Windows 10 and 11" in shown(WINDOWS, capsys)
    chosen = shown(with_footprint(WINDOWS, isolation="hyperv"), capsys)
    assert "hyperv, as FATWHEEL_ISOLATION says" in chosen
    assert "isolation" not in shown(LINUX, capsys)


def test_tags_that_will_be_others_are_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert "FATWHEEL_BASES" in shown(LINUX, capsys)
    assert "FATWHEEL_BASES" not in shown(with_footprint(LINUX, final_tags=True), capsys)
