"""What `simulate` shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fatwheel.cli.main import commands
from fatwheel.errors import EngineError, FormatError, UsageError
from fatwheel.pipeline.workload import Call, Workload, keep_workload

from ...helpers.commandline import exit_code_of
from ...helpers.schemas import schema_of

Run = Callable[..., int]


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    """Of a hundred units, an hour and a half each at most: whatever is shown is long."""
    calls = tuple(
        Call(f"csrc/unit{number}", "cuda", "a.cu", "", "compute_80", ("sm_80", "sm_86"), True,
             3 << 30, 5400.0 - number, 777_777_777, 7_777_777, ())
        for number in range(100)
    )  # fmt: skip
    file = tmp_path / "costs.json"
    keep_workload(
        file, Workload(1, "demo", "1.0", "linux-cuda13.0", ("80", "86"), 7_777_777, calls)
    )
    return file


@pytest.fixture
def simulate(costs: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*options: str) -> int:
        arguments = ("simulate", "--costs", str(costs), *options)
        return exit_code_of(commands(), arguments, monkeypatch)

    return run


def test_a_table_fits_a_terminal(simulate: Run, capfd: pytest.CaptureFixture[str]) -> None:
    assert simulate("--workers", "1,40,1000") == 0
    first, second, third, header, _, *rows = capfd.readouterr().out.splitlines()
    assert first == "demo 1.0 for 80, 86: 100 compiler calls"
    assert second.startswith("148 h ")
    assert third == "a worker: 4 cores, 14.0 GiB; network: 110.0 MiB/s, workers 110.0 MiB/s"
    assert header.split() == ["workers", "time", "bound", "busy", "sent", "received", "limits"]
    assert [row.split()[0] for row in rows] == ["1", "40", "1000"]
    assert [row.split()[-1] for row in rows] == ["cores", "path", "path"]
    assert max(map(len, (header, *rows))) <= 80


def test_losses_have_a_column(simulate: Run, capfd: pytest.CaptureFixture[str]) -> None:
    options = ("--workers", "1000", "--lost", "10m,20m,1h", "--replaced-after", "5m")
    assert simulate(*options) == 0
    _, _, _, header, _, row = capfd.readouterr().out.splitlines()
    assert header.split() == ["workers", "time", "bound", "lost", "sent", "received", "limits"]
    assert re.search(r"  3  +[0-9.]+ GiB  ", row)
    assert max(len(header), len(row)) <= 80


def test_all_of_it_as_json(simulate: Run, capfd: pytest.CaptureFixture[str]) -> None:
    options = ("--latency", "0", "--overhead", "50ms", "--losses-per-hour", "2.5")
    each = ("--cores", "3", "--memory", "9GiB")
    assert simulate("--workers", "2,2,7", *options, *each, "--json") == 0
    found = json.loads(capfd.readouterr().out)
    jsonschema.validate(found, schema_of("simulate"))
    assert [row["workers"] for row in found["rows"]] == [2, 7]
    assert found["worker"] == {"cores": 3, "memory": 9 << 30}
    assert found["network"]["latency"] == 0
    assert found["network"]["overhead"] == 0.05
    assert found["losses"]["per_hour"] == 0.025


def test_a_build_that_fails_is_shown_with_the_others_and_is_an_error(
    simulate: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    assert simulate("--workers", "1,5", "--lost", "10m") == EngineError.exit_code
    shown = capfd.readouterr()
    assert [row.split()[-1] for row in shown.out.splitlines()[5:]] == ["fails", "cores"]
    assert "on 1 worker: no worker is left after 10 min 01 s" in shown.err
    assert "0 of " in shown.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--workers", "0"), "'0' is not a whole number"),
        (("--workers", "1,,2"), "'' is not a whole number"),
        (("--workers", "20000"), "20000 workers"),
        (("--cores", "x"), "'x' is not a whole number"),
        (("--memory", "lots"), "'lots' is not a size"),
        (("--bandwidth", "0MiB"), "is zero"),
        (("--latency", "soon"), "'soon' is no time"),
        (("--lost", "10m,"), "'' is no time"),
        (("--losses-per-hour", "-1"), "'-1' is no number"),
        (("--seed", "x"), "'x' is not a whole number"),
        (("--arch", "80"), "--arch beside --costs"),
        (("--keep-costs", "costs.txt"), "is no name of a list of costs"),
    ],
)
def test_what_cannot_be_is_refused(
    simulate: Run, options: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert simulate(*options) == UsageError.exit_code
    shown = capfd.readouterr()
    assert said in shown.err
    assert shown.out == ""


def test_a_file_that_has_no_costs_is_refused(
    simulate: Run, costs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    costs.write_text('{"format": 1}')
    assert simulate() == FormatError.exit_code
    assert "not a list of compiler calls" in capfd.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"cores": 4}, {"sources": "7"}, {"sources": True}, {"archs": "80"}, {"version": 1},
        {"calls": [{"memory": "3"}]}, {"calls": [{"host": 1}]}, {"calls": [{"shards": 2}]},
        {"calls": [{"records": [{"stage": "whole", "codes": [], "cpu": "1", "rss": 1}]}]},
    ],
)  # fmt: skip
def test_what_its_schema_refuses_is_refused(
    simulate: Run, costs: Path, change: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    found = json.loads(costs.read_bytes())
    for key, value in change.items():
        found[key] = [{**found[key][0], **value[0]}] if key == "calls" else value
    costs.write_text(json.dumps(found))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, schema_of("costs"))
    assert simulate() == FormatError.exit_code
    assert "not a list of compiler calls" in capfd.readouterr().err


def test_costs_can_be_kept_again(
    simulate: Run, costs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept.json"
    assert simulate("--workers", "1", "--keep-costs", str(kept)) == 0
    assert kept.read_bytes() == costs.read_bytes()
