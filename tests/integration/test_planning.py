"""A plan, held against the build that it is the plan of, in real containers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fatwheel.engines.base import log_name

from .conftest import Contained, Workbench

pytestmark = pytest.mark.slow


def test_a_build_in_containers_goes_as_planned(contained: Contained, tmp_path: Path) -> None:
    bench = Workbench(tmp_path / "plan", slim=contained.bench.slim)
    # No engine answers there, and none has to.
    nowhere = {**contained.lent.variables, "DOCKER_HOST": "tcp://127.0.0.1:1"}
    done = bench.build(
        "--engine", "docker", "--arch", "80,89", "--python", "3.11,3.13", "--plan", "--json",
        **nowhere,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert not (bench.cache / "logs").exists()
    plan = json.loads(done.out)
    assert [wheel["file"] for wheel in plan["wheels"]] == [
        wheel.name for wheel in contained.outcome.wheels
    ], contained.outcome.err
    first = next((contained.bench.cache / "logs").glob("fatwheel-sample-*-3.11-*"))
    planned = {
        log_name(group["purpose"]) for group in plan["containers"] if group["python"] == "3.11"
    }
    assert planned == {path.name for path in first.iterdir()}, "a log for each planned container"
