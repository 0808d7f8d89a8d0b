"""The benchmark's part on containers: what it compares, and in which order."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import containers
from bench.measure import Run, Sampled
from bench.parts import Session
from bench.workbench import Built, Workbench, read_output
from fatwheel.config.recipe import Target
from fatwheel.containers.imagebuild import ContainerImage
from fatwheel.errors import FatwheelError
from fatwheel.events import silent


def build_of(wall: float, start: float, seconds: float = 5.0) -> Built:
    line = f"[1/1] a [sm_80] {seconds:.1f} s, 1.0 GiB\n"
    return read_output(Run(0, wall, 1.0, line, Sampled(), marked=start + seconds))


def test_containers_are_measured_by_medians_of_the_same_rounds() -> None:
    processes = [build_of(100, 3), build_of(200, 5), build_of(120, 4)]
    contained = [build_of(130, 11), build_of(90, 8), build_of(126, 6)]
    found = containers.compare(processes, contained)
    assert [measured.wall for measured in found.measurements] == [120, 126]
    ratio, start, other = found.figures
    assert (ratio.value, ratio.limit, ratio.met) == (pytest.approx(1.05), 1.10, True)
    assert (start.value, start.limit, start.met) == (pytest.approx(8), 10, True)
    assert (other.value, other.limit) == (pytest.approx(4), None)


def test_builds_in_containers_that_compile_nothing_measure_nothing() -> None:
    with pytest.raises(FatwheelError, match="nothing compiled"):
        containers.compare([build_of(1, 1)], [read_output(Run(0, 1.0, 1.0, "", Sampled()))])


def test_both_engines_build_in_turn_in_containers_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images are made before; every build has a bench, so an empty store, of its own."""
    order: list[str] = []
    benches: list[object] = []

    def build(bench: Workbench, target: Target, front: str, more: list[str]) -> Built:
        benches.append(bench)
        order.append(" ".join([front, *more]))
        return build_of(len(order), 1)

    monkeypatch.setattr(Workbench, "build", build)

    def ensure(*asked: object) -> list[ContainerImage]:
        order.append("images")
        made = order.count("images") == 1
        return [ContainerImage(kind, kind, "sha256:1", 1, made) for kind in ("toolchain", "env")]

    monkeypatch.setattr(containers, "ensure_images", ensure)
    monkeypatch.setattr(containers, "connect", lambda: None)
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "user"))
    target: Any = SimpleNamespace(toolchain=None, python="3.11", torch="2.11.0")
    tools: Any = None
    session = Session(target, tools, tmp_path, 2, silent)
    found = containers.measure_containers(session)
    docker, process = ("exact --engine docker", "exact --engine process")
    assert order == ["images", "images", docker, process, process, docker]
    assert len(set(map(id, benches))) == 4
    assert [measured.note for measured in found.measurements[:2]] == [
        "built: toolchain, env", "none built",
    ]  # fmt: skip
    assert [measured.what for measured in found.measurements[2:]] == [
        "build --engine process", "build --engine docker",
    ]  # fmt: skip
    assert [measured.wall for measured in found.measurements[2:]] == [4.5, 4.5]
