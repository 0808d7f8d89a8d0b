"""MSVC as vcvars64.bat shows it; what cmd would print is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.errors import ToolchainError
from fatwheel.provision import compilers
from fatwheel.provision.compilers import changed, find_msvc

# As cl prints it, on its standard error.
BANNER = (
    "Microsoft (R) C/C++ Optimizing Compiler Version 19.38.33130 for x64\n"
    "Copyright (C) Microsoft Corporation.  All rights reserved.\n"
    "\n"
    "usage: cl [ option... ] filename... [ /link linkoption... ]\n"
)


class Cmd:
    """Stands for cmd.exe: notes what it is asked, and answers as vcvars64.bat and cl would."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        for part in ("cl.exe", "c1xx.dll", "c2.dll"):
            (self.bin / part).write_bytes(part.encode())
        self.banner = BANNER
        self.fails = False
        self.asked: list[str] = []

    def __call__(self, command: str) -> str:
        self.asked.append(command)
        if "vcvars64.bat" not in command:
            return self.banner
        if self.fails:
            return "[ERROR:vcvars.bat] Toolset directory for '14.38' not found.\n"
        return (
            "**********************************************************************\n"
            "** Visual Studio 2022 Developer Command Prompt v17.8.2\n"
            "[vcvarsall.bat] Environment initialized for: 'x64'\n"
            f"{compilers._MARK}\n"
            "INCLUDE=C:\\BuildTools\\VC\\include;C:\\sdk\\ucrt\n"
            "LIB=C:\\BuildTools\\VC\\lib\\x64\n"
            f"Path={self.bin};C:\\Windows\n"
            "PROMPT=$P$G\n"
            "SystemRoot=C:\\Windows\n"
            "TEMP=C:\\temp\n"
            "VSCMD_ARG_TGT_ARCH=x64\n"
            "__VSCMD_PREINIT_PATH=C:\\Windows\n"
        )


@pytest.fixture
def cmd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cmd:
    cmd = Cmd(tmp_path)
    monkeypatch.setattr(compilers, "run", cmd)
    monkeypatch.setattr(compilers.os, "environ", {"SYSTEMROOT": "C:\\Windows", "TEMP": "C:\\temp"})
    return cmd


def test_the_compiler_and_its_variables(cmd: Cmd, tmp_path: Path) -> None:
    found = find_msvc(tmp_path / "BuildTools", "14.38", "19.38.33130")
    assert found.path == cmd.bin / "cl.exe"
    assert found.variables == {
        "INCLUDE": "C:\\BuildTools\\VC\\include;C:\\sdk\\ucrt",
        "LIB": "C:\\BuildTools\\VC\\lib\\x64",
        "PATH": f"{cmd.bin};C:\\Windows",
        "VSCMD_ARG_TGT_ARCH": "x64",
        "DISTUTILS_USE_SDK": "1",
        "MSSdk": "1",
    }
    assert 'vcvars64.bat" -vcvars_ver=14.38 && ' in cmd.asked[0]


def test_its_digest_covers_the_banner_and_the_programs(cmd: Cmd, tmp_path: Path) -> None:
    def identity() -> str:
        return find_msvc(tmp_path, "14.38", "19.38.33130").id

    seen = [identity()]
    assert identity() == seen[0]
    for part in ("cl.exe", "c1xx.dll", "c2.dll"):
        (cmd.bin / part).write_bytes(b"another")
        seen.append(identity())
    cmd.banner = BANNER.replace("Microsoft (R)", "Another")
    seen.append(identity())
    assert len(set(seen)) == 5


def test_another_cl_is_refused(cmd: Cmd, tmp_path: Path) -> None:
    cmd.banner = BANNER.replace("33130", "33144")
    words = r"the installed cl is 19\.38\.33144, and the toolchain says 19\.38\.33130"
    with pytest.raises(ToolchainError, match=words):
        find_msvc(tmp_path, "14.38", "19.38.33130")


@pytest.mark.parametrize("target", ["x86", "ARM64"])
def test_a_cl_for_another_processor_is_refused(cmd: Cmd, tmp_path: Path, target: str) -> None:
    cmd.banner = BANNER.replace("x64", target)
    with pytest.raises(ToolchainError, match="does not say what version it is"):
        find_msvc(tmp_path, "14.38", "19.38.33130")


def test_a_toolset_that_is_not_there(cmd: Cmd, tmp_path: Path) -> None:
    cmd.fails = True
    with pytest.raises(ToolchainError, match=r"vcvars64\.bat -vcvars_ver=14\.38 fails") as caught:
        find_msvc(tmp_path, "14.38", "19.38.33130")
    assert caught.value.details == ("[ERROR:vcvars.bat] Toolset directory for '14.38' not found.",)


def test_no_cl_on_the_path_that_is_set(cmd: Cmd, tmp_path: Path) -> None:
    (cmd.bin / "cl.exe").unlink()
    with pytest.raises(ToolchainError, match=r"cl\.exe is not in the PATH"):
        find_msvc(tmp_path, "14.38", "19.38.33130")


def test_what_changed_whatever_the_capitals_and_line_ends() -> None:
    listing = "Path=new;a=b\r\nSame=1\r\nnoise\r\nEMPTY=\r\n"
    before = {"PATH": "old", "same": "1"}
    assert changed(listing, before) == {"EMPTY": "", "PATH": "new;a=b"}
