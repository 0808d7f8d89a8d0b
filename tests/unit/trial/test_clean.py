"""A clean environment: the wheel, what it needs, and nothing of the user's; gone afterwards."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.config.pinned import Package
from fatwheel.errors import ToolchainError, VerifyError
from fatwheel.events import Event, Progress, silent
from fatwheel.toolchain.pipconfig import PipConfig
from fatwheel.trial.environment import Clean, clean_environment
from fatwheel.trial.subject import Neighbour, TriedWheel

from ...helpers.tinywheels import PYTHON, Draft, write_wheel

QUESTION = """
import json, os, sys, demo, helper
print(json.dumps([demo.ANSWER, helper.__file__, sys.path, dict(os.environ)]))
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    folder = tmp_path / "wheels"
    config = PipConfig(indexes=(), find_links=(str(folder),))
    monkeypatch.setattr("fatwheel.toolchain.download.read_pip_config", lambda: config)
    return write_wheel(folder, "helper", "1.0", {"helper.py": ""})


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A folder to work in, and a cache."""
    work, cache = tmp_path / "work", tmp_path / "cache"
    work.mkdir()
    cache.mkdir()
    return work, cache


def subject(wheel: Path, *packages: Package, python: str = PYTHON) -> TriedWheel:
    return TriedWheel(wheel, python, "2.11.0", packages, (), "a test")


def wheel_in(folder: Path, **draft: object) -> Path:
    files = {"demo.py": b"import helper\nANSWER = 42\n"}
    return Draft(tag="py3-none-any", files=files, **draft).write(folder)  # type: ignore[arg-type]


def ask(clean: Clean) -> list[object]:
    done = subprocess.run(
        [clean.python, "-I", "-c", QUESTION], env=dict(clean.variables), cwd=clean.empty,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer: list[object] = json.loads(done.stdout)
    return answer


def test_the_wheel_and_its_packages_are_there_and_nothing_else(
    tmp_path: Path,
    helper: Package,
    places: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CUDA_FORCE_PTX_JIT", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    driver, other = tmp_path / "driver", tmp_path / "other"
    for folder in (driver, other):
        folder.mkdir()
    (driver / "libcuda.so.1").write_text("")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{other}:{driver}")
    seen: list[Event] = []
    with clean_environment(subject(wheel_in(tmp_path), helper), *places, seen.append) as clean:
        answer, file, path, variables = ask(clean)
        assert answer == 42
        assert str(file).startswith(str(clean.root))
        assert str(tmp_path) not in path  # type: ignore[operator]
        assert list(clean.empty.iterdir()) == []
        assert isinstance(variables, dict)
        assert variables["LD_LIBRARY_PATH"] == str(driver)
        assert variables["CUDA_VISIBLE_DEVICES"] == "0"
        assert not {"PYTHONPATH", "CUDA_FORCE_PTX_JIT"} & set(variables)
        for name in ("HOME", "TMPDIR", "CUDA_CACHE_PATH"):
            assert variables[name].startswith(str(places[0])), f"{name} is the user's own"
        assert clean.version.startswith(f"{PYTHON}.")
    assert any(isinstance(event, Progress) and event.done == event.total for event in seen)


def test_neighbours_are_there_too(
    tmp_path: Path, helper: Package, places: tuple[Path, Path]
) -> None:
    helping = write_wheel(tmp_path / "others", "other", "1.0", {"helper.py": ""})
    file = tmp_path / "others" / helping.filename
    wanted = replace(subject(wheel_in(tmp_path)), neighbours=(Neighbour(file, "other", "1.0"),))
    with clean_environment(wanted, *places, silent) as clean:
        assert ask(clean)[0] == 42


def test_a_wheel_that_contradicts_its_record(
    tmp_path: Path, helper: Package, places: tuple[Path, Path]
) -> None:
    rows: dict[str, str | None] = {"demo.py": "demo.py,sha256=AAAA,26"}
    wheel = wheel_in(tmp_path, rows=rows)
    with (
        pytest.raises(VerifyError, match="the wheel cannot be installed") as caught,
        clean_environment(subject(wheel, helper), *places, silent),
    ):
        pytest.fail("it was installed")
    assert any("demo.py" in line for line in caught.value.details)


def test_a_python_that_is_not_here(
    tmp_path: Path, helper: Package, places: tuple[Path, Path]
) -> None:
    with (
        pytest.raises(ToolchainError, match=r"no usable Python 3\.77 found"),
        clean_environment(subject(wheel_in(tmp_path), helper, python="3.77"), *places, silent),
    ):
        pytest.fail("there is no such Python")
