"""Each container of a wheel before the driver: its own code, code by JIT, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.errors import ToolchainError
from fatwheel.trial.gpu import ContainerPlace, LoadedWheel, load_all, take_out
from fatwheel.verify.evidence import gather

from ...helpers.cudawheels import MODULE, NONE, Linker, fatbin, images, without
from ...helpers.fakecuda import clean_with, fake_driver
from ...helpers.tinywheels import Draft

OLD, PTX, NEW, NEWEST = images(NONE)  # sm_80, compute_80, sm_90a, sm_120f


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> tuple[Path, Path]:
    """A wheel with four containers in two libraries, and a driver's folder."""
    folder = tmp_path_factory.mktemp("loading")
    linker = Linker(folder, tool)
    files = {
        MODULE: linker.library(NONE + without(2) + fatbin([OLD, NEWEST])),
        "demo/second.so": linker.library(fatbin([NEW])),
        "demo/host.so": linker.library(),
    }
    return Draft(files=files).write(folder), fake_driver(folder / "driver", tool)


def places_of(wheel: Path, folder: Path) -> tuple[ContainerPlace, ...]:
    return take_out(wheel, gather(wheel), folder)


def test_containers_are_taken_out_byte_for_byte(made: tuple[Path, Path], tmp_path: Path) -> None:
    places = places_of(made[0], tmp_path)
    taken = [one.file.read_bytes()[one.offset : one.offset + one.size] for one in places]
    assert taken == [NONE, without(2), fatbin([OLD, NEWEST]), fatbin([NEW])]
    assert [(one.binary, one.container) for one in places] == [
        (MODULE, 0), (MODULE, 1), (MODULE, 2), ("demo/second.so", 0),
    ]  # fmt: skip
    assert {one.kernels for one in places} == {("$empty", "scale")}


def load(made: tuple[Path, Path], folder: Path, **variables: str) -> LoadedWheel:
    clean = clean_with(folder, LD_LIBRARY_PATH=str(made[1]), **variables)
    return load_all(clean, places_of(made[0], folder))


def test_native_by_jit_and_not_at_all(made: tuple[Path, Path], tmp_path: Path) -> None:
    loading = load(made, tmp_path)
    assert (loading.gpu.name, loading.gpu.capability) == ("Fake H200", "9.0")
    assert loading.gpu.cuda == "13.1"
    assert [one.how for one in loading.units] == ["native", "jit", "none", "native"]
    assert [one.code for one in loading.units] == [0, 0, 209, 0]
    assert [dict(one.versions) for one in loading.units] == [
        {"90/90": 2}, {"90/80": 2}, {}, {"90/90": 2},
    ]  # fmt: skip
    expected = [one.expected_on(loading.gpu) for one in loading.units]
    assert expected == ["native", "jit", "none", "native"]
    assert [time.mode for time in loading.times] == ["EAGER", "LAZY"]
    assert all(time.containers > 0 for time in loading.times)


def test_a_driver_that_ends_the_process(made: tuple[Path, Path], tmp_path: Path) -> None:
    loading = load(made, tmp_path, FAKE_CRASH="1")
    assert {(one.how, one.code) for one in loading.units} == {("none", -1)}


def test_a_driver_without_a_gpu(made: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="cannot be used: cuInit, error 100"):
        load(made, tmp_path, FAKE_NO_GPU="1")
