"""Families of host compilers. Lines of `nvcc --dryrun` are nvcc 13.0's own, on Linux and on
Windows, with shorter folders; messages are those that the compilers' manuals list."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.compilers.hosts import Gcc, MsvcFamily, family_of

WINDOWS_LINE = (
    '#$ cl.exe > "keep/k.cpp4.ii" -D__CUDA_ARCH_LIST__=800 -nologo -E -TP -EHsc -D__CUDACC__  '
    r'"-IC:\cuda home\bin/../include"      -D "A=\"b c\"" -D__CUDACC_VER_MAJOR__=13 '
    '-FI "cuda_runtime.h" "k.cu" '
)
LINUX_LINE = (
    '#$ gcc-12 -D__CUDA_ARCH_LIST__=800 -E -x c++ -D__CUDACC__ -I"/cuda home/include" '
    '-D A="b" -include "cuda_runtime.h" -m64 "a.cu" -o "keep/a.cpp4.ii"'
)


@pytest.mark.parametrize(
    ("cxx", "family"),
    [
        ("/usr/bin/g++-12", Gcc),
        ("/opt/cl/bin/c++", Gcc),
        (r"C:\BuildTools\VC\Tools\MSVC\14.38.33130\bin\Hostx64\x64\cl.exe", MsvcFamily),
        ("CL.EXE", MsvcFamily),
    ],
)
def test_the_name_tells_the_family(cxx: str, family: type) -> None:
    assert isinstance(family_of(cxx), family)


def test_a_pass_on_windows_goes_through_a_redirection() -> None:
    assert MsvcFamily().pass_command(WINDOWS_LINE, r"C:\vs\cl.exe") == (
        [
            r"C:\vs\cl.exe", "-D__CUDA_ARCH_LIST__=800", "-nologo", "-E", "-TP", "-EHsc",
            "-D__CUDACC__", r"-IC:\cuda home\bin/../include", "-D", 'A="b c"',
            "-D__CUDACC_VER_MAJOR__=13", "-FI", "cuda_runtime.h", "k.cu",
        ],
        "keep/k.cpp4.ii",
    )  # fmt: skip


def test_a_pass_on_linux_goes_to_its_output() -> None:
    assert Gcc().pass_command(LINUX_LINE, "g++") == (
        [
            "gcc-12", "-D__CUDA_ARCH_LIST__=800", "-E", "-x", "c++", "-D__CUDACC__",
            "-I/cuda home/include", "-D", "A=b", "-include", "cuda_runtime.h", "-m64", "a.cu",
        ],
        "keep/a.cpp4.ii",
    )  # fmt: skip


@pytest.mark.parametrize("family", [Gcc(), MsvcFamily()])
@pytest.mark.parametrize(
    "line",
    [
        "k.cu",
        "#$ TOP=/cuda",
        '#$ ptxas -arch=sm_80 -m64 "keep/k.ptx"  -o "keep/k.sm_80.cubin" ',
        '#$ cl.exe -Fo"k.obj" -D__CUDA_ARCH__=800 -nologo -c -TP "keep/k.cudafe1.cpp" ',
        'error: -E it is not"',
    ],
)
def test_other_lines_are_no_passes(family: Gcc | MsvcFamily, line: str) -> None:
    assert family.pass_command(line, "cxx") is None


@pytest.mark.parametrize(
    "said",
    [
        r"C:\b\p\src\a.cpp(12): fatal error C1060: compiler is out of heap space",
        r"c:\b\p\a.h(7,3): fatal error C1076: compiler limit: internal heap limit reached",
        "cl : fatal error C1002: compiler is out of heap space in pass 2",
        r"C:\b\p\a.cpp(1): error C3859: Failed to create virtual memory for PCH",
        "nvcc error   : 'cicc' died with status 0xC0000017 ",
        "nvcc error   : 'cudafe++' died with status 0xC000012D ",
        "LLVM ERROR: out of memory",
        "ptxas fatal   : Memory allocation failure",
    ],
)
def test_ways_of_msvc_to_be_out_of_memory(said: str) -> None:
    assert MsvcFamily().out_of_memory.search(f"a.cu\n{said}\nmore\n")


@pytest.mark.parametrize(
    "said",
    [
        r"C:\b\p\src\a.cpp(12): error C2065: 'C1060': undeclared identifier",
        '    throw "a.cpp(1): fatal error C1060: compiler is out of heap space";',
        "nvcc error   : 'cicc' died with status 0xC0000005 (ACCESS_VIOLATION)",
        "a.cpp(3): fatal error C1083: Cannot open include file: 'a.h'",
    ],
)
def test_other_errors_of_msvc(said: str) -> None:
    assert not MsvcFamily().out_of_memory.search(f"a.cu\n{said}\nmore\n")


MAPPED = [(r"C:\env", "env"), (r"C:\b\demo-1.0\src", "demo-1.0")]


def test_objects_of_msvc_hold_neither_times_nor_paths() -> None:
    steady = MsvcFamily().steady(MAPPED, "seed")
    assert steady == [
        "-Brepro", "-experimental:deterministic", r"-pathmap:C:\env=env",
        r"-pathmap:C:\b\demo-1.0\src=demo-1.0",
    ]  # fmt: skip
    assert MsvcFamily().compile("cl.exe", [*steady, "-O2"], "a.cpp") == [
        "cl.exe", "-nologo", *steady, "-O2", "-c", "a.cpp",
    ]  # fmt: skip


def test_what_nvcc_for_windows_cannot_pass_on_is_left_out() -> None:
    folders = [(r"C:\cuda home", "cuda"), (r"C:\a,b", "env"), (r"C:\site", "site")]
    told = MsvcFamily().of_nvcc("cl.exe", MsvcFamily().steady(folders, "seed"))
    assert [word for word in told[-1].split(",") if "pathmap" in word] == [r"-pathmap:C:\site=site"]


def test_nvcc_passes_all_of_it_on() -> None:
    steady = MsvcFamily().steady(MAPPED, "seed")
    told = MsvcFamily().of_nvcc("cl.exe", steady)
    assert told[told.index("-Xcompiler") + 1].split(",") == steady
    assert "-ccbin" not in told, "nvcc.exe finds cl by PATH"
    steady = Gcc().steady(MAPPED, "seed")
    told = Gcc().of_nvcc("g++", steady)
    assert told[:2] == ["-ccbin", "g++"]
    assert told[2::2] == ["-Xcompiler"] * len(steady)
    assert told[3::2] == steady


def test_the_innermost_folder_names_a_file(tool: Callable[[str], str], tmp_path: Path) -> None:
    """By gcc's own word: it prints __FILE__, and readelf what debug information says."""
    source = tmp_path / "in" / "own.cpp"
    source.parent.mkdir()
    source.write_text('#include "own.h"\nconst char *own() { return __FILE__; }\n')
    source.with_name("own.h").write_text("inline const char *header() { return __FILE__; }\n")
    steady = Gcc().steady([(str(tmp_path), "."), (str(source.parent), "demo-1.0")], "seed")
    command = Gcc().compile(tool("g++"), [*steady, "-g"], str(source))
    subprocess.run([*command, "-o", "own.o"], cwd=tmp_path, check=True)
    data = (tmp_path / "own.o").read_bytes()
    assert b"demo-1.0/own.cpp\0" in data
    assert str(tmp_path).encode() not in data
    shown = subprocess.run(
        [tool("readelf"), "--debug-dump=info", "own.o"], cwd=tmp_path, check=True,
        capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert [line.split()[-1] for line in shown.splitlines() if "DW_AT_comp_dir" in line] == ["."]


def test_names_that_gcc_would_make_at_random_are_those_of_the_seed(
    tool: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "a.cpp").write_text("int a() { return 1; }\n")
    objects = []
    for seed in ("one", "one", "two"):
        steady = Gcc().steady([], seed)
        command = Gcc().compile(tool("g++"), [*steady, "-flto"], "a.cpp")
        subprocess.run([*command, "-o", "a.o"], cwd=tmp_path, check=True)
        objects.append((tmp_path / "a.o").read_bytes())
    assert objects[0] == objects[1] != objects[2]


def test_only_preprocessing_has_the_same_arguments() -> None:
    for family in (Gcc(), MsvcFamily()):
        command = family.preprocess("cxx", ["-DA", "-Ib"], "a.cpp")
        assert "-c" not in command
        assert command[-1] == "a.cpp"
        assert command[command.index("-DA") : command.index("-DA") + 2] == ["-DA", "-Ib"]
        assert "-E" in command


def test_texts_of_cl_may_name_a_job_s_folder() -> None:
    found = MsvcFamily().names_of_jobs(r"C:\b\scratch")
    assert found is not None
    for name in ("text-12ab-host", "0123456789ab"):
        text = rf'#line 1 "c:\\B\\scratch\\{name}\\fatwheel.h"'
        assert found.sub(b".", text.encode()) == rb'#line 1 ".\\fatwheel.h"'
    other = rb'#line 1 "C:\\b\\p-1\\src\\a.h"'
    assert found.sub(b".", other) == other
    assert Gcc().names_of_jobs("/tmp/scratch") is None, "gcc sees it through /proc/self/cwd"
