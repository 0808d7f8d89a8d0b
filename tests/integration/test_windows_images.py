"""The script of Windows images, run by Wine's cmd with a stand-in for Python's installer; and the
steps of provision, by a Windows CPython."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from fatwheel.config.pinned import Download
from fatwheel.config.toolchain import Toolchain, TorchBuild
from fatwheel.containers.contexts import BuildContext, contexts_of
from fatwheel.containers.render import FILES
from fatwheel.errors import FatwheelError
from fatwheel.events import silent
from fatwheel.provision.msvc import VCVARS
from fatwheel.storage.cache import cache_folder
from fatwheel.toolchain.fetch import fetch

from ..conftest import missing
from ..helpers.dockerfiles import instructions
from ..helpers.msvcpackages import write_packages
from ..helpers.tinywheels import write_wheel
from ..helpers.toolchains import shipped_toolchain
from .msvc import KIT, SDK, install_msvc
from .windows import STILLBORN, TRIES, WindowsPython, Wine, windows_path

WINDOWS = shipped_toolchain("windows-msvc17.8-cuda12.3")
# A program with a window of its own, as installers are: cmd does not wait for those by itself.
# It ends with FW_CODE, after it has put FW_FILES, pairs of source>target, where they belong.
INSTALLER = r"""
#include <windows.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

static void make_folders(char *path) {
    for (char *at = path + 3; *at; at++)
        if (*at == '\\') { *at = 0; CreateDirectoryA(path, NULL); *at = '\\'; }
}

int WINAPI WinMain(HINSTANCE a, HINSTANCE b, LPSTR line, int c) {
    char log[MAX_PATH];
    snprintf(log, sizeof log, "%s\\dd_setup.log", getenv("TEMP"));
    FILE *out = fopen(log, "w");
    fprintf(out, "a line of the installer's log\n");
    fclose(out);
    out = fopen(getenv("FW_CALLED"), "w");
    fputs(line, out);
    fclose(out);
    Sleep(300);
    char *files = getenv("FW_FILES");
    for (char *pair = files ? strtok(files, "|") : NULL; pair; pair = strtok(NULL, "|")) {
        char *target = strchr(pair, '>');
        *target++ = 0;
        make_folders(target);
        if (!CopyFileA(pair, target, FALSE)) return 99;
    }
    return atoi(getenv("FW_CODE"));
}
"""
SAYS = r"""
#include <stdlib.h>
#include <stdio.h>
int main(void) { fputs(getenv("FW_SAYS"), stdout); return 0; }
"""


@dataclass
class Machine:
    """A Windows in which one script at a time is run."""

    wine: Wine
    folder: Path
    drive: Path
    patch: pytest.MonkeyPatch

    def script(self, name: str) -> Path:
        """As it lies in the build context."""
        texts = dict(contexts_of(WINDOWS, "3.11", "2.1.1", {})[0].texts)
        path = self.folder / name
        path.write_bytes(texts[f"scripts/{name}"])
        return path

    def run(
        self, name: str, *arguments: str, code: int = 0, files: dict[str, str] | None = None,
        says: str = "",
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run a script whose installer ends with a code and installs files: target → source."""
        self.prepare(code, files, says)
        installer = self.folder / "installer.exe"
        return self.wine.run(Path("cmd"), "/s", "/c", self.script(name), installer, *arguments)

    def prepare(self, code: int = 0, files: dict[str, str] | None = None, says: str = "") -> None:
        """Say what installers and compilers will do."""
        pairs = [
            f"{windows_path(self.folder / source)}>{target}"
            for target, source in (files or {}).items()
        ]
        temp = self.folder / "temp"
        temp.mkdir(exist_ok=True)
        for variable, value in {
            "FW_CODE": str(code), "FW_FILES": "|".join(pairs), "FW_SAYS": says,
            "FW_CALLED": windows_path(self.called), "TEMP": windows_path(temp),
        }.items():  # fmt: skip
            self.patch.setitem(self.wine.environment, variable, value)

    @property
    def called(self) -> Path:
        return self.folder / "called.txt"

    @property
    def temp(self) -> list[str]:
        """What is left in TEMP."""
        return [path.name for path in (self.folder / "temp").iterdir()]


@pytest.fixture(scope="session")
def programs(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stand-ins")
    gcc = tool("x86_64-w64-mingw32-gcc")
    for name, text, *options in (
        ("installer", INSTALLER, "-mwindows"),
        ("python", SAYS),
    ):
        source = folder / f"{name}.c"
        source.write_text(text)
        command = [gcc, *options, source, "-o", folder / f"{name}.exe", "-static"]
        subprocess.run(command, check=True)
    return folder


@pytest.fixture
def machine(
    wine: Wine, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    for path in programs.iterdir():
        shutil.copy(path, tmp_path / path.name)
    drive = Path(wine.environment["WINEPREFIX"], "drive_c")
    yield Machine(wine, tmp_path, drive, monkeypatch)
    for name in ("msvc", "Python311", "cuda", "fatwheel"):
        shutil.rmtree(drive / name, ignore_errors=True)


PYTHON = "install-python.cmd"
INTERPRETER = {r"C:\Python311\python.exe": "python.exe"}
TO = (r"C:\Python311", "3.11.9")


# -- Python --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 3010])
def test_python_is_installed_and_looked_at(machine: Machine, code: int) -> None:
    done = machine.run(PYTHON, *TO, code=code, files=INTERPRETER, says="Python 3.11.9.\n")
    assert done.returncode == 0, done.stdout + done.stderr
    called = machine.called.read_text().split()
    wanted = {"/quiet", "InstallAllUsers=1", r"TargetDir=C:\Python311", "Include_test=0"}
    assert wanted <= set(called)
    assert machine.temp == []


def test_a_failing_installer_of_python_stops_the_build(machine: Machine) -> None:
    done = machine.run(PYTHON, *TO, code=1638, files=INTERPRETER, says="Python 3.11.9.\n")
    assert done.returncode == 1638 & 0xFF
    assert "installer.exe ended with exit code 1638" in done.stderr


@pytest.mark.parametrize("says", ["Python 3.11.91.\n", "Python 3.11.8.\n", ""])
def test_another_python_stops_the_build(machine: Machine, says: str) -> None:
    done = machine.run(PYTHON, *TO, files=INTERPRETER, says=says)
    assert done.returncode == 1
    assert "is not 3.11.9" in done.stderr


def test_a_python_that_is_not_there_stops_the_build(machine: Machine) -> None:
    done = machine.run(PYTHON, *TO)
    assert done.returncode == 1
    assert "is not 3.11.9" in done.stderr


# -- whole Dockerfiles ---------------------------------------------------------------------------


NVCC_SAYS = "Cuda compilation tools, release 12.3, V12.3.107"
NVCC = f'#include <stdio.h>\nint main(void) {{ puts("{NVCC_SAYS}"); return 0; }}\n'
SDK_FILE = "microsoft.windows.sdk.cpp.10.0.22621.3233.nupkg"
EXTENSION = {"torch/__init__.py": "__version__ = '2.1.1+cu121'\n", "torch/utils/__init__.py": ""}


def packages_of_msvc(files: Path, gcc: str) -> tuple[Download, ...]:
    """The stand-ins of `msvc`, in packages as Microsoft makes them."""
    install_msvc(files / "msvc", gcc)
    found: dict[str, dict[str, bytes]] = {}
    for path in (files / "msvc").rglob("*"):
        name = path.relative_to(files / "msvc").as_posix()
        if not path.is_file() or name == VCVARS:
            continue
        part, top = ("vc.vsix", "Contents/") if name.startswith("VC/") else (SDK_FILE, "c/")
        name = name.removeprefix(f"{KIT}/").replace(f"Lib/{SDK}/", "")
        found.setdefault(part, {})[top + quote(name)] = path.read_bytes()
    shutil.rmtree(files / "msvc")
    write_packages(files, found)
    return tuple(Download(name, "1", f"https://host/{name}", name, 0, "0" * 64) for name in found)


def small_toolchain(files: Path, gcc: str) -> Toolchain:
    """The Windows toolchain with Python 3.11 alone, and its files replaced by stand-ins."""
    files.mkdir()
    assert WINDOWS.msvc is not None
    (files / "nvcc.c").write_text(NVCC)
    subprocess.run([gcc, files / "nvcc.c", "-o", files / "nvcc.exe", "-static"], check=True)
    nvcc = next(file for file in WINDOWS.cuda_files if file.name == "cuda_nvcc")
    with zipfile.ZipFile(files / nvcc.filename, "w") as archive:
        top = nvcc.filename.removesuffix(".zip")
        archive.write(files / "nvcc.exe", f"{top}/bin/nvcc.exe")
        archive.writestr(f"{top}/LICENSE", "a licence")
    tools = write_wheel(files, "setuptools", "1.0", {"setuptools/__init__.py": ""}, role="build")
    members = {**EXTENSION, "torch/utils/cpp_extension.py": "", "torch/a.h": "a header"}
    torch = write_wheel(files, "torch", "2.1.1", members)
    pip = next(package for package in WINDOWS.packages if package.role == "installer")
    try:
        [path] = fetch([pip], cache_folder() / FILES, silent)
    except FatwheelError as error:
        missing(f"no pip to install with: {error}")
    shutil.copy(path, files)
    return dataclasses.replace(
        WINDOWS,
        msvc=dataclasses.replace(WINDOWS.msvc, payloads=packages_of_msvc(files, gcc)),
        cuda_files=(nvcc,),
        packages=(tools, pip),
        builds=(TorchBuild("2.1.1", "3.11", (torch,)),),
        interpreters=tuple(one for one in WINDOWS.interpreters if one.python == "3.11"),
    )


def build(machine: Machine, context: BuildContext, files: Path) -> None:
    """Do what an engine would do with a Dockerfile: every COPY and every RUN, on drive C."""
    for one in instructions(context):
        *sources, target = one.value.split()
        if one.verb == "COPY":
            folder = machine.drive / target.removeprefix("C:/")
            folder.mkdir(parents=True, exist_ok=True)
            for source in sources:
                for path, content in contents(context, source, files).items():
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    (folder / path).write_bytes(content)
        if one.verb == "RUN":
            done = machine.wine.run(Path("cmd"), "/s", "/c", one.value)
            assert done.returncode == 0, f"{one.value}\n{done.stdout}{done.stderr}"


def contents(context: BuildContext, source: str, files: Path) -> dict[str, bytes]:
    """A COPY's files by where they go to: of a folder its files, of a file the file itself."""
    if source.startswith("files/"):
        name = source.removeprefix("files/")
        path = files / name
        return {name: path.read_bytes() if path.exists() else INSTALLER_BYTES[0]}
    if source.endswith("/"):
        return {
            path.removeprefix(source): text
            for path, text in context.texts
            if path.startswith(source)
        }
    return {Path(source).name: dict(context.texts)[source]}


INSTALLER_BYTES: list[bytes] = []  # what every installer is here


def test_both_dockerfiles_from_beginning_to_end(
    machine: Machine, windows_python: WindowsPython, tool: Callable[[str], str]
) -> None:
    """With a real CPython for Windows and pip; Python's installer, cl and nvcc are stand-ins."""
    INSTALLER_BYTES[:] = [(machine.folder / "installer.exe").read_bytes()]
    shutil.copytree(windows_python.folder, machine.drive / "Python311")
    machine.prepare()
    files = machine.folder / "files"
    toolchain = small_toolchain(files, tool("x86_64-w64-mingw32-gcc"))
    for context in contexts_of(toolchain, "3.11", "2.1.1", {}):
        build(machine, context, files)

    described = json.loads((machine.drive / "fatwheel" / "environment.json").read_text())
    environment = described["environment"]
    assert environment == {
        "root": r"C:\Python311",
        "python": r"C:\Python311\python.exe",
        "site": r"C:\Python311\Lib\site-packages",
        "cuda_home": r"C:\cuda",
        "include": r"C:\Python311\Include",
        "python_version": "3.11.9",
        "torch": "2.1.1",
    }
    tools = r"C:\msvc\VC\Tools\MSVC\14.38.33130"
    assert described["cxx"] == rf"{tools}\bin\Hostx64\x64\cl.exe"
    variables = described["variables"]
    assert variables["INCLUDE"].startswith(rf"{tools}\include;C:\msvc\Windows Kits\10")
    assert variables["PATH"].startswith(rf"{tools}\bin\Hostx64\x64;")
    assert variables["PATH"].lower().endswith(r";c:\windows\system32;c:\windows")
    assert variables["DISTUTILS_USE_SDK"] == variables["MSSdk"] == "1"
    assert (machine.drive / "Python311" / "msvcp140.dll").exists(), "torch would not load"
    header = machine.drive / "Python311" / "Lib" / "site-packages" / "torch" / "a.h"
    assert header.stat().st_mtime == 1577836800  # date -u -d 2020-01-01 +%s
    assert (machine.drive / "cuda" / "licences").is_dir()


# -- Wine itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fails", "says", "starts"),
    [(1, STILLBORN, 2), (9, STILLBORN, TRIES), (9, "another failure", 1), (0, STILLBORN, 1)],
)
def test_only_what_wine_lost_at_its_start_is_run_again(
    fails: int, says: str, starts: int, tmp_path: Path
) -> None:
    stand_in = tmp_path / "wine"
    stand_in.write_text(
        f"#!/bin/sh\necho start >>starts\necho '{says}'\n[ $(wc -l <starts) -gt {fails} ]\n"
    )
    stand_in.chmod(0o755)
    windows = Wine(str(stand_in), "", tmp_path)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as warned:
        patch.chdir(tmp_path)
        warnings.simplefilter("always")
        done = windows.run(Path("cmd"))
    assert (tmp_path / "starts").read_text().count("start") == starts
    assert len(warned) == starts - 1
    assert done.returncode == (0 if fails < starts else 1)
    assert says in done.stdout
