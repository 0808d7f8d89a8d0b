"""What an environment's own Python says, and Pythons that say nothing of use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.tags import sys_tags

from fatwheel.check import environment
from fatwheel.check.environment import ask, find_python
from fatwheel.errors import UsageError

from ...helpers.environments import LINUX, WINDOWS
from ...helpers.fakecuda import fake_driver


def script(folder: Path, text: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_this_python_takes_the_wheels_that_packaging_says() -> None:
    found = ask(Path(sys.executable))
    assert found.tags == tuple(sys_tags()) or set(found.tags) == set(sys_tags())
    assert found.version == sys.version_info[:3]
    assert str(found.prefix) == sys.prefix


def test_it_is_asked_in_this_folder_and_with_these_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As whoever imports there would."""
    (tmp_path / "extra").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "extra"))
    found = ask(Path(sys.executable))
    assert found.path[:2] == (tmp_path, tmp_path / "extra")
    assert not any("fatwheel" in place.name and place.name == "check" for place in found.path)


@pytest.mark.parametrize(
    ("changes", "taken", "refused"),
    [
        ({}, "cp311-cp311-manylinux2014_x86_64", "cp312-cp312-linux_x86_64"),
        ({}, "cp39-abi3-manylinux_2_28_x86_64", "cp311-cp311-win_amd64"),
        ({}, "py3-none-any", "cp311-cp311t-linux_x86_64"),
        ({"libc": ("glibc", "2.26")}, "cp311-none-manylinux_2_17_x86_64",
         "cp311-cp311-manylinux_2_28_x86_64"),
        ({"libc": ("musl", "1.2.4")}, "cp311-cp311-musllinux_1_2_x86_64",
         "cp311-cp311-manylinux2014_x86_64"),
        ({"free_threaded": True, "version": (3, 13, 1)}, "cp313-cp313t-linux_x86_64",
         "cp39-abi3-linux_x86_64"),
        ({"libc": ("glibc", "9" * 50)}, "cp311-cp311-linux_x86_64",
         "cp311-cp311-manylinux_2_28_x86_64"),
        ({"implementation": "pypy", "soabi": "pypy311-pp73", "version": (3, 11, 9)},
         "pp311-pypy311_pp73-linux_x86_64", "cp311-cp311-linux_x86_64"),
    ],
)  # fmt: skip
def test_tags(changes: dict[str, object], taken: str, refused: str) -> None:
    names = {str(tag) for tag in replace(LINUX, **changes).tags}  # type: ignore[arg-type]
    assert taken in names
    assert refused not in names


def test_a_windows_takes_wheels_for_windows() -> None:
    names = [str(tag) for tag in WINDOWS.tags]
    assert names[0] == "cp311-cp311-win_amd64"
    assert not [name for name in names if "linux" in name]


def test_the_python_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    python = script(tmp_path / "bin", "exit 0")
    assert find_python(str(tmp_path)) == python
    assert find_python(str(python)) == python
    for named in (tmp_path / "none", tmp_path / "bin"):
        with pytest.raises(UsageError):
            find_python(str(named))


@pytest.mark.parametrize(
    "text",
    [
        "exit 3",
        "echo hello",
        'echo "[1, 2]" > "$3"',
        'echo "{}" > "$3"',
        """echo '{"version": ["x", "y", "z"]}' > "$3" """,
        'head -c 5000000 /dev/zero > "$3"',
        "kill -SEGV $$",
    ],
)
def test_what_is_no_python(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a Python that answers"):
        ask(script(tmp_path, text))


def test_a_file_that_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "python"
    path.write_text("text")
    with pytest.raises(UsageError, match="not a Python that answers"):
        ask(path)


def test_a_python_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_PYTHON_SECONDS", 0.5)
    with pytest.raises(UsageError, match="not done after"):
        ask(script(tmp_path, "exec sleep 60"))


# -- the driver ------------------------------------------------------------------------------------


def test_a_driver_and_its_gpu(
    tmp_path: Path, tool: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake_driver(tmp_path / "driver", tool)))
    monkeypatch.setenv("FAKE_CUDA", "12040")
    monkeypatch.setenv("FAKE_CAPABILITY", "89")
    found = ask(Path(sys.executable)).driver
    assert found.cuda == (12, 4)
    assert [(gpu.name, gpu.capability) for gpu in found.gpus] == [("Fake H200", "8.9")]
    assert not found.trouble
    monkeypatch.setenv("FAKE_NO_GPU", "1")
    found = ask(Path(sys.executable)).driver
    assert found.cuda == (12, 4)
    assert found.trouble == "cuInit failed with error 100 (no CUDA-capable device is detected)"


def test_nvidia_smi_says_what_no_library_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi = script(tmp_path, 'echo "NVIDIA L4, 8.9, 550.54.14"; echo "odd, line"')
    smi.rename(tmp_path / "nvidia-smi")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = ask(Path(sys.executable)).driver
    if found.cuda:
        pytest.skip("this machine has a driver")
    assert not found.trouble
    assert found.version == "550.54.14"
    assert [(gpu.name, gpu.capability) for gpu in found.gpus] == [("NVIDIA L4", "8.9")]


def test_a_driver_that_crashes_is_a_finding(
    tmp_path: Path, tool: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "cuda.c"
    source.write_text("#include <stdlib.h>\nint cuDriverGetVersion(int *v) { abort(); }\n")
    library = str(tmp_path / "libcuda.so.1")
    subprocess.run([tool("gcc"), "-shared", "-fPIC", str(source), "-o", library], check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    found = ask(Path(sys.executable)).driver
    assert found.trouble == "asking it failed: ended by SIGABRT"
