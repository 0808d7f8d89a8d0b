"""Builds of units whose architectures differ in kernels: what they say, and what can be done with
their wheels. That they are what nvcc makes is shown by test_exact, that they run by test_gpu."""

from __future__ import annotations

import itertools
import json
import zipfile
from pathlib import Path

import pytest

from fatwheel.fatbin.binary import read_binary
from fatwheel.model import Environment

from .conftest import Outcome, Workbench
from .guarded import UNITS, guarded_project
from .once import once

pytestmark = pytest.mark.slow

FRESH, OLD = "_Z12fresh_kernelIiEvPT_", "_Z10old_kernelIiEvPT_"
_MANAGED = """
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
__managed__ int shared_by_some = 3;
#endif
"""


@pytest.fixture(scope="module")
def built(
    environment: Environment, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workbench, str, Outcome]:
    """The project, built for 80 and 90; and its recipe."""

    def make(folder: Path) -> tuple[Workbench, str, Outcome]:
        kernel = guarded_project(folder / "guarded", 900)
        bench = Workbench(folder / "bench")
        outcome = bench.build("--arch", "80,90", kernel=kernel)
        outcome.wheel()
        return bench, kernel, outcome

    return once(tmp_path_factory, "guarded", make)


def binaries(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.endswith(".so")}


def images(library: bytes) -> list[bytes]:
    containers = read_binary(memoryview(library)).containers
    return [bytes(entry.raw) for container in containers for entry in container.entries]


def assert_told(outcome: Outcome) -> None:
    """In what the build says, in whatever way its lines are broken."""
    said = " ".join(outcome.err.split())
    units = ", ".join(f"{unit} (1 only in sm_80; 1 only in sm_90)" for unit in UNITS)
    assert f"not all architectures have the same kernels in {units}." in said
    assert "cannot launch kernels that sm_90 does not have" in said
    assert f"{OLD} of {UNITS[0]}" in said or f"old_kernel<int>(int*) of {UNITS[0]}" in said


def test_a_build_tells_of_them_each_time(
    built: tuple[Workbench, str, Outcome],
) -> None:
    bench, kernel, outcome = built
    assert_told(outcome)
    again = bench.build("--arch", "80,90", kernel=kernel)
    assert "assemble" not in again.err, "the finished wheel was not taken from the store"
    assert_told(again)


def test_verify_names_them(built: tuple[Workbench, str, Outcome]) -> None:
    bench, _, outcome = built
    done = bench.invoke("verify", str(outcome.wheel()), "--json")
    assert done.code == 0, done.out
    [parity] = [one for one in json.loads(done.out)["checks"] if one["name"] == "parity"]
    assert parity["result"] == "ok"
    assert len(parity["findings"]) == len(UNITS), "a note for each of the libraries"
    for finding in parity["findings"]:
        assert finding["severity"] == "note"
        assert finding["details"] == [f"only in sm_80: {OLD}", f"only in sm_90: {FRESH}"]


def test_thin_parts_give_the_original_in_any_order(
    built: tuple[Workbench, str, Outcome], tmp_path: Path
) -> None:
    bench, _, outcome = built
    wheel = outcome.wheel()
    parts = [
        bench.wheel_in(tmp_path / arch, "thin", str(wheel), "--arch", arch) for arch in ("80", "90")
    ]
    stitched = [
        binaries(bench.wheel_in(tmp_path / str(number), "stitch", *map(str, order)))
        for number, order in enumerate(itertools.permutations(parts))
    ]
    assert stitched[0] == stitched[1]
    whole = {name: images(data) for name, data in binaries(wheel).items()}
    assert {name: images(data) for name, data in stitched[0].items()} == whole
    assert [len(found) for found in whole.values()] == [4, 2], "images of units that differ"


def test_wheels_that_were_built_apart_say_what_their_host_code_does_not_know(
    built: tuple[Workbench, str, Outcome], tmp_path: Path
) -> None:
    """The host code of one for sm_80 has no way to launch what only sm_90 has."""
    bench, kernel, _ = built
    apart = []
    for arch in ("80", "90"):
        one = Workbench(tmp_path / arch, bench.store)
        apart.append(one.build("--arch", arch, kernel=kernel).wheel())
    for order, unknown in ((apart, "fresh_kernel"), (apart[::-1], "old_kernel")):
        out = tmp_path / unknown
        done = bench.invoke("stitch", *map(str, order), "--out", str(out), "--json")
        assert done.code == 0, done.err
        notes = [note for note in json.loads(done.out)["notes"] if "same kernels" in note]
        assert len(notes) == len(UNITS)
        for note in notes:
            assert unknown in note
            assert f"host code, that of {order[0].name}, may be unable to launch" in note
        assert bench.invoke("verify", *map(str, out.glob("*.whl"))).code == 0


def test_managed_variables_of_some_architectures_are_refused(
    bench: Workbench, tmp_path: Path
) -> None:
    kernel = guarded_project(tmp_path / "guarded", 900, _MANAGED)
    outcome = bench.build("--arch", "80,90", kernel=kernel)
    assert outcome.code != 0
    said = " ".join(outcome.err.split())
    assert "not all architectures have the same __managed__ variables" in said
    assert "only in sm_90: shared_by_some" in said
    assert "crashes" in said
    assert not outcome.wheels
    bench.build("--arch", "90", kernel=kernel).wheel()
