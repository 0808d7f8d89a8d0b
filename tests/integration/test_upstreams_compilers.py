"""What a project's own build compiles, and with what: nothing is left out, or made unseen."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from fatwheel.arch import Arch
from fatwheel.config.load import load_toolchain
from fatwheel.model import Environment, Front
from fatwheel.worker.torchlist import torch_arch_list

from .conftest import ROOT, Workbench, record_of

pytestmark = pytest.mark.slow

_FINISHED = re.compile(r"^\[\d+/\d+\] (.+?) \d", re.MULTILINE)


def units_of(wheel: Path) -> list[str]:
    units = record_of(wheel)["units"]
    assert isinstance(units, list)
    return [unit["name"] for unit in units]


# -- architectures -----------------------------------------------------------------------------


def test_a_source_that_newer_architectures_need_is_compiled_for_them(bench: Workbench) -> None:
    kernel = "tests/data/byarch"
    older = bench.build("--arch", "80", kernel=kernel)
    assert units_of(older.wheel()) == ["csrc/base"]
    bench.forget_wheels()
    both = bench.build("--arch", "80,89", kernel=kernel)
    assert units_of(both.wheel()) == ["csrc/base", "csrc/newer"]
    assert set(_FINISHED.findall(both.err)) == {
        "csrc/base [sm_89]", "csrc/newer [sm_80]", "csrc/newer [sm_89]",
    }, "a slice of sm_80 is the same, whatever else is asked for"  # fmt: skip


ASKS = """
import os, sys
from torch.utils.cpp_extension import _get_cuda_arch_flags
for line in sys.stdin:
    os.environ["TORCH_CUDA_ARCH_LIST"] = line.strip()
    print(*_get_cuda_arch_flags())
"""


def test_torch_takes_every_architecture_of_the_toolchain(environment: Environment) -> None:
    """Those that it knows exactly so, with and without PTX; all others too."""
    known = load_toolchain("linux-cuda13.0", ROOT / "toolchains").archs
    asked = [(arch, codes) for arch in known for codes in ((arch.sm,), (arch.sm, arch.compute))]
    lines = [
        torch_arch_list([Front(arch, codes)], environment.site) + "\n" for arch, codes in asked
    ]
    done = subprocess.run(
        [environment.python, "-c", ASKS], input="".join(lines), capture_output=True, text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for (arch, codes), options in zip(asked, done.stdout.splitlines(), strict=True):
        if arch in (Arch(80), Arch(86), Arch(90), Arch(90, "a"), Arch(120), Arch(120, "a")):
            expected = [f"-gencode=arch={arch.compute},code={code}" for code in codes]
            assert options.split() == sorted(expected)
        else:
            assert options
