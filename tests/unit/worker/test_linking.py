"""What stands in for Microsoft's linker, by the files that it makes."""

from __future__ import annotations

import ctypes
import re
import subprocess
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from fatwheel.worker.linking import answer_link, strip_search_paths

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


# -- search paths of finished libraries --------------------------------------------------------


def linked(folder: Path, gxx: str, path: str) -> bytes:
    """A library with a search path."""
    (folder / "a.cpp").write_text("int a() { return 1; }")
    command = [gxx, "-shared", "-fPIC", "a.cpp", "-o", "a.so", "-Xlinker", f"-rpath={path}"]
    subprocess.run(command, cwd=folder, check=True)
    return (folder / "a.so").read_bytes()


def search_path(folder: Path, readelf: str, data: bytes) -> str | None:
    (folder / "b.so").write_bytes(data)
    command = [readelf, "-d", "b.so"]
    text = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    found = re.findall(r"Library r\w+path: \[(.*)\]", text)
    return found[0] if found else None


def wheel_of(path: Path, files: dict[str, bytes]) -> Path:
    """A wheel as setuptools writes it, RECORD included."""
    record = "".join(
        f"{name},sha256={urlsafe_b64encode(sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in files.items()
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr("a-1.dist-info/RECORD", f"{record}a-1.dist-info/RECORD,,\n")
    return path


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("/made/env/lib:/made/cuda/lib::::::", None),
        ("$ORIGIN:/made/env/lib:/opt/lib:::", "$ORIGIN:/opt/lib"),
        ("$ORIGIN", "$ORIGIN"),
        ("/madehere/lib", "/madehere/lib"),
    ],
)
def test_a_finished_library_does_not_look_into_folders_of_its_build(
    path: str, left: str | None, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    data = linked(tmp_path, tool("g++"), path)
    files = {"a/a.so": data, "a/b.py": b"pass", "a/c.so": b"\x7fELF, but not really"}
    wheel = wheel_of(tmp_path / "a.whl", files)
    strip_search_paths(wheel, ["/made"])
    with zipfile.ZipFile(wheel) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    record = found.pop("a-1.dist-info/RECORD")
    assert search_path(tmp_path, tool("readelf"), found["a/a.so"]) == left
    assert len(found["a/a.so"]) == len(data), "all else is where it was"
    assert {**found, "a/a.so": data} == files
    assert record == zipfile.ZipFile(wheel_of(tmp_path / "b.whl", found)).read(
        "a-1.dist-info/RECORD"
    )
    assert (found["a/a.so"] == data) == (left == path)
    ctypes.CDLL(str(tmp_path / "b.so"))


def test_what_is_no_wheel_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"PK\x03\x04 and no more")
    strip_search_paths(tmp_path / "a.whl", ["/work"])
    assert (tmp_path / "a.whl").read_bytes() == b"PK\x03\x04 and no more"
