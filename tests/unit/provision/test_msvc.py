"""MSVC in the folders that its packages make; a shell script says cl's banner, run as Wine would
run cl.exe."""

from __future__ import annotations

import re
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from fatwheel.errors import ToolchainError
from fatwheel.provision.archives import check_members
from fatwheel.provision.msvc import (
    VCVARS,
    ReadyMsvc,
    find_msvc,
    install_run_time,
    unpack,
    windows_path,
)

from ...helpers.msvcpackages import PACKAGES, SDK, VC, write_package, write_packages

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


def find(home: Path, banner: str = BANNER) -> ReadyMsvc:
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


HEADERS = "Microsoft.VC.14.38.17.8.CRT.Headers.base.vsix"
NUGET = next(name for name in PACKAGES if name.endswith(".nupkg"))
YEAR_2020 = 1577836800  # date -u -d 2020-01-01 +%s


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def with_members(name: str, **members: bytes) -> dict[str, dict[str, bytes]]:
    """All packages; that of a name has these members besides its own."""
    changed = {package: dict(own) for package, own in PACKAGES.items()}
    changed.setdefault(name, {}).update(members)
    return changed


def refusal(folder: Path, packages: dict[str, dict[str, bytes]]) -> ToolchainError:
    with pytest.raises(ToolchainError) as caught:
        unpack(write_packages(folder / "packages", packages), folder / "home")
    outside = [path.name for path in folder.iterdir() if path.name not in ("packages", "home")]
    assert not outside, "something was written outside of the folder"
    return caught.value


def test_all_packages_together(tmp_path: Path) -> None:
    read: list[int] = []
    packages = write_packages(tmp_path)
    unpack(packages, tmp_path / "home", read.append)
    found = content(tmp_path / "home")
    assert found.pop(VCVARS).startswith(b"@rem ")
    assert found == {
        **{f"{TOOLS}/bin/Hostx64/x64/{name}": name.encode()
           for name in ("cl.exe", "c1xx.dll", "c2.dll", "link.exe")},
        f"{TOOLS}/bin/Hostx64/x64/1033/clui.dll": b"words",
        f"{TOOLS}/include/vector": b"// vector",
        f"{TOOLS}/include/a b[1].h": b"// a name",
        f"{TOOLS}/lib/x64/libcmt.lib": b"static",
        f"{TOOLS}/lib/x64/msvcrt.lib": b"dynamic",
        "VC/Redist/MSVC/14.38.33135/x64/Microsoft.VC143.CRT/msvcp140.dll": b"run time",
        **{f"{KIT}/Include/{SDK}/{name}/a.h": name.encode()
           for name in ("ucrt", "shared", "um", "winrt")},
        f"{KIT}/bin/{SDK}/x64/rc.exe": b"rc",
        f"{KIT}/Lib/{SDK}/ucrt/x64/a.Lib": b"ucrt",
        f"{KIT}/Lib/{SDK}/um/x64/a.Lib": b"um",
    }  # fmt: skip
    times = {path.stat().st_mtime for path in (tmp_path / "home").rglob("*") if path.is_file()}
    assert times == {YEAR_2020}, "a header's time can end up in what nvcc makes of it"
    assert read == sorted(read)
    assert 0 < read[-1] <= sum(path.stat().st_size for path in packages)


@pytest.mark.parametrize("missing", [name for name in PACKAGES if ".Res." not in name])
def test_a_package_that_is_missing_is_noticed(tmp_path: Path, missing: str) -> None:
    fewer = {name: dict(own) for name, own in PACKAGES.items() if name != missing}
    error = refusal(tmp_path, fewer)
    assert error.where is not None
    assert str(tmp_path / "home") in error.where


@pytest.mark.parametrize(
    "name",
    [
        "Contents/../../out.txt", "/Contents/out.txt", "Contents//out.txt", "Contents/./a",
        "Contents/%2e%2e/%2E%2E/out.txt", "Contents/..%2f..%2fout.txt", "Contents/C:/out.txt",
        "Contents/C%3A%5Cout.txt", "Contents\\..\\out.txt", "Contents/a.h:stream", "Contents/nul",
        "Contents/CON.txt", "Contents/aux .h", "Contents/com1", "Contents/LPT9.lib",
        "Contents/COM\u00b9", "Contents/name.", "Contents/folder./a.h", "Contents/name ",
        "Contents/a%00b", "Contents/a\tb", "Contents/a*b", "Contents/" + "x" * 232,
        "Contents/%FF.h", "",
    ],
)  # fmt: skip
def test_names_that_are_none_on_windows(tmp_path: Path, name: str) -> None:
    error = refusal(tmp_path, with_members(HEADERS, **{name: b"x"}))
    assert error.where == HEADERS
    assert "Traceback" not in str(error)


def test_a_link(tmp_path: Path) -> None:
    packages = write_packages(tmp_path)
    with zipfile.ZipFile(packages[0], "a") as archive:
        link = zipfile.ZipInfo("Contents/VC/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "../../..")
    with pytest.raises(ToolchainError, match="'Contents/VC/link' is a link"):
        unpack(packages, tmp_path / "home")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"{VC}/include/Vector", "another file is called 'VC/.*/Vector', if capitals do not count"),
        (f"{VC}/INCLUDE/vector", "another file is called"),
        (f"{VC}/include/vector/a.h", "would lie in a file"),
        (f"{VC}/include", "is a folder, too"),
    ],
)
def test_two_files_of_one_name(tmp_path: Path, name: str, words: str) -> None:
    error = refusal(tmp_path, with_members(HEADERS, **{name: b"x"}))
    assert re.search(words, str(error)), error


def test_packages_may_share_a_file_but_not_disagree(tmp_path: Path) -> None:
    crt = "Microsoft.VC.14.38.17.8.CRT.x64.{}.base.vsix"
    desktop, store = crt.format("Desktop"), crt.format("Store")
    packages = with_members(desktop, **{f"{VC}/lib/x64/Shared.lib": b"same"})
    packages[store][f"{VC}/lib/x64/shared.lib"] = b"same"
    unpack(write_packages(tmp_path / "same", packages), tmp_path / "home")
    found = [path.name for path in (tmp_path / "home" / TOOLS / "lib" / "x64").iterdir()]
    assert sorted(found) == ["Shared.lib", "libcmt.lib", "msvcrt.lib"], "as the first spells it"
    packages[store][f"{VC}/lib/x64/shared.lib"] = b"other"
    with pytest.raises(ToolchainError, match="another file is called"):
        unpack(write_packages(tmp_path / "other", packages), tmp_path / "other home")


def test_a_folder_is_spelled_as_for_the_first_time(tmp_path: Path) -> None:
    name = f"{VC}/bin/HostX64/x64/more.dll"
    unpack(write_packages(tmp_path, with_members(HEADERS, **{name: b"x"})), tmp_path / "home")
    assert (tmp_path / "home" / TOOLS / "bin" / "Hostx64" / "x64" / "more.dll").is_file()
    assert [path.name for path in (tmp_path / "home" / TOOLS / "bin").iterdir()] == ["Hostx64"]


def test_a_bomb(tmp_path: Path) -> None:
    bomb = with_members(HEADERS, **{f"{VC}/include/zeros": bytes(40 << 20)})
    assert "unpacks to more than 100 times its size" in str(refusal(tmp_path, bomb))
    assert sum(map(len, content(tmp_path / "home").values())) < 40 << 20


def test_what_is_no_package(tmp_path: Path) -> None:
    packages = write_packages(tmp_path)
    whole = packages[2].read_bytes()
    with zipfile.ZipFile(packages[2]) as archive:
        place = archive.getinfo(f"{VC}/include/vector").header_offset + len(f"{VC}/include/vector")
    flipped = whole[: place + 34] + bytes([whole[place + 34] ^ 255]) + whole[place + 35 :]
    for bytes_ in (b"", b"<html>", whole[:-30], flipped):
        packages[2].write_bytes(bytes_)
        with pytest.raises(ToolchainError, match="this package is damaged") as caught:
            unpack(packages, tmp_path / f"home {len(bytes_)}{bytes_[:3]!r}")
        assert caught.value.where == HEADERS


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_in_what_is_packed_otherwise(tmp_path: Path, method: int) -> None:
    packages = write_packages(tmp_path)
    with zipfile.ZipFile(packages[0], "a", method) as archive:
        archive.writestr("Contents/other", b"other" * 1000)
    data = packages[0].read_bytes()
    place = data.index(b"Contents/other") + len("Contents/other") + 12
    packages[0].write_bytes(data[:place] + bytes(12) + data[place + 12 :])
    with pytest.raises(ToolchainError, match="this package is damaged"):
        unpack(packages, tmp_path / "home")


def test_a_directory_that_lies_before_the_file(tmp_path: Path) -> None:
    packages = write_packages(tmp_path)
    data = bytearray(packages[0].read_bytes())
    data[-6:-2] = b"\xff\xff\xff\x7f"  # offset of the central directory
    packages[0].write_bytes(data)
    with pytest.raises(ToolchainError, match="this package is damaged"):
        unpack(packages, tmp_path / "home")


@pytest.mark.parametrize("name", [f"{VCVARS}/a.txt", "VC/Auxiliary", "VC"])
def test_the_place_of_the_script_that_nvcc_wants(tmp_path: Path, name: str) -> None:
    error = refusal(tmp_path, with_members(HEADERS, **{f"Contents/{name}": b"x"}))
    assert error.where == HEADERS


def test_a_script_of_the_packages_gives_way(tmp_path: Path) -> None:
    name = "Contents/VC/auxiliary/Build/VCVARSALL.BAT"
    unpack(write_packages(tmp_path, with_members(HEADERS, **{name: b"x"})), tmp_path / "home")
    assert (tmp_path / "home" / VCVARS).read_bytes().startswith(b"@rem ")


def test_a_package_of_nuget_says_the_version_in_its_name(tmp_path: Path) -> None:
    renamed = tmp_path / "sdk.nupkg"
    write_package(renamed, PACKAGES[NUGET])
    with pytest.raises(ToolchainError, match="does not end with a version of the Windows SDK"):
        unpack([renamed], tmp_path / "home")


def test_more_members_than_any_package_has(tmp_path: Path) -> None:
    """Where they are counted takes no memory: the directory names one member again and again."""
    package = tmp_path / "many.vsix"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("Contents/a", b"")
    data = package.read_bytes()
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    record, times = data[start:end], 300_000
    length = (len(record) * times).to_bytes(4, "little")
    with package.open("wb") as stream:
        stream.write(
            data[:start] + record * times + data[end : end + 12] + length + data[end + 16 :]
        )
    tracemalloc.start()
    with pytest.raises(ToolchainError, match="it has more than 100000 files"):
        unpack([package], tmp_path / "home")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20


def test_members_of_a_large_zip_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ZIP64 has it, with the larger record in front of the usual one."""
    package = tmp_path / "large.vsix"
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    with zipfile.ZipFile(package, "w") as archive:
        for number in range(20):
            archive.writestr(f"Contents/{number}", b"")
    assert b"PK\6\7" in package.read_bytes()
    with package.open("rb") as stream:
        check_members(stream, 20)
        with pytest.raises(ValueError, match="it has more than 19 files"):
            check_members(stream, 19)
