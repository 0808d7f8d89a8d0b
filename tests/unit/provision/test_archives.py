"""CUDA's archives, merged, made by Python's tarfile and zipfile as NVIDIA makes them; what is added
to CUDA, which the linker and readelf judge; modes and times of installed files.
"""

from __future__ import annotations

import io
import lzma
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.errors import ToolchainError
from fatwheel.provision.archives import (
    check_complete,
    finish,
    link_names,
    mend_home,
    mend_packages,
    merge,
    stamp,
)
from fatwheel.provision.tools import HostCompiler

from ...helpers.tinywheels import CUDA_H

YEAR_2020 = 1577836800  # date -u -d 2020-01-01 +%s


def tar(folder: Path, top: str, members: dict[str, bytes | str], mode: int = 0o755) -> Path:
    """An archive of files, and of links where the content is a text."""
    path = folder / f"{top}.tar.xz"
    with tarfile.open(path, "w:xz") as archive:
        directory = tarfile.TarInfo(top)
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        for name, content in members.items():
            info = tarfile.TarInfo(f"{top}/{name}")
            info.mode = mode
            if isinstance(content, str):
                info.type = tarfile.SYMTYPE
                info.linkname = content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def zipped(folder: Path, top: str, members: dict[str, bytes]) -> Path:
    path = folder / f"{top}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir(top) if hasattr(archive, "mkdir") else None
        for name, content in members.items():
            archive.writestr(f"{top}/{name}", content)
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


NVCC = "cuda_nvcc-linux-x86_64-12.3.107-archive"
CUDART = "cuda_cudart-linux-x86_64-12.3.101-archive"


def test_folders_are_merged_and_licences_kept_apart(tmp_path: Path) -> None:
    archives = [
        tar(tmp_path, NVCC, {"LICENSE": b"one", "bin/nvcc": b"nvcc", "include/a.h": b"a"}),
        tar(
            tmp_path, CUDART, {"LICENSE": b"two", "include/b.h": b"b", "lib/libx.so": "libx.so.12"}
        ),
    ]
    merge(archives, tmp_path / "home" / "cuda")
    cuda = tmp_path / "home" / "cuda"
    assert content(cuda) == {
        "bin/nvcc": b"nvcc",
        "include/a.h": b"a",
        "include/b.h": b"b",
        f"licences/{NVCC}-LICENSE": b"one",
        f"licences/{CUDART}-LICENSE": b"two",
    }
    assert (cuda / "lib" / "libx.so").readlink() == Path("libx.so.12")
    assert (cuda / "bin" / "nvcc").stat().st_mode & 0o777 == 0o755
    assert (cuda / "include" / "a.h").stat().st_mtime == YEAR_2020


def test_modes_are_plain(tmp_path: Path) -> None:
    merge([tar(tmp_path, NVCC, {"include/a.h": b"a"}, mode=0o4640)], tmp_path / "cuda")
    assert (tmp_path / "cuda" / "include" / "a.h").stat().st_mode & 0o7777 == 0o644


def test_zips_are_merged_alike(tmp_path: Path) -> None:
    names = ("cuda_nvcc-windows-x86_64-12.3.107-archive", "libcurand-windows-x86_64-10-archive")
    archives = [
        zipped(tmp_path, names[0], {"LICENSE": b"one", "bin/nvcc.exe": b"nvcc"}),
        zipped(tmp_path, names[1], {"LICENSE": b"two", "lib/x64/curand.lib": b"lib"}),
    ]
    merge(archives, tmp_path / "cuda")
    assert content(tmp_path / "cuda") == {
        "bin/nvcc.exe": b"nvcc",
        "lib/x64/curand.lib": b"lib",
        f"licences/{names[0]}-LICENSE": b"one",
        f"licences/{names[1]}-LICENSE": b"two",
    }


def test_two_archives_must_not_have_the_same_file(tmp_path: Path) -> None:
    archives = [tar(tmp_path, name, {"bin/nvcc": b"x"}) for name in (NVCC, CUDART)]
    with pytest.raises(ToolchainError, match="another archive has the same file, bin/nvcc") as told:
        merge(archives, tmp_path / "cuda")
    assert told.value.where == f"{CUDART}.tar.xz"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"lib/x": b""}, {"lib/x/y": b""}),
        ({"lib/x/y": b""}, {"lib/x": b""}),
        ({"lib/x": "y"}, {"lib/x": "y"}),
        ({"lib/x": "y"}, {"lib/x": b""}),
        ({"lib/x": b""}, {"lib/x": "y"}),
        ({"lib/x": "y"}, {"lib/x/z": b""}),
    ],
)
def test_nor_may_one_have_a_folder_or_a_link_where_another_has_a_file(
    tmp_path: Path, one: dict[str, bytes | str], other: dict[str, bytes | str]
) -> None:
    archives = [tar(tmp_path, NVCC, one), tar(tmp_path, CUDART, other)]
    with pytest.raises(ToolchainError, match="another archive has the same file, lib/x"):
        merge(archives, tmp_path / "cuda")


@pytest.mark.parametrize(
    ("name", "linked"),
    [
        ("../../outside", None),
        ("lib/../../outside", None),
        ("c:/outside", None),
        ("lib\\outside", None),
        ("lib/x", "/etc/passwd"),
        ("lib/x", "../../outside"),
        ("lib/deep/x", "../../lib/../../outside"),
    ],
)
def test_nothing_is_written_outside(tmp_path: Path, name: str, linked: str | None) -> None:
    members: dict[str, bytes | str] = {name: linked or b"x"}
    with pytest.raises(ToolchainError, match="outside of the folder"):
        merge([tar(tmp_path, NVCC, members)], tmp_path / "home" / "cuda")
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "home" / "outside").exists()


def test_links_together_must_not_lead_outside(tmp_path: Path) -> None:
    """Each of these goes no higher than the folder, by the words of its own."""
    members: dict[str, bytes | str] = {
        "a/b/c/top": "../../..", "a/way": "b/c/top/../outside", "a/b/c/x": b"x",
    }  # fmt: skip
    outside = tmp_path / "home" / "outside"
    outside.mkdir(parents=True)
    with pytest.raises(ToolchainError, match=r"the link 'a/way' leads to .* outside"):
        merge([tar(tmp_path, NVCC, members)], tmp_path / "home" / "cuda")


@pytest.mark.parametrize("name", ["a/b/c/up/outside", "a/b/c/up/outside/x"])
def test_nor_is_a_link_made_outside_by_the_way_of_others(tmp_path: Path, name: str) -> None:
    members: dict[str, bytes | str] = {
        "a/b/x": b"x", "a/b/c": "../..", "a/b/c/up": "../../..", name: "target",
    }  # fmt: skip
    with pytest.raises(ToolchainError, match="would be written outside of the folder"):
        merge([tar(tmp_path, NVCC, members)], tmp_path / "far" / "below" / "home" / "cuda")
    assert not list(tmp_path.rglob("outside"))


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {"a/lib": "other", "a/other/x": b"x", "a/lib/y": b"y"}
    with pytest.raises(ToolchainError, match="another archive has the same file, a/lib"):
        merge([tar(tmp_path, NVCC, members)], tmp_path / "cuda")
    assert not (tmp_path / "cuda" / "a" / "other" / "y").exists()


def test_links_have_the_time_of_all_files(tmp_path: Path) -> None:
    merge([tar(tmp_path, NVCC, {"lib/x": "y", "lib/y": b"y"})], tmp_path / "cuda")
    assert (tmp_path / "cuda" / "lib" / "x").lstat().st_mtime == YEAR_2020


def test_progress_counts_the_bytes_of_all_archives(tmp_path: Path) -> None:
    archives = [
        tar(tmp_path, NVCC, {f"include/{n}.h": os.urandom(40_000) for n in range(5)}),
        zipped(tmp_path, "cuda_cccl-windows-x86_64-1-archive", {"x/y": os.urandom(50_000)}),
    ]
    told: list[int] = []
    merge(archives, tmp_path / "cuda", told.append)
    assert len(told) == 6
    assert told == sorted(told)
    whole = sum(path.stat().st_size for path in archives)
    assert whole - 5000 < told[-1] <= whole


def test_what_makes_no_compiler_is_told(tmp_path: Path) -> None:
    programs = {"bin/nvcc": b"", "bin/ptxas": b"", "nvvm/bin/cicc": b""}
    merge([tar(tmp_path, NVCC, {**programs})], tmp_path / "linux")
    exes = {f"{name}.exe": b"" for name in programs}
    merge([zipped(tmp_path, NVCC, exes)], tmp_path / "windows")
    for home in ("linux", "windows"):
        check_complete(tmp_path / home)
    for name in programs:
        (tmp_path / "linux" / name).unlink()
        with pytest.raises(ToolchainError, match="lack a part of its compiler") as caught:
            check_complete(tmp_path / "linux")
        assert caught.value.details[-1] == name or name in caught.value.details


def test_links_inside_may_go_up(tmp_path: Path) -> None:
    merge([tar(tmp_path, NVCC, {"lib/deep/x": "../y", "lib/y": b"y"})], tmp_path / "cuda")
    assert (tmp_path / "cuda" / "lib" / "deep" / "x").read_bytes() == b"y"


def test_an_archive_must_hold_one_folder_of_its_name(tmp_path: Path) -> None:
    path = tar(tmp_path, NVCC, {"bin/nvcc": b"x"})
    other = path.rename(tmp_path / "other.tar.xz")
    with pytest.raises(ToolchainError, match="does not lie in a folder with the archive's name"):
        merge([other], tmp_path / "cuda")


def test_devices_and_the_like_are_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{NVCC}.tar.xz"
    with tarfile.open(path, "w:xz") as archive:
        info = tarfile.TarInfo(f"{NVCC}/bin/pipe")
        info.type = tarfile.FIFOTYPE
        archive.addfile(info)
    with pytest.raises(ToolchainError, match="neither a file, a folder nor a link"):
        merge([path], tmp_path / "cuda")


def test_an_archive_must_not_fill_the_disk(tmp_path: Path) -> None:
    path = zipped(tmp_path, NVCC, {"bin/a": bytes(10 << 20), "bin/b": bytes(70 << 20)})
    with pytest.raises(ToolchainError, match="unpacks to more than 100 times its size"):
        merge([path], tmp_path / "cuda")
    assert sum(map(len, content(tmp_path / "cuda").values())) < 40 << 20


def test_a_sparse_file_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    """Its header alone says how long it is (GNU tar: offset 483, in octal digits)."""
    info = tarfile.TarInfo(f"{NVCC}/bin/large")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"00000000000\0" * 2
    header[482:495] = b"\0" + b"%011o\0" % (1 << 30)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / f"{NVCC}.tar.xz"
    with lzma.open(path, "wb") as stream:
        stream.write(bytes(header) + bytes(1024))
    with pytest.raises(ToolchainError, match="neither a file, a folder nor a link"):
        merge([path], tmp_path / "cuda")
    assert not content(tmp_path / "cuda")


def test_a_zip_whose_directory_lies_before_the_file(tmp_path: Path) -> None:
    path = zipped(tmp_path, NVCC, {"bin/nvcc": b"x"})
    data = bytearray(path.read_bytes())
    data[-6:-2] = b"\xff\xff\xff\x7f"  # offset of the central directory
    path.write_bytes(data)
    with pytest.raises(ToolchainError, match="damaged"):
        merge([path], tmp_path / "cuda")


@pytest.mark.parametrize("kind", ["tar.xz", "zip"])
@pytest.mark.parametrize("damage", ["short", "flipped", "nothing"])
def test_a_damaged_archive_is_told(tmp_path: Path, kind: str, damage: str) -> None:
    made = {"zip": zipped, "tar.xz": tar}[kind]
    path = made(tmp_path, NVCC, {"bin/nvcc": bytes(range(256)) * 64})
    data = bytearray(path.read_bytes())
    if damage == "short":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[len(data) // 3] ^= 0xFF
    else:
        data = bytearray()
    path.write_bytes(data)
    with pytest.raises(ToolchainError, match="damaged") as caught:
        merge([path], tmp_path / "cuda")
    assert caught.value.where == path.name


@pytest.fixture
def compiler(tool: Callable[[str], str]) -> HostCompiler:
    return HostCompiler(Path(tool("g++")), "?", "?")


@pytest.fixture
def cuda_home(tmp_path: Path) -> Path:
    home = tmp_path / "nvidia" / "cu13"
    (home / "include").mkdir(parents=True)
    (home / "lib").mkdir()
    (home / "include" / "cuda.h").write_text(CUDA_H)
    return home


def test_libraries_get_the_name_that_the_linker_looks_for(tmp_path: Path) -> None:
    for name in (
        "libcudart.so.13",
        "libnvrtc-builtins.so.13.0",
        "libnvrtc.alt.so.13",
        "libtwo.so.1",
        "libtwo.so.2",
        "libplain.so",
        "libthere.so",
        "libthere.so.4",
        "libcudart_static.a",
        "notes.so.txt",
    ):
        (tmp_path / name).write_text(name)
    link_names(tmp_path)
    links = {path.name: path.readlink().name for path in tmp_path.iterdir() if path.is_symlink()}
    assert links == {
        "libcudart.so": "libcudart.so.13",
        "libnvrtc-builtins.so": "libnvrtc-builtins.so.13.0",
        "libnvrtc.alt.so": "libnvrtc.alt.so.13",
        "libtwo.so": "libtwo.so.2",
    }
    assert (tmp_path / "libcudart.so").lstat().st_mtime == YEAR_2020


def test_every_package_is_mended_and_a_second_time_changes_nothing(
    cuda_home: Path, compiler: HostCompiler
) -> None:
    nccl = cuda_home.parent / "nccl" / "lib"
    nccl.mkdir(parents=True)
    (nccl / "libnccl.so.2").touch()
    mend_packages(cuda_home.parent)
    mend_home(cuda_home, compiler)
    stub = cuda_home / "lib" / "stubs" / "libcuda.so"
    before = stub.read_bytes()
    mend_packages(cuda_home.parent)
    mend_home(cuda_home, compiler)
    assert (nccl / "libnccl.so").readlink() == Path("libnccl.so.2")
    assert (cuda_home / "lib64").readlink() == Path("lib")
    assert stub.read_bytes() == before


def test_programs_link_against_the_driver_stub_and_load_the_real_one(
    cuda_home: Path, compiler: HostCompiler, tool: Callable[[str], str], tmp_path: Path
) -> None:
    mend_home(cuda_home, compiler)
    source = tmp_path / "use.cpp"
    source.write_text(
        '#include "cuda.h"\nint use() { void *p; return cuInit(0) + cuMemAlloc(&p, 1); }\n'
    )
    # As Ubuntu's g++ links by default; and without leave for undefined names.
    linking = ["-Wl,--as-needed", "-Wl,-z,defs", f"-L{cuda_home}/lib64/stubs", "-lcuda"]
    out = tmp_path / "use.so"
    include = f"-I{cuda_home}/include"
    command = [compiler.path, "-shared", "-fPIC", include, source, "-o", out, *linking]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    dynamic = subprocess.run(
        [tool("readelf"), "-d", out], capture_output=True, text=True, check=True
    )
    assert "[libcuda.so.1]" in dynamic.stdout


def test_a_home_of_archives_is_mended_alike(cuda_home: Path, compiler: HostCompiler) -> None:
    (cuda_home / "lib" / "libcudart.so.13").touch()
    mend_home(cuda_home, compiler)
    assert (cuda_home / "lib" / "libcudart.so").readlink() == Path("libcudart.so.13")
    stub = cuda_home / "lib" / "stubs" / "libcuda.so"
    stub.write_text("that of an archive")
    mend_home(cuda_home, compiler)
    assert stub.read_text() == "that of an archive"


def test_no_driver_header_no_stub(cuda_home: Path, compiler: HostCompiler) -> None:
    (cuda_home / "include" / "cuda.h").unlink()
    mend_home(cuda_home, compiler)
    assert not (cuda_home / "lib" / "stubs").exists()


def test_a_compiler_that_fails_is_shown(cuda_home: Path) -> None:
    with pytest.raises(ToolchainError, match="false fails"):
        mend_home(cuda_home, HostCompiler(Path("/bin/false"), "?", "?"))


def test_a_finished_file_has_one_mode_and_one_time_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        for name in ("tool", "text"):
            (tmp_path / name).touch()
    finally:
        os.umask(before)
    finish(tmp_path / "tool", executable=True)
    finish(tmp_path / "text")
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    assert modes == {"tool": "0o755", "text": "0o644"}
    assert {path.stat().st_mtime for path in tmp_path.iterdir()} == {YEAR_2020}


def test_everything_below_a_folder_is_stamped_and_nothing_that_a_link_leads_to(
    tmp_path: Path,
) -> None:
    outside = tmp_path / "outside"
    outside.touch()
    inside = tmp_path / "env" / "include" / "deep.h"
    inside.parent.mkdir(parents=True)
    inside.touch()
    link = tmp_path / "env" / "link"
    link.symlink_to(outside)
    stamp(tmp_path / "env")
    times = {path.name: path.lstat().st_mtime for path in (inside, inside.parent, link)}
    assert times == {"deep.h": YEAR_2020, "include": YEAR_2020, "link": YEAR_2020}
    assert outside.stat().st_mtime != YEAR_2020
