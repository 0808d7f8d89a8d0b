"""Windows command lines: their words, against Microsoft's own examples and Python's own quoting,
and commands of cl and link taken apart. What an option means was taken from Microsoft's "Compiler
options listed alphabetically"; the commands are those of setuptools, torch's ninja file and CMake.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fatwheel.compilers.commands import Compile
from fatwheel.compilers.msvc import Link, join_words, read_cl, read_link, split_words, steady_option


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # The table in "Parsing C command-line arguments".
        ('"a b c" d e', ["a b c", "d", "e"]),
        ('"ab\\"c" "\\\\" d', ['ab"c', "\\", "d"]),
        ('a\\\\\\b d"e f"g h', ["a\\\\\\b", "de fg", "h"]),
        ('a\\\\\\"b c d', ['a\\"b', "c", "d"]),
        ('a\\\\\\\\"b c" d e', ["a\\\\b c", "d", "e"]),
        ('a"b"" c d', ['ab" c d']),
        # Paths, and what stands between words.
        ("/IC:\\new\\table  /DX", ["/IC:\\new\\table", "/DX"]),
        ("one\r\ntwo\tthree\n", ["one", "two", "three"]),
        ('""', [""]),
        ('a "" b', ["a", "", "b"]),
        ("", []),
        ("  ", []),
    ],
)
def test_words_as_the_c_run_time_sees_them(text: str, words: list[str]) -> None:
    assert split_words(text) == words


WORDS = st.lists(st.text(alphabet='ab \\"\t=,;', max_size=8), max_size=5)


@given(WORDS)
def test_what_python_quotes_is_read_back(words: list[str]) -> None:
    assert split_words(subprocess.list2cmdline(words)) == words


@given(WORDS)
def test_what_is_joined_is_read_back(words: list[str]) -> None:
    assert split_words(join_words(words)) == words


def test_words_are_quoted_where_they_must_be() -> None:
    assert join_words(['-DA="x"', "C:\\a b\\", "/c", ""]) == ('"-DA=\\"x\\"" "C:\\a b\\\\" /c ""')


CWD = "C:\\b\\project"


def cl(*words: str, **variables: str) -> Compile:
    found = read_cl(words, CWD, variables)
    assert found is not None, f"not taken apart: cl {words}"
    return found


def test_what_setuptools_writes() -> None:
    found = cl(
        "/c", "/nologo", "/O2", "/W3", "/GL", "/DNDEBUG", "/MD", "-Icsrc",
        "-IC:\\Python311\\include", "/EHsc", "/Tpcsrc\\api.cpp",
        "/Fobuild\\temp.win-amd64-cpython-311\\Release\\csrc\\api.obj",
    )  # fmt: skip
    assert found == Compile(
        kind="c++",
        source="C:\\b\\project\\csrc\\api.cpp",
        output="C:\\b\\project\\build\\temp.win-amd64-cpython-311\\Release\\csrc\\api.obj",
        depfile=None,
        codegen=("-O2", "-W3", "-GL", "-MD", "-EHsc"),
        preprocessor=(
            "-D", "NDEBUG", "-I", "C:\\b\\project\\csrc", "-I", "C:\\Python311\\include",
        ),
    )  # fmt: skip


def test_what_torchs_ninja_file_runs() -> None:
    found = cl(
        "/showIncludes", "-IC:\\b\\project\\csrc", "/nologo", "/O2", "/MD", "/wd4819", "/EHsc",
        "-c", "C:\\b\\project\\csrc\\api.cpp", "/FoC:\\b\\project\\build\\api.obj",
        "-DTORCH_EXTENSION_NAME=_C", "-D_GLIBCXX_USE_CXX11_ABI=0", "/std:c++17",
    )  # fmt: skip
    assert found.source == "C:\\b\\project\\csrc\\api.cpp"
    assert found.output == "C:\\b\\project\\build\\api.obj"
    assert found.codegen == ("-O2", "-MD", "-wd4819", "-EHsc", "-std:c++17")
    assert found.preprocessor[2:] == (
        "-D", "TORCH_EXTENSION_NAME=_C", "-D", "_GLIBCXX_USE_CXX11_ABI=0",
    )  # fmt: skip


def test_what_cmake_writes() -> None:
    found = cl(
        "/nologo", "/TP", "-DA=\"x y\"", "-external:IC:\\x\\include", "-external:W0", "/DWIN32",
        "/Zi", "/FS", "/FoCMakeFiles\\k.dir\\k.cpp.obj", "/FdCMakeFiles\\k.dir\\", "-c", "k.cpp",
    )  # fmt: skip
    assert found.output == "C:\\b\\project\\CMakeFiles\\k.dir\\k.cpp.obj"
    assert found.codegen == ("-external:W0", "-Z7"), "what goes to a database goes to the object"
    assert found.preprocessor == (
        "-D", 'A="x y"', "-external:I", "C:\\x\\include", "-D", "WIN32",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["/D", "A=1"], ("-D", "A=1")),
        (["/DA=1"], ("-D", "A=1")),
        (["-D", "A"], ("-D", "A")),
        (["/U", "A"], ("-U", "A")),
        (["/I", "inc"], ("-I", "C:\\b\\project\\inc")),
        (["/I", "sub dir"], ("-I", "C:\\b\\project\\sub dir")),
        (["/FIpch.h"], ("-FI", "pch.h")),
        (["/FI", "pch.h"], ("-FI", "pch.h")),
        (["/external:I", "D:/x"], ("-external:I", "D:\\x")),
    ],
)
def test_values_follow_at_once_or_next(words: list[str], expected: tuple[str, ...]) -> None:
    assert cl(*words, "/c", "a.cpp").preprocessor == expected


@pytest.mark.parametrize(
    ("words", "output"),
    [
        ([], "C:\\b\\project\\a.obj"),
        (["/Foout.obj"], "C:\\b\\project\\out.obj"),
        (["/Foout"], "C:\\b\\project\\out.obj"),
        (["/Fo:out.obj"], "C:\\b\\project\\out.obj"),
        (["/Fo:", "out.obj"], "C:\\b\\project\\out.obj"),
        (["/Foobj\\"], "C:\\b\\project\\obj\\a.obj"),
        (["/FoD:/obj/"], "D:\\obj\\a.obj"),
        (["-FoD:\\x y\\a.o"], "D:\\x y\\a.o"),
    ],
)
def test_where_the_object_goes(words: list[str], output: str) -> None:
    assert cl("/c", "sub\\a.cpp", *words).output == output


def test_sources() -> None:
    assert cl("/c", "a.cxx").source == "C:\\b\\project\\a.cxx"
    assert cl("/c", "/Tp", "a.inl").codegen == ("-TP",)
    assert cl("/c", "/Tpa.inl").codegen == ("-TP",)
    assert cl("/c", "/TP", "a.c").codegen == ("-TP",)
    assert cl("/c", "/TP", "a.cpp").codegen == ()


@pytest.mark.parametrize(
    "text", ['/DA=1 "/Iwith space"\r\n/c a.cpp', '/DA=1 /I"with space" /c a.cpp']
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_response_files(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "a.rsp").write_bytes(text.encode(encoding))
    found = cl(f"@{tmp_path / 'a.rsp'}")
    assert found.preprocessor == ("-D", "A=1", "-I", "C:\\b\\project\\with space")


def test_variables_with_options_count() -> None:
    found = cl("/c", "a.cpp", "/DB", CL="/DA /O2", _CL_="/DC /std:c++17")
    assert found.preprocessor == ("-D", "A", "-D", "B", "-D", "C")
    assert found.codegen == ("-O2", "-std:c++17")


@pytest.mark.parametrize(
    "words",
    [
        ["a.cpp"],
        ["/c"],
        ["/c", "a.c"],
        ["/c", "/Tca.cpp"],
        ["/c", "a.cpp", "b.cpp"],
        ["/E", "a.cpp"],
        ["/EP", "/c", "a.cpp"],
        ["/P", "/c", "a.cpp"],
        ["/Zs", "/c", "a.cpp"],
        ["/LD", "a.cpp", "/link", "/DLL"],
        ["/c", "a.cpp", "@missing.rsp"],
        # These read or write more than the source, its headers and the object:
        ["/c", "a.cpp", "/Yupch.h", "/Fpa.pch"],
        ["/c", "a.cpp", "/FAs"],
        ["/c", "a.cpp", "/Fax.asm"],
        ["/c", "a.cpp", "/sourceDependencies", "a.json"],
        ["/c", "a.cpp", "/analyze"],
        ["/c", "a.cpp", "/clr"],
        ["/c", "a.cpp", "/interface"],
    ],
)
def test_everything_else_is_left_to_cl(words: list[str]) -> None:
    assert read_cl(words, CWD, {}) is None


@pytest.mark.parametrize(
    ("option", "used"),
    [
        ("/O2", "-O2"),
        ("-O2", "-O2"),
        ("/Zi", "-Z7"),
        ("/ZI", "-Z7"),
        ("/nologo", None),
        ("/MP8", None),
        ("/MD", "-MD"),
        ("/FC", "-FC"),
        ("/EHsc", "-EHsc"),
        ("/FS", None),
        ("/Fdx.pdb", None),
    ],
)
def test_options_as_they_are_used_here(option: str, used: str | None) -> None:
    assert steady_option(option) == used


CWD_OF_COMMANDS_LINK = r"C:\b\project"


def link(*words: str) -> Link:
    found = read_link(words, CWD_OF_COMMANDS_LINK)
    assert found is not None
    return found


def test_what_setuptools_links_with() -> None:
    """setuptools' _msvccompiler.py, link()."""
    found = link(
        "/nologo", "/INCREMENTAL:NO", "/LTCG", "/DLL", "/MANIFEST:EMBED,ID=2", "/MANIFESTUAC:NO",
        r"/LIBPATH:C:\Python311\libs", "cudart.lib", "/EXPORT:PyInit__C",
        r"build\temp.win-amd64-cpython-311\Release\csrc\a.obj",
        r"/OUT:build\lib.win-amd64-cpython-311\demo\_C.cp311-win_amd64.pyd",
        r"/IMPLIB:build\temp.win-amd64-cpython-311\Release\csrc\_C.cp311-win_amd64.lib",
    )  # fmt: skip
    assert found == Link(
        (
            rf"{CWD_OF_COMMANDS_LINK}\cudart.lib",
            rf"{CWD_OF_COMMANDS_LINK}\build\temp.win-amd64-cpython-311\Release\csrc\a.obj",
        ),
        rf"{CWD_OF_COMMANDS_LINK}\build\lib.win-amd64-cpython-311\demo\_C.cp311-win_amd64.pyd",
        rf"{CWD_OF_COMMANDS_LINK}\build\temp.win-amd64-cpython-311\Release\csrc\_C.cp311-win_amd64.lib",
    )


def test_what_cmake_links_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert read_link(words, CWD_OF_COMMANDS_LINK) is None


def test_a_response_file_that_names_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntpath.join", os.path.join)
    (tmp_path / "a.rsp").write_text("a.obj @a.rsp")
    assert read_link(["@a.rsp"], str(tmp_path)) is None
    assert read_cl(["/c", "a.cpp", "@a.rsp"], str(tmp_path), {}) is None
