"""Libraries are found where the system's own loader finds them: `ldd` and `ldconfig` are asked."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.check import loader
from fatwheel.check.loader import Loader, read_exports, read_loading

from ...helpers import peimages
from ...helpers.environments import WINDOWS, target

Tool = Callable[[str], str]
THIS = Path(os.path.realpath(shutil.which("python3") or "/usr/bin/python3"))


def compile_library(folder: Path, name: str, tool: Tool, *options: str, source: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.c").write_text(source or f"int of_{re.sub('[^a-z0-9]', '_', name)};\n")
    command = [tool("gcc"), "-shared", "-fPIC", "a.c", f"-Wl,-soname,{name}", "-o", name]
    subprocess.run(
        [*command, "-Wl,--no-as-needed", *options], cwd=folder, check=True, capture_output=True
    )
    (folder / "a.c").unlink()
    return folder / name


def by_ldd(place: Path, tool: Tool, **variables: str) -> dict[str, str]:
    """Where the loader finds what a library needs, '' for what it does not."""
    done = subprocess.run(
        [tool("ldd"), str(place)], capture_output=True, text=True, check=True,
        env={"PATH": os.environ["PATH"], **variables},
    )  # fmt: skip
    found = {}
    for line in done.stdout.splitlines():
        if match := re.match(r"\s*(\S+) => (not found|/\S+)", line):
            found[match[1]] = "" if match[2] == "not found" else os.path.realpath(match[2])
    return found


def by_us(place: Path, *folders: Path) -> dict[str, str]:
    loader = Loader(target(base=Path("/none"), libraries=folders), {})
    loaded = loader.load(place)
    found = {name: os.path.realpath(path) for name, path in loaded.found.items()}
    found |= {missing.name: "" for missing in loaded.missing}
    return {name: path for name, path in found.items() if not name.startswith("ld-linux")}


@pytest.mark.parametrize("tags", ["--disable-new-dtags", "--enable-new-dtags"])
def test_search_paths(tags: str, tmp_path: Path, tool: Tool) -> None:
    """RPATH reaches what is needed further on, RUNPATH does not; $ORIGIN is the library's own."""
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    compile_library(inner, "libdeep.so", tool)
    compile_library(inner, "libnear.so", tool, f"-L{inner}", "-ldeep")
    top = compile_library(
        outer, "libtop.so", tool, f"-L{inner}", "-lnear", f"-Wl,-rpath-link,{inner}",
        f"-Wl,{tags}", "-Wl,-rpath,$ORIGIN/../inner",
    )  # fmt: skip
    theirs = by_ldd(top, tool)
    assert by_us(top) == theirs
    assert bool(theirs["libdeep.so"]) == (tags == "--disable-new-dtags")


def test_library_path_comes_before_runpath_and_after_rpath(tmp_path: Path, tool: Tool) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        compile_library(folder, "libone.so", tool)
    for tags in ("--disable-new-dtags", "--enable-new-dtags"):
        top = compile_library(
            tmp_path / tags, "libtop.so", tool, f"-L{first}", "-lone", f"-Wl,{tags}",
            f"-Wl,-rpath,{first}",
        )  # fmt: skip
        assert by_us(top, second) == by_ldd(top, tool, LD_LIBRARY_PATH=str(second))


def test_a_library_for_another_machine_is_passed_over(tmp_path: Path, tool: Tool) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder in (good, bad):
        compile_library(folder, "libone.so", tool)
    top = compile_library(tmp_path, "libtop.so", tool, f"-L{good}", "-lone", f"-Wl,-rpath,{good}",
                          "-Wl,--enable-new-dtags")  # fmt: skip
    data = bytearray((bad / "libone.so").read_bytes())
    struct.pack_into("<H", data, 18, 183)  # e_machine: AArch64
    (bad / "libone.so").write_bytes(data)
    theirs = by_ldd(top, tool, LD_LIBRARY_PATH=str(bad))
    assert by_us(top, bad) == theirs
    assert theirs["libone.so"] == str(good / "libone.so")


def test_programs_of_this_machine(tool: Tool) -> None:
    """Whatever is here: all that their loader finds, and where."""
    for name in ("git", "gcc", "python3", "ssh", "perl"):
        path = shutil.which(name)
        if path is None:
            continue
        with open(path, "rb") as stream:
            if stream.read(4) != b"\x7fELF":
                continue
        assert by_us(Path(path)) == by_ldd(Path(path), tool), name


def test_the_cache_of_the_loader_is_read_as_ldconfig_reads_it() -> None:
    ldconfig = shutil.which("ldconfig", path="/sbin:/usr/sbin:/bin:/usr/bin")
    if ldconfig is None or not Path("/etc/ld.so.cache").exists():
        pytest.skip("this system has no cache of its loader")
    said = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout
    theirs: dict[str, list[str]] = {}
    for line in said.splitlines():
        if match := re.match(r"\t(\S+) \(.*\) => (\S+)", line):
            theirs.setdefault(match[1], []).append(match[2])
    assert {name: list(places) for name, places in loader._cached().items()} == theirs


@pytest.mark.parametrize(
    "data",
    [
        b"", b"glibc-ld.so.cache1.1", b"glibc-ld.so.cache1.1" + b"\xff" * 28,
        b"glibc-ld.so.cache1.1" + struct.pack("<II", 0xFFFFFFFF, 8) + bytes(20) + b"\xff" * 100,
    ],
)  # fmt: skip
def test_a_damaged_cache_has_nothing(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_bytes(data)
    monkeypatch.setattr(loader, "_CACHE", tmp_path / "cache")
    assert loader._cached.__wrapped__() == {}


def test_a_library_that_lies_elsewhere_is_told(tmp_path: Path, tool: Tool) -> None:
    site = tmp_path / "site-packages"
    kept = compile_library(site / "nvidia" / "one" / "lib", "libone.so", tool)
    top = compile_library(site / "demo", "_C.so", tool, f"-L{kept.parent}", "-lone")
    loader = Loader(target(site), {})
    [missing] = loader.load(top).missing
    assert (missing.name, missing.asked_by, missing.elsewhere) == ("libone.so", top, kept)
    # What the process has already is not looked for again: torch loads libraries by their paths.
    loader.load(kept)
    assert loader.load(top).missing == ()


def test_libraries_that_need_each_other_end(tmp_path: Path, tool: Tool) -> None:
    compile_library(tmp_path, "libone.so", tool)
    compile_library(tmp_path, "libtwo.so", tool, "-L.", "-lone", "-Wl,-rpath,$ORIGIN")
    one = compile_library(tmp_path, "libone.so", tool, "-L.", "-ltwo", "-Wl,-rpath,$ORIGIN")
    assert set(by_us(one)) >= {"libone.so", "libtwo.so"}


def test_what_is_no_library_is_none(tmp_path: Path) -> None:
    (tmp_path / "folder.so").mkdir()
    (tmp_path / "empty.so").write_bytes(b"")
    (tmp_path / "text.so").write_text("INPUT(-lone)")
    (tmp_path / "cut.so").write_bytes(b"\x7fELF\2\1\1" + bytes(20))
    os.mkfifo(tmp_path / "pipe.so")
    for name in ("folder.so", "empty.so", "text.so", "cut.so", "pipe.so", "none.so"):
        assert read_loading(tmp_path / name) is None
        assert read_exports(tmp_path / name) == frozenset()


def test_windows_finds_dlls_in_its_folders_and_not_in_path(tmp_path: Path) -> None:
    """Upper and lower case are the same; api-ms-win names stand for whatever Windows has."""
    system, program, own, added, in_path = (
        tmp_path / name for name in ("system", "program", "own", "added", "path")
    )
    needs = ("SYSTEM.dll", "python311.dll", "beside.dll", "Added.dll", "onpath.dll",
             "api-ms-win-crt-runtime-l1-1-0.dll")  # fmt: skip
    for folder, name in (
        (system, "system.dll"), (program, "python311.dll"), (own, "beside.dll"),
        (added, "added.dll"), (in_path, "onpath.dll"),
    ):  # fmt: skip
        folder.mkdir()
        (folder / name).write_bytes(peimages.importing([]))
    module = own / "_C.pyd"
    module.write_bytes(peimages.importing(needs))
    assert WINDOWS.windows
    windows = replace(WINDOWS.windows, system_folder=system)
    of = replace(WINDOWS, base=program / "python.exe", windows=windows)
    if os.path.exists(tmp_path / "OWN"):
        pytest.skip("this file system takes upper and lower case for the same")
    for name in ("SYSTEM.dll", "Added.dll"):  # this file system does not
        folder = {"SYSTEM.dll": system, "Added.dll": added}[name]
        (folder / name.lower()).rename(folder / name)
    missing = Loader(of, {}, (added,)).load(module).missing
    assert [one.name for one in missing] == ["onpath.dll"]
