"""Exact by default: stitched objects hold what one multi-architecture nvcc call makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.build.assemble import object_of
from fatwheel.model import Environment, Unit

from .conftest import Captured, Outcome, Workbench
from .monolithic import compile_monolithic, cubins, section

pytestmark = pytest.mark.slow


def _assert_equal(
    unit: Unit, captured: Captured, environment: Environment, objcopy: str, folder: Path
) -> None:
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
    assert sorted(ours) == sorted(theirs) == ["sm_80", "sm_86", "sm_89"], unit.name
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
        _assert_equal(unit, captured, environment, tool("objcopy"), tmp_path / str(index))


def test_causal_conv1d_equals_monolithic_nvcc(
    bench: Workbench,
    capture: Callable[..., Captured],
    environment: Environment,
    tool: Callable[[str], str],
    tmp_path: Path,
) -> None:
    bench.build("--arch", "80,86,89", kernel="causal-conv1d").wheel()
    captured = capture(bench, "causal-conv1d")
    units = [unit for unit in captured.ready.units if unit.kind == "cuda"]
    assert len(units) == 3
    for unit in units:
        _assert_equal(unit, captured, environment, tool("objcopy"), tmp_path / unit.name)
