"""The script that asks the driver: of each container what the driver said, and how long it took."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.trial import driver_script

from ...helpers.cudawheels import NONE, fatbin, images, without
from ...helpers.fakecuda import fake_driver

OLD, PTX, NEW, NEWEST = images(NONE)  # sm_80, compute_80, sm_90a, sm_120f


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Path:
    return fake_driver(tmp_path_factory.mktemp("driver"), tool)


def ask(folder: Path, library: Path, *containers: bytes, **variables: str) -> list[dict[str, Any]]:
    file = folder / "all.fatbin"
    file.write_bytes(b"".join(containers))
    units, offset = [], 0
    for data in containers:
        size = len(data)
        kernels = ["scale", "lost_one"]
        units.append({"file": str(file), "offset": offset, "size": size, "kernels": kernels})
        offset += size
    (folder / "job").write_text(json.dumps({"units": units}))
    subprocess.run(
        [sys.executable, "-I", driver_script.__file__, folder / "job", folder / "results"],
        env={"LD_LIBRARY_PATH": str(library), **variables}, check=False,
    )  # fmt: skip
    return [json.loads(line) for line in (folder / "results").read_text().splitlines()]


def test_the_gpu_and_each_container(tmp_path: Path, library: Path) -> None:
    said = ask(tmp_path, library, NONE, without(2), fatbin([OLD, NEWEST]))
    assert said[0] == {"gpu": "Fake H200", "major": 9, "minor": 0, "cuda": 13010, "mode": 2}
    assert [one["unit"] for one in said[1:]] == [0, 1, 2]
    assert [one["code"] for one in said[1:]] == [0, 0, 209]
    assert said[1]["versions"] == {"90/90": 1}
    assert said[2]["versions"] == {"90/80": 1}
    assert said[1]["missing"] == ["lost_one"]
    assert "versions" not in said[3]
    assert all(one["load"] >= 0 and one["kernels"] >= 0 for one in said[1:])


def test_without_jit_ptx_is_of_no_use(tmp_path: Path, library: Path) -> None:
    said = ask(tmp_path, library, NONE, fatbin([PTX]), CUDA_DISABLE_PTX_JIT="1")
    assert [one["code"] for one in said[1:]] == [0, 223]


def test_the_mode_is_told(tmp_path: Path, library: Path) -> None:
    assert ask(tmp_path, library, CUDA_MODULE_LOADING="EAGER")[0]["mode"] == 1


def test_no_gpu(tmp_path: Path, library: Path) -> None:
    assert ask(tmp_path, library, NONE, FAKE_NO_GPU="1") == [{"failed": "cuInit", "code": 100}]


def test_no_driver(tmp_path: Path) -> None:
    try:
        ctypes.CDLL(driver_script.LIBRARY)
    except OSError:
        [said] = ask(tmp_path, tmp_path, NONE)
        assert driver_script.LIBRARY in said["failed"]
    else:
        pytest.skip("there is a driver here")
