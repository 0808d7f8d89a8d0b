"""Wheels built with toolchains that are composed of parts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from fatwheel.config.compose import Combination, combinations
from fatwheel.config.parts import Parts, minor
from fatwheel.fatbin.binary import read_binary
from fatwheel.machine import this_platform
from fatwheel.model import Environment
from fatwheel.storage.cache import cache_folder
from fatwheel.toolchain.interpreters import is_interpreter_here

from ..conftest import TOOLCHAIN, missing
from ..helpers.preloaded import run_command
from ..helpers.toolchains import shipped_toolchain
from .conftest import ROOT, UNITS, Workbench
from .shortened import TORCH_BINDING, shortened_selftest
from .slim import TOOLCHAIN as SLIM_TOOLCHAIN
from .slim import Slim, make_toolchain

pytestmark = pytest.mark.slow

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def newest() -> Combination:
    """For the Python that runs, whose torch may be older than the newest there is."""
    return next(
        one
        for one in combinations(Parts(ROOT / "toolchains"), this_platform())
        if one.python == HERE
    )


@pytest.mark.long  # an environment of gigabytes; what it tells changes with the pins
def test_the_newest_cuda_with_the_newest_torch(tmp_path: Path) -> None:
    """Their packages fit together, also where torch was built for an older CUDA: torch imports, its
    headers compile, and the wheel is right and can be built again."""
    wanted = newest()
    bench = Workbench(tmp_path)
    asked = ("--cuda", wanted.cuda.version, "--torch", wanted.torch.version)
    kernel = str(shortened_selftest(tmp_path / "kernels" / "selftest", TORCH_BINDING))
    wheel = bench.build(*asked, "--arch", "80", kernel=kernel).wheel()
    with zipfile.ZipFile(wheel) as opened:
        [lock] = [name for name in opened.namelist() if name.endswith("fatwheel.lock.json")]
        toolchain = json.loads(opened.read(lock))["toolchain"]
    assert toolchain["name"] == wanted.name
    assert toolchain["nvcc"] == wanted.cuda.nvcc

    checked = bench.invoke("verify", str(wheel))
    assert checked.code == 0, checked.out + checked.err
    rebuild = [sys.executable, "-m", "fatwheel", "rebuild", str(wheel)]  # where its recipe is found
    again = run_command(rebuild, tmp_path, bench.variables())
    assert again.returncode == 0, again.stdout + again.stderr
    assert "identical" in again.stdout + again.stderr


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


# Refers to a symbol of C++ in torch's libraries, so that a wheel is for one torch.
OPS = """
#include <Python.h>
#include <c10/core/DeviceType.h>
#include <cstring>
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr};
PyMODINIT_FUNC PyInit__C() {
    module.m_doc = strdup(c10::DeviceTypeName(c10::DeviceType::CUDA, false).c_str());
    return PyModule_Create(&module);
}
"""
# What setup.py of tests/data/abi3 says for wheels of any Python and torch.
FOR_ANY = (
    ', py_limited_api=True', ' "-DPy_LIMITED_API=0x030A0000",',
    '    "-DTORCH_TARGET_VERSION=0x020a000000000000",\n',
    '    options={"bdist_wheel": {"py_limited_api": "cp310"}},\n',
)  # fmt: skip


@pytest.fixture
def with_torch(tmp_path: Path) -> str:
    """A project with one unit of CUDA, and one of C++ that depends on Python and on torch."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "tests" / "data" / "abi3", folder)
    (folder / "src" / "csrc" / "ops.cpp").write_text(OPS)
    setup = folder / "src" / "setup.py"
    text = setup.read_text()
    for words in FOR_ANY:
        assert words in text
        text = text.replace(words, "")
    setup.write_text(text.replace('"-ltorch_cpu"', '"-lc10", "-ltorch_cpu"'))
    return str(folder)


def test_two_torches(environment: Environment, with_torch: str, tmp_path: Path) -> None:
    """One call makes a wheel for each, and what is equal is compiled once. What the first needs was
    compiled with the named toolchain, which has the same compilers."""
    cuda, named = "13.0", shipped_toolchain(TOOLCHAIN)
    assert named.cuda == cuda
    newest_torch = newest().torch.version
    bench = Workbench(tmp_path / "bench")
    asked = ("--arch", "80", "--python", HERE)
    bench.build(*asked, kernel=with_torch).wheel()
    shutil.rmtree(bench.out)
    torches = ("--cuda", cuda, "--torch", f"{named.default_torch},{newest_torch}")
    outcome = bench.build(*asked, *torches, kernel=with_torch)
    assert outcome.code == 0, outcome.err
    assert len(outcome.wheels) == 2
    assert "1 from the store, 0 compiled" in outcome.out
    for torch in (named.default_torch, newest_torch):
        [wheel] = bench.out.glob(f"*+cu130torch{minor(torch)}.sm80-{tag(HERE)}-*.whl")
        assert bench.invoke("verify", str(wheel)).code == 0


def test_two_pythons(environment: Environment, second_python: str, tmp_path: Path) -> None:
    """One call makes a wheel for each, and no device code for the second. (Without torch, of which
    there would be gigabytes more for another Python.)"""
    files = tmp_path / "slim"
    files.mkdir()
    make_toolchain(files, SLIM_TOOLCHAIN, pythons=(HERE, second_python))
    bench = Workbench(tmp_path / "bench", slim=Slim(files, cache_folder() / "image-files"))
    asked = ("--arch", "80", "--find", str(files / "wheels"), "--python")
    bench.build(*asked, HERE).wheel()
    before = bench.out.rename(tmp_path / "before")
    outcome = bench.build(*asked, f"{HERE},{second_python}")
    assert outcome.code == 0, outcome.err
    assert f"{UNITS} from the store, 0 compiled" in outcome.out
    found = {wheel.name.split("-")[2]: wheel for wheel in outcome.wheels}
    assert found.keys() == {tag(HERE), tag(second_python)}
    assert len({device_code(wheel) for wheel in outcome.wheels}) == 1
    again = found[tag(HERE)]
    assert again.read_bytes() == (before / again.name).read_bytes()
    assert bench.invoke("verify", str(found[tag(second_python)])).code == 0


def tag(python: str) -> str:
    return f"cp{python.replace('.', '')}"


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
