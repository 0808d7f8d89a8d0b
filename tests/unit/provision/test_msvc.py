"""MSVC in the folders that its packages make; a shell script says cl's banner, run as Wine would
run cl.exe."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fatwheel.errors import ToolchainError
from fatwheel.provision.msvc import VCVARS, Msvc, find_msvc, install_run_time, windows_path

# As cl prints it, on its standard error.
BANNER = (
    "Microsoft (R) C/C++ Optimizing Compiler Version 19.38.33130 for x64\n"
    "Copyright (C) Microsoft Corporation.  All rights reserved.\n"
)
USAGE = "usage: cl [ option... ] filename... [ /link linkoption... ]"
TOOLS = "VC/Tools/MSVC/14.38.33130"
BIN = f"{TOOLS}/bin/Hostx64/x64"
REDIST = "VC/Redist/MSVC/14.38.33135/x64/Microsoft.VC143.CRT"
KIT = "Windows Kits/10"
SDK = "10.0.22621.0"
INCLUDES = [f"{KIT}/Include/{SDK}/{name}" for name in ("ucrt", "shared", "um", "winrt")]
FOLDERS = [
    f"{TOOLS}/include", f"{TOOLS}/lib/x64", f"{KIT}/Lib/{SDK}/ucrt/x64", f"{KIT}/Lib/{SDK}/um/x64",
    f"{KIT}/bin/{SDK}/x64", *INCLUDES,
]  # fmt: skip
FILES = [
    *(f"{BIN}/{name}" for name in ("cl.exe", "c1xx.dll", "c2.dll", "link.exe")),
    *(f"{TOOLS}/lib/x64/{name}" for name in ("libcmt.lib", "msvcrt.lib")), VCVARS,
]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "ms vc"
    for folder in FOLDERS:
        (home / folder).mkdir(parents=True)
    for file in FILES:
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).write_text(file)
    (home / REDIST).mkdir(parents=True)
    (home / REDIST / "msvcp140.dll").write_bytes(b"library")
    return home


def find(home: Path, banner: str = BANNER) -> Msvc:
    runner = home.parent / "runner"
    runner.write_text(f"#!/bin/sh\ntest -f \"$2\" && echo '{USAGE}'\nprintf '%s' '{banner}' >&2\n")
    runner.chmod(0o755)
    return find_msvc(home, "19.38.33130", (str(runner), "with"))


def test_the_compiler_and_its_variables(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSTEMROOT", "D:\\Win")
    found = find(home)
    assert found.path == home / BIN / "cl.exe"
    assert {name: value.split(";") for name, value in found.variables.items()} == {
        "INCLUDE": [
            windows_path(home / path)
            for path in (f"{TOOLS}/include", *INCLUDES)
        ],
        "LIB": [
            windows_path(home / path)
            for path in (f"{TOOLS}/lib/x64", f"{KIT}/Lib/{SDK}/ucrt/x64", f"{KIT}/Lib/{SDK}/um/x64")
        ],
        "PATH": [
            windows_path(home / BIN), windows_path(home / KIT / "bin" / SDK / "x64"),
            "D:\\Win\\System32", "D:\\Win",
        ],
        "DISTUTILS_USE_SDK": ["1"],
        "MSSdk": ["1"],
    }  # fmt: skip


def test_on_linux_paths_are_those_of_wine_s_drive() -> None:
    assert windows_path(Path("/a b/c")) == "Z:\\a b\\c"


def test_its_digest_covers_the_banner_and_the_programs_but_not_the_place(home: Path) -> None:
    seen = [find(home).id]
    moved = home.with_name("elsewhere")
    shutil.copytree(home, moved)
    assert find(moved).id == seen[0]
    for part in ("cl.exe", "c1xx.dll", "c2.dll"):
        (home / BIN / part).write_bytes(b"another")
        seen.append(find(home).id)
    seen.append(find(home, BANNER.replace("Microsoft (R)", "Another")).id)
    assert len(set(seen)) == 5


def test_names_are_found_however_they_are_spelled(home: Path) -> None:
    for old, new in (
        (f"{BIN}/cl.exe", f"{BIN}/CL.EXE"),
        (f"{TOOLS}/lib/x64/msvcrt.lib", f"{TOOLS}/lib/x64/MSVCRT.lib"),
        (f"{TOOLS}/bin/Hostx64", f"{TOOLS}/bin/HostX64"),
        (f"{KIT}/Include", f"{KIT}/include"),
    ):
        (home / old).rename(home / new)
    found = find(home)
    assert found.path == home / TOOLS / "bin" / "HostX64" / "x64" / "CL.EXE"
    assert windows_path(home / KIT / "include" / SDK / "um") in found.variables["INCLUDE"].split(
        ";"
    )


def test_another_cl_is_refused(home: Path) -> None:
    words = r"the installed cl is 19\.38\.33144, and the toolchain says 19\.38\.33130"
    with pytest.raises(ToolchainError, match=words):
        find(home, BANNER.replace("33130", "33144"))


@pytest.mark.parametrize("target", ["x86", "ARM64"])
def test_a_cl_for_another_processor_is_refused(home: Path, target: str) -> None:
    with pytest.raises(ToolchainError, match="does not say what version it is") as caught:
        find(home, BANNER.replace("x64", target))
    assert f"for {target}" in caught.value.details[0]
    assert caught.value.details[-1] == USAGE


@pytest.mark.parametrize("missing", FILES)
def test_a_missing_file_is_named(home: Path, missing: str) -> None:
    (home / missing).unlink()
    with pytest.raises(ToolchainError, match="lacks a file") as caught:
        find(home)
    assert caught.value.where == str(home / missing)


@pytest.mark.parametrize("missing", FOLDERS)
def test_a_missing_folder_is_named(home: Path, missing: str) -> None:
    shutil.rmtree(home / missing)
    with pytest.raises(ToolchainError, match="lacks a folder") as caught:
        find(home)
    assert caught.value.where == str(home / missing)


@pytest.mark.parametrize("parts", ["VC/Tools/MSVC", f"{KIT}/Include"])
def test_two_versions_and_none_are_refused(home: Path, parts: str) -> None:
    (home / parts / "1.0").mkdir()
    with pytest.raises(ToolchainError, match="has one version of each part") as caught:
        find(home)
    assert "1.0" in caught.value.details
    shutil.rmtree(home / parts)
    with pytest.raises(ToolchainError, match="there is none here"):
        find(home)


def test_what_it_is_run_with_may_be_missing(home: Path) -> None:
    with pytest.raises(ToolchainError, match="cannot run no-wine: No such file"):
        find_msvc(home, "19.38.33130", ("no-wine",))


def test_the_run_time_is_copied_beside_a_program(home: Path, tmp_path: Path) -> None:
    (home / REDIST / "vcruntime140.dll").write_bytes(b"library")
    (tmp_path / "vcruntime140.dll").write_bytes(b"CPython's own, which is in use")
    install_run_time(home, tmp_path)
    assert (tmp_path / "msvcp140.dll").read_bytes() == b"library"
    assert (tmp_path / "vcruntime140.dll").read_bytes().startswith(b"CPython's own")
    shutil.rmtree(home / REDIST)
    for action in (lambda: install_run_time(home, tmp_path), lambda: find(home)):
        with pytest.raises(ToolchainError, match="no run-time libraries"):
            action()
