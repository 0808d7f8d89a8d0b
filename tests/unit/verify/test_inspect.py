"""`inspect_file` on small files; tests/integration/test_inspect.py has the real ones."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from fatwheel.arch import parse_capability
from fatwheel.edit.thin import thin
from fatwheel.errors import FormatError, UsageError
from fatwheel.fatbin.images import Selection
from fatwheel.verify.inspect import inspect_file, inspect_units

from ...helpers.datasections import elf_library
from ...helpers.deviceimages import TWO, compute, container, sm
from ...helpers.elflibraries import LIBRARY, RELOCATABLE, link
from ...helpers.schemas import schema_of

DATA = Path(__file__).parents[2] / "data" / "device"
SCHEMA = schema_of("inspect")
# A container without images.
EMPTY = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, 0)
DIST_INFO = {
    "thing-1.dist-info/METADATA": b"Name: thing\nVersion: 1\n",
    "thing-1.dist-info/WHEEL": b"Tag: py3-none-any\n",
    "thing-1.dist-info/RECORD": b"",
}


def inspect(path: Path) -> dict[str, Any]:
    """Inspect a file, and check the result against the schema."""
    return valid(inspect_file(path))


def valid(report: dict[str, Any]) -> dict[str, Any]:
    jsonschema.validate(report, SCHEMA, jsonschema.Draft202012Validator)
    return report


def wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in {**files, **DIST_INFO}.items():
            out.writestr(name, data)
    return path


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_a_fatbin() -> None:
    report = inspect(DATA / "zstd.fatbin")
    assert report["file"] == "zstd.fatbin"
    assert report["wheel"] is None
    # Stored sizes as fatbinary wrote them into the headers (u32 at 0x10 of each entry).
    assert report["binaries"] == [
        {
            "path": "zstd.fatbin",
            "format": "fatbin",
            "machine": "cuda",
            "containers": 1,
            "kernels": 2,
            "images": [
                {"kind": "elf", "arch": "sm_80", "count": 1, "bytes": 894, "compressed": True},
                {"kind": "ptx", "arch": "compute_80", "count": 1, "bytes": 211, "compressed": True},
                {"kind": "elf", "arch": "sm_90a", "count": 1, "bytes": 965, "compressed": True},
                {"kind": "elf", "arch": "sm_120f", "count": 1, "bytes": 1333, "compressed": True},
            ],
            "coverage": report["coverage"],
            "units_served": report["units_served"],
            "drivers": report["binaries"][0]["drivers"],
        }
    ]
    # Made by CUDA 13.0; a Jetson's driver (8.7, 11.0) is another.
    assert report["binaries"][0]["drivers"] == {
        gpu: {"driver": "580", "kind": "cuda", "reason": "CUDA 13"}
        if gpu not in ("10.0", "10.3")
        else {"driver": "580", "kind": "ptx", "reason": "PTX 9.0"}
        for gpu in ("8.0", "8.6", "8.9", "9.0", "10.0", "10.3", "12.0", "12.1")
    }
    # sm_80 serves all of 8.x, 90a exactly 9.0, 120f the family 12.x; compute_80 the rest.
    assert report["coverage"] == {
        "7.5": "none",
        "8.0": "native",
        "8.6": "native",
        "8.7": "native",
        "8.9": "native",
        "9.0": "native",
        "10.0": "jit",
        "10.3": "jit",
        "11.0": "jit",
        "12.0": "native",
        "12.1": "native",
    }
    assert report["units_served"]["8.6"] == {"native": 1, "jit": 0, "none": 0}
    assert report["units_served"]["9.0"] == {"native": 1, "jit": 0, "none": 0}


@pytest.mark.parametrize("name", ["lz4", "none"])
def test_compression_changes_only_the_sizes(name: str) -> None:
    report, other = inspect(DATA / f"{name}.fatbin"), inspect(DATA / "zstd.fatbin")
    assert report["coverage"] == other["coverage"]
    assert report["binaries"][0]["kernels"] == 2
    assert {image["compressed"] for image in report["binaries"][0]["images"]} == {name == "lz4"}


def test_a_cubin() -> None:
    report = inspect(DATA / "cuda12.4-sm_90a.cubin")
    (binary,) = report["binaries"]
    assert (binary["format"], binary["machine"]) == ("cubin", "cuda")
    assert (binary["containers"], binary["kernels"]) == (0, 2)
    assert [image["arch"] for image in binary["images"]] == ["sm_90a"]
    served = [capability for capability, how in report["coverage"].items() if how != "none"]
    assert served == ["9.0"]


def test_the_file_name_decides_nothing(tmp_path: Path) -> None:
    for name, source in [("a.whl", "zstd.fatbin"), ("b.fatbin", "large.cubin")]:
        shutil.copy(DATA / source, tmp_path / name)
        binary = inspect(tmp_path / name)["binaries"][0]
        assert binary["format"] == source.rpartition(".")[2]


def test_a_wheel_lists_every_binary_and_counts_those_with_code(tmp_path: Path) -> None:
    host = Path(sys.executable).resolve().read_bytes()
    files = {
        "thing/__init__.py": b"# not a binary",
        "thing/plain.so": host,
        "thing/data.fatbin": (DATA / "lz4.fatbin").read_bytes(),
        "thing/one.cubin": (DATA / "cuda13.0-sm_90a.cubin").read_bytes(),
    }
    report = inspect(wheel(tmp_path / "odd name.zip", files))
    assert report["wheel"] == {"name": "thing", "version": "1", "tags": ["py3-none-any"]}
    assert [(b["path"], b["containers"], b["kernels"]) for b in report["binaries"]] == [
        ("thing/plain.so", 0, 0),
        ("thing/data.fatbin", 1, 2),
        ("thing/one.cubin", 0, 2),
    ]
    # Nobody can tell when the library loads its data files, whatever these could run on.
    assert set(report["coverage"].values()) == {"unknown"}
    assert report["units_served"]["8.0"] == {"native": 0, "jit": 0, "none": 0}
    assert [binary["coverage"]["8.0"] for binary in report["binaries"]] == [
        "none", "native", "none",
    ]  # fmt: skip
    assert [binary["coverage"]["9.0"] for binary in report["binaries"]] == [
        "none", "native", "native",
    ]  # fmt: skip


def test_a_wheel_without_cuda_serves_nothing(tmp_path: Path) -> None:
    report = inspect(wheel(tmp_path / "a.whl", {"a.py": b""}))
    assert report["binaries"] == []
    assert set(report["coverage"].values()) == {"none"}


def test_what_code_was_linked_from_is_told_by_its_kernels(
    tmp_path: Path, tool: Callable[[str], str]
) -> None:
    (tmp_path / "linked.bin").write_bytes(container(sm(80, TWO)))
    (tmp_path / "relocatable_one.bin").write_bytes(container(sm(80, TWO), compute(80, TWO)))
    (tmp_path / "relocatable_two.bin").write_bytes(container(sm(80, {}), compute(80, [])))
    for others, served in ((container(), "jit"), (container(sm(80)), "part")):
        data = link(tool, tmp_path, LIBRARY, first=others, second=container(), more=RELOCATABLE)
        (tmp_path / "linked.so").write_bytes(data)
        report = inspect(tmp_path / "linked.so")
        assert report["coverage"]["8.0"] == "native"
        assert report["coverage"]["9.0"] == served


def test_code_among_data_is_listed_by_section(tmp_path: Path) -> None:
    """Sizes are those of its file and, without padding, of the headers that fatbinary wrote."""
    fatbin = (DATA / "zstd.fatbin").read_bytes()
    library = elf_library({".rodata": b"text" + fatbin, ".text": b"code"})
    (tmp_path / "a.so").write_bytes(library)
    report = inspect(tmp_path / "a.so")
    [binary] = report["binaries"]
    assert (binary["containers"], binary["images"]) == (0, [])
    assert binary["embedded"] == [
        {
            "place": ".rodata",
            "containers": 1,
            "cubins": 0,
            "bytes": len(fatbin),
            "images": [
                {"kind": "elf", "arch": "sm_80", "count": 1, "bytes": 894, "compressed": True},
                {"kind": "ptx", "arch": "compute_80", "count": 1, "bytes": 211, "compressed": True},
                {"kind": "elf", "arch": "sm_90a", "count": 1, "bytes": 965, "compressed": True},
                {"kind": "elf", "arch": "sm_120f", "count": 1, "bytes": 1333, "compressed": True},
            ],
        }
    ]
    assert set(report["coverage"].values()) == {"unknown"}
    again = inspect(wheel(tmp_path / "a.whl", {"thing/a.so": library}))
    assert again["coverage"] == report["coverage"]
    assert again["binaries"][0]["embedded"] == binary["embedded"]


def test_relocatable_code_is_listed_beside_what_was_linked_from_it(tmp_path: Path) -> None:
    linked, relocatable = container(sm(80, TWO)), container(compute(80, TWO))
    library = elf_library({".nv_fatbin": linked, "__nv_relfatbin": relocatable + relocatable})
    (tmp_path / "a.so").write_bytes(library)
    [binary] = inspect(tmp_path / "a.so")["binaries"]
    [place] = binary["relocatable"]
    assert (place["place"], place["containers"]) == ("__nv_relfatbin", 2)
    assert place["bytes"] == 2 * len(relocatable)
    assert [(image["arch"], image["count"]) for image in place["images"]] == [("compute_80", 2)]
    assert "embedded" not in binary
    assert binary["coverage"]["9.0"] == "jit"


def test_containers_without_kernels_are_ignored(tmp_path: Path) -> None:
    """A second container holds only PTX without entries, for compute_90."""
    text = b".version 8.0\n.target sm_90\n.address_size 64\n"
    entry = struct.pack(
        "<HHIQIIHHIIIQQQ", 1, 0x101, 64, len(text), 0, 0, 0, 8, 90, 0, 0, 0x11, 0, 0
    )
    size = len(entry) + len(text)
    extra = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, size) + entry + text
    (tmp_path / "a.fatbin").write_bytes((DATA / "none.fatbin").read_bytes() + extra)
    report = inspect(tmp_path / "a.fatbin")
    assert report["binaries"][0]["containers"] == 2
    assert report["coverage"]["8.0"] == "native"


def test_units_are_containers_with_their_kernels_and_images(tmp_path: Path) -> None:
    path = tmp_path / "a.fatbin"
    path.write_bytes(
        (DATA / "none.fatbin").read_bytes() + EMPTY + (DATA / "lz4.fatbin").read_bytes()
    )
    report = valid(inspect_units(path))
    first, second = report["binaries"][0].pop("units")
    assert report == inspect(path), "--units may only add to the report"
    # The empty container between the two has the number 1, and no kernels.
    assert (first["container"], second["container"]) == (0, 2)
    assert first["kernels"] == second["kernels"] == ["$empty", "scale"]
    images = [("elf", "sm_80"), ("ptx", "compute_80"), ("elf", "sm_90a"), ("elf", "sm_120f")]
    for unit, compressions in ((first, {""}), (second, {"lz4"})):
        assert [(image["kind"], image["arch"]) for image in unit["images"]] == images
        assert {image["compression"] for image in unit["images"]} == compressions


def test_a_cubin_is_a_unit_outside_of_any_container() -> None:
    report = valid(inspect_units(DATA / "cuda12.4-sm_90a.cubin"))
    (unit,) = report["binaries"][0]["units"]
    assert (unit["container"], unit["kernels"]) == (None, ["$empty", "scale"])


def test_units_of_a_wheel_are_with_their_binary(tmp_path: Path) -> None:
    data = (DATA / "zstd.fatbin").read_bytes()
    report = valid(inspect_units(wheel(tmp_path / "a.whl", {"a/x.bin": data, "a/y.bin": data * 2})))
    assert [len(binary["units"]) for binary in report["binaries"]] == [1, 2]
    assert report["binaries"][0]["units"][0]["images"][0]["compression"] == "zstd"


@pytest.mark.parametrize(
    ("compiler", "name", "format_"),
    [("x86_64-w64-mingw32-gcc", "a.dll", "pe"), ("x86_64-w64-mingw32-gcc", "a.obj", "coff")],
)
def test_files_of_windows(
    tmp_path: Path, tool: Callable[[str], str], compiler: str, name: str, format_: str
) -> None:
    (tmp_path / "a.s").write_text(
        f'.section .nv_fatb,"dr"\n.incbin "{DATA / "lz4.fatbin"}"\n'
        ".section .text\n.globl DllMainCRTStartup\nDllMainCRTStartup: mov $1, %eax\nret\n"
    )
    mode = ["-shared", "-nostdlib"] if format_ == "pe" else ["-c"]
    subprocess.run([tool(compiler), *mode, "a.s", "-o", name], cwd=tmp_path, check=True)
    (binary,) = inspect(tmp_path / name)["binaries"]
    assert (binary["format"], binary["machine"]) == (format_, "x86_64")
    assert (binary["containers"], binary["kernels"]) == (1, 2)


def test_a_linked_binary_counts_its_executable_code(
    tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """As cuobjdump does: `.nv_fatbin` if there is one, else `__nv_relfatbin`."""
    template = '.section {},"a"\n.incbin "{}"\n'
    both = template.format(".nv_fatbin", DATA / "lz4.fatbin")
    relocatable = template.format("__nv_relfatbin", DATA / "none.fatbin")
    for name, text, compressed in [
        ("both", both + relocatable, True),
        ("relocatable", relocatable, False),
    ]:
        (tmp_path / f"{name}.s").write_text(text)
        command = [tool("as"), f"{name}.s", "-o", f"{name}.o"]
        subprocess.run(command, cwd=tmp_path, check=True)
        (binary,) = inspect(tmp_path / f"{name}.o")["binaries"]
        assert (binary["format"], binary["containers"], binary["kernels"]) == ("elf", 1, 2)
        assert {image["compressed"] for image in binary["images"]} == {compressed}


def test_two_fatbin_sections_are_refused(tmp_path: Path, tool: Callable[[str], str]) -> None:
    """A group makes the assembler write a second section of the same name."""
    text = (
        '.section .nv_fatbin,"a"\n.byte 0\n.section .nv_fatbin,"aG",@progbits,g,comdat\n.byte 0\n'
    )
    (tmp_path / "a.s").write_text(text)
    subprocess.run([tool("as"), "a.s", "-o", "a.o"], cwd=tmp_path, check=True)
    with pytest.raises(FormatError, match=r"2 sections named \.nv_fatbin"):
        inspect_file(tmp_path / "a.o")


PE = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + bytes(100)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello, world\n", "not a kind of file"),
        (b"MZ is how this text begins", "not a kind of file"),
        (PE, "header .* malformed"),
        (b"!<arch>\n", "static libraries"),
        (b"\x7fELF\x01\x01" + bytes(60), "64-bit"),
        (b"\x7fELF", "cut off"),
        (b"PK\x03\x04", "cut off"),
        (b"\x50\xed\x55\xba", "cut off"),
        ((DATA / "lz4.fatbin").read_bytes()[:-1], "claims"),
        ((DATA / "large.cubin").read_bytes()[:15_000], "cut off"),
    ],
    ids=range(11),
)
def test_other_and_damaged_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "file.so"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=message) as caught:
        inspect_file(path)
    assert str(caught.value.where).startswith(str(path))


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    for data in (PE, b"\x7fELF\x01\x01" + bytes(60)):
        path = wheel(tmp_path / "a.whl", {"thing/x.pyd": data})
        with pytest.raises(FormatError) as caught:
            inspect_file(path)
        assert caught.value.where == f"{path}: thing/x.pyd"


@pytest.mark.parametrize("name", ["lz4", "zstd"])
def test_damaged_compression_is_refused(tmp_path: Path, name: str) -> None:
    data = bytearray((DATA / f"{name}.fatbin").read_bytes())
    data[16 + 64 : 16 + 64 + 40] = b"\xff" * 40  # the start of the first image
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(FormatError) as caught:
        inspect_file(tmp_path / "a")
    assert "fatbin container at offset 0x0" in str(caught.value.where)


def test_claims_of_too_much_are_refused(tmp_path: Path) -> None:
    data = bytearray((DATA / "zstd.fatbin").read_bytes())
    struct.pack_into("<Q", data, 16 + 0x38, 1 << 60)  # uncompressed size of the first image
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(FormatError, match="claim to be"):
        inspect_file(tmp_path / "a")


def test_a_missing_file_is_wrong_use(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.so", tmp_path):
        with pytest.raises(UsageError, match="cannot read this file"):
            inspect_file(path)


# -- what thin would save --------------------------------------------------------------------------


def test_savings_are_what_thin_leaves_out(tmp_path: Path) -> None:
    """To the byte in files that are nothing but device code, whose containers have no padding."""
    two = [sm(80, TWO), sm(86, TWO), sm(90, TWO), compute(80, TWO)]
    whole = container(sm(80), sm(90), compute(90)) + container(*two) + container(sm(80), sm(80))
    path = tmp_path / "a.fatbin"
    path.write_bytes(whole)
    report = inspect(path)
    assert report["size_unpacked"] == len(whole)
    assert set(report["thinned"]) == {c for c, how in report["coverage"].items() if how != "none"}
    for capability, found in report["thinned"].items():
        selection = Selection((parse_capability(capability),), partial=True)
        left = thin(path, selection, tmp_path / "out").size
        assert found["saves"] == len(whole) - left, capability
        assert found["percent"] == round(100 * (len(whole) - left) / len(whole), 1)
    assert report["thinned"]["8.9"]["saves"] > report["thinned"]["8.0"]["saves"] - 300


def test_savings_of_a_wheel_are_of_its_unpacked_files(tmp_path: Path) -> None:
    one, other = container(sm(80), sm(90)), container(sm(80, TWO), sm(90, TWO))
    files = {"a/x.fatbin": one, "a/y.fatbin": other, "a/text": bytes(9999)}
    report = inspect(wheel(tmp_path / "a.whl", files))
    total = sum(map(len, {**files, **DIST_INFO}.values()))
    assert report["size_unpacked"] == total
    saves = len(sm(90)) + len(sm(90, TWO))
    assert report["thinned"]["8.6"] == {"saves": saves, "percent": round(100 * saves / total, 1)}
    assert set(report["thinned"]) == {"8.0", "8.6", "8.7", "8.9", "9.0"}


def test_nothing_can_be_left_out_of_a_cubin(tmp_path: Path) -> None:
    assert inspect(DATA / "cuda12.4-sm_90a.cubin")["thinned"] == {}
    path = tmp_path / "empty.fatbin"
    path.write_bytes(EMPTY)
    assert inspect(path)["thinned"] == {}
