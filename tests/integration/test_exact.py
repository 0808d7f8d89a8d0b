"""Exact by default: stitched objects hold what one multi-architecture nvcc call makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.model import Environment, Unit
from fatwheel.worker.assemble import object_of

from .conftest import Captured, Outcome, Workbench
from .monolithic import compile_monolithic, cubins, section
from .shortened import shortened_causal_conv1d

pytestmark = pytest.mark.slow


def _assert_equal(
    unit: Unit,
    captured: Captured,
    names: list[str],
    environment: Environment,
    objcopy: str,
    folder: Path,
) -> None:
    """names: of the cubins that both objects must hold."""
    context = captured.context
    stitched = folder / "stitched.o"
    folder.mkdir(parents=True)
    stitched.write_bytes(object_of(context, context.store(), unit, captured.fronts))
    reference = compile_monolithic(context, unit, captured.fronts, folder / "reference", threads=2)
    cuobjdump = environment.cuda_home / "bin" / "cuobjdump"
    ours, theirs = (
        cubins(cuobjdump, obj, folder / label)
        for obj, label in ((stitched, "ours"), (reference, "theirs"))
    )
    assert sorted(ours) == sorted(theirs) == names, unit.name
    for arch, cubin in theirs.items():
        assert ours[arch] == cubin, f"{unit.name}: the {arch} cubin differs from nvcc's own"
    assert section(objcopy, stitched, ".nv_fatbin") == section(objcopy, reference, ".nv_fatbin"), (
        f"{unit.name}: same cubins, but another fatbin section"
    )
    for name in (".text", ".rodata", ".symtab", ".strtab"):
        mine, other = section(objcopy, stitched, name), section(objcopy, reference, name)
        assert mine == other, f"{unit.name}: the host code differs in {name}"


def test_selftest_equals_monolithic_nvcc(
    selftest: tuple[Workbench, Outcome],
    capture: Callable[..., Captured],
    environment: Environment,
    tool: Callable[[str], str],
    tmp_path: Path,
) -> None:
    captured = capture(selftest[0], "selftest")
    units = [unit for unit in captured.ready.units if unit.kind == "cuda"]
    assert len(units) == 9
    for index, unit in enumerate(units):
        folder = tmp_path / str(index)
        names = ["sm_80", "sm_86", "sm_89"]
        _assert_equal(unit, captured, names, environment, tool("objcopy"), folder)


@pytest.mark.parametrize(
    ("names", "whole"),
    [
        pytest.param(("fwd", "update"), False, id="quick"),
        pytest.param(("fwd", "update", "bwd"), True, marks=pytest.mark.long, id="all"),
    ],
)
def test_causal_conv1d_equals_monolithic_nvcc(
    names: tuple[str, ...],
    whole: bool,
    bench: Workbench,
    capture: Callable[..., Captured],
    environment: Environment,
    tool: Callable[[str], str],
    tmp_path: Path,
) -> None:
    """For two architectures; one of the three units takes four minutes of a core for each.

    What a third one adds, another image in the same container, selftest's nine units show.
    """
    kernel = "causal-conv1d" if whole else str(shortened_causal_conv1d(tmp_path / "project"))
    captured = capture(bench, kernel, "80,86")
    units = [unit for unit in captured.ready.units if unit.kind == "cuda"]
    assert len(units) == 3
    chosen = [unit for unit in units if unit.name.endswith(tuple(f"_{name}" for name in names))]
    assert len(chosen) == len(names), f"not these: {[unit.name for unit in units]}"
    for unit in chosen:
        folder = tmp_path / unit.name
        _assert_equal(unit, captured, ["sm_80", "sm_86"], environment, tool("objcopy"), folder)
