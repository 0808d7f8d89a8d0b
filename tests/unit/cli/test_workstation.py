"""The tasks `doctor` and `setup`: their arguments, their results and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from invoke.collection import Collection

from fatwheel.doctor.report import Preparation, SetupStep, Workstation, report_on
from fatwheel.errors import FetchError, ToolchainError, UsageError
from fatwheel.pipeline.resolve import ToolchainRequest, choose_cells
from fatwheel.shipped import DEFAULT_TOOLCHAINS
from fatwheel.toolchain.homes import is_accepted

from ...helpers.commandline import exit_code_of, load_tasks
from ...helpers.workstations import BROKEN, HEALTHY

COLLECTION = Collection.from_module(load_tasks())
Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*arguments: str) -> int:
        return exit_code_of(COLLECTION, arguments, monkeypatch)

    return run


def test_doctor_passes_its_options_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[ToolchainRequest, str | None]] = []

    def diagnose(request: ToolchainRequest, engine: str | None) -> Workstation:
        asked.append((request, engine))
        return report_on(HEALTHY)

    monkeypatch.setattr("fatwheel.doctor.report.diagnose", diagnose)
    assert run("doctor") == 0
    assert run("doctor", "--toolchain", "t", "--engine", "docker") == 0
    assert run("doctor", "--cuda", "12.8", "--torch", "2.8", "--python", "3.12") == 0
    assert asked == [
        (ToolchainRequest(), None),
        (ToolchainRequest(toolchain="t"), "docker"),
        (ToolchainRequest(cudas="12.8", torches="2.8", pythons="3.12"), None),
    ]


def test_doctor_reports_before_it_fails(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fatwheel.doctor.report.diagnose", lambda *_: report_on(BROKEN))
    assert run("doctor", "--json") == ToolchainError.exit_code
    captured = capfd.readouterr()
    assert json.loads(captured.out)["ok"] is False
    assert captured.err.startswith(
        "error: windows-msvc17.8-cuda12.3 cannot be used here yet: cache"
    )
    assert run("doctor") == ToolchainError.exit_code
    assert "4 wrong" in capfd.readouterr().out


def test_setup_ends_as_its_first_failure_or_as_the_doctor_does(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    steps = (SetupStep("cache folder", "there", "/c"),)
    failure = FetchError("no network")
    cases = [
        (Preparation(steps, report_on(HEALTHY)), 0),
        (Preparation(steps, report_on(BROKEN)), ToolchainError.exit_code),
        (Preparation(steps, report_on(BROKEN), failure), FetchError.exit_code),
    ]
    for prepared, code in cases:
        monkeypatch.setattr(
            "fatwheel.doctor.report.prepare_workstation", lambda *_, done=prepared: done
        )
        assert run("setup", "--json") == code
        assert json.loads(capfd.readouterr().out)["ok"] is (code == 0)
        assert run("setup") == code
        assert capfd.readouterr().out.startswith(prepared.report.toolchain)


@pytest.mark.parametrize("task", ["doctor", "setup"])
@pytest.mark.parametrize(
    "arguments", [("--toolchain", "no-such"), ("--engine", "podman"), ("--toolchain", "")]
)
def test_nonsense_is_refused(
    task: str, arguments: tuple[str, ...], run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(task, *arguments) == 2
    captured = capfd.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.out == ""


def test_a_worker_in_containers_for_windows_is_refused_before_anything_is_checked(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def reached(*_: object) -> None:
        pytest.fail("the toolchain was not refused first")

    monkeypatch.setattr("fatwheel.doctor.report.diagnose", reached)
    monkeypatch.setattr("fatwheel.engines.cluster.serve", reached)
    toolchain = DEFAULT_TOOLCHAINS["windows"]
    words = ("worker", "tcp://pool:8786", "--toolchain", toolchain, "--engine", "docker")
    assert run(*words) == UsageError.exit_code
    assert f"toolchain {toolchain} is for Windows" in capfd.readouterr().err


def test_a_worker_for_windows_is_checked_for_what_it_needs(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On Linux that is Wine. Microsoft's terms can be accepted for what builds send."""
    asked: list[object] = []

    def diagnose(tools: ToolchainRequest, engine: str) -> object:
        asked.extend([choose_cells(tools)[0].toolchain.platform, engine])
        return SimpleNamespace(ok=True)

    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path))
    monkeypatch.setattr("fatwheel.doctor.report.diagnose", diagnose)
    monkeypatch.setattr("fatwheel.engines.cluster.serve", lambda *_: asked.append("serves"))
    words = ("worker", "tcp://pool:8786", "--platform", "windows-x86_64", "--accept-msvc-license")
    assert run(*words) == 0
    assert asked == ["win-amd64", "process", "serves"]
    assert is_accepted(tmp_path)
