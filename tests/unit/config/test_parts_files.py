"""Toolchains whose files name parts: what they are made of, and mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.config.compose import choose, compose
from fatwheel.config.parts import Parts
from fatwheel.config.toolchain import Toolchain
from fatwheel.config.toolchains import load_toolchain
from fatwheel.errors import ConfigError

from ...helpers.someparts import add_part, torch_part, write_parts

LINUX = """\
name = "mine"
platform = "linux-x86_64"
[parts]
cuda = "12.8.1"
[[parts.torch]]
version = "2.8.0"
pythons = ["3.10", "3.11"]
"""
WINDOWS = LINUX.replace("linux-x86_64", "win-amd64")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_parts(tmp_path)
    return tmp_path


def load(folder: Path, text: str) -> Toolchain:
    (folder / "mine.toml").write_text(text)
    return load_toolchain("mine", folder)


def test_it_is_made_of_what_a_composed_one_is_made_of(folder: Path) -> None:
    """For two Pythons: what both have is pinned once."""
    toolchain = load(folder, LINUX)
    for build in toolchain.builds:
        chosen = choose(Parts(folder), "linux-x86_64", "12.8", "2.8", build.python, "3.11")
        composed = compose(Parts(folder), chosen)
        mine, its = (
            {*one.packages, *builds.packages}
            for one, builds in ((toolchain, build), (composed, composed.builds[0]))
        )
        assert mine == its
        for key in ("platform", "cuda", "nvcc", "archs", "gcc", "cuda_files", "cuda_manifest"):
            assert getattr(toolchain, key) == getattr(composed, key)
    assert {package.name for package in toolchain.packages} == {"pip", "ninja"}
    own = [[package.name for package in build.packages] for build in toolchain.builds]
    assert own == [["numpy", "torch"], ["torch"]], "numpy is for Python 3.10 alone"


def test_a_torch_is_never_shared(folder: Path) -> None:
    toolchain = load(folder, LINUX.replace('"3.10", ', ""))
    assert [package.name for package in toolchain.builds[0].packages] == ["torch"]


def test_tools_are_those_that_are_named_in_their_order(folder: Path) -> None:
    tools = 'cuda = "12.8.1"\ntools = ["pip==25.3", "ninja==1.13.0"]\n'
    toolchain = load(folder, LINUX.replace('cuda = "12.8.1"\n', tools))
    assert [(one.name, one.role) for one in toolchain.packages] == [
        ("pip", "installer"), ("ninja", "build"),
    ]  # fmt: skip


def test_a_torch_s_own_packages_are_not_shared(folder: Path) -> None:
    more = LINUX + 'packages = ["ninja==1.13.0"]\n'
    tools = 'cuda = "12.8.1"\ntools = ["pip==25.3"]\n'
    toolchain = load(folder, more.replace('cuda = "12.8.1"\n', tools))
    assert [one.name for one in toolchain.packages] == ["pip"]
    first, second = toolchain.builds
    assert [one.name for one in first.packages] == ["ninja", "numpy", "torch"]
    assert [one.name for one in second.packages] == ["ninja", "torch"]
    toolchain = load(folder, more.replace('cuda = "12.8.1"\n', tools) + 'order = ["torch"]\n')
    assert [one.name for one in toolchain.builds[0].packages] == ["torch", "ninja", "numpy"]


def test_a_compiler_for_windows_is_the_one_that_is_named(folder: Path) -> None:
    toolchain = load(folder, WINDOWS.replace('"3.10", ', ""))
    assert toolchain.msvc is not None
    assert toolchain.msvc.toolset == "14.38", "14.51 wants a newer CUDA"
    named = WINDOWS.replace('"3.10", ', "").replace("[[", 'msvc = "14.38"\n[[', 1)
    assert load(folder, named) == toolchain


def test_several_torches_need_a_g_that_all_take(folder: Path) -> None:
    text = torch_part("2.9.1", ("12.8",), ("3.11",)).replace("gcc = 9", "gcc = 11")
    add_part(folder, "torch/2.9.1", text)
    both = LINUX + '[[parts.torch]]\nversion = "2.9.1"\npythons = ["3.11"]\n'
    toolchain = load(folder, 'default_torch = "2.8.0"\n' + both)
    assert toolchain.gcc == (11, 14)
    assert toolchain.torches == ("2.8.0", "2.9.1")
    assert toolchain.default_torch == "2.8.0"


MISTAKES = [
    (LINUX.replace("12.8.1", "12.7.0"), 4, "parts.cuda: there is no cuda/12.7.0.toml among the"),
    (LINUX.replace("12.8.1", "../../etc"), 4, "parts.cuda: '../../etc' is not a version"),
    (LINUX.replace("2.8.0", "2.7.9"), 6, "parts.torch[0].version: there is no torch/2.7.9.toml"),
    (LINUX.replace("2.8.0", "99.2.0"), 6, "there is no torch 99.2.0 for CUDA 12 on linux-x86_64"),
    (LINUX.replace("3.10", "3.9"), 7, "torch 2.8.0 has no wheel for Python '3.9'; valid: 3.10"),
    (LINUX.replace('"3.10"', '"3.11"'), 7, "parts.torch[0].pythons[1]: '3.11' stands there a seco"),
    (LINUX.replace('"3.10", "3.11"', ""), 7, "parts.torch[0].pythons: empty"),
    (LINUX.replace("x86_64", "aarch64"), 4, "no files of CUDA 12.8 are pinned for linux-aarch64"),
    (LINUX.replace("mine", "yours"), 1, "name: 'yours' is not the file's name, 'mine'"),
    (LINUX.replace("[[", 'images = "no"\n[[', 1), 5, "parts.images: there is no images/no.toml"),
    (LINUX.replace("[[", 'msvc = "14.38"\n[[', 1), 5, "parts.msvc: is not a compiler for linux"),
    (
        WINDOWS.replace("[[", 'msvc = "14.51"\n[[', 1),
        5,
        "takes _MSC_VER 1910 to 1949",
    ),
    (LINUX.replace("[[", 'archives = ["no"]\n[[', 1), 5, "CUDA 12.8.1 has no archive 'no' for lin"),
    (LINUX + LINUX.partition("[[")[2].join(["[[", ""]), 9, "a second table of torch 2.8.0"),
    ('default_torch = "2.9.1"\n' + LINUX, 1, "no table has torch 2.9.1; valid: 2.8.0"),
    (LINUX.replace("[[", 'tools = ["ninja>=1"]\n[[', 1), 5, "'ninja>=1' is not a pin"),
    (LINUX.replace("[parts]", "[parts]\nnvcc = 1"), 4, "parts.nvcc: unknown key"),
    (LINUX.replace("12.8.1", "a\\u0000b"), 4, "parts.cuda: 'a\\x00b' is not a version"),
]


@pytest.mark.parametrize(("text", "line", "said"), MISTAKES, ids=[one[2][:30] for one in MISTAKES])
def test_mistakes_are_told_with_their_lines(folder: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    told = [one for one in caught.value.details if said in one]
    assert told, caught.value.details
    assert f"mine.toml:{line}: " in told[0], told


def test_a_pin_without_a_file_is_told(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file is pinned for Python 3\.10") as caught:
        load(folder, LINUX.replace("[[", 'tools = ["cmake==3.31.10"]\n[[', 1))
    assert caught.value.details == ("cmake==3.31.10",)
