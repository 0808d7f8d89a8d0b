"""Wheels built with toolchains that are composed of parts."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import pytest

from fatwheel.config.compose import Combination, combinations
from fatwheel.config.parts import Parts
from fatwheel.machine import this_platform
from fatwheel.toolchain.interpreters import is_interpreter_here

from .conftest import ROOT, Workbench

pytestmark = pytest.mark.slow


def newest() -> Combination:
    """For the Python that runs, whose torch may be older than the newest there is."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return next(
        one
        for one in combinations(Parts(ROOT / "toolchains"), this_platform())
        if one.python == python
    )


def test_the_newest_cuda_with_the_newest_torch(tmp_path: Path) -> None:
    """Their packages fit together, also where torch was built for an older CUDA: torch imports, its
    headers compile, and the wheel is right and can be built again."""
    wanted = newest()
    bench = Workbench(tmp_path)
    asked = ("--cuda", wanted.cuda.version, "--torch", wanted.torch.version)
    wheel = bench.build(*asked, "--arch", "80", kernel="selftest").wheel()
    with zipfile.ZipFile(wheel) as opened:
        [lock] = [name for name in opened.namelist() if name.endswith("fatwheel.lock.json")]
        toolchain = json.loads(opened.read(lock))["toolchain"]
    assert toolchain["name"] == wanted.name
    assert toolchain["nvcc"] == wanted.cuda.nvcc

    checked = bench.invoke("verify", str(wheel))
    assert checked.code == 0, checked.out + checked.err
    again = bench.invoke("rebuild", str(wheel))
    assert again.code == 0, again.out + again.err
    assert "identical" in again.out + again.err
    locked = bench.build("--locked", str(wheel), "--arch", "80", kernel="selftest")
    assert locked.wheel().read_bytes() == wheel.read_bytes()


@pytest.mark.long
def test_two_torches_for_two_pythons(tmp_path: Path) -> None:
    """One call makes four wheels; a second Python takes all device code from the store."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    others = [f"3.{number}" for number in range(10, 15) if f"3.{number}" != here]
    other = next(filter(is_interpreter_here, others), None)
    if other is None:
        pytest.skip("there is no second Python on PATH")
    cuda = "13.0"
    # Those that the user's own package index has.
    torches = [
        one.torch.version
        for one in combinations(Parts(ROOT / "toolchains"), this_platform())
        if one.cuda.minor == one.variant.cuda == cuda and one.python == other and not one.wheel.url
    ][:2]
    bench = Workbench(tmp_path)
    asked = ("--cuda", cuda, "--torch", ",".join(torches), "--python", f"{here},{other}")
    outcome = bench.build(*asked, "--arch", "80", kernel="selftest")
    assert outcome.code == 0, outcome.err
    assert len(outcome.wheels) == 4
    assert outcome.out.count("9 from the store, 0 compiled") >= 2
    for wheel in outcome.wheels:
        assert bench.invoke("verify", str(wheel)).code == 0
