"""Command lines of Microsoft's linker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fatwheel.compilers.msvc import Link, read_cl, read_link

CWD = r"C:\b\project"


def link(*words: str) -> Link:
    found = read_link(words, CWD)
    assert found is not None
    return found


def test_what_setuptools_writes() -> None:
    """setuptools' _msvccompiler.py, link()."""
    found = link(
        "/nologo", "/INCREMENTAL:NO", "/LTCG", "/DLL", "/MANIFEST:EMBED,ID=2", "/MANIFESTUAC:NO",
        r"/LIBPATH:C:\Python311\libs", "cudart.lib", "/EXPORT:PyInit__C",
        r"build\temp.win-amd64-cpython-311\Release\csrc\a.obj",
        r"/OUT:build\lib.win-amd64-cpython-311\demo\_C.cp311-win_amd64.pyd",
        r"/IMPLIB:build\temp.win-amd64-cpython-311\Release\csrc\_C.cp311-win_amd64.lib",
    )  # fmt: skip
    assert found == Link(
        (rf"{CWD}\cudart.lib", rf"{CWD}\build\temp.win-amd64-cpython-311\Release\csrc\a.obj"),
        rf"{CWD}\build\lib.win-amd64-cpython-311\demo\_C.cp311-win_amd64.pyd",
        rf"{CWD}\build\temp.win-amd64-cpython-311\Release\csrc\_C.cp311-win_amd64.lib",
    )


def test_what_cmake_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rule for Ninja: objects in a response file, options in small letters."""
    monkeypatch.chdir(tmp_path)
    objects = 'CMakeFiles\\a.dir\\a.cu.obj  "with blank.obj" -LIBPATH:x kernel32.lib'
    Path("C.rsp").write_text(objects)
    found = read_link(["/nologo", "@C.rsp", "/out:bin\\a.dll", "/implib:a.lib", "/dll"], "")
    inputs = (r"CMakeFiles\a.dir\a.cu.obj", "with blank.obj", "kernel32.lib")
    assert found == Link(inputs, r"bin\a.dll", "a.lib")


@pytest.mark.parametrize(
    ("words", "output", "import_library"),
    [
        (["a.obj", "b.obj"], r"C:\b\project\a.exe", None),
        (["-dll", r"D:\x\a.obj"], r"D:\x\a.dll", r"D:\x\a.lib"),
        (["/DLL", "a.obj", "/OUT:b.pyd"], r"C:\b\project\b.pyd", r"C:\b\project\b.lib"),
        (["a.obj", r"/OUT:D:\x\tool.exe"], r"D:\x\tool.exe", None),
    ],
)
def test_what_it_makes(words: list[str], output: str, import_library: str | None) -> None:
    found = link(*words)
    assert (found.output, found.import_library) == (output, import_library)


@pytest.mark.parametrize(
    "words",
    [[], ["/?"], ["/LIB", "a.obj"], ["/DUMP", "/exports", "a.dll"], ["-edit", "a.exe"],
     ["@nowhere.rsp"]],
)  # fmt: skip
def test_everything_else_is_left_to_link(words: list[str]) -> None:
    assert read_link(words, CWD) is None


def test_a_response_file_that_names_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntpath.join", os.path.join)
    (tmp_path / "a.rsp").write_text("a.obj @a.rsp")
    assert read_link(["@a.rsp"], str(tmp_path)) is None
    assert read_cl(["/c", "a.cpp", "@a.rsp"], str(tmp_path), {}) is None
