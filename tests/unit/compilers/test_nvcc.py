"""Taking nvcc's commands apart. What an option means, and which spellings nvcc accepts, was taken
from `nvcc --help` and `nvcc --dryrun` of CUDA 13.0, on Linux and on Windows."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest

from fatwheel.compilers.commands import Compile, DeviceLink
from fatwheel.compilers.nvcc import read_device_link, read_nvcc, split_nvcc, with_archs

CWD = "/project"


def nvcc(text: str, **variables: str) -> Compile:
    found = read_nvcc(shlex.split(text), CWD, variables)
    assert found is not None, f"not taken apart: nvcc {text}"
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
        images=("sm_80",),
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
    for line in (f"-c a.cu {words} -o a.o -O3", f"-c -o a.o -O3 a.cu {words}"):
        found = dataclasses.replace(nvcc(line), images=())
        assert found == plain, f"{words} left something behind"


@pytest.mark.parametrize(
    ("words", "images"),
    [
        ("-gencode arch=compute_80,code=sm_80", "sm_80"),
        (
            "-gencode=arch=compute_90a,code=sm_90a -gencode arch=compute_80,code=sm_80",
            "sm_80 sm_90a",
        ),
        ("--generate-code arch=compute_80,code=[sm_80,compute_80]", "sm_80 compute_80"),
        ("'--generate-code=arch=compute_89,code=[compute_89,sm_89]'", "sm_89 compute_89"),
        ("""-gencode 'arch=compute_80,code="sm_80,sm_86"'""", "sm_80 sm_86"),
        ("-arch=sm_80", "sm_80 compute_80"),
        ("-arch compute_80 -code sm_80,sm_86", "sm_80 sm_86"),
        ("-arch=compute_80", "compute_80"),
        ("", ""),
        ("-arch=native", ""),
        ("-arch=all-major", ""),
        ("-gencode arch=compute_80,code=lto_80", ""),
        ("-gencode nonsense", ""),
        ("-gencode arch=compute_80,code=", ""),
    ],
)
def test_the_images_that_a_command_asks_for_are_kept_apart(words: str, images: str) -> None:
    """What nvcc makes of each: `nvcc --dryrun`, 13.0.88."""
    assert nvcc(f"-c a.cu -o a.o {words}").images == tuple(images.split())


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
        (["-split-compile=4", "--split-compile 4", "-split-compile 0"], ("-split-compile", "4")),
        (["-Xptxas -v,--split-compile=0"], ("-Xptxas", "-v,--split-compile=4")),
        (["-Xptxas --split-compile=05"], ("-Xptxas", "--split-compile=05")),
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
        ("-dlto -c", "-dlto"),
        ("--dlink-time-opt -c", "-dlto"),
        ("-ewp -c", "-ewp"),
        ("-rdc=true -dlto -c", "-dlto"),
        ("-rdc=true -c", ""),
        ("-c", ""),
    ],
)
def test_device_code_that_is_compiled_later_is_recognised(words: str, option: str) -> None:
    assert nvcc(f"{words} a.cu -o a.o").unsupported == option


@pytest.mark.parametrize(
    ("words", "relocatable"),
    [
        ("-rdc=true -c", True),
        ("-rdc true -c", True),
        ("--relocatable-device-code=true -c", True),
        ("-dc", True),
        ("--device-c", True),
        ("-rdc=false -rdc=true -c", True),
        ("-rdc=false -c", False),
        ("-rdc=true -rdc=false -c", False),
        ("-dw", False),
        ("--device-w", False),
    ],
)
def test_relocatable_device_code_has_the_same_arguments_however_it_is_asked_for(
    words: str, relocatable: bool
) -> None:
    found = nvcc(f"{words} -O3 a.cu -o a.o")
    assert found.codegen == (("-rdc=true", "-O3") if relocatable else ("-O3",))
    assert not found.unsupported


def test_relocatable_device_code_for_windows_is_not_supported() -> None:
    found = read_nvcc(["-rdc=true", "-c", "a.cu", "-o", "a.obj"], "C:\\project")
    assert found is not None
    assert found.unsupported == "-rdc=true"


# -- links of device code ------------------------------------------------------------------------


def link(words: str, cwd: str = "/project") -> DeviceLink | None:
    return read_device_link(words.split(), cwd)


def test_a_link_of_cmakes_is_taken_apart() -> None:
    """As CMake 4.4 writes it for bitsandbytes."""
    found = link(
        "-forward-unknown-to-host-compiler --use_fast_math --compress-mode=size -O3 -DNDEBUG "
        "--generate-code=arch=compute_80,code=[sm_80] -Xcompiler=-fPIC "
        "-Wno-deprecated-gpu-targets -shared -dlink a.cu.o sub/b.cpp.o -o cmake_device_link.o "
        "-L/cuda/lib -Lbuild,other /cuda/lib/libcublas.so -lcudadevrt -l:c,d -Xlinker -rpath"
    )
    assert found == DeviceLink(
        output="/project/cmake_device_link.o",
        only=True,
        inputs=("/project/a.cu.o", "/project/sub/b.cpp.o", "/cuda/lib/libcublas.so"),
        libraries=("cudadevrt", ":c", "d"),
        folders=("/cuda/lib", "/project/build", "/project/other"),
        options=(
            "-forward-unknown-to-host-compiler", "--use_fast_math", "-compress-mode", "size", "-O3",
            "-Xcompiler", "-fPIC", "-Wno-deprecated-gpu-targets",
        ),
        unsupported="",
    )  # fmt: skip


def test_a_library_that_nvcc_links_has_device_code_linked_on_the_way() -> None:
    found = link("-shared -arch sm_75 -lineinfo a.o libb.a -cudart shared -Wl,-z,now -o lib.so")
    assert found is not None
    assert (found.only, found.output) == (False, "/project/lib.so")
    assert found.inputs == ("/project/a.o", "/project/libb.a")
    assert (found.libraries, found.options) == ((), ("-lineinfo", "-Xnvlink", "--shared"))
    assert link("a.o -o program") == DeviceLink(
        "/project/program", False, ("/project/a.o",), (), (), (), ""
    )


def test_sources_for_the_hosts_compiler_have_no_device_code_to_link() -> None:
    found = link("-shared -rdc=true a.o m.cpp sub/n.c -lb -o lib.so")
    assert found is not None
    assert (found.inputs, found.libraries) == (("/project/a.o",), ("b",))
    assert link("-shared -rdc=true m.cpp -o lib.so") is None
    alone = link("-shared m.cpp n.ii -lb -o lib.so")
    assert alone is not None
    assert (alone.inputs, alone.libraries) == ((), ("b",))


def test_libraries_are_also_found_where_a_variable_or_nvlinks_options_say() -> None:
    words = "-dlink a.o -Lx -lb -Xnvlink=-Ly,--verbose,-lc -Xnvlink -lto -o d.o"
    found = read_device_link(words.split(), "/project", {"LIBRARY_PATH": "lib::/cuda/lib"})
    assert found is not None
    assert found.folders == ("/project/x", "/project/y")
    assert found.libraries == ("b", "c")
    assert found.options == ("-Xnvlink", "--verbose", "-Xnvlink", "-lto")
    assert found.library_path == ("/project/lib", "/cuda/lib")


def test_an_option_with_which_links_compile_is_named() -> None:
    found = link("-dlink -dlto a.o -o b.o")
    assert found is not None
    assert found.unsupported == "-dlto"
    assert found.output == "/project/b.o"


@pytest.mark.parametrize(
    "words",
    [
        "--version", "-dlink", "-dlink a.cu -o a.o", "-dlink a.o b.cu", "-c a.cu",
        "-lib a.o -o a.a", "-shared -nodlink a.o -o a.so", "-shared --no-device-link a.o",
        "-dlink -ptx a.o", "-dryrun -dlink a.o", "-optf nowhere -dlink a.o",
        "-dlink a.o m.cpp", "-shared a.o b.cu -o x.so", "-dlink m.cpp -lb", "-shared -lb -o x.so",
    ],
)  # fmt: skip
def test_what_links_no_device_code_alone_is_none(words: str) -> None:
    assert link(words) is None


def test_links_on_windows_are_left_to_nvcc() -> None:
    assert link("-dlink a.obj -o b.obj", "C:\\project") is None


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


# -- on Windows ---------------------------------------------------------------------------

WINDOWS = "C:\\b\\project"


def windows(*words: str, **variables: str) -> Compile:
    found = read_nvcc(words, WINDOWS, variables)
    assert found is not None, f"not taken apart: nvcc {words}"
    return found


def test_what_torchs_ninja_file_runs_on_windows() -> None:
    found = windows(
        "--generate-dependencies-with-compile", "--dependency-output",
        "C:\\b\\project\\build\\temp\\csrc\\a.obj.d", "-Xcudafe",
        "--diag_suppress=base_class_has_different_dll_interface", "-Xcompiler", "/MD",
        "-Xcompiler", "/wd4819", "-Xcompiler", "/EHsc", "-IC:\\b\\project\\csrc",
        "-IC:\\Python311\\Lib\\site-packages\\torch\\include", "-c",
        "C:\\b\\project\\csrc\\a.cu", "-o", "C:\\b\\project\\build\\temp\\csrc\\a.obj", "-O3",
        "-gencode", "arch=compute_80,code=sm_80", "--use-local-env",
    )  # fmt: skip
    assert found == Compile(
        kind="cuda",
        source="C:\\b\\project\\csrc\\a.cu",
        output="C:\\b\\project\\build\\temp\\csrc\\a.obj",
        depfile="C:\\b\\project\\build\\temp\\csrc\\a.obj.d",
        codegen=(
            "-Xcudafe", "--diag_suppress=base_class_has_different_dll_interface",
            "-Xcompiler", "-MD", "-Xcompiler", "-wd4819", "-Xcompiler", "-EHsc", "-O3",
        ),
        preprocessor=(
            "-I", "C:\\b\\project\\csrc",
            "-I", "C:\\Python311\\Lib\\site-packages\\torch\\include",
        ),
        images=("sm_80",),
    )  # fmt: skip


def test_paths_on_windows() -> None:
    assert windows("-c", "src\\a.cu").output == "C:\\b\\project\\a.obj"
    found = windows("-c", "..\\a.cu", "-o", "out/a.obj", "-I", "sub dir\\..\\inc")
    assert found.source == "C:\\b\\a.cu"
    assert found.output == "C:\\b\\project\\out\\a.obj"
    assert found.preprocessor == ("-I", "C:\\b\\project\\inc")
    assert windows("-c", "D:/x/a.cu").source == "D:\\x\\a.cu"
    assert read_nvcc(["-c", "a.cu", "-o", "NUL"], WINDOWS) is None


def test_debug_information_goes_into_the_object_on_windows() -> None:
    found = windows("-c", "a.cu", "-Xcompiler", "/EHsc,/Zi,/FS", "-Xcompiler", "/FdC:\\x.pdb,/MP4")
    assert found.codegen[:2] == ("-Xcompiler", "-EHsc,-Z7")
    assert "-FS" not in str(found.codegen)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('-I"C:\\with space" -IC:\\x\\ -DB', ("-I", "C:\\with space", "-I", "C:\\x", "-D", "B")),
        ('"-DA=\\"x y\\"" -DC="a b"', ("-D", 'A="x y"', "-D", "C=a b")),
        ("-DA=1\r\n-DZ\r\n", ("-D", "A=1", "-D", "Z")),
    ],
)  # as nvcc.exe --dryrun shows what it makes of them
def test_options_files_on_windows(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    (tmp_path / "a.rsp").write_text(text)
    found = windows("-optf", str(tmp_path / "a.rsp"), "-c", "a.cu")
    assert found.preprocessor == expected


# -- commands that are several -----------------------------------------------------------------


def test_what_compiles_and_links_is_taken_apart() -> None:
    words = "-O3 --shared -Xcompiler -fPIC a.cu -Ix b.o sub/a.cu -lcudart -o x.so -gencode=arch=x"
    split = split_nvcc(words.split(), "/f")
    assert split is not None
    shared = ("-O3", "-Xcompiler", "-fPIC", "-Ix", "-gencode=arch=x", "-c")
    assert split.compiles == (
        (*shared, "a.cu", "-o", "/f/0-a.o"), (*shared, "sub/a.cu", "-o", "/f/1-a.o"),
    )  # fmt: skip
    linked = "-O3 --shared -Xcompiler -fPIC /f/0-a.o -Ix b.o /f/1-a.o -lcudart -o x.so"
    assert split.links == ("-nodlink", *linked.split(), "-gencode=arch=x")


def test_device_code_that_is_linked_is_linked_where_a_command_is_taken_apart() -> None:
    split = split_nvcc(["-rdc=true", "-shared", "a.cu", "-o", "x.so"], "/f")
    assert split is not None
    assert split.compiles == (("-rdc=true", "-c", "a.cu", "-o", "/f/0-a.o"),)
    assert split.links == ("-rdc=true", "-shared", "/f/0-a.o", "-o", "x.so")


def test_several_sources_go_where_nvcc_puts_them() -> None:
    split = split_nvcc(["-c", "a.cu", "b.cu"], "/f")
    assert split is not None
    assert split.compiles == (("-c", "a.cu", "-o", "a.o"), ("-c", "b.cu", "-o", "b.o"))
    assert split.links is None
    split = split_nvcc(["--compile", "--output-directory=d", "s/a.cu"], "/f")
    assert split is not None
    assert split.compiles == (("--compile", "s/a.cu", "-o", "d/a.o"),)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("-shared -arch=sm_60 --gpu-code sm_60 m.cpp -o x.so", "-shared m.cpp -o x.so"),
        ("-gencode arch=compute_60,code=sm_60 a.o -lk", "a.o -lk"),
        ("-gencode=arch=compute_60,code=sm_60 -c m.cc", "-c m.cc"),
    ],
)
def test_what_compiles_no_device_code_gets_other_architectures(words: str, expected: str) -> None:
    told = ["-gencode", "arch=compute_80,code=[sm_80]", "-gencode", "arch=compute_90,code=[sm_90]"]
    assert with_archs(words.split(), told[1::2]) == [*expected.split(), *told]


@pytest.mark.parametrize(
    "words",
    [
        "--version", "-arch=sm_60 a.cu m.cpp", "-arch=sm_60 -dc a.ptx", "-x cu -arch=sm_60 m.cpp",
        "-arch=sm_60 m.cpp -optf more", "-arch=sm_60 --list-gpu-code",
        "-arch=sm_60 -fatbin a.cubin -o a.fatbin",
    ],
)  # fmt: skip
def test_commands_with_device_code_keep_their_architectures(words: str) -> None:
    assert with_archs(words.split(), ["arch=compute_80,code=[sm_80]"]) == words.split()


@pytest.mark.parametrize(
    "words",
    [
        "-shared a.o -o x.so",
        "-c a.cu b.cpp",
        "-c a.cu b.cu -o x.o",
        "-E a.cu b.cu",
        "--ptx a.cu b.cu",
        "-shared a.cu -MD -o x.so",
        "-shared -x cu a.cu -o x.so",
        "-shared a.cu -optf more -o x.so",
        "--dryrun -shared a.cu",
        "--version",
    ],
)
def test_what_else_nvcc_does_is_not_taken_apart(words: str) -> None:
    assert split_nvcc(words.split(), "/f") is None
