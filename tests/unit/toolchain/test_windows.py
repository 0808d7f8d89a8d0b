"""CPython's NuGet package, unpacked: what is taken of it, and what is refused."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.config.toolchain import LockedInterpreter
from fatwheel.errors import StoreError, ToolchainError
from fatwheel.events import silent
from fatwheel.toolchain import windows
from fatwheel.toolchain.windows import unpack_python, windows_tools

from ...helpers.workstations import WINDOWS_TOOLCHAIN, download

YEAR_2020 = 1577836800  # date -u -d 2020-01-01 +%s
PYTHON = {
    "tools/python.exe": "program",
    "tools/include/Python.h": "header",
    "tools/Lib/os.py": "",
    "tools/Lib/a%20name.py": "",
    "tools/Lib/site-packages/pip/__init__.py": "",
    "[Content_Types].xml": "<Types/>",
    "python.nuspec": "",
}


def package(folder: Path, members: dict[str, str]) -> Path:
    path = folder / "python.3.11.9.nupkg"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def refusal(folder: Path, path: Path) -> ToolchainError:
    with pytest.raises(ToolchainError) as caught:
        unpack_python(path, folder / "env")
    assert [one.name for one in folder.iterdir() if one not in (path, folder / "env")] == []
    return caught.value


def test_the_python_alone_is_taken(tmp_path: Path) -> None:
    unpack_python(package(tmp_path, PYTHON), tmp_path / "env")
    found = {
        path.relative_to(tmp_path / "env").as_posix()
        for path in (tmp_path / "env").rglob("*")
        if path.is_file()
    }
    assert found == {"python.exe", "include/Python.h", "Lib/os.py", "Lib/a name.py"}
    assert (tmp_path / "env" / "include" / "Python.h").stat().st_mtime == YEAR_2020


@pytest.mark.parametrize(
    "name",
    ["tools/../../late.py", "tools/%2e%2e/%2E%2E/late.py", "/tools/late.py", "tools/C:/late.py",
     "tools/a%5C..%5C..%5Clate.py", "tools/late.py%00"],
)  # fmt: skip
def test_a_name_that_leads_elsewhere(tmp_path: Path, name: str) -> None:
    error = refusal(tmp_path, package(tmp_path, {**PYTHON, name: ""}))
    assert "would be written outside of the folder" in error.what


def test_a_name_twice(tmp_path: Path) -> None:
    error = refusal(tmp_path, package(tmp_path, {**PYTHON, "tools/Lib/o%73.py": "other"}))
    assert error.what == "this archive is damaged"


@pytest.mark.parametrize("name", ["tools/Lib/os.py/late.py", "tools/Lib"])
def test_a_file_that_is_a_folder_too(tmp_path: Path, name: str) -> None:
    error = refusal(tmp_path, package(tmp_path, {**PYTHON, name: ""}))
    assert error.what == "this archive is damaged"


def test_no_package_of_python(tmp_path: Path) -> None:
    error = refusal(tmp_path, package(tmp_path, {"tools/python.exe": ""}))
    assert error.details == ("it has no tools/include/Python.h",)


def test_no_zip_and_half_of_one(tmp_path: Path) -> None:
    path = package(tmp_path, PYTHON)
    path.write_bytes(path.read_bytes()[:-30])
    assert refusal(tmp_path, path).what == "this archive is damaged"


def test_more_than_any_python_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "_MOST_BYTES", 1000)
    error = refusal(tmp_path, package(tmp_path, {**PYTHON, "tools/zeros": "0" * 2000}))
    assert error.what == "it is larger than any Python"


def test_a_path_in_which_no_python_of_windows_starts(tmp_path: Path) -> None:
    """Before anything is fetched. Wine's own programs take such paths, and CPython does not."""
    python = LockedInterpreter("3.11", download("python", 1))
    toolchain = replace(WINDOWS_TOOLCHAIN, portable=(python,))
    cache = tmp_path.joinpath(*("d" * 50 for _ in range(6)))
    cache.mkdir(parents=True)
    with pytest.raises(StoreError, match="the cache's path is too long") as caught:
        windows_tools(toolchain, "3.11", "2.1.1", cache).fetch(silent)
    assert caught.value.where == str(cache)
    assert "FATWHEEL_CACHE" in str(caught.value.hint)
