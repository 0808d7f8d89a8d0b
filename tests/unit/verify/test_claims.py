"""What a wheel says of itself: its name, tags, modules and libraries."""

from __future__ import annotations

import importlib.machinery
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import packaging.tags
import pytest

from fatwheel.arch import parse_arch
from fatwheel.fatbin.binary import AskedSymbol
from fatwheel.fatbin.embedded import Bound, EmbeddedCode, Images
from fatwheel.verify.claims import (
    Tag,
    import_findings,
    label_findings,
    libstdcxx_findings,
    module_findings,
    platform_findings,
    tags_of,
)
from fatwheel.verify.contents import Contents, Image
from fatwheel.verify.evidence import Evidence, Examined, examine
from fatwheel.verify.libraries import runtimes_of
from fatwheel.wheels.metadata import read_record


def evidence(
    version: str, *images: str, needs: tuple[str, ...] = (), embedded: tuple[str, ...] = ()
) -> Evidence:
    """A wheel whose only binary has these images: `sm_80`, `compute_80`; embedded: in its data."""
    found = tuple(
        Image("elf" if name.startswith("sm") else "ptx", parse_arch(name), 1, "") for name in images
    )
    held = tuple(Images("elf", parse_arch(name), False, 1, 1) for name in embedded)
    places = (EmbeddedCode(".data", 1, 0, 1, held),) if embedded else ()
    contents = Contents("a.so", "elf", "x86_64", 1, found, (), places)
    return Evidence(
        "a.whl", "a", version, (), "a-1.dist-info", b"", b"", read_record("RECORD", b""), {},
        (Examined(contents, True, needs, frozenset(), ()),), (),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("version", "images"),
    [
        ("1.0+sm80", ["sm_80"]),
        ("1.0+cu130torch2.11.sm80.sm86.sm89", ["sm_80", "sm_86", "sm_89"]),
        ("1.0+sm80.ptx.sm90a", ["sm_80", "compute_80", "sm_90a"]),
        ("1.0+ptx50.sm120f", ["compute_50", "sm_120f"]),
        ("1.0+torch2.11.ptx80", ["compute_80"]),
        ("1.0+cu130", ["sm_80"]),
        ("1.0", ["sm_80", "sm_90"]),
        ("1.0+ptx", ["sm_80"]),
        ("1.0+small80.xsm90", ["sm_75"]),
    ],
)
def test_labels_that_are_right_or_name_nothing(version: str, images: list[str]) -> None:
    assert [
        one for one in label_findings(evidence(version, *images)) if one.severity != "note"
    ] == []


@pytest.mark.parametrize(
    ("version", "images", "details"),
    [
        ("1.0+sm80", ["sm_86"], ["only in the version: sm_80", "only inside: sm_86"]),
        ("1.0+sm80", [], ["only in the version: sm_80"]),
        ("1.0+sm90", ["sm_90a"], ["only in the version: sm_90", "only inside: sm_90a"]),
        ("1.0+sm89.ptx", ["sm_89"], ["only in the version: compute_89"]),
        ("1.0+ptx80", ["sm_80"], ["only in the version: compute_80", "only inside: sm_80"]),
        ("1.0+cu130.sm80", ["sm_80", "compute_80"], ["only inside: compute_80"]),
    ],
)
def test_labels_that_are_wrong(version: str, images: list[str], details: list[str]) -> None:
    [finding] = label_findings(evidence(version, *images))
    assert finding.severity == "wrong"
    assert list(finding.details) == details


def test_only_a_variant_s_label_allows_for_fewer_architectures() -> None:
    """A variant.json alone is a file that any wheel can have."""
    name = "a-1.0+sm80.sm90-py3-none-linux_x86_64.whl"
    plain = replace(evidence("1.0+sm80.sm90", "sm_80"), variant=b"{}", filename=name)
    [finding] = label_findings(plain)
    assert list(finding.details) == ["only in the version: sm_90"]
    filename = name.replace(".whl", "-cu120_sm80.whl")
    assert [one.severity for one in label_findings(replace(plain, filename=filename))] == []


@pytest.mark.parametrize(
    ("version", "wrong", "untold"),
    [
        ("1.0+sm80", [], ["sm_75", "sm_90"]),
        ("1.0+sm75.sm80.sm90", [], []),
        ("1.0+sm80.sm90", [], ["sm_75"]),
        ("1.0+sm75.sm90", ["only inside: sm_80"], []),
        ("1.0+sm80.sm86", ["only in the version: sm_86"], ["sm_75", "sm_90"]),
    ],
)
def test_a_label_may_name_what_libraries_load_themselves(
    version: str, wrong: list[str], untold: list[str]
) -> None:
    found = list(label_findings(evidence(version, "sm_80", embedded=("sm_75", "sm_90"))))
    assert [line for one in found if one.severity == "wrong" for line in one.details] == wrong
    assert [line for one in found if one.severity == "note" for line in one.details] == untold


@pytest.mark.parametrize(
    ("version", "library", "wrong"),
    [
        ("1.0+cu130", "libcudart.so.13", False),
        ("1.0+cu130torch2.11", "libcudart.so.12", True),
        ("1.0+cu12torch2.3cxx11abiFALSE", "libcudart.so.12", False),
        ("1.0+cu118", "cudart64_110.dll", False),
        ("1.0+cu118", "cudart64_12.dll", True),
        ("1.0+cu130", "libc.so.6", False),
        ("1.0+torch2.11", "libcudart.so.12", False),
    ],
)
def test_cuda_in_a_label(version: str, library: str, wrong: bool) -> None:
    found = label_findings(evidence(version, needs=(library,)))
    assert [one.severity for one in found] == (["wrong"] if wrong else []) + ["note"]


def evidence_with(*tags: str, binaries: tuple[Examined, ...] = ()) -> Evidence:
    record = read_record("RECORD", b"")
    return Evidence(
        "a.whl", "a", "1", tags, "a-1.dist-info", b"", b"", record, {}, binaries, ()
    )  # fmt: skip


def library(
    path: str, format_: str = "elf", machine: str = "x86_64", *exports: str, linked: bool = True
) -> Examined:
    contents = Contents(path, format_, machine, 0, (), ())
    return Examined(contents, linked, (), frozenset(exports), ())


@pytest.mark.parametrize(
    ("platform", "system"),
    [
        ("win_amd64", ("Windows", "x86_64")),
        ("win32", ("Windows", "x86")),
        ("win_arm64", ("Windows", "aarch64")),
        ("linux_x86_64", ("Linux", "x86_64")),
        ("linux_aarch64", ("Linux", "aarch64")),
        ("linux_i686", ("Linux", "x86")),
        ("linux_armv7l", ("Linux", "arm")),
        ("manylinux1_x86_64", ("Linux", "x86_64")),
        ("manylinux2014_aarch64", ("Linux", "aarch64")),
        ("manylinux_2_28_x86_64", ("Linux", "x86_64")),
        ("manylinux_2_17_ppc64le", ("Linux", "ppc64")),
        ("musllinux_1_2_x86_64", ("Linux", "x86_64")),
        ("macosx_11_0_arm64", None),
        ("any", None),
    ],
)
def test_what_a_platform_stands_for(platform: str, system: tuple[str, str] | None) -> None:
    assert Tag("cp311", "cp311", platform).system == system


def test_every_tag_of_this_system_is_known() -> None:
    platforms = {tag.platform for tag in packaging.tags.sys_tags()} - {"any"}
    machine = sysconfig.get_platform().partition("-")[2]
    if not machine.startswith("x86"):
        pytest.skip("tags of other machines are in the table above")
    odd = {
        p for p in platforms if Tag("", "", p).system not in (("Linux", "x86_64"), ("Linux", "x86"))
    }
    assert odd == set()


def test_compressed_tags_are_taken_apart() -> None:
    found = tags_of(evidence_with("cp38.cp39-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64"))
    assert {tag.python for tag in found} == {"cp38", "cp39"}
    assert len(found) == 4


@pytest.mark.parametrize(
    ("tag", "format_", "machine", "fits"),
    [
        ("py3-none-win_amd64", "pe", "x86_64", True),
        ("py3-none-win_amd64", "coff", "x86_64", True),
        ("py3-none-win_amd64", "pe", "x86", False),
        ("py3-none-win_amd64", "elf", "x86_64", False),
        ("py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64", "elf", "x86_64", True),
        ("py3-none-linux_x86_64", "pe", "x86_64", False),
        ("py3-none-any", "elf", "x86_64", False),
        ("py3-none-any", "fatbin", "cuda", True),
        ("py3-none-win_amd64", "cubin", "cuda", True),
    ],
)
def test_binaries_must_fit_every_platform(tag: str, format_: str, machine: str, fits: bool) -> None:
    found = list(platform_findings(evidence_with(tag, binaries=(library("x", format_, machine),))))
    assert [finding.severity for finding in found] == ([] if fits else ["wrong"])


@pytest.mark.parametrize(
    ("path", "machine", "severity"),
    [
        ("demo/attach_x86.so", "x86", "note"),
        ("demo/attach_x86", "x86", "note"),
        ("demo/attach_arm.so", "arm", "wrong"),
        ("demo/_C.cpython-311-i386-linux-gnu.so", "x86", "wrong"),
    ],
)
def test_programs_for_32_bits_may_stand_beside_others(
    path: str, machine: str, severity: str
) -> None:
    """debugpy has libraries for both kinds of processes."""
    both = (library("demo/_C.so"), library(path, machine=machine))
    [found] = platform_findings(evidence_with("cp311-cp311-linux_x86_64", binaries=both))
    assert (found.severity, found.where) == (severity, path)


WINDOWS, LINUX, STABLE = (
    "cp311-cp311-win_amd64", "cp311-cp311-linux_x86_64", "cp38-abi3-linux_x86_64",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "export", "tag", "severities"),
    [
        ("a/_C.cp311-win_amd64.pyd", "PyInit__C", WINDOWS, []),
        ("a/_C.cp311-win_amd64.pyd", "", WINDOWS, ["wrong"]),
        ("a/_C.cp310-win_amd64.pyd", "PyInit__C", WINDOWS, ["wrong"]),
        ("a/_C.cp311-win32.pyd", "PyInit__C", WINDOWS, ["wrong"]),
        ("a/_C_d.cp311-win_amd64.pyd", "PyInit__C", WINDOWS, []),
        ("a/_C.pyd", "PyInit__C", WINDOWS, []),
        ("a/_C.pyd", "", WINDOWS, ["note"]),
        ("a/_C.pyd", "PyInit_other", WINDOWS, ["warning"]),
        ("a/cudart64_12.dll", "", WINDOWS, []),
        ("_C.cpython-311-x86_64-linux-gnu.so", "PyInit__C", LINUX, []),
        ("_C.cpython-311-x86_64-linux-musl.so", "PyInit__C", LINUX, []),
        ("_C.cpython-311-aarch64-linux-gnu.so", "PyInit__C", LINUX, ["wrong"]),
        ("_C.cpython-311.so", "PyInit__C", LINUX, []),
        ("_C.abi3.so", "PyInit__C", LINUX, []),
        ("_C.abi3.so", "PyInit__C", STABLE, []),
        ("_C.abi3.so", "", STABLE, ["wrong"]),
        ("_C.cpython-38-x86_64-linux-gnu.so", "PyInit__C", STABLE, ["wrong"]),
        ("_C.cpython-313t-x86_64-linux-gnu.so", "PyInit__C", "cp313-cp313t-linux_x86_64", []),
        ("_C.cpython-313-x86_64-linux-gnu.so", "PyInit__C", "cp313-cp313t-linux_x86_64", ["wrong"]),
        ("_C.cpython-311-x86_64-linux-gnu.so", "PyInit__C", "py3-none-linux_x86_64", ["warning"]),
        ("libfoo.so", "", LINUX, []),
        ("libfoo.so.1", "", LINUX, []),
        ("a/.libs/libfoo-1234abcd.so.1.2", "", LINUX, []),
        # The examples of PEP 489.
        ("lančmít.cpython-311.so", "PyInitU_lanmt_2sa6t", LINUX, []),
        ("スパム.cpython-311.so", "PyInitU_zck5b2b", LINUX, []),
        ("lančmít.cpython-311.so", "PyInit_lančmít", LINUX, ["warning"]),
    ],
)
def test_what_is_named_as_a_module_must_be_one(
    name: str, export: str, tag: str, severities: list[str]
) -> None:
    exports = (export,) if export else ()
    module = replace(
        library(name, "pe" if "win" in tag else "elf", "x86_64", *exports),
        asked=(AskedSymbol("PyModule_Create2"),),
    )
    found = list(module_findings(evidence_with(tag, binaries=(module,))))
    assert [finding.severity for finding in found] == severities, found


def test_a_library_that_calls_nothing_of_python_is_for_ctypes() -> None:
    """As pyvkfft's: setuptools names whatever it links as a module of its Python."""
    module = library("a/_C.cpython-311-x86_64-linux-gnu.so", "elf", "x86_64")
    [found] = module_findings(evidence_with(LINUX, binaries=(module,)))
    assert found.severity == "warning"
    assert "ctypes can load it" in found.what


@pytest.mark.parametrize(
    ("export", "said"),
    [
        ("", ["warning: it cannot be imported"]),
        ("PyInit__C", ["wrong: only cp310 loads it, the wheel is for cp38-abi3"]),
    ],
)
def test_what_torch_loads_may_be_named_for_another_python(export: str, said: list[str]) -> None:
    """As _C_mxfp8 in torchao: torch.ops.load_library goes by the file's name as a whole."""
    exports = (export,) if export else ()
    module = replace(
        library("a/_C.cpython-310-x86_64-linux-gnu.so", "elf", "x86_64", *exports),
        imports=("libtorch_cpu.so",),
    )
    found = module_findings(evidence_with(STABLE, binaries=(module,)))
    assert [f"{one.severity}: {one.what.partition(':')[0]}" for one in found] == said


def test_every_suffix_of_this_python_is_that_of_a_module() -> None:
    """Without an initialiser, each of them must be spoken of."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        module = library(f"thing{suffix}")
        assert list(module_findings(evidence_with(STABLE, binaries=(module,)))), suffix


def test_objects_are_no_modules() -> None:
    module = library("_C.cpython-310.so", linked=False)
    [finding] = module_findings(evidence_with(LINUX, binaries=(module,)))
    assert (finding.severity, finding.where) == ("wrong", "_C.cpython-310.so")
    assert "it is not a library" in finding.what


def test_a_runtime_of_an_endless_version_is_unknown() -> None:
    assert runtimes_of(["libcudart.so.12", f"libcudart.so.{'9' * 5000}"], ()) == {"12"}


@pytest.mark.parametrize(
    ("requires", "library_", "package"),
    [
        ("", "libcudart.so.13", "nvidia-cuda-runtime,"),
        ("numpy", "libcudart.so.12", "nvidia-cuda-runtime-cu12,"),
        ("no requirement at all ==", "cudart64_110.dll", "nvidia-cuda-runtime-cu11,"),
        ("torch==2.11.*", "libcudart.so.13", ""),
        ("Nvidia_CUDA.runtime~=13.0", "libcudart.so.13", ""),
        ("nvidia-cublas-cu12", "libcudart.so.12", ""),  # which requires the runtime itself
        ("", "libcublas.so.13", ""),
        ("", "libc.so.6", ""),
    ],
)
def test_a_runtime_that_no_package_brings(requires: str, library_: str, package: str) -> None:
    binary = replace(library("a/_C.so"), imports=(library_,))
    metadata = f"Name: a\nVersion: 1\nRequires-Dist: {requires}\n".encode()
    held = replace(evidence_with(LINUX, binaries=(binary,)), metadata=metadata)
    found = [one for one in import_findings(held) if one.severity == "warning"]
    assert len(found) == bool(package)
    if package:
        assert f"Right would be Requires-Dist: {package}" in found[0].details[0]


def test_a_runtime_in_the_wheel_is_brought() -> None:
    binary = replace(library("a/_C.so"), imports=("libcudart.so.13",))
    files: Any = {"a/libcudart.so.13": None}
    held = replace(evidence_with(LINUX, binaries=(binary,)), files=files)
    assert not [one for one in import_findings(held) if one.severity == "warning"]


# -- libstdc++ in libraries ------------------------------------------------------------------------

STREAMS = """
#include <sstream>
extern "C" int digits(int number) {
  std::ostringstream written;
  written << number;
  return written.str().size();
}
"""
DIGITS = "import ctypes, sys; print([ctypes.CDLL(path).digits(12345) for path in sys.argv[1:]])"


@pytest.mark.parametrize(
    ("options", "works"),
    [
        ([], True),
        (["-static-libstdc++"], False),
        (["-static-libstdc++", "-Wl,--exclude-libs,libstdc++.a"], True),
    ],
)
def test_libraries_whose_streams_another_libstdcxx_breaks(
    options: list[str], works: bool, tool: Callable[[str], str], tmp_path: Path
) -> None:
    """What is warned of is what happens."""
    (tmp_path / "a.cpp").write_text(STREAMS)
    usual, asked = tmp_path / "usual.so", tmp_path / "asked.so"
    for made, more in ((usual, []), (asked, options)):
        command = [tool("g++"), "-shared", "-fPIC", tmp_path / "a.cpp", *more, "-o", made]
        subprocess.run(command, check=True)
    ran = subprocess.run(
        [sys.executable, "-c", DIGITS, usual, asked], capture_output=True, text=True, check=False
    )
    assert (ran.stdout == "[5, 5]\n") == works, ran
    examined = examine("a/_C.so", memoryview(asked.read_bytes()), Bound())
    found = list(libstdcxx_findings(evidence_with(LINUX, binaries=(examined,))))
    assert [one.severity for one in found] == ([] if works else ["warning"])


def test_libstdcxx_itself_is_not_warned_of() -> None:
    """As auditwheel names it, too."""
    names = ("libstdc++.so.6", "libstdc++-a1b2c3d4.so.6.0.30", "libstdc++.so")
    held = [replace(library(f"a.libs/{name}"), offers_libstdcxx=True) for name in names]
    assert not list(libstdcxx_findings(evidence_with(LINUX, binaries=tuple(held))))
