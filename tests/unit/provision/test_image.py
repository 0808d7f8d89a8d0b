"""The steps that Dockerfiles run; the folder that they run is a program for any Python."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

from fatwheel.containers.contexts import _provision
from fatwheel.provision import image
from fatwheel.provision.image import main
from fatwheel.provision.msvc import ReadyMsvc
from fatwheel.provision.tools import HostCompiler

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """As it lies in an image."""
    for name, text in _provision():
        path = tmp_path / "home" / "provision" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    return tmp_path / "home" / "provision"


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_folder_runs_by_itself(program: Path) -> None:
    done = run(program, "python", "--version", platform.python_version())
    assert (done.returncode, done.stderr) == (0, "")


def test_a_step_that_fails_says_why_and_ends_with_1(program: Path) -> None:
    done = run(program, "python", "--version", "2.7.18")
    assert done.returncode == 1
    found = platform.python_version()
    assert done.stderr.startswith(
        f"fatwheel: the installed Python is {found}, and the toolchain says 2.7.18\n"
    )
    assert "Traceback" not in done.stderr


def test_options_that_are_missing_are_named(program: Path) -> None:
    done = run(program, "base", "--python", "3.11")
    assert done.returncode == 2
    assert "--cuda, --gcc" in done.stderr


def test_a_folder_that_cannot_be_written_is_told(program: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar.xz", "w:xz"):
        pass
    (tmp_path / "file").touch()
    done = run(program, "unpack", "--into", f"{tmp_path}/file/cuda", f"{tmp_path}/x.tar.xz")
    assert done.returncode == 1
    assert f"{tmp_path}/file/cuda: Not a directory" in done.stderr


def test_unpack(program: Path, tmp_path: Path) -> None:
    header = tmp_path / "a.h"
    header.write_text("a")
    programs = ("bin/nvcc", "bin/ptxas", "nvvm/bin/cicc")
    for names in (("include/a.h", *programs), ("include/a.h", *programs[:2])):
        with tarfile.open(tmp_path / "part.tar.xz", "w:xz") as archive:
            for name in names:
                archive.add(header, f"part/{name}")
        into = tmp_path / f"cuda{len(names)}"
        done = run(program, "unpack", "--into", str(into), f"{tmp_path}/part.tar.xz")
        assert (into / "include" / "a.h").read_text() == "a"
        if len(names) == 4:
            assert done.returncode == 0, done.stderr
    assert done.returncode == 1
    assert "CUDA's archives lack a part of its compiler" in done.stderr
    assert "nvvm/bin/cicc" in done.stderr


def test_stamp_is_for_the_packages_of_the_python_that_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    main(["stamp"])
    assert (tmp_path / "x.h").stat().st_mtime == 1577836800  # date -u -d 2020-01-01 +%s


class Steps:
    """What the last step calls, replaced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.home = home
        for name in (
            "mend_packages", "mend_home", "check_nvcc", "check_torch", "install_run_time",
        ):  # fmt: skip
            monkeypatch.setattr(image, name, self._note(name))
        compiler = HostCompiler(Path("/usr/bin/g++"), "12.2.0", "the id")
        monkeypatch.setattr(image, "find_host_compiler", lambda *asked: compiler)
        found = ReadyMsvc(Path("C:/cl.exe"), "cl's id", {"INCLUDE": "x"})
        monkeypatch.setattr(image, "find_msvc", self._note("find_msvc", found))
        # The description lies beside the folder that the code is in.
        module = home / "provision" / "fatwheel" / "provision" / "image.py"
        monkeypatch.setattr(image, "__file__", str(module))
        home.mkdir()

    def _note(self, name: str, answer: object = None) -> object:
        def called(*arguments: object, **options: object) -> object:
            self.calls.append((name, *arguments))
            return answer

        return called

    @property
    def described(self) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.home / "environment.json").read_text())
        return found


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Steps:
    return Steps(monkeypatch, tmp_path / "home")


EVERY = [
    "--python", PYTHON, "--torch", "2.11.0", "--cuda-home", "/opt/cuda", "--nvcc", "13.0.88",
]  # fmt: skip


def test_linux_is_mended_checked_and_described(steps: Steps) -> None:
    main(["linux", *EVERY, "--cuda", "13.0", "--gcc", "9", "15"])
    site = Path(sysconfig.get_path("purelib"))
    assert [call[0] for call in steps.calls] == [
        "mend_packages",
        "mend_home",
        "check_nvcc",
        "check_torch",
    ]
    assert steps.calls[0][1] == site / "nvidia"
    assert steps.calls[1][1] == Path("/opt/cuda")
    assert steps.calls[2][1:] == (Path("/opt/cuda"), "13.0.88")
    assert steps.described == {
        "environment": {
            "root": sys.prefix,
            "python": sys.executable,
            "site": str(site),
            "cuda_home": "/opt/cuda",
            "include": sysconfig.get_path("include"),
            "python_version": platform.python_version(),
            "torch": "2.11.0",
        },
        "compiler": "g++ 12.2.0",
        "cxx": "/usr/bin/g++",
        "host_id": "the id",
        "variables": {},
    }


def test_windows_has_its_compiler_s_variables(steps: Steps) -> None:
    main(["windows", *EVERY, "--msvc", "/msvc", "--cl", "19.38.33130"])
    assert steps.calls[:2] == [
        ("find_msvc", Path("/msvc"), "19.38.33130"),
        ("install_run_time", Path("/msvc"), Path(sys.executable).parent),
    ], "torch loads only with msvcp140.dll beside python.exe"
    assert [call[0] for call in steps.calls[2:]] == ["check_nvcc", "check_torch"]
    assert steps.described["variables"] == {"INCLUDE": "x"}
    assert steps.described["host_id"] == "cl's id"
    assert steps.described["compiler"] == "cl 19.38.33130"


def test_another_python_describes_nothing(steps: Steps) -> None:
    with pytest.raises(SystemExit, match=f"the installed Python is {PYTHON}"):
        main(["linux", *EVERY, "--python", "2.7", "--cuda", "13.0", "--gcc", "9", "15"])
    assert os.listdir(steps.home) == []
