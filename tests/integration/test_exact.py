"""Exact by default: stitched objects hold what one multi-architecture nvcc call makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.model import Environment, Unit
from fatwheel.worker.archs import fronts_of
from fatwheel.worker.assemble import object_of

from .conftest import Captured, Outcome, Workbench
from .guarded import UNITS, guarded_project
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


@pytest.mark.parametrize("cub", [False, pytest.param(True, marks=pytest.mark.long)])
def test_selftest_equals_monolithic_nvcc(
    cub: bool,
    selftest: tuple[Workbench, Outcome],
    capture: Callable[..., Captured],
    environment: Environment,
    tool: Callable[[str], str],
    tmp_path: Path,
) -> None:
    captured = capture(selftest[0], "selftest")
    units = [unit for unit in captured.ready.units if unit.kind == "cuda"]
    assert len(units) == 9
    # One takes as long as all others; that of causal-conv1d below includes CUB, too.
    chosen = [unit for unit in units if unit.name.endswith("/cub") == cub]
    assert len(chosen) == (1 if cub else 8)
    for index, unit in enumerate(chosen):
        folder = tmp_path / str(index)
        names = ["sm_80", "sm_86", "sm_89"]
        _assert_equal(unit, captured, names, environment, tool("objcopy"), folder)


@pytest.mark.parametrize("kernel", ["byunit", pytest.param("cmake", marks=pytest.mark.long)])
def test_units_of_cmake_and_those_for_some_architectures_equal_monolithic_nvcc(
    kernel: str,
    bench: Workbench,
    capture: Callable[..., Captured],
    environment: Environment,
    tool: Callable[[str], str],
    tmp_path: Path,
) -> None:
    if kernel == "cmake":
        tool("cmake")
    captured = capture(bench, f"tests/data/{kernel}", "80,90a")
    units = [unit for unit in captured.ready.units if unit.kind == "cuda"]
    assert len(units) == 3
    for index, unit in enumerate(units):
        own = replace(captured, fronts=fronts_of(unit, captured.fronts))
        names = [front.virtual.sm for front in own.fronts]
        folder = tmp_path / str(index)
        _assert_equal(unit, own, names, environment, tool("objcopy"), folder)


_PLAIN = """
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
__global__ void plain(int *result) { *result = 42; }
__device__ int counted = 7;
__constant__ int fixed[2] = {1, 2};
int read_counted() {
    int result = 0;
    plain<<<1, 1>>>(nullptr);
    return cudaMemcpyFromSymbol(&result, counted, sizeof result) + result + sizeof fixed;
}
#endif
"""
_IN_ALL, _FRESH, _OLD = (
    "_Z17everywhere_kernelPi",
    "_Z12fresh_kernelIiEvPT_",
    "_Z10old_kernelIiEvPT_",
)


@pytest.mark.parametrize(
    ("archs", "more", "registered"),
    [
        pytest.param(
            "80,90",
            _PLAIN,
            {_IN_ALL, _FRESH, "_Z5plainPi", "counted", "fixed"},
            marks=pytest.mark.long,
        ),
        ("80+ptx,86,90a", _PLAIN, {_IN_ALL, _FRESH, "_Z5plainPi", "counted", "fixed"}),
        ("80,86", "", {_IN_ALL, _OLD}),
    ],
)
def test_kernels_of_some_architectures_are_registered_as_by_monolithic_nvcc(
    archs: str,
    more: str,
    registered: set[str],
    bench: Workbench,
    capture: Callable[..., Captured],
    environment: Environment,
    tool: Callable[[str], str],
    tmp_path: Path,
) -> None:
    captured = capture(bench, guarded_project(tmp_path / "exact", 900, more), archs)
    names = [code for one in captured.fronts for code in one.codes if code.startswith("sm_")]
    units = [unit for unit in captured.ready.units if unit.name in UNITS]
    for unit in units:
        folder = tmp_path / unit.name
        _assert_equal(unit, captured, names, environment, tool("objcopy"), folder)
        text = section(tool("objcopy"), folder / "stitched.o", ".rodata")
        strings = {string.decode("latin-1") for string in text.split(b"\0")}
        everything = {_IN_ALL, _FRESH, _OLD, "_Z5plainPi", "counted", "fixed"}
        assert strings & everything == registered
    assert len(units) == len(UNITS)


@pytest.mark.parametrize(
    ("names", "whole"),
    [
        pytest.param(("fwd",), False, id="quick"),
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

    What a third architecture adds, another image in the same container, selftest's nine units show.
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
