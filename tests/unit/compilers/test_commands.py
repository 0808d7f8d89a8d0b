"""What the readers of all compilers' commands have in common."""

from __future__ import annotations

import ntpath
import posixpath

import pytest

from fatwheel.compilers.gcc import read_gcc
from fatwheel.compilers.msvc import read_cl
from fatwheel.compilers.nvcc import read_nvcc


def test_paths_are_below_the_folder_that_the_command_ran_in() -> None:
    found = read_nvcc(["-c", "../a.cu", "-o", "o/a.o", "-I", "."], "/project/build")
    assert found is not None
    paths = (found.source, found.output, found.preprocessor[1])
    assert paths == ("/project/a.cu", "/project/build/o/a.o", "/project/build")
    assert all(map(posixpath.isabs, paths))


def test_that_folder_says_which_system_s_paths_are_meant() -> None:
    on_windows = read_nvcc(["-c", "..\\a.cu", "-o", "o\\a.obj"], "C:\\project\\build")
    assert on_windows is not None
    assert (on_windows.source, on_windows.output) == (
        "C:\\project\\a.cu", "C:\\project\\build\\o\\a.obj",
    )  # fmt: skip
    assert all(map(ntpath.isabs, (on_windows.source, on_windows.output)))
    elsewhere = read_nvcc(["-c", "..\\a.cu"], "/project")
    assert elsewhere is not None
    assert elsewhere.source == "/project/..\\a.cu", "a backslash may be part of a name"


@pytest.mark.parametrize(
    "found",
    [
        read_gcc(["-c", "a.cpp", "-o", "/dev/null"], "/project"),
        read_nvcc(["-c", "a.cu", "-o", "/dev/null"], "/project"),
        read_nvcc(["-c", "a.cu", "-o", "nul"], "C:\\project"),
        read_cl(["/c", "a.cpp", "/FoNUL"], "C:\\project", {}),
    ],
)
def test_devices_are_not_replaced(found: object) -> None:
    assert found is None
