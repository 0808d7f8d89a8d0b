"""What people read of a workstation, as snapshots."""

from __future__ import annotations

import pytest

from fatwheel.cli.results import show_health, show_setup
from fatwheel.doctor.report import Preparation, SetupStep, report_on

from ...helpers.workstations import BROKEN, HEALTHY, facts
from .test_ui import HOSTILE, check_snapshot, narrow

assert narrow  # a fixture

HEALTH = report_on(HEALTHY)
SICKNESS = report_on(BROKEN)


def test_a_healthy_linux_machine(capsys: pytest.CaptureFixture[str]) -> None:
    show_health(HEALTH.to_json())
    check_snapshot("health-linux", capsys.readouterr().out)


def test_a_broken_windows_machine(capsys: pytest.CaptureFixture[str]) -> None:
    show_health(SICKNESS.to_json())
    check_snapshot("health-windows", capsys.readouterr().out)


def test_commands_are_whole_lines_on_a_narrow_terminal(
    narrow: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that they can be copied: the terminal may wrap them, nothing else does."""
    show_health(SICKNESS.to_json())
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    commands = {fix.command for finding in SICKNESS.findings for fix in finding.fixes}
    assert commands - {""} <= set(lines)


def test_a_setup_that_leaves_something(capsys: pytest.CaptureFixture[str]) -> None:
    steps = (
        SetupStep("cache folder", "left", "first: cache folder"),
        SetupStep("files", "failed", "no file of this name", 3.0),
    )
    show_setup(Preparation(steps, SICKNESS).to_json())
    check_snapshot("setup-left", capsys.readouterr().out)


def test_a_setup_that_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    steps = (
        SetupStep("cache folder", "there", "/home/ada/.cache/fatwheel"),
        SetupStep("environment", "done", "Python 3.11.2, torch 2.11.0: /home/ada/env", 70.0),
    )
    show_setup(Preparation(steps, HEALTH).to_json())
    check_snapshot("setup-done", capsys.readouterr().out)


def test_words_of_a_server_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_health(report_on(facts(compiler=HOSTILE)).to_json())
    shown = capsys.readouterr().out
    assert {char for char in shown if not char.isprintable()} == {"\n"}
    assert "evil\\x1b[31m\\x07name" in shown
