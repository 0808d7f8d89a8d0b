"""Wheels built with toolchains that are composed of parts."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
from pathlib import Path

import pytest

from fatwheel.config.compose import Combination, combinations
from fatwheel.config.parts import Parts, minor
from fatwheel.config.toolchains import load_toolchain
from fatwheel.fatbin.binary import read_binary
from fatwheel.machine import this_platform
from fatwheel.toolchain.interpreters import is_interpreter_here

from ..conftest import TOOLCHAIN, missing
from .conftest import ROOT, Outcome, Workbench

pytestmark = pytest.mark.slow

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def newest() -> Combination:
    """For the Python that runs, whose torch may be older than the newest there is."""
    return next(
        one
        for one in combinations(Parts(ROOT / "toolchains"), this_platform())
        if one.python == HERE
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


# Where scripts/install-test-tools puts a second Python.
SECOND_PYTHON = "/opt/fatwheel-test-python/usr/bin"


@pytest.fixture
def second_python(monkeypatch: pytest.MonkeyPatch) -> str:
    """A Python with headers that is not the one that runs, such as `3.13`; on PATH meanwhile."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{SECOND_PYTHON}")
    others = [f"3.{number}" for number in range(10, 15) if f"3.{number}" != HERE]
    found = next(filter(is_interpreter_here, others), None)
    return found or missing(
        "there is no second Python: scripts/install-test-tools installs one on Debian"
    )


def test_two_torches_for_two_pythons(
    selftest: tuple[Workbench, Outcome], second_python: str, tmp_path: Path
) -> None:
    """One call makes four wheels, and what is equal is compiled once. Much of
    what the first needs was compiled with the named toolchain, which has the same compilers."""
    cuda, named = "13.0", load_toolchain(TOOLCHAIN, ROOT / "toolchains")
    assert named.cuda == cuda
    newest_torch = newest().torch.version
    bench = Workbench(tmp_path, selftest[0].store)
    asked = ("--cuda", cuda, "--torch", f"{named.default_torch},{newest_torch}")
    outcome = bench.build(
        *asked, "--python", f"{HERE},{second_python}", "--arch", "80", kernel="selftest"
    )
    assert outcome.code == 0, outcome.err
    assert len(outcome.wheels) == 4
    assert outcome.out.count("9 from the store, 0 compiled") >= 2
    for torch in (named.default_torch, newest_torch):
        local = f"+cu130torch{minor(torch)}.sm80-"
        of_torch = [wheel for wheel in outcome.wheels if local in wheel.name]
        tags = [f"cp{python.replace('.', '')}" for python in (HERE, second_python)]
        assert sorted(wheel.name.split("-")[2] for wheel in of_torch) == sorted(tags)
        codes = {device_code(wheel) for wheel in of_torch}
        assert len(codes) == 1, f"torch {torch}: the Pythons have other code"
    for wheel in outcome.wheels:
        assert bench.invoke("verify", str(wheel)).code == 0


def device_code(wheel: Path) -> tuple[bytes, ...]:
    """The digest of each image in a wheel's libraries, sorted."""
    with zipfile.ZipFile(wheel) as opened:
        libraries = [opened.read(name) for name in opened.namelist() if name.endswith(".so")]
    assert libraries
    return tuple(
        sorted(
            hashlib.sha256(bytes(entry.raw)).digest()
            for library in libraries
            for container in read_binary(memoryview(library)).containers
            for entry in container.entries
        )
    )
