"""What builds make runs right on a GPU. Without one these tests are skipped, in CI too."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from fatwheel.model import Environment

from .conftest import ROOT, Workbench

pytestmark = [pytest.mark.slow, pytest.mark.gpu]


@pytest.fixture(scope="module")
def capability(environment: Environment) -> int:
    """This machine's GPU as an architecture number: 90."""
    question = (
        "import torch; print(*torch.cuda.get_device_capability() if torch.cuda.is_available() "
        "else [])"
    )
    answer = subprocess.run(
        [str(environment.python), "-c", question], capture_output=True, text=True, check=True
    ).stdout.split()
    if not answer:
        pytest.skip("no NVIDIA GPU on this machine")
    return int("".join(answer))


def verify(wheel: Path, environment: Environment, folder: Path, *options: str) -> tuple[int, str]:
    """Run the recipe's verify.py against an unpacked wheel: exit code and output."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    script = ROOT / "kernels" / "selftest" / "verify.py"
    done = subprocess.run(
        [str(environment.python), str(script), *options], env={"PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_native_code_runs(
    bench: Workbench, environment: Environment, capability: int, tmp_path: Path
) -> None:
    wheel = bench.build("--arch", f"80,{capability}").wheel()
    code, output = verify(wheel, environment, tmp_path / "w", "--code", str(capability))
    assert code == 0, output


def test_ptx_runs_by_jit(
    bench: Workbench, environment: Environment, capability: int, tmp_path: Path
) -> None:
    if capability < 90:
        pytest.skip("this GPU runs sm_80 code natively")
    wheel = bench.build("--arch", "80+ptx").wheel()
    code, output = verify(wheel, environment, tmp_path / "w")
    assert code == 0, output


def test_a_gpu_that_is_not_covered_says_so(
    bench: Workbench, environment: Environment, capability: int, tmp_path: Path
) -> None:
    other = 90 if capability // 10 == 8 else 80
    wheel = bench.build("--arch", str(other)).wheel()
    code, output = verify(wheel, environment, tmp_path / "w")
    assert code == 1, output
    assert "no kernel image" in output
