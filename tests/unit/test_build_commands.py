"""Taking compiler commands apart. What an option means, and which spellings nvcc accepts, was
taken from `nvcc --help` and `nvcc --dryrun` of CUDA 13.0, and from gcc's manual."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from fatwheel.build.commands import Compile, read_host, read_nvcc

CWD = "/project"


def nvcc(text: str, **variables: str) -> Compile:
    found = read_nvcc(shlex.split(text), CWD, variables)
    assert found is not None, f"not taken apart: nvcc {text}"
    return found


def host(text: str) -> Compile:
    found = read_host(shlex.split(text), CWD)
    assert found is not None, f"not taken apart: g++ {text}"
    return found


# Commands as build tools write them; only the folders were shortened.

SETUPTOOLS = (
    "-DWITH_PYTHON -Icsrc -I/env/torch/include -I/env/include -c csrc/cuda/scatter.cu "
    "-o build/temp.linux-x86_64-cpython-311/csrc/cuda/scatter.o -D__CUDA_NO_HALF_OPERATORS__ "
    "--expt-relaxed-constexpr --compiler-options '-fPIC' -O3 --expt-relaxed-constexpr "
    "-DTORCH_EXTENSION_NAME=_scatter_cuda -gencode=arch=compute_80,code=sm_80 -std=c++17"
)
NINJA = (
    "--generate-dependencies-with-compile --dependency-output /project/build/temp/csrc/a.o.d "
    "-I/project/csrc -c -c /project/csrc/a.cu -o /project/build/temp/csrc/a.o "
    "--compiler-options ''\"'\"'-fPIC'\"'\"'' -O3 -U__CUDA_NO_HALF_OPERATORS__ "
    "--expt-extended-lambda --use_fast_math --ptxas-options=-v --ptxas-options=-O2 -lineinfo "
    "--threads 4 -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 "
    "-DTORCH_API_INCLUDE_EXTENSION_H -std=c++17"
)
CMAKE = (
    "-forward-unknown-to-host-compiler -DUSE_X -I/project/include -isystem=/env/include -O3 "
    "-DNDEBUG --generate-code=arch=compute_80,code=[compute_80,sm_80] -std=c++17 -fPIC "
    "-MD -MT CMakeFiles/k.dir/k.cu.o -MF CMakeFiles/k.dir/k.cu.o.d -x cu -rdc=false "
    "-c /project/k.cu -o CMakeFiles/k.dir/k.cu.o"
)


def test_what_setuptools_writes() -> None:
    assert nvcc(SETUPTOOLS) == Compile(
        kind="cuda",
        source="/project/csrc/cuda/scatter.cu",
        output="/project/build/temp.linux-x86_64-cpython-311/csrc/cuda/scatter.o",
        depfile=None,
        codegen=(
            "--expt-relaxed-constexpr", "-Xcompiler", "-fPIC", "-O3", "--expt-relaxed-constexpr",
            "-std", "c++17",
        ),
        preprocessor=(
            "-D", "WITH_PYTHON", "-I", "/project/csrc", "-I", "/env/torch/include",
            "-I", "/env/include", "-D", "__CUDA_NO_HALF_OPERATORS__",
            "-D", "TORCH_EXTENSION_NAME=_scatter_cuda",
        ),
    )  # fmt: skip


def test_what_torchs_ninja_file_runs() -> None:
    found = nvcc(NINJA)
    assert found.depfile == "/project/build/temp/csrc/a.o.d"
    assert found.codegen == (
        "-Xcompiler", "'-fPIC'", "-O3", "--expt-extended-lambda", "--use_fast_math",
        "-Xptxas", "-v", "-Xptxas", "-O2", "-lineinfo", "-std", "c++17",
    )  # fmt: skip
    assert found.preprocessor == (
        "-I", "/project/csrc", "-U", "__CUDA_NO_HALF_OPERATORS__",
        "-D", "TORCH_API_INCLUDE_EXTENSION_H",
    )  # fmt: skip


def test_what_cmake_writes() -> None:
    found = nvcc(CMAKE)
    assert (found.source, found.unsupported) == ("/project/k.cu", "")
    assert found.output == "/project/CMakeFiles/k.dir/k.cu.o"
    assert found.depfile == "/project/CMakeFiles/k.dir/k.cu.o.d"
    assert found.codegen == (
        "-forward-unknown-to-host-compiler", "-O3", "-std", "c++17", "-fPIC",
    )  # fmt: skip


# -- nvcc's grammar -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "-gencode arch=compute_80,code=sm_80",
        "-gencode=arch=compute_80,code=sm_80",
        "--generate-code arch=compute_80,code=[sm_80,compute_80]",
        "--generate-code=arch=compute_90a,code=sm_90a",
        "-arch=native",
        "-arch sm_80",
        "--gpu-architecture=sm_80",
        "--gpu-architecture compute_80 --gpu-code sm_80",
        "-arch=compute_80 -code=sm_80,compute_80",
        "-t4",
        "-t=4",
        "-t 4",
        "--threads 4",
        "--threads=0",
        "-keep --keep-dir k",
        "--keep -keep-dir=k",
        "--save-temps",
        "-objtemp",
        "-ccbin g++",
        "--compiler-bindir=/usr/bin/g++",
        "-frandom-seed=12",
        "--jobserver",
    ],
)
def test_architectures_and_ways_of_working_are_dropped(words: str) -> None:
    plain = nvcc("-c a.cu -o a.o -O3")
    assert nvcc(f"-c a.cu {words} -o a.o -O3") == plain, f"{words} left something behind"
    assert nvcc(f"-c -o a.o -O3 a.cu {words}") == plain, f"{words} left something behind"


@pytest.mark.parametrize(
    ("spellings", "expected"),
    [
        (["-Xptxas -v,-O3", "-Xptxas=-v,-O3", "--ptxas-options=-v,-O3"], ("-Xptxas", "-v,-O3")),
        (["-Xcompiler -fPIC", "--compiler-options=-fPIC"], ("-Xcompiler", "-fPIC")),
        (["-std=c++17", "-std c++17", "--std=c++17"], ("-std", "c++17")),
        (["-maxrregcount=32", "--maxrregcount 32"], ("-maxrregcount", "32")),
        (["-ftz=true", "-ftz true", "--ftz true"], ("-ftz", "true")),
        (["-fmad false", "--fmad=false"], ("-fmad", "false")),
        (["-prec-div=false", "--prec-div false"], ("-prec-div", "false")),
        (["-diag-suppress 20012", "--diag-suppress=20012"], ("-diag-suppress", "20012")),
        (["-Werror all-warnings", "-Werror=all-warnings"], ("-Werror", "all-warnings")),
        (["-Ofc max", "--Ofast-compile=max"], ("-Ofc", "max")),
        (["-split-compile=4", "--split-compile 4"], ("-split-compile", "4")),
        (["-Xfatbin -compress-all", "--fatbin-options=-compress-all"],
         ("-Xfatbin", "-compress-all")),
        (["-Xcudafe --diag_suppress=1"], ("-Xcudafe", "--diag_suppress=1")),
        (["-default-stream per-thread", "--default-stream=per-thread"],
         ("-default-stream", "per-thread")),
        (["-cudart shared", "--cudart=shared"], ("-cudart", "shared")),
        (["--compress-mode=size", "-compress-mode size"], ("-compress-mode", "size")),
        (["-use_fast_math"], ("-use_fast_math",)),
        (["--use_fast_math"], ("--use_fast_math",)),
        (["-G"], ("-G",)),
        (["-lineinfo"], ("-lineinfo",)),
        (["-O3"], ("-O3",)),
        (["-O 3", "--optimize=3"], ("-O", "3")),
        (["-forward-unknown-to-host-compiler -Wall --foo=bar"],
         ("-forward-unknown-to-host-compiler", "-Wall", "--foo=bar")),
    ],
)  # fmt: skip
def test_what_decides_the_code_is_kept(spellings: list[str], expected: tuple[str, ...]) -> None:
    for words in spellings:
        found = nvcc(f"-c {words} a.cu -o a.o")
        assert found.codegen == expected, f"nvcc {words}"
        assert (found.source, found.preprocessor) == ("/project/a.cu", ()), f"nvcc {words}"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-Iinc", ("-I", "/project/inc")),
        ("-I=inc", ("-I", "/project/inc")),
        ("-I inc", ("-I", "/project/inc")),
        ("--include-path ../inc", ("-I", "/inc")),
        ("-Ia,b", ("-I", "/project/a", "-I", "/project/b")),
        ("--include-path=a,/b", ("-I", "/project/a", "-I", "/b")),
        ("-Iname=with", ("-I", "/project/name=with")),
        ("'-Iwith space'", ("-I", "/project/with space")),
        ("-isystem=inc -isystem /x", ("-isystem", "/project/inc", "-isystem", "/x")),
        ("--system-include inc", ("-isystem", "/project/inc")),
        ("-DA", ("-D", "A")),
        ("-D A=1", ("-D", "A=1")),
        ("-D=A=1", ("-D", "A=1")),
        ("-DA=B=C", ("-D", "A=B=C")),
        ("--define-macro=A,B=2", ("-D", "A,B=2")),
        ("-UA -U=B --undefine-macro C", ("-U", "A", "-U", "B", "-U", "C")),
        ("-include cuda_fp16.h", ("-include", "cuda_fp16.h")),
        ("--pre-include=a.h,b.h", ("-include", "a.h", "-include", "b.h")),
        ("-DA -UA -DA=2", ("-D", "A", "-U", "A", "-D", "A=2")),
    ],
)
def test_what_decides_the_text_is_kept_in_order(words: str, expected: tuple[str, ...]) -> None:
    assert nvcc(f"-c {words} a.cu -o a.o").preprocessor == expected
    assert nvcc(f"-c {words} a.cu -o a.o").codegen == ()


def test_a_preincluded_header_that_is_there_gets_its_path(tmp_path: Path) -> None:
    (tmp_path / "own.h").touch()
    found = read_nvcc(["-include", "own.h", "-c", "a.cu"], str(tmp_path))
    assert found is not None
    assert found.preprocessor == ("-include", str(tmp_path / "own.h"))


@pytest.mark.parametrize(
    ("words", "depfile"),
    [
        ("", None),
        ("-MD", "/project/o/a.d"),
        ("-MMD", "/project/o/a.d"),
        ("-MD -MF x.d", "/project/x.d"),
        ("-MD -MF=x.d -MT t -MP", "/project/x.d"),
        ("--generate-dependencies-with-compile --dependency-output=/d/x.d", "/d/x.d"),
        ("--generate-nonsystem-dependencies-with-compile --dependency-target-name t",
         "/project/o/a.d"),
    ],
)  # fmt: skip
def test_dependency_files(words: str, depfile: str | None) -> None:
    found = nvcc(f"{words} -c a.cu -o o/a.o")
    assert found.depfile == depfile
    assert found.codegen == ()


def test_without_an_output_the_object_is_named_after_the_source() -> None:
    assert nvcc("-c csrc/a.cu").output == "/project/a.o"
    assert nvcc("-c csrc/a.cu -MD").depfile == "/project/a.d"


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("-rdc=true -c", "-rdc=true"),
        ("-rdc true -c", "-rdc=true"),
        ("--relocatable-device-code=true -c", "-rdc=true"),
        ("-dc", "-rdc=true"),
        ("--device-c", "-rdc=true"),
        ("-dlto -c", "-dlto"),
        ("--dlink-time-opt -c", "-dlto"),
        ("-ewp -c", "-ewp"),
        ("-rdc=false -c", ""),
        ("-rdc=true -rdc=false -c", ""),
        ("-dw", ""),
        ("--device-w", ""),
    ],
)
def test_device_code_that_is_linked_later_is_recognised(words: str, option: str) -> None:
    assert nvcc(f"{words} a.cu -o a.o").unsupported == option


@pytest.mark.parametrize(
    "words",
    [
        "a.cu -o program",
        "-E a.cu",
        "-c -E a.cu",
        "-M a.cu",
        "--preprocess -c a.cu",
        "-ptx a.cu -o a.ptx",
        "-cubin -arch=sm_80 a.cu",
        "--fatbin a.cu",
        "-dlink a.o b.o -o link.o",
        "-shared a.o -o a.so",
        "--version",
        "--list-gpu-code",
        "--dryrun -c a.cu",
        "-dryrun -c a.cu",
        "-c a.cpp -o a.o",
        "-c a.cu b.cu",
        "-c",
        "",
        "-x c++ -c a.cu",
        "-x c++ -c a.cpp",
        "-odir out -c a.cu",
        "-c a.cu @more",
        "-optf missing.rsp -c a.cu",
        "-c a.cu -o /dev/null",
    ],
)
def test_everything_else_is_left_to_nvcc(words: str) -> None:
    assert read_nvcc(shlex.split(words), CWD) is None


def test_a_source_of_any_name_may_be_called_cuda() -> None:
    found = nvcc("-x cu -c a.cpp -o a.o")
    assert found.source == "/project/a.cpp"
    assert found.codegen == ("-x", "cu"), "nvcc would take a .cpp for host code without it"
    assert nvcc("--x=cu -c a.cu").codegen == ()


# -- more arguments than the command line has ---------------------------------------------


def test_options_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "includes.rsp").write_text(f'-I"{tmp_path}/with space"\n-isystem=/env -DA\n')
    for words in (["--options-file", "includes.rsp"], ["-optf=includes.rsp"]):
        found = read_nvcc([*words, "-c", "a.cu"], str(tmp_path))
        assert found is not None
        assert found.preprocessor == (
            "-I", f"{tmp_path}/with space", "-isystem", "/env", "-D", "A",
        )  # fmt: skip


@pytest.mark.parametrize("text", [r"-DA=\"x\"", "-DA='x y'", "-DA # no comment for nvcc"])
def test_options_files_with_nvccs_own_quoting_are_left_to_nvcc(tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.rsp").write_text(text)
    assert read_nvcc(["-optf", "odd.rsp", "-c", "a.cu"], str(tmp_path)) is None


def test_variables_with_options_count() -> None:
    found = nvcc(
        "-c a.cu -DB", NVCC_PREPEND_FLAGS="-DA -lineinfo", NVCC_APPEND_FLAGS="-DC --use_fast_math"
    )
    assert found.preprocessor == ("-D", "A", "-D", "B", "-D", "C")
    assert found.codegen == ("-lineinfo", "--use_fast_math")
    assert read_nvcc(["-c", "a.cu"], CWD, {"NVCC_APPEND_FLAGS": '-DA="x y"'}) is None


# -- g++ ----------------------------------------------------------------------------------


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
    assert read_host(shlex.split(words), CWD) is None


def test_paths_are_below_the_folder_that_the_command_ran_in() -> None:
    found = read_nvcc(["-c", "../a.cu", "-o", "o/a.o", "-I", "."], "/project/build")
    assert found is not None
    paths = (found.source, found.output, found.preprocessor[1])
    assert paths == ("/project/a.cu", "/project/build/o/a.o", "/project/build")
    assert all(map(os.path.isabs, paths))
