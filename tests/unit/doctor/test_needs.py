"""What a toolchain takes, by figures counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fatwheel.doctor import facts as needs

from ...helpers.workstations import GB, LINUX_TOOLCHAIN, WINDOWS_TOOLCHAIN


def test_files_for_one_python() -> None:
    names = {file.name for file in needs.files_for(LINUX_TOOLCHAIN, "3.11")}
    assert names == {"nvcc", "ninja", "torch311"}
    assert needs.size_of(needs.files_for(LINUX_TOOLCHAIN, "3.11")) == 2 * GB + 1000


def test_archives_and_installers_belong_to_it() -> None:
    names = {file.name for file in needs.files_for(WINDOWS_TOOLCHAIN, "3.11")}
    assert names == {"ninja", "torch", "cuda_nvcc", "python", "vs"}


def test_every_file_counts_once() -> None:
    assert len(needs.every_file(LINUX_TOOLCHAIN)) == 4
    doubled = replace(LINUX_TOOLCHAIN, packages=LINUX_TOOLCHAIN.packages * 2)
    assert len(needs.every_file(doubled)) == 4


def test_the_default_torch_where_there_is_one_for_that_python() -> None:
    older = replace(LINUX_TOOLCHAIN.builds[1], torch="2.10.0")
    toolchain = replace(LINUX_TOOLCHAIN, builds=(*LINUX_TOOLCHAIN.builds, older))
    assert needs.torch_for(toolchain, "3.11") == "2.11.0"
    assert needs.torch_for(replace(toolchain, default_torch="2.10.0"), "3.11") == "2.10.0"
    assert needs.torch_for(replace(toolchain, default_torch="2.10.0"), "3.10") == "2.11.0"


def test_bases_that_are_not_pinned() -> None:
    references = [base.reference for base in needs.unlocked_bases(LINUX_TOOLCHAIN, "3.11")]
    assert references == ["python:3.11"]
    assert needs.unlocked_bases(LINUX_TOOLCHAIN, "3.10") == ()
    assert needs.unlocked_bases(WINDOWS_TOOLCHAIN, "3.11") == ()
    assert needs.unlocked_bases(replace(LINUX_TOOLCHAIN, containers=None), "3.11") == ()


def test_disk() -> None:
    """Linux: a base of 1 GB, and 2 GB of files, each 3.9 times."""
    assert needs.image_size(LINUX_TOOLCHAIN, "3.11") == pytest.approx(8.8 * GB, rel=0.001)
    # Windows: a base of 6 GB, MSVC's 9 GB, 3.034 GB of files 3.9 times; and 10 GB of work.
    assert needs.image_size(WINDOWS_TOOLCHAIN, "3.11") == pytest.approx(26.83 * GB, rel=0.001)
    assert needs.container_size(WINDOWS_TOOLCHAIN, "3.11") == pytest.approx(36.83 * GB, rel=0.001)
