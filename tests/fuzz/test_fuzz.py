"""A few thousand inputs of the fuzzer, and that it finds bugs where there are some.

`invoke fuzz` tries more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.errors import FatwheelError

from . import harness
from .harness import Campaign, Report, run_campaign, run_file, targets_of
from .seeds import make_seeds
from .worker import Cases

ROOT = Path(__file__).parents[2]
INPUTS = 3000
PLANTED = "tests.fuzz.planted"
# What each planted bug must be reported as.
BUGS = {
    "key_error": "KeyError",
    "recursion": "RecursionError",
    "loop": "TooSlow",
    "long_call": "TooSlow",
    "wait": "Hangs",
    "claim": "MemoryError",
    "fill": "MemoryError",
    "crash": "Died",
    "leave": "SystemExit",
}
# Steps that are right to refuse a sound file, of a target or of one file: those for the object
# of one unit refuse files of several; relocatable device code cannot be edited.
REFUSE = {
    "fatbin/many": ("parity",),
    "fatbin/row": ("parity",),
    "elf": ("restitch",),
    "elf/object.o": (),
    "elf/separate.o": ("thin", "unite_with_itself"),
    "thin/many": ("thin_wheel",),
    "pyproject/pyproject.toml": ("recipe",),
    "statements/several": ("papers",),  # builds of different inputs, stitched: no lock is theirs
}


@pytest.fixture(scope="session")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "seeds"
    missing = make_seeds(folder)
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{missing}: scripts/install-test-tools installs them on Debian")
    return folder


def told(report: Report) -> str:
    """The report's problems, to be read where a test fails."""
    return "\n".join(
        f"{target}: {kind} at {place} (seed and input {number}): {outcome.said}\n{outcome.trace}"
        for (target, kind, place), (number, outcome) in report.problems.items()
    )


def test_only_errors_of_ours_come_out_in_little_time_and_memory(seeds: Path) -> None:
    targets = tuple(targets_of(harness.TARGETS))
    report, _ = run_campaign(Campaign(INPUTS, targets, seed=1, jobs=2), seeds)
    assert not report.problems, told(report)
    assert report.inputs == INPUTS
    for target in targets:
        share = report.accepted[target] / max(report.tried[target], 1)
        assert share > 0.05 or not report.tried[target], (
            f"{target}: only {share:.0%} of its inputs get behind the first checks"
        )


@pytest.mark.parametrize("name", targets_of(harness.TARGETS))
def test_sound_files_are_accepted(name: str, seeds: Path) -> None:
    """Else damaged ones would be refused for a reason that is none."""
    target = targets_of(harness.TARGETS)[name]
    for file in (file for kind in target.kinds for file in sorted((seeds / kind).iterdir())):
        refused = [step.__name__ for step in target.steps if not accepts(step, file.read_bytes())]
        assert refused == list(REFUSE.get(f"{name}/{file.name}", REFUSE.get(name, ()))), file


def accepts(step: Callable[[bytes], None], data: bytes) -> bool:
    try:
        step(data)
    except FatwheelError:
        return False
    return True


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_is_found(bug: str, seeds: Path) -> None:
    limits = {"cpu": 0.3, "wall": 10.0, "memory": 64 << 20}
    if bug == "wait":
        limits["wall"] = 1.0
    campaign = Campaign(2, (bug,), seed=1, jobs=1, module=PLANTED, **limits)  # type: ignore[arg-type]
    report, inputs = run_campaign(campaign, seeds)
    assert {kind for _, kind, _ in report.problems} == {BUGS[bug]}, told(report)
    assert report.times.total() == 2, "the fuzzer must go on behind a problem"
    assert all(inputs.values())


def test_refusals_are_no_bugs(seeds: Path) -> None:
    campaign = Campaign(200, ("sound",), seed=1, jobs=1, module=PLANTED)
    report, _ = run_campaign(campaign, seeds)
    assert not report.problems, told(report)
    assert 0 < report.accepted["sound"] < 200


def test_the_same_seed_gives_the_same_inputs(seeds: Path) -> None:
    targets = targets_of(harness.TARGETS)

    def inputs(seed: int) -> list[bytes]:
        run = harness.Run(Campaign(20, tuple(targets), seed, jobs=1), seeds)
        cases = Cases(run.work(0), targets)
        return [cases.at(number).data for number in range(20)]

    assert inputs(1) == inputs(1)
    assert inputs(1) != inputs(2)


def test_a_file_is_tried_again(seeds: Path, tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_bytes(b"x")
    campaign = Campaign(1, ("key_error",), seed=1, jobs=1, module=PLANTED)
    [(_, outcome)] = run_file(file, campaign, seeds).problems.values()
    assert outcome.kind == "KeyError"
    assert outcome.place.startswith("planted.py:")


def test_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.harness", "--out", str(tmp_path / "problems")]
    done = subprocess.run(
        [*command, "--runs", "50", "--seed", "1", "--target", "ptx,lz4"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "50 inputs in" in done.stdout
    assert "no problems" in done.stdout
    file = tmp_path / "ptx-1-2.bin"
    file.write_bytes(b".entry x()")
    done = subprocess.run(
        [*command, "--replay", str(file)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("no problem ")


def test_what_finds_something_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness, "TARGETS", PLANTED)
    line = ["--runs", "3", "--seed", "1", "--jobs", "1", "--target", "key_error"]
    assert harness.main([*line, "--out", str(tmp_path / "kept")]) == 1
    told = capsys.readouterr().out
    assert "3 × key_error: KeyError at planted.py:" in told
    file = tmp_path / "kept" / "key_error-1-0.bin"
    assert f"invoke fuzz --replay {file}" in told
    assert "KeyError: 'missing'" in file.with_suffix(".txt").read_text()
    assert harness.main(["--replay", str(file)]) == 1
    assert "KeyError: 'missing'" in capsys.readouterr().out
