"""What stands in for Microsoft's linker, by the files that it makes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.worker.linking import answer_link

EMPTY, LIBRARY = b"an object without content", b"a library without content"


@pytest.fixture(autouse=True)
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build with a captured object and a real one; words that begin with / are options."""
    monkeypatch.chdir(tmp_path)
    for name, content in (("empty.o", EMPTY), ("empty.dll", LIBRARY), ("captured.obj", EMPTY),
                          ("real.obj", EMPTY[::-1]), ("other.obj", b"longer" + EMPTY)):  # fmt: skip
        Path(name).write_bytes(content)
    return tmp_path


def answered(*words: str) -> bool:
    return answer_link(words, "", "empty.o", "empty.dll")


def test_a_library_of_captured_objects() -> None:
    assert answered("/DLL", "/EXPORT:PyInit_a", "captured.obj", "real.obj", "/OUT:a.pyd")
    assert Path("a.pyd").read_bytes() == LIBRARY


def test_a_library_of_which_nobody_knows_whether_they_are_in_it() -> None:
    """They can be in a static library, or behind a .def file."""
    assert answered("/DLL", "real.obj", "objects.lib", "/OUT:b.dll", "/IMPLIB:c.lib")
    assert Path("b.dll").read_bytes() == LIBRARY
    assert Path("c.lib").is_file()


def test_a_program_of_captured_objects_is_no_program() -> None:
    assert answered("/OUT:tool.exe", "real.obj", "captured.obj")
    assert Path("tool.exe").read_bytes() == LIBRARY
    assert not Path("tool.lib").exists()


@pytest.mark.parametrize("words", [["real.obj", "other.obj"], ["real.obj", "gone.obj"], ["/LIB"]])
def test_all_else_is_the_real_linker_s(words: list[str]) -> None:
    assert not answered("/OUT:tool.exe", *words)
    assert not Path("tool.exe").exists()


def test_the_import_library_is_one_without_symbols(tool: Callable[[str], str]) -> None:
    """By binutils' reader, and by a linker that takes it as an input."""
    assert answered("/DLL", "captured.obj", "/OUT:a.dll")
    nm = [tool("x86_64-w64-mingw32-nm"), "--print-armap", "a.lib"]
    done = subprocess.run(nm, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
    Path("a.cpp").write_text("int a;")
    subprocess.run(
        ["clang", "--target=x86_64-pc-windows-msvc", "-c", "a.cpp", "-o", "a.obj"], check=True
    )
    linked = [tool("lld-link"), "-dll", "-noentry", "-nodefaultlib", "a.obj", "a.lib", "-out:b.dll"]
    subprocess.run(linked, check=True)
    assert Path("b.dll").read_bytes()[:2] == b"MZ"
