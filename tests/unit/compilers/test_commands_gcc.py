"""Taking g++'s commands apart. What an option means was taken from gcc's manual."""

from __future__ import annotations

import shlex

import pytest

from fatwheel.compilers.commands import Compile
from fatwheel.compilers.gcc import read_gcc

CWD = "/project"


def host(text: str) -> Compile:
    found = read_gcc(shlex.split(text), CWD)
    assert found is not None, f"not taken apart: g++ {text}"
    return found


def test_what_setuptools_writes_for_cpp() -> None:
    found = host(
        "-Wsign-compare -DNDEBUG -g -fwrapv -O3 -Wall -fPIC -DWITH_PYTHON -Icsrc -I/env/include "
        "-c csrc/a.cpp -o build/temp/csrc/a.o -fopenmp -DTORCH_EXTENSION_NAME=_a -std=c++17"
    )
    assert found == Compile(
        kind="c++",
        source="/project/csrc/a.cpp",
        output="/project/build/temp/csrc/a.o",
        depfile=None,
        codegen=(
            "-Wsign-compare", "-g", "-fwrapv", "-O3", "-Wall", "-fPIC", "-fopenmp", "-std=c++17",
        ),
        preprocessor=(
            "-D", "NDEBUG", "-D", "WITH_PYTHON", "-I", "/project/csrc", "-I", "/env/include",
            "-D", "TORCH_EXTENSION_NAME=_a",
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-Iinc -I inc2", ("-I", "/project/inc", "-I", "/project/inc2")),
        ("-Ia,b", ("-I", "/project/a,b")),
        ("-I=inc", ("-I", "=inc")),
        ("-isysteminc -isystem inc2", ("-isystem", "/project/inc", "-isystem", "/project/inc2")),
        ("-iquoteinc -idirafter inc", ("-iquote", "/project/inc", "-idirafter", "/project/inc")),
        ("-include a.h -imacros b.h", ("-include", "a.h", "-imacros", "b.h")),
        ("-DA=1 -D B -UC", ("-D", "A=1", "-D", "B", "-U", "C")),
    ],
)
def test_gccs_preprocessor_options(words: str, expected: tuple[str, ...]) -> None:
    assert host(f"{words} -c a.cpp").preprocessor == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-march=native -O2", ("-march=native", "-O2")),
        ("--param max-inline-insns-auto=3", ("--param", "max-inline-insns-auto=3")),
        ("-Xpreprocessor -fopenmp", ("-Xpreprocessor", "-fopenmp")),
        ("-rdynamic", ("-rdynamic",)),
    ],
)
def test_gccs_other_options_are_kept(words: str, expected: tuple[str, ...]) -> None:
    assert host(f"{words} -c a.cpp").codegen == expected


def test_gccs_glued_outputs() -> None:
    found = host("-MMD -MFo/a.dep -oo/a.o -c a.cc")
    assert (found.output, found.depfile) == ("/project/o/a.o", "/project/o/a.dep")


@pytest.mark.parametrize("suffix", ["cpp", "cc", "cxx", "c++", "C"])
def test_sources_that_gcc_takes_for_cpp(suffix: str) -> None:
    assert host(f"-c a.{suffix}").codegen == ()


def test_a_source_of_any_name_may_be_called_cpp() -> None:
    assert host("-x c++ -c a.inl").codegen == ("-x", "c++")
    assert host("-xc++ -c a.cpp").codegen == ()


@pytest.mark.parametrize(
    "words",
    [
        "-shared a.o -o a.so",
        "-E a.cpp",
        "-S a.cpp",
        "-c a.c",
        "-x c -c a.cpp",
        "-c a.cpp b.cpp",
        "-c a.cpp @more",
        "-M -c a.cpp",
        "-fsyntax-only -c a.cpp",
        "-v",
        "-c a.cpp -o /dev/null",
        # These read or write more than the source, its headers and the object:
        "--coverage -c a.cpp",
        "-ftest-coverage -fprofile-arcs -c a.cpp",
        "-fprofile-use=prof -c a.cpp",
        "-gsplit-dwarf -c a.cpp",
        "-save-temps -c a.cpp",
        "-Wp,-MMD,a.d -c a.cpp",
    ],
)
def test_everything_else_is_left_to_gcc(words: str) -> None:
    assert read_gcc(shlex.split(words), CWD) is None
