"""How compilers see things here; how they do on Windows is tried in test_windows_inside."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.worker.roots import OBJECT_FOLDER, fitting, job_folder, job_variables, shared


def test_a_jobs_folder_goes_with_its_block(tmp_path: Path) -> None:
    with job_folder(tmp_path, "name") as folder, job_folder(tmp_path, "name") as other:
        assert folder != other
        (folder / "file").write_text("")
        (folder / "below").mkdir()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_compilers_files_go_with_its_folder(tmp_path: Path) -> None:
    assert job_variables(tmp_path)["TMPDIR"] == "/proc/self/cwd"


def test_commands_of_any_length_start(tmp_path: Path) -> None:
    command = ["nvcc", *["-DA=1"] * 100_000]
    assert fitting(command, tmp_path) == command


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("build/temp.linux-x86_64-cpython-311/csrc/a.o", "csrc/a.o"),
        ("build/temp.linux-x86_64-cpython-311/Release/a.o", "Release/a.o"),
        ("csrc/build/temp/a.o", "csrc/build/temp/a.o"),
    ],
)
def test_folders_of_build_tools_are_no_part_of_an_objects_name(path: str, inside: str) -> None:
    assert OBJECT_FOLDER.sub("", path) == inside


def test_content_is_filled_in_once_for_all_who_want_the_same(tmp_path: Path) -> None:
    filled: list[int] = []
    for _ in range(2):
        with shared(tmp_path / "p", lambda: bool(filled), lambda: filled.append(1)):
            assert filled == [1]
