"""Proofs: what they compare, checked with pyelftools, and what they allow."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from fatwheel.arch import Arch, parse_arch
from fatwheel.config.recipe import Patch, Recipe, SourcePin, UnitArchs
from fatwheel.errors import ConfigError, StoreError, UpstreamError
from fatwheel.fatbin.container import Entry, parse_containers
from fatwheel.model import Front, Unit
from fatwheel.pipeline.proof import (
    Proof,
    UnitProof,
    Way,
    check_names,
    compare,
    find_proofs,
    proof_path,
    read_proof,
    select_units,
    source_id,
    write_proof,
)

from ...helpers.plaintargets import plain_recipe, plain_toolchain
from ...helpers.standins import DATA, cpp_unit, cuda_unit
from ...helpers.tinywheels import Draft


def cubin(name: str) -> bytes:
    return (DATA / f"{name}.cubin").read_bytes()


def entry(image: bytes, number: int = 80) -> Entry:
    header = (2, 0x101, 64, len(image), 0, 0, 0, 0, number, 0, 0, 0x11, 0, 0)
    raw = struct.pack("<HHIQIIHHIIIQQQ", *header) + image
    (container,) = parse_containers(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(raw)) + raw)
    return container.entries[0]


def code(image: bytes) -> dict[str, bytes]:
    """Kernel → machine code, by pyelftools."""
    elf = ELFFile(io.BytesIO(image))
    sections = {section.name: section.data() for section in elf.iter_sections()}
    return {name[6:]: data for name, data in sections.items() if name.startswith(".text.")}


def with_code_changed(image: bytes, kernel: str) -> bytes:
    section = ELFFile(io.BytesIO(image)).get_section_by_name(f".text.{kernel}")
    place = section["sh_offset"] + section["sh_size"] - 1
    return image[:place] + bytes([image[place] ^ 1]) + image[place + 1 :]


# -- comparing ---------------------------------------------------------------------------------


def compared(own: dict[str, Entry], other: dict[str, Entry]) -> UnitProof:
    return compare("a", own, {"shared": other})


def test_the_same_machine_code_is_the_same() -> None:
    image = cubin("cuda13.0-sm_80")
    found = compared({"sm_80": entry(image)}, {"sm_80": entry(image)})
    assert (found.name, found.kernels, found.different) == ("a", 2, {"shared": ()})
    total = hashlib.sha256()
    for name, data in sorted(code(image).items()):
        total.update(name.encode() + b"\0" + hashlib.sha256(data).digest())
    assert found.sass == {"sm_80": total.hexdigest()}


def test_a_byte_of_a_kernels_code_is_a_difference() -> None:
    image = cubin("cuda13.0-sm_80")
    changed = with_code_changed(image, "scale")
    found = compared({"sm_80": entry(image)}, {"sm_80": entry(changed)})
    assert found.different == {"shared": ("sm_80 scale",)}


def test_bytes_outside_the_code_are_no_difference() -> None:
    """ptxas writes its command line into a note, which differs where fronts are shared or split."""
    image = cubin("cuda13.0-sm_80")
    elf = ELFFile(io.BytesIO(image))
    note = next(s for s in elf.iter_sections() if s.name.startswith(".note"))
    place = note["sh_offset"] + note["sh_size"] - 1
    changed = image[:place] + bytes([image[place] ^ 1]) + image[place + 1 :]
    found = compared({"sm_80": entry(image)}, {"sm_80": entry(changed)})
    assert found.different == {"shared": ()}


def with_name(image: bytes, old: str, new: str) -> bytes:
    """A cubin in which a symbol has another name, in a table of names at the file's end."""
    elf = ELFFile(io.BytesIO(image))
    table, symbols = (elf.get_section_by_name(name) for name in (".strtab", ".symtab"))
    [number] = [n for n, one in enumerate(symbols.iter_symbols()) if one.name == old]
    names = table.data() + new.encode() + b"\0"
    made = bytearray(image + names)
    header = elf["e_shoff"] + elf.get_section_index(".strtab") * elf["e_shentsize"]
    struct.pack_into("<QQ", made, header + 24, len(image), len(names))  # ELF-64, Figure 8
    struct.pack_into("<I", made, symbols["sh_offset"] + number * 24, len(table.data()))
    assert new in [
        one.name for one in ELFFile(io.BytesIO(made)).get_section_by_name(".symtab").iter_symbols()
    ]
    return bytes(made)


def test_another_name_of_a_symbol_is_a_difference() -> None:
    """By names alone, a call finds a function of another unit, and the host a variable."""
    image = cubin("cuda13.0-sm_80")
    found = compared({"sm_80": entry(image)}, {"sm_80": entry(with_name(image, "scale", "other"))})
    assert found.different == {"shared": ("sm_80 .symtab",)}


@pytest.mark.parametrize(
    ("one", "other"),
    [  # by nvcc 13.0, and with the namespaces of CUDA 12
        (
            "_ZN34_INTERNAL_4970afec_6_thr_cu__Z1kPi6thrust27THRUST_300001_SM_800_860_NS8cuda_cub3parE",
            "_ZN34_INTERNAL_4970afec_6_thr_cu__Z1kPi6thrust23THRUST_300001_SM_800_NS8cuda_cub3parE",
        ),
        (
            "_ZN3cub21CUB_300001_SM_800_8606detail11EmptyKernelIvEEvv",
            "_ZN3cub17CUB_300001_SM_8006detail11EmptyKernelIvEEvv",
        ),
        ("_ZN3cub21CUB_200302_800_860_NS1aE", "_ZN3cub17CUB_200302_800_NS1aE"),
    ],
)
def test_the_list_of_architectures_in_a_name_is_none(one: str, other: str) -> None:
    """CCCL's namespaces have it, and a shared front has another one."""
    image = cubin("cuda13.0-sm_80")
    found = [entry(with_name(image, "scale", name)) for name in (one, other, other[:-1] + "x")]
    assert compared({"sm_80": found[0]}, {"sm_80": found[1]}).different == {"shared": ()}
    different = compared({"sm_80": found[0]}, {"sm_80": found[2]}).different
    assert different == {"shared": ("sm_80 .symtab",)}


def test_another_place_of_a_symbol_is_a_difference() -> None:
    image = cubin("cuda13.0-sm_80")
    place = ELFFile(io.BytesIO(image)).get_section_by_name(".symtab")["sh_offset"] + 24 + 8
    changed = image[:place] + bytes([image[place] ^ 1]) + image[place + 1 :]
    found = compared({"sm_80": entry(image)}, {"sm_80": entry(changed)})
    assert found.different == {"shared": ("sm_80 .symtab",)}


def test_other_data_is_a_difference_where_all_code_is_the_same() -> None:
    """A source may initialise a variable by `#if __CUDA_ARCH__`, or give it another size."""
    image = cubin("cuda13.0-sm_80")
    section = ELFFile(io.BytesIO(image)).get_section_by_name(".nv.constant0.scale")
    place = section["sh_offset"] + section["sh_size"] - 1
    changed = image[:place] + bytes([image[place] ^ 1]) + image[place + 1 :]
    found = compared({"sm_80": entry(image)}, {"sm_80": entry(changed)})
    assert found.different == {"shared": ("sm_80 .nv.constant0.scale",)}


def test_other_registers_are_a_difference() -> None:
    image = cubin("cuda13.0-sm_80")
    elf = ELFFile(io.BytesIO(image))
    index = elf.get_section_index(".text.scale")
    assert index
    place = elf["e_shoff"] + index * elf["e_shentsize"] + 44  # sh_info (ELF-64, Figure 8)
    changed = image[: place + 3] + bytes([image[place + 3] + 1]) + image[place + 4 :]
    found = compared({"sm_80": entry(image)}, {"sm_80": entry(changed)})
    assert found.different == {"shared": ("sm_80 scale",)}


def test_a_kernel_that_only_one_of_them_has_is_a_difference() -> None:
    one, other = cubin("cuda13.0-sm_80"), cubin("large")
    found = compared({"sm_80": entry(one)}, {"sm_80": entry(other)})
    assert found.different == {"shared": ("sm_80 $empty", "sm_80 large", "sm_80 scale")}


def test_each_architecture_and_each_way_is_compared_for_itself() -> None:
    one, other = cubin("cuda13.0-sm_80"), cubin("cuda12.4-sm_86")
    changed = with_code_changed(other, "scale")
    own = {"sm_80": entry(one), "sm_86": entry(other)}
    found = compare("a", own, {"shared": {**own, "sm_86": entry(changed)}, "split": own})
    assert found.kernels == 2, "each once"
    assert found.different == {"shared": ("sm_86 scale",), "split": ()}
    assert list(found.sass) == ["sm_80", "sm_86"]


# -- what a proof allows -----------------------------------------------------------------------


def proof(path: Path, *units: UnitProof, archs: str = "80,86,89", parts: int = 4) -> Proof:
    return Proof(
        project="demo", version="1.0", source=source_id(plain_recipe(path)), toolchain="t",
        compiler_id="c", front=Arch(80), archs=tuple(map(parse_arch, archs.split(","))),
        parts=parts, units=units, path=path,
    )  # fmt: skip


SASS = {"sm_80": "00" * 32}
NONE: frozenset[str] = frozenset()
EVERY = None
SAME = UnitProof("csrc/a", 3, SASS, {"shared": (), "split": (), "both": ()})
OTHER = UnitProof("csrc/b", 2, SASS, {"shared": ("sm_86 kernel",), "split": (), "both": ()})


def front(text: str, split: int = 0) -> Front:
    """`80: sm_80 sm_86`"""
    virtual, _, codes = text.partition(": ")
    return Front(parse_arch(virtual), tuple(codes.split()), split)


def test_a_proof_covers_its_fronts_and_architectures(tmp_path: Path) -> None:
    found = proof(tmp_path, SAME)
    assert (found.same, found.kernels) == (("shared", "split", "both"), 3)
    assert found.shown(front("80: sm_80 sm_86 sm_89")) is EVERY
    assert found.shown(front("80: sm_80 compute_80 sm_89")) is EVERY
    assert found.shown(front("80: sm_86")) is EVERY, "shared all the same"
    assert found.shown(front("80: sm_80 sm_86 sm_87")) == NONE, "87 was not compared"
    assert found.shown(front("86: sm_86 sm_89")) == NONE, "another front"
    assert found.shown(front("80: sm_80 sm_86", split=4)) is EVERY
    assert found.shown(front("86: sm_86", split=4)) is EVERY, "a front of its own"
    assert found.shown(front("87: sm_87", split=4)) == NONE
    assert found.shown(front("86: sm_86", split=8)) == NONE, "another number, other code"
    assert found.shown(front("86: sm_86 compute_86", split=4)) == NONE, "PTX of a split front"
    assert found.shown(front("86: compute_86", split=4)) == NONE


def test_one_kernel_that_differs_forbids_a_way_for_its_unit(tmp_path: Path) -> None:
    found = proof(tmp_path, SAME, OTHER)
    assert (found.same, found.kernels) == (("split", "both"), 5)
    assert found.different("shared") == ["csrc/b: sm_86 kernel"]
    assert found.shown(front("80: sm_80 sm_86")) == {"csrc/a"}, "of the other one alone it is shown"
    assert found.shown(front("80: sm_80 sm_86", split=4)) is EVERY


def test_a_way_that_was_not_tried_with_all_units_is_shown_of_those_alone(tmp_path: Path) -> None:
    half = UnitProof("csrc/b", 2, SASS, {"shared": ()})
    found = proof(tmp_path, SAME, half)
    assert (found.ways, found.same) == (("shared",), ("shared",))
    assert found.shown(front("86: sm_86", split=4)) == {"csrc/a"}


def test_units_of_one_name_are_shown_together(tmp_path: Path) -> None:
    """A source that is compiled in two ways is two units of one name."""
    twin = UnitProof("csrc/a", 2, SASS, {"shared": ("sm_86 kernel",)})
    empty = UnitProof("csrc/c", 0, SASS, {"shared": ()})
    found = proof(tmp_path, SAME, twin, UnitProof("csrc/b", 1, SASS, {"shared": ()}), empty)
    assert found.shown(front("80: sm_80 sm_86")) == {"csrc/b"}


NOTHING: dict[Way, tuple[str, ...]] = {"shared": (), "split": (), "both": ()}


@pytest.mark.parametrize("units", [(), (UnitProof("a", 0, {}, NOTHING),)])
def test_a_proof_over_nothing_allows_nothing(tmp_path: Path, units: tuple[UnitProof, ...]) -> None:
    found = proof(tmp_path, *units)
    assert found.shown(front("80: sm_80 sm_86")) == NONE
    assert found.shown(front("80: sm_80", split=4)) == NONE


# -- names -------------------------------------------------------------------------------------

_CALLEE = "namespace cub {{ inline namespace {} {{ struct A {{}}; }} }} void run(cub::A) {{}}\n"
_CALLER = (
    "namespace cub {{ inline namespace {} {{ struct A {{}}; }} }} void run(cub::A);\n"
    "void all() {{ run(cub::A()); }}\n"
)
SHARED_LIST, EXACT_LIST = "CUB_300001_SM_800", "CUB_300001_SM_800_860"


def linked(tool: Callable[[str], str], folder: Path, name: str, *sources: str) -> Path:
    """A library of sources of which each is a unit."""
    paths = [folder / f"{name}{number}.cpp" for number in range(len(sources))]
    for path, source in zip(paths, sources, strict=True):
        path.write_text(source)
    library = folder / name
    subprocess.run(
        [tool("g++"), "-shared", "-fPIC", "-g0", "-o", library, *map(str, paths)], check=True
    )
    return library


def wheel_of(folder: Path, *libraries: Path) -> Path:
    return Draft(files={one.name: one.read_bytes() for one in libraries}).write(folder)


def test_units_that_do_not_find_each_other_are_refused(
    tool: Callable[[str], str], tmp_path: Path
) -> None:
    callee, caller = _CALLEE.format(SHARED_LIST), _CALLER.format(EXACT_LIST)
    wheel = wheel_of(tmp_path, linked(tool, tmp_path, "demo.so", callee, caller))
    with pytest.raises(UpstreamError, match="by names that are not the same") as caught:
        check_names(wheel)
    [name] = caught.value.details
    shown = subprocess.run(["c++filt", name], capture_output=True, text=True, check=True).stdout
    assert shown == f"run(cub::{EXACT_LIST}::A)\n"
    assert "--front exact" in (caught.value.hint or "")


def test_units_may_find_each_other_in_any_library_of_the_wheel(
    tool: Callable[[str], str], tmp_path: Path
) -> None:
    """Each name with its own list: none of them is lost."""
    one = linked(tool, tmp_path, "one.so", _CALLEE.format(SHARED_LIST), _CALLEE.format(EXACT_LIST))
    two = linked(tool, tmp_path, "two.so", _CALLER.format(EXACT_LIST), "void unknown_to_all();")
    check_names(wheel_of(tmp_path, one, two))


# -- files -------------------------------------------------------------------------------------


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return plain_recipe(tmp_path)


def test_a_proof_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "proofs" / "x.json"
    written = proof(path, SAME, OTHER)
    write_proof(written)
    assert read_proof(path) == written
    before = path.read_bytes()
    write_proof(written)
    assert path.read_bytes() == before
    assert json.loads(before)["same"] == ["split", "both"]


def test_proofs_are_kept_beside_the_recipe_by_toolchain_and_architectures(recipe: Recipe) -> None:
    toolchain = plain_toolchain(name="linux-cuda13.0", platform="", nvcc="")
    path = proof_path(recipe, toolchain, (Arch(80), Arch(90, "a")))
    assert path == recipe.folder / "proofs" / "linux-cuda13.0-sm80.sm90a.json"


@pytest.mark.parametrize("change", ["project", "version", "source", "compiler_id"])
def test_only_proofs_of_this_version_and_these_compilers_count(recipe: Recipe, change: str) -> None:
    write_proof(proof(recipe.folder / "proofs" / "a.json", SAME))
    other = dataclasses.replace(
        proof(recipe.folder / "proofs" / "b.json", SAME), **{change: "00" * 32}
    )
    write_proof(other)
    assert [found.path.name for found in find_proofs(recipe, "c")] == ["a.json"]


@pytest.mark.parametrize(
    "changes",
    [
        {"source": SourcePin(folder="src", sha256="11" * 32)},
        {"source": SourcePin(folder="src", patches=(Patch("a.patch", "22" * 32),))},
        {"environment": {"DEMO_FAST": "1"}},
        {"config_settings": {"cmake.define.FAST": "1"}},
        {"unit": (UnitArchs("*", ("80",)),)},
        {"subdirectory": "python"},
    ],
)
def test_sources_that_were_changed_since_are_not_proven(
    recipe: Recipe, changes: dict[str, Any]
) -> None:
    """Who works on a project does not give it another version with each change."""
    write_proof(proof(recipe.folder / "proofs" / "a.json", SAME))
    assert find_proofs(dataclasses.replace(recipe, seconds=3, memory=1), "c")
    assert find_proofs(dataclasses.replace(recipe, **changes), "c") == []


def test_a_proof_in_a_checkout_is_no_change_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.cu").write_text("int a;\n")
    recipe = plain_recipe(tmp_path / "kernels" / "demo", source=SourcePin(path=tmp_path))
    made = dataclasses.replace(
        proof(recipe.folder / "proofs" / "a.json", SAME), source=source_id(recipe)
    )
    write_proof(made)
    assert find_proofs(recipe, "c") == [made]
    (tmp_path / "a.cu").write_text("int b;\n")
    assert find_proofs(recipe, "c") == []


def test_a_proof_that_cannot_be_written(recipe: Recipe) -> None:
    (recipe.folder / "proofs").touch()
    with pytest.raises(StoreError, match="cannot write the proof") as caught:
        write_proof(proof(recipe.folder / "proofs" / "a.json", SAME))
    assert "--recipes FOLDER" in str(caught.value.hint)


def test_a_recipe_without_proofs_has_none(recipe: Recipe) -> None:
    assert find_proofs(recipe, "c") == []


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "3", "{", "{}", '{"schema": 99}', '{"schema": 2}', "null",
        b"\xff\xfe".decode("latin1"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_proof_is_named(recipe: Recipe, text: str) -> None:
    path = recipe.folder / "proofs" / "bad.json"
    path.parent.mkdir()
    path.write_text(text, encoding="latin1")
    with pytest.raises(ConfigError, match="not a proof") as caught:
        find_proofs(recipe, "c")
    assert caught.value.where == str(path)


def test_only_files_are_read(recipe: Recipe, tool: Callable[[str], str]) -> None:
    """A pipe that nobody writes to would be waited for."""
    path = recipe.folder / "proofs" / "a.json"
    path.parent.mkdir()
    subprocess.run([tool("mkfifo"), path], check=True)
    with pytest.raises(ConfigError, match="not a proof: it is no file"):
        find_proofs(recipe, "c")


def rewritten(path: Path, **changes: object) -> None:
    """The file with other fields, and a digest that is right."""
    data = {**json.loads(path.read_text()), **changes}
    del data["digest"]
    text = json.dumps(data, sort_keys=True)
    data["digest"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(data))


UNIT = {"name": "a", "kernels": 1, "sass": {}, "different": {"split": []}}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", ""),
        ("front", "eighty"),
        ("front", "9" * 5000),
        ("front", 80),
        ("archs", ["80", "x"]),
        ("parts", -1),
        ("parts", "4"),
        ("same", ["always"]),
        ("units", [3]),
        ("units", [{}]),
        ("units", [{**UNIT, "kernels": "2"}]),
        ("units", [{**UNIT, "different": {"faster": []}}]),
        ("units", [{**UNIT, "different": ["split"]}]),
        ("more", 1),
    ],
)
def test_a_proof_with_a_wrong_field_is_named(recipe: Recipe, field: str, value: object) -> None:
    path = recipe.folder / "proofs" / "bad.json"
    write_proof(proof(path, SAME))
    rewritten(path, **{field: value})
    with pytest.raises(ConfigError, match="not a proof") as caught:
        find_proofs(recipe, "c")
    assert len(caught.value.what) < 300


def test_a_proof_that_was_edited_by_hand_is_none(recipe: Recipe) -> None:
    path = recipe.folder / "proofs" / "edited.json"
    write_proof(proof(path, OTHER))
    text = path.read_text()
    assert '"sm_86 kernel"' in text
    path.write_text(text.replace('"sm_86 kernel"', ""))
    with pytest.raises(ConfigError, match="it was changed after `invoke prove` wrote it"):
        find_proofs(recipe, "c")


# -- which units -------------------------------------------------------------------------------

UNITS: tuple[Unit, ...] = (
    cuda_unit("csrc/src/flash_bwd_64"), cuda_unit("csrc/src/flash_fwd_64"), cpp_unit("csrc/api"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (None, ["flash_bwd_64", "flash_fwd_64"]),
        ("*", ["flash_bwd_64", "flash_fwd_64"]),
        ("*bwd*", ["flash_bwd_64"]),
        ("flash_fwd_64", ["flash_fwd_64"]),
        ("csrc/src/flash_b*", ["flash_bwd_64"]),
        ("*fwd*, *bwd*", ["flash_bwd_64", "flash_fwd_64"]),
        ("api", []),
        ("nothing", []),
        ("", []),
    ],
)
def test_units_are_selected_by_globs(pattern: str | None, expected: list[str]) -> None:
    found = [unit.name.rpartition("/")[2] for unit in select_units(UNITS, pattern)]
    assert found == expected


def test_the_name_of_a_unit_is_no_glob() -> None:
    units = tuple(map(cuda_unit, ("fwd", "old/fwd", "fwd[64]", "fwd6")))
    selected = [unit.name for unit in select_units(units, "fwd,fwd[64]")]
    assert selected == ["fwd", "fwd[64]"]
    assert [unit.name for unit in select_units(units, "fwd[6]")] == ["fwd6"]
