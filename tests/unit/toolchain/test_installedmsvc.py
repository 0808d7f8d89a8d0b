"""An installed MSVC is found in the folders of Visual Studio's installer; cl.exe and vswhere.exe
are shell scripts that say what Microsoft's say."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fatwheel.config.parts import CudaRelease, Parts
from fatwheel.config.toolchain import InstalledFile, LockedMsvc
from fatwheel.errors import ToolchainError, UsageError
from fatwheel.events import silent
from fatwheel.pipeline.resolve import ToolchainRequest, choose_cells
from fatwheel.provision.msvc import check_complete
from fatwheel.shipped import toolchain_folders
from fatwheel.toolchain.homes import UnpackedMsvc, check_accepted
from fatwheel.toolchain.installedmsvc import find_installed_msvc, use
from fatwheel.toolchain.unpack import alone

from ...helpers.visualstudio import (
    BIN,
    PARTS,
    answer,
    instance,
    write_kit,
    write_run_time,
    write_toolset,
)
from ...helpers.workstations import WINDOWS_TOOLCHAIN

PARTS_OF_CUDA = Parts(*toolchain_folders())


def cuda(minor: str) -> CudaRelease:
    return next(one for one in PARTS_OF_CUDA.cudas if one.minor == minor)


class Machine:
    """Folders as on a drive C: of Windows."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "Program Files (x86)"
        self.kits = self.programs / "Windows Kits" / "10"
        self.studio = folder / "Program Files" / "Microsoft Visual Studio" / "2022" / "BuildTools"
        self.vswhere = self.programs / "Microsoft Visual Studio" / "Installer" / "vswhere.exe"
        self.says(answer([self.instance()]))

    def instance(self, release: str = "17.14.5") -> dict[str, Any]:
        return instance(str(self.studio), release, "17.14.36221.1")

    def says(self, text: str) -> None:
        """What vswhere answers if it is asked for all products, as JSON."""
        wanted = "-products * -format json -utf8 -nologo"
        script(self.vswhere, f'test "$*" = "{wanted}" || exit 87\ncat <<"END"\n{text}\nEND')

    def toolset(self, version: str, said: str = "", **more: Any) -> Path:
        """cl says the version as it does in English, or something else."""
        folder = write_toolset(self.studio, version, **more)
        cl = f"19.{version.partition('.')[2]}"
        banner = said or f"Microsoft (R) C/C++ Optimizing Compiler Version {cl} for x64"
        script(folder / BIN / "cl.exe", f"echo '{banner}' >&2\necho 'usage: cl [ option... ]'")
        return folder

    def find(self, minor: str, kits: Sequence[Path] = ()) -> LockedMsvc:
        pinned = PARTS_OF_CUDA.msvcs[1]
        return find_installed_msvc(cuda(minor), pinned, self.programs, [*kits, self.kits])


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.toolset("14.9.25000")
    machine.toolset("14.38.33130", stl='_EMIT_STL_ERROR(STL1002, "expected CUDA 11.6 or newer.");')
    machine.toolset("14.44.35207")
    write_run_time(machine.studio, "14.38.33135")
    write_run_time(machine.studio, "14.44.35112")
    (machine.studio / "VC" / "Redist" / "MSVC" / "v143").mkdir()
    for version in ("10.0.9999.0", "10.0.22621.0", "10.0.26100.0"):
        write_kit(machine.kits, version)
    return machine


def test_the_newest_that_nvcc_takes_is_found(machine: Machine) -> None:
    found = machine.find("13.0")
    assert (found.visual_studio, found.toolset, found.cl) == ("17.14.5", "14.44", "19.44.35207")
    assert found.payloads == ()
    assert found.installed
    assert found.installed.sdk == "10.0.26100.0"
    assert found.installed.folder == machine.studio
    tools = machine.studio / "VC/Tools/MSVC/14.44.35207"
    digests = [(name, hashlib.sha256((tools / name).read_bytes()).hexdigest()) for name in PARTS]
    assert found.installed.files == tuple(
        InstalledFile(name.rpartition("/")[2], sha256) for name, sha256 in digests
    )


def test_an_older_cuda_gets_an_older_toolset(machine: Machine) -> None:
    found = machine.find("12.3")
    assert (found.toolset, found.cl) == ("14.38", "19.38.33130")


def test_where_nvcc_takes_none_it_says_why_and_what_to_install(machine: Machine) -> None:
    for version in ("14.9.25000", "14.38.33130"):
        (machine.studio / "VC/Tools/MSVC" / version / BIN / "link.exe").unlink()
    with pytest.raises(ToolchainError) as refused:
        machine.find("12.3")
    assert refused.value.what == "the nvcc of CUDA 12.3 takes no MSVC that is installed here"
    why = "CUDA 12.3 takes _MSC_VER 1910 to 1939, and it is 1944"
    assert refused.value.details == (f"MSVC 14.44.35207, {machine.studio}: {why}",)
    assert refused.value.hint
    assert refused.value.hint.startswith("install MSVC 14.39 under Individual components")


def test_a_toolset_whose_own_library_wants_a_newer_cuda(machine: Machine) -> None:
    """_MSC_VER alone would do; the text is that of yvals_core.h."""
    machine.toolset("14.38.33130", stl='_EMIT_STL_ERROR(STL1002, "expected CUDA 12.5 or newer.");')
    with pytest.raises(ToolchainError) as refused:
        machine.find("12.3")
    assert any("its own library needs CUDA 12.5 or newer" in one for one in refused.value.details)
    assert machine.find("12.6").toolset == "14.44"


@pytest.mark.parametrize(
    "banner",
    [
        "Microsoft (R) C/C++-Optimierungscompiler Version 19.44.35207 für x64",
        "用于 x64 的 Microsoft (R) C/C++ 优化编译器 19.44.35207 版",
    ],
)
def test_cl_says_its_version_in_the_users_language(machine: Machine, banner: str) -> None:
    machine.toolset("14.44.35207", banner)
    assert machine.find("13.0").cl == "19.44.35207"


def test_an_sdk_that_is_not_whole_is_passed_over(machine: Machine, tmp_path: Path) -> None:
    (machine.kits / "bin/10.0.26100.0/x64/rc.exe").unlink()
    (machine.kits / "bin/10.0.26100.0/x64").rmdir()
    found = machine.find("13.0", [tmp_path / "nowhere"])
    assert found.installed
    assert found.installed.sdk == "10.0.22621.0"


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("[]", "no Visual Studio is installed here"),
        ("{", "Visual Studio's installer does not say what is installed"),
        ("[" * 100_000, "Visual Studio's installer does not say what is installed"),
        ('[{"installationPath": 7}, 7, {"installationPath": "/x\\u0000", "installationVersion": '
         '"17.1.2.3"}]', "no Visual Studio is installed here"),
        ('[{"installationPath": "/nowhere", "installationVersion": "15.9.1.2", "catalog": []}]',
         "no Visual Studio here has a C++ compiler for x64"),
    ],
)  # fmt: skip
def test_what_vswhere_says_is_checked(machine: Machine, said: str, what: str) -> None:
    machine.says(said)
    with pytest.raises(ToolchainError) as refused:
        machine.find("13.0")
    assert refused.value.what == what
    assert "leave out --msvc" in str(refused.value.hint)


def test_without_an_installer_there_is_no_visual_studio(machine: Machine) -> None:
    machine.vswhere.unlink()
    with pytest.raises(ToolchainError, match="no Visual Studio is installed here"):
        machine.find("13.0")


def test_without_an_sdk_it_says_where_it_looked(machine: Machine, tmp_path: Path) -> None:
    (machine.kits / "Include").rename(tmp_path / "moved")
    with pytest.raises(ToolchainError, match="no Windows SDK") as refused:
        machine.find("13.0")
    assert refused.value.details == (f"looked in {machine.kits}",)


def test_its_home_is_made_of_links_and_deleted_without_what_they_lead_to(
    machine: Machine, tmp_path: Path
) -> None:
    msvc = machine.find("13.0")
    check_accepted(msvc, tmp_path)  # who installed it has accepted its terms
    home = UnpackedMsvc(msvc, tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    with alone(home.cache, silent):
        home.make(silent)
    assert home.is_made()
    check_complete(home.root)
    [library] = home.root.glob("VC/Redist/MSVC/*/x64/*/*.dll")
    assert library.name == "msvcp140.dll"
    assert (home.root / "VC/Tools/MSVC/14.44.35207").is_symlink()
    # Another one, or the same after a repair, has a home of its own.
    (machine.studio / "VC/Tools/MSVC/14.44.35207" / BIN / "c2.dll").write_text("repaired")
    assert UnpackedMsvc(machine.find("13.0"), home.cache).name != home.name
    # One that is damaged is made anew, and what it leads to stays.
    (home.root / "VC/Auxiliary/Build/vcvarsall.bat").unlink()
    assert not home.is_made()
    with alone(home.cache, silent):
        home.make(silent)
    assert home.is_made()
    assert (machine.studio / "VC/Tools/MSVC/14.44.35207" / BIN / "link.exe").is_file()


def test_a_toolchain_that_uses_it_is_another_one(machine: Machine) -> None:
    msvc = machine.find("12.3")
    toolchain = use(WINDOWS_TOOLCHAIN, msvc)
    assert toolchain.digest != WINDOWS_TOOLCHAIN.digest
    assert toolchain.of_a_machine == "MSVC of Visual Studio 17.14.5, Windows SDK 10.0.26100.0"
    assert not any(key[0] == "msvc" for key, _ in toolchain.pins())


@pytest.mark.skipif(sys.platform == "win32", reason="it works there")
def test_it_is_refused_on_other_systems() -> None:
    asked = ToolchainRequest("linux-cuda13.0", platform="windows-x86_64", msvc="installed")
    with pytest.raises(UsageError, match="on Windows only"):
        choose_cells(asked)


def test_it_is_refused_for_other_platforms_and_words() -> None:
    with pytest.raises(UsageError, match=r"is for Windows, and toolchain .* is for linux-x86_64"):
        choose_cells(ToolchainRequest("linux-cuda13.0", msvc="installed"))
    with pytest.raises(UsageError, match=r"'14\.44' is not a valid choice"):
        choose_cells(ToolchainRequest("linux-cuda13.0", msvc="14.44"))
    asked = ToolchainRequest("linux-cuda13.0", cuda_home=Path("/usr"), msvc="installed")
    with pytest.raises(UsageError, match="--msvc beside --cuda-home"):
        choose_cells(asked)
