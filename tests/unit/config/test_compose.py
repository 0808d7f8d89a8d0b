"""Toolchains composed of parts: what goes together, what does not and what is nearest."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.config.compose import choose, compose, cudas_with, platform_of
from fatwheel.config.parts import Parts, fits
from fatwheel.config.toolchain import Toolchain
from fatwheel.config.toolchains import check_msvc, find_toolchain
from fatwheel.errors import ConfigError, UsageError

from ...helpers.someparts import CUDA_99, HASH, add_part, torch_part, write_parts

LINUX, WINDOWS = "linux-x86_64", "win-amd64"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_parts(tmp_path)


def composed(
    folder: Path,
    cuda: str | None = None,
    torch: str | None = None,
    python: str | None = None,
    platform: str = LINUX,
    here: str = "3.11",
) -> Toolchain:
    parts = Parts(folder)
    return compose(parts, choose(parts, platform, cuda, torch, python, here))


def chosen(folder: Path, **asked: str) -> tuple[str, str, str]:
    """The CUDA, torch and Python of what is composed."""
    toolchain = composed(folder, **asked)
    [build] = toolchain.builds
    return toolchain.cuda, build.torch, build.python


def refusal(folder: Path, **asked: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        composed(folder, **asked)
    return caught.value


# -- what goes together ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"cuda": "12.8", "torch": "2.8", "python": "3.10"}, ("12.8", "2.8.0", "3.10")),
        ({"cuda": "12.8.1", "torch": "2.8.0", "python": "3.10"}, ("12.8", "2.8.0", "3.10")),
        ({"cuda": "12.6", "torch": "2.9"}, ("12.6", "2.9.1", "3.11")),  # built for 12.8
        ({"cuda": "12.8"}, ("12.8", "2.9.1", "3.11")),
        ({"torch": "2.8"}, ("12.8", "2.8.0", "3.11")),
        ({"python": "3.12"}, ("13.0", "2.9.1", "3.12")),
        ({"torch": "2.9"}, ("13.0", "2.9.1", "3.11")),
        ({"torch": "2.9", "platform": WINDOWS}, ("12.8", "2.9.1", "3.11")),
        ({"cuda": "12.8", "torch": "2.8", "here": "3.14"}, ("12.8", "2.8.0", "3.11")),
        ({}, ("13.0", "2.9.1", "3.11")),
    ],
)
def test_the_newest_of_what_was_left_open_is_taken(
    folder: Path, asked: dict[str, str], found: tuple[str, str, str]
) -> None:
    assert chosen(folder, **asked) == found


def test_a_torch_for_an_older_minor_version_comes_before_one_for_a_newer(folder: Path) -> None:
    pythons = ("3.11",)
    add_part(folder, "torch/2.10.0", torch_part("2.10.0", ("12.4", "12.7", "12.9"), pythons))
    for cuda, variant in (("12.8", "cu127"), ("12.6", "cu124")):
        [build] = composed(folder, cuda, "2.10").builds
        assert f"+{variant}-" in build.packages[-1].filename, f"for CUDA {cuda}"


def test_what_a_linux_toolchain_is_made_of(folder: Path) -> None:
    toolchain = composed(folder, "12.8", "2.8", "3.10")
    assert toolchain.name == "cuda12.8.1-linux-x86_64"
    assert toolchain.gcc == (9, 14), "torch says the oldest g++, CUDA the newest"
    assert [file.url for file in toolchain.cuda_files] == [
        "https://example.org/redist/cuda_nvcc/linux-x86_64/"
        "cuda_nvcc-linux-x86_64-12.8.1-archive.tar.xz"
    ]
    [build] = toolchain.builds
    assert [(one.name, one.version, one.role) for one in build.packages] == [
        ("ninja", "1.13.0", "build"),
        ("numpy", "2.2.6", "runtime"),
        ("torch", "2.8.0+cu128", "runtime"),
    ]
    assert "linux" in build.packages[0].filename
    assert toolchain.containers is None, "there is no image of Python 3.10"
    assert composed(folder, "12.8", "2.8", "3.11").containers is not None


def test_what_a_windows_toolchain_is_made_of(folder: Path) -> None:
    toolchain = composed(folder, "12.8", "2.8", platform=WINDOWS)
    assert toolchain.msvc is not None
    assert toolchain.msvc.toolset == "14.38"
    assert toolchain.gcc is None
    assert [file.filename for file in toolchain.cuda_files] == [
        "cuda_nvcc-windows-x86_64-12.8.1-archive.zip"
    ]
    assert [one.python for one in toolchain.interpreters] == ["3.11"]
    assert toolchain.containers is not None
    assert toolchain.containers.os_build == 20348


def test_two_torches_share_everything_but_what_is_torchs_own(folder: Path) -> None:
    """So what one has compiled can serve the other."""
    old, new = composed(folder, "12.8", "2.8"), composed(folder, "12.8", "2.9")
    assert old.packages == new.packages
    assert old.cuda_files == new.cuda_files
    assert old.digest != new.digest


def test_a_new_cuda_is_ten_lines(folder: Path) -> None:
    assert len(CUDA_99.splitlines()) == 10
    add_part(folder, "cuda/99.1.0", CUDA_99)
    assert chosen(folder, cuda="99.1") == ("99.1", "99.2.0", "3.12")
    assert chosen(folder, torch="99.2", platform=WINDOWS) == ("99.1", "99.2.0", "3.12")
    assert cudas_with("990a", Parts(folder)) == ["99.1"]


def test_parts_of_ones_own_come_first(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    newer = (folder / "parts/cuda/12.8.1.toml").read_text().replace("gcc = 14", "gcc = 99")
    add_part(own, "cuda/12.8.1", newer)
    parts = Parts(own, folder)
    assert compose(parts, choose(parts, LINUX, "12.8", None, None, "3.11")).gcc == (9, 99)


def test_a_composed_toolchain_is_found_by_its_name(folder: Path) -> None:
    made = composed(folder, "12.8", "2.8", "3.10")
    assert find_toolchain(made.name, "2.8.0", "3.10", folder) == made
    with pytest.raises(UsageError, match=r"unknown toolchain 'cuda12\.8\.1-solaris'"):
        find_toolchain("cuda12.8.1-solaris", "2.8.0", "3.10", folder)


def test_windows_has_the_name_that_people_say() -> None:
    assert platform_of("windows-x86_64") == platform_of("win-amd64") == WINDOWS
    with pytest.raises(UsageError, match="'macos' is not a platform"):
        platform_of("macos")


# -- what does not go together ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "reason", "nearest"),
    [
        (
            {"cuda": "13.0", "torch": "2.8"},
            "torch 2.8.0 for linux-x86_64 is built for CUDA 12.6, 12.8: another major version",
            "nearest: --cuda 13.0 --torch 2.9.1; --cuda 12.8 --torch 2.8.0;",
        ),
        (
            {"cuda": "13.0", "torch": "2.8", "platform": WINDOWS},
            "torch 2.8.0 for windows-x86_64 is built for CUDA 12.6, 12.8: another major version",
            "nearest: --cuda 12.8 --torch 2.8.0;",
        ),
        (
            {"torch": "2.9", "python": "3.10"},
            "torch 2.9.1 for linux-x86_64 is built for Python 3.11, 3.12",
            "--cuda 13.0 --torch 2.9.1 --python 3.11;",
        ),
        (
            {"python": "3.12t"},
            "free-threaded Pythons are not supported: --python 3.12",
            "--python 3.12;",
        ),
        ({"python": "3.9"}, "Python 3.9 is not known: 3.10, 3.11, 3.12", "--python 3.10"),
        ({"cuda": "12.7"}, "CUDA 12.7 is not known: 12.6.3, 12.8.1, 13.0.2", "--cuda 12.8"),
        ({"torch": "2.7"}, "torch 2.7 is not known: 2.8.0, 2.9.1, 99.2.0", "--torch 2.8.0"),
        (
            {"cuda": "12.8", "torch": "2.9", "platform": "linux-aarch64"},
            "CUDA 12.8.1: no files of CUDA 12.8 are pinned for linux-aarch64",
            "`invoke toolchains`",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason_and_the_nearest(
    folder: Path, asked: dict[str, str], reason: str, nearest: str
) -> None:
    error = refusal(folder, **asked)
    assert reason in error.details
    assert nearest in (error.hint or "")


def test_what_is_named_as_the_nearest_can_be_composed(folder: Path) -> None:
    hint = refusal(folder, torch="2.9", python="3.10").hint or ""
    *nearest, _ = hint.removeprefix("nearest: ").split("; ")
    assert len(nearest) == 3
    for words in nearest:
        cuda, torch, python = words.split()[1::2]
        assert chosen(folder, cuda=cuda, torch=torch, python=python) == (cuda, torch, python)


def test_a_compiler_for_windows_must_suit_cuda_and_cuda_its_library(folder: Path) -> None:
    """_MSC_VER is within crt/host_config.h's bounds; the compiler's library has a least CUDA."""
    for file in (folder / "parts/msvc").glob("14.38.toml"):
        file.unlink()
    error = refusal(folder, cuda="12.8", platform=WINDOWS)
    assert (
        "CUDA 12.8.1: MSVC 14.51: CUDA 12.8 takes _MSC_VER 1910 to 1949, and it is 1951"
        in error.details
    )
    wide = (folder / "parts/cuda/12.8.1.toml").read_text().replace("1949", "1999")
    add_part(folder, "cuda/12.8.1", wide)
    error = refusal(folder, cuda="12.8", platform=WINDOWS)
    assert "CUDA 12.8.1: MSVC 14.51: its own library needs CUDA 13.2 or newer" in error.details


def test_a_file_with_a_compiler_that_its_cuda_refuses(folder: Path) -> None:
    """Visual Studio 17.10 has cl 19.40, which the last CUDA 12.3 refuses."""
    parts = Parts(folder)
    toolchain = composed(folder, "12.8", platform=WINDOWS)
    assert toolchain.msvc is not None
    check_msvc(parts, toolchain)
    newer = replace(toolchain.msvc, cl="19.50.35717", toolset="14.50")
    with pytest.raises(UsageError) as caught:
        check_msvc(parts, replace(toolchain, msvc=newer))
    assert list(caught.value.details) == ["CUDA 12.8 takes _MSC_VER 1910 to 1949, and it is 1950"]
    assert caught.value.hint == "nearest: MSVC 14.38 with this CUDA"
    add_part(folder, "cuda/99.1.0", CUDA_99)
    with pytest.raises(UsageError) as caught:
        check_msvc(Parts(folder), replace(toolchain, msvc=newer))
    assert (caught.value.hint or "").endswith("with this CUDA; this compiler with CUDA 99.1")


def test_which_cudas_know_an_architecture(folder: Path) -> None:
    parts = Parts(folder)
    assert cudas_with("89,120", parts) == ["13.0", "12.8"]
    assert cudas_with("107", parts) == []
    assert cudas_with("nonsense", parts) == []


# -- mistakes in parts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("cuda/12.8.1", 'version = "12.8.1"', 'version = "12.8.2"', "is not the file's name"),
        ("cuda/12.8.1", "gcc = 14", "gcc = 'new'", ":4: gcc:"),
        ("cuda/12.8.1", "manifest", "manifesto", "unknown key"),
        ("cuda/12.8.1", HASH, "0123", "is not a sha256"),
        ("torch/2.8.0", "ninja==1.13.0", "ninja>=1.13.0", "is not a pin"),
        ("torch/2.8.0", "python_version < '3.11'", "os_name == 'nt'", "is not a marker"),
        ("msvc/14.38", "least_cuda", "first_cuda", "did you mean"),
        (
            "torch/2.8.0",
            'cuda = "12.6"',
            'cuda = "12.8"',
            ": variants[2]: a second table for CUDA 12.8",
        ),
        ("torch/2.8.0", 'python = "3.11"', 'python = "3.10"', "a second wheel for Python 3.10"),
        ("torch/2.8.0", "url = ", "file2 = ", "what the index says of a wheel without url"),
        ("cuda/12.8.1", "windows-x86_64", "linux-x86_64", ":9: archives[1]: a second cuda_nvcc"),
    ],
)
def test_mistakes_in_a_part_are_told_with_their_lines(
    folder: Path, name: str, old: str, new: str, said: str
) -> None:
    file = folder / "parts" / f"{name}.toml"
    text = file.read_text()
    assert old in text
    add_part(folder, name, text.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        composed(folder, platform=WINDOWS)
    assert any(said in line for line in caught.value.details), caught.value.details


def test_a_pipe_in_the_place_of_a_part_does_not_hold_anything_up(folder: Path) -> None:
    os.mkfifo(folder / "parts/cuda/12.9.1.toml")
    with pytest.raises(ConfigError) as caught:
        composed(folder)
    assert any("it is a pipe" in line for line in caught.value.details)


def test_pins_without_a_file_are_told_together(folder: Path) -> None:
    add_part(folder, "torch/3.0.0", torch_part("3.0.0", ("12.8",), ("3.11",), "absent==1.0"))
    with pytest.raises(ConfigError) as caught:
        composed(folder, "12.8", "3.0")
    assert list(caught.value.details) == ["absent==1.0"]
    assert "invoke lock" in (caught.value.hint or "")


# -- wheels that fit -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "python", "platform", "expected"),
    [
        ("a-1-py3-none-any.whl", "3.14", WINDOWS, True),
        ("a-1-py2.py3-none-any.whl", "3.10", LINUX, True),
        ("a-1-cp311-cp311-win_amd64.whl", "3.11", WINDOWS, True),
        ("a-1-cp311-cp311-win_amd64.whl", "3.12", WINDOWS, False),
        ("a-1-cp39-abi3-manylinux_2_28_x86_64.whl", "3.12", LINUX, True),
        ("a-1-cp313-abi3-manylinux_2_28_x86_64.whl", "3.12", LINUX, False),
        ("a-1-cp313-cp313t-manylinux_2_28_x86_64.whl", "3.13", LINUX, False),
        ("a-1-py3-none-manylinux2014_aarch64.whl", "3.12", LINUX, False),
        ("a-1-py3-none-manylinux2014_aarch64.whl", "3.12", "linux-aarch64", True),
        ("a-1-cp312-none-linux_x86_64.whl", "3.12", LINUX, True),
        ("a-1-py3-none-musllinux_1_2_x86_64.whl", "3.12", LINUX, False),
        ("a-1-pp310-pypy310_pp73-win_amd64.whl", "3.10", WINDOWS, False),
    ],
)
def test_which_wheels_fit(file: str, python: str, platform: str, expected: bool) -> None:
    assert fits(file, python, platform) is expected
