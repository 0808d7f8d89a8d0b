"""What a toolchain takes, by figures counted by hand."""

from __future__ import annotations

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


def test_disk() -> None:
    """Linux: a base of 1 GB, and 2 GB of files, each 3.9 times."""
    assert needs.image_size(LINUX_TOOLCHAIN, "3.11") == pytest.approx(8.8 * GB, rel=0.001)
    # Windows: a base of 6 GB, MSVC's 3 GB, 3.034 GB of files 3.9 times.
    assert needs.image_size(WINDOWS_TOOLCHAIN, "3.11") == pytest.approx(20.83 * GB, rel=0.001)
