"""Proofs: what they compare, checked with pyelftools, and what they allow."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import struct
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from fatwheel.arch import Arch, parse_arch
from fatwheel.config.model import Recipe
from fatwheel.errors import ConfigError
from fatwheel.fatbin.container import Entry, parse_containers
from fatwheel.model import Unit
from fatwheel.pipeline.proof import (
    Proof,
    UnitProof,
    compare,
    find_proofs,
    proof_path,
    read_proof,
    select_units,
    write_proof,
)

from ...helpers.plaintargets import plain_recipe, plain_toolchain
from ...helpers.standins import DATA, cpp_unit, cuda_unit


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


def test_the_same_machine_code_is_the_same() -> None:
    image = cubin("cuda13.0-sm_80")
    found = compare("a", {"sm_80": (entry(image), entry(image))})
    assert (found.name, found.kernels, found.different) == ("a", 2, ())
    total = hashlib.sha256()
    for name, data in sorted(code(image).items()):
        total.update(name.encode() + b"\0" + hashlib.sha256(data).digest())
    assert found.sass == {"sm_80": total.hexdigest()}


def test_a_byte_of_a_kernels_code_is_a_difference() -> None:
    image = cubin("cuda13.0-sm_80")
    changed = with_code_changed(image, "scale")
    found = compare("a", {"sm_80": (entry(image), entry(changed))})
    assert found.different == ("sm_80 scale",)


def test_bytes_outside_the_code_are_no_difference() -> None:
    """ptxas writes its command line into a note, which differs where fronts are shared."""
    image = cubin("cuda13.0-sm_80")
    elf = ELFFile(io.BytesIO(image))
    note = next(s for s in elf.iter_sections() if s.name.startswith(".note"))
    place = note["sh_offset"] + note["sh_size"] - 1
    changed = image[:place] + bytes([image[place] ^ 1]) + image[place + 1 :]
    assert compare("a", {"sm_80": (entry(image), entry(changed))}).different == ()


def test_a_kernel_that_only_one_of_them_has_is_a_difference() -> None:
    one, other = cubin("cuda13.0-sm_80"), cubin("large")
    found = compare("a", {"sm_80": (entry(one), entry(other))})
    assert found.different == ("sm_80 $empty", "sm_80 large", "sm_80 scale")


def test_each_architecture_is_compared_for_itself() -> None:
    one, other = cubin("cuda13.0-sm_80"), cubin("cuda12.4-sm_86")
    changed = with_code_changed(other, "scale")
    found = compare(
        "a", {"sm_80": (entry(one), entry(one)), "sm_86": (entry(other), entry(changed))}
    )
    assert found.kernels == 2, "each once"
    assert found.different == ("sm_86 scale",)
    assert list(found.sass) == ["sm_80", "sm_86"]


# -- what a proof allows -----------------------------------------------------------------------


def proof(path: Path, *units: UnitProof, archs: str = "80,86,89") -> Proof:
    return Proof(
        project="demo", version="1.0", toolchain="t", compiler_id="c", front=Arch(80),
        archs=tuple(map(parse_arch, archs.split(","))), units=units, path=path,
    )  # fmt: skip


SAME = UnitProof("csrc/a", 3, {"sm_80": "00"}, ())
OTHER = UnitProof("csrc/b", 2, {"sm_80": "00"}, ("sm_86 kernel",))


def archs(text: str) -> frozenset[Arch]:
    return frozenset(map(parse_arch, text.split(",")))


def test_a_proof_covers_its_front_and_architectures(tmp_path: Path) -> None:
    found = proof(tmp_path, SAME)
    assert (found.same, found.kernels, found.different) == (True, 3, [])
    assert found.covers(Arch(80), archs("80,86,89"))
    assert found.covers(Arch(80), archs("80,89"))
    assert not found.covers(Arch(80), archs("80,86,87")), "87 was not compared"
    assert not found.covers(Arch(86), archs("86,89")), "another front"


def test_one_kernel_that_differs_forbids_sharing(tmp_path: Path) -> None:
    found = proof(tmp_path, SAME, OTHER)
    assert (found.same, found.kernels) == (False, 5)
    assert found.different == ["csrc/b: sm_86 kernel"]
    assert not found.covers(Arch(80), archs("80,86"))


@pytest.mark.parametrize("units", [(), (UnitProof("a", 0, {}, ()),)])
def test_a_proof_over_nothing_allows_nothing(tmp_path: Path, units: tuple[UnitProof, ...]) -> None:
    assert not proof(tmp_path, *units).covers(Arch(80), archs("80,86"))


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
    assert json.loads(before)["same"] is False


def test_proofs_are_kept_beside_the_recipe_by_toolchain_and_architectures(recipe: Recipe) -> None:
    toolchain = plain_toolchain(name="linux-cuda13.0", platform="", nvcc="")
    path = proof_path(recipe, toolchain, (Arch(80), Arch(90, "a")))
    assert path == recipe.folder / "proofs" / "linux-cuda13.0-sm80.sm90a.json"


@pytest.mark.parametrize("change", ["project", "version", "compiler_id"])
def test_only_proofs_of_this_version_and_these_compilers_count(recipe: Recipe, change: str) -> None:
    write_proof(proof(recipe.folder / "proofs" / "a.json", SAME))
    other = dataclasses.replace(
        proof(recipe.folder / "proofs" / "b.json", SAME), **{change: "other"}
    )
    write_proof(other)
    assert [found.path.name for found in find_proofs(recipe, "c")] == ["a.json"]


def test_a_recipe_without_proofs_has_none(recipe: Recipe) -> None:
    assert find_proofs(recipe, "c") == []


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", "{", "{}", '{"schema": 99}', "null", b"\xff\xfe".decode("latin1")],
)
def test_a_file_that_is_no_proof_is_named(recipe: Recipe, text: str) -> None:
    path = recipe.folder / "proofs" / "bad.json"
    path.parent.mkdir()
    path.write_text(text, encoding="latin1")
    with pytest.raises(ConfigError, match="not a proof") as caught:
        find_proofs(recipe, "c")
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("front", "eighty"), ("archs", ["80", "x"]), ("front", 80), ("units", [3]), ("units", [{}])],
)
def test_a_proof_with_a_wrong_field_is_named(recipe: Recipe, field: str, value: object) -> None:
    path = recipe.folder / "proofs" / "bad.json"
    write_proof(proof(path, SAME))
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(ConfigError, match="not a proof"):
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
