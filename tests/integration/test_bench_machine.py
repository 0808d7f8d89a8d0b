"""`invoke bench --part machine`: a whole wheel both ways, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

from bench.results import read_results
from fatwheel.model import Environment

from .conftest import SAMPLE, Workbench


def test_both_ways_are_measured_and_kept(
    environment: Environment, bench: Workbench, tmp_path: Path
) -> None:
    """environment: it is there already, as the bench's own workbenches share it."""
    kept = tmp_path / "kept" / "here.json"
    kept.parent.mkdir()
    outcome = bench.invoke(
        "bench", "--part", "machine", "--kernel", str(SAMPLE), "--arch", "80,86",
        "--keep", str(kept), "--markdown",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    [result] = read_results(kept.parent)
    assert (result.subject.project, result.subject.archs) == ("fatwheel-sample", ("80", "86"))
    for way in (result.upstream, result.own):
        assert way.wall > 0
        assert way.cpu > 0.2, "compilers were not counted"
        assert way.memory > 20 << 20, "no compiler was seen"
    assert f"| {result.own.wall:.1f} s | " in outcome.out
