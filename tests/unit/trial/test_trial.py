"""The script that imports modules writes down each, before anything can end the process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from fatwheel.trial import import_script


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules; those of this test are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("trial_good", "trial_bad", "trial_exits", "torch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "trial_good.py").write_text("")
    (tmp_path / "trial_bad.py").write_text("def f():\n    raise ImportError('no symbol x')\nf()\n")
    (tmp_path / "trial_exits.py").write_text("raise SystemExit(5)\n")
    return tmp_path


def run(folder: Path, *arguments: str) -> tuple[int, list[dict[str, object]]]:
    results = folder / "results"
    code = import_script.main([str(results), *arguments])
    return code, [json.loads(line) for line in results.read_text().splitlines()]


def test_good_modules(modules: Path) -> None:
    code, said = run(modules, "none", "trial_good", "json")
    assert code == 0
    assert said.pop() == {"outside": []}
    assert [one.get("start") or one["module"] for one in said] == [
        "trial_good", "trial_good", "json", "json",
    ]  # fmt: skip
    assert all(isinstance(one.get("seconds", 0.0), float) for one in said)


def test_each_failure_and_what_came_after_it(modules: Path) -> None:
    code, said = run(modules, "none", "trial_bad", "trial_exits", "trial_good")
    assert code == 1
    failed = {str(one["failed"]): one["lines"] for one in said if "failed" in one}
    assert set(failed) == {"trial_bad", "trial_exits"}
    bad = failed["trial_bad"]
    assert isinstance(bad, list)
    assert bad[-1] == "ImportError: no symbol x"
    assert len(bad) <= 12
    assert said[-2]["module"] == "trial_good"


def test_the_gpu_is_used_through_torch(modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    torch = ModuleType("torch")
    torch.__version__ = "2.11.0+cu130"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(import_script, "_use_gpu", lambda: used.append("gpu"))
    code, said = run(modules, "gpu", "trial_good")
    assert (code, used) == (0, ["gpu"])
    assert {"torch": "2.11.0+cu130"} in said
    assert "first_use" in said[-1]
    code, said = run(modules, "gpu", "trial_bad")
    assert (code, used) == (1, ["gpu"]), "the GPU was used although an import failed"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells what a process has mapped")
def test_libraries_of_the_machine_are_told(
    modules: Path, tool: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA's, if they lie outside of the environment. The driver's always do."""
    machine, inside = modules / "machine", modules / "environment"
    for folder, name in (
        (machine, "libcudart.so.13"), (machine, "libcuda.so.1"), (inside, "libcublas.so.13"),
    ):  # fmt: skip
        folder.mkdir(exist_ok=True)
        command = [tool("gcc"), "-shared", "-x", "c", "/dev/null", "-o", str(folder / name)]
        subprocess.run(command, check=True)
    libraries = [str(path) for path in (*machine.iterdir(), *inside.iterdir())]
    (modules / "trial_loads.py").write_text(
        f"import ctypes\nkept = [ctypes.CDLL(path) for path in {libraries!r}]\n"
    )
    monkeypatch.delitem(sys.modules, "trial_loads", raising=False)
    monkeypatch.setattr(sys, "prefix", str(inside))
    _, said = run(modules, "none", "trial_loads")
    assert said[-1] == {"outside": [str(machine / "libcudart.so.13")]}
