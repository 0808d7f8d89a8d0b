"""Commands of g++ taken apart, and less run-time search paths. What an option means was taken from
gcc's manual; what ld makes of such paths is tried in tests/unit/worker/test_shim.py.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from fatwheel.compilers.commands import Compile
from fatwheel.compilers.gcc import read_gcc, without_rpaths

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


HOMES = ["/home/me/python/lib", "/cache/env"]
OURS = "/home/me/python/lib"


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (f"-Wl,-rpath,{OURS}", ""),
        (f"-Wl,-rpath={OURS}", ""),
        (f"-Wl,--rpath={OURS}/", ""),
        (f"-Wl,-R,{OURS}", ""),
        (f"-Wl,-R{OURS}", ""),
        (f"-Wl,-rpath -Wl,{OURS}", ""),
        (f"-Xlinker -rpath -Xlinker {OURS}", ""),
        (f"-Xlinker -rpath={OURS}", ""),
        ("-Wl,-rpath,/cache/env/site/torch/lib", ""),
        ("-Wl,-rpath,/cache/elsewhere/../env", ""),
        (f"-shared -Wl,-rpath,{OURS} a.o -L{OURS}", f"-shared a.o -L{OURS}"),
        # What else the same argument says stays.
        (f"-Wl,-O1,-rpath,{OURS},-z,now", "-Xlinker -O1 -Xlinker -z -Xlinker now"),
        ("-Wl,-rpath,/cache/env:$ORIGIN", "-Xlinker -rpath=$ORIGIN"),
    ],
)
def test_folders_of_the_build_are_left_out(words: str, left: str) -> None:
    assert without_rpaths(words.split(), HOMES) == left.split()


@pytest.mark.parametrize(
    "words",
    [
        "-Wl,-rpath,$ORIGIN/../lib",
        "-Wl,-rpath,/usr/local/cuda/lib64",
        "-Wl,-rpath,/cache/environment",
        f"-Wl,-rpath-link,{OURS}",
        f"-Wl,-L,{OURS}",
        "-Wl,--enable-new-dtags,-rpath,/opt/lib -Wl,-Bsymbolic -O2",
        "-Wl,-rpath",
        "-Xlinker",
        "-Wl,--version-script,x.map -Xlinker -z -Xlinker defs -o a.so",
    ],
)
def test_all_else_stays_as_it_is(words: str) -> None:
    assert without_rpaths(words.split(), HOMES) == words.split()


def test_a_folder_counts_by_any_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "link").symlink_to("env")
    assert without_rpaths([f"-Wl,-rpath,{tmp_path}/link/lib"], [f"{tmp_path}/env"]) == []


def test_a_link_of_cmakes_has_one_path_of_steady_length() -> None:
    """CMake looks for its own path in the library, from one colon to the next."""
    found = []
    for home in ("/env", "/a/much/longer/place/for/the/same/env"):
        path = f"{home}/torch/lib:{home}/cuda/lib::::"
        words = ["-shared", "CMakeFiles/x.dir/a.o", f"-Wl,-rpath,{path}", "-Wl,-z,now", "-lx"]
        linked = without_rpaths(words, [home])
        assert linked[:2] == ["-shared", "CMakeFiles/x.dir/a.o"]
        assert linked[-1] == "-lx"
        [option] = [word for word in linked if word.startswith("-rpath=")]
        assert option.startswith(f"-rpath={path}:")
        found.append(len(option))
    assert found[0] == found[1] == len("-rpath=") + 4096


def test_a_link_of_cmakes_without_such_folders_stays_as_it_is() -> None:
    words = ["-shared", "CMakeFiles/x.dir/a.o", "-Wl,-rpath,$ORIGIN:/opt/lib", "-lx"]
    assert without_rpaths(words, ["/env"]) == words
