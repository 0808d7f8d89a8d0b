"""What is read of a wheel so that its provenance can be checked; which images records name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fatwheel.errors import FormatError
from fatwheel.storage.documents import MOST
from fatwheel.verify.evidence import gather
from fatwheel.verify.papers import NO_PAPERS, asked_codes, read_beside, slices_of_binary

from ...helpers.cudawheels import NONE, fatbin, images
from ...helpers.statedwheels import BINARY, LOCK, RECORD, SBOM, SLICES, STATEMENT, demo_files, write


def test_slices_are_as_the_store_has_them() -> None:
    """The store keeps each as a container of its own: that is what SLICES are made of."""
    found = slices_of_binary("a.fatbin", memoryview(NONE + fatbin(images(NONE)[1:2])))
    assert found.containers == (SLICES, {"compute_80": SLICES["compute_80"]})
    assert found.relocatable == ()


def test_several_images_of_one_name_are_one_slice() -> None:
    """As where PTX and LTO-IR are asked for."""
    entry = images(NONE)[1]
    found = slices_of_binary("a.fatbin", memoryview(fatbin([entry, entry])))
    assert found.containers == ({"compute_80": hashlib.sha256(fatbin([entry, entry])).hexdigest()},)


def test_a_wheel_that_tells_of_its_build_is_read_whole(tmp_path: Path) -> None:
    files = demo_files()
    path = write(tmp_path, files)
    papers = gather(path).papers
    assert papers.inside == {
        "fatwheel.json": files[RECORD],
        "fatwheel.lock.json": files[LOCK],
        "sboms/fatwheel.cdx.json": files[SBOM],
        "fatwheel.provenance.json": files[STATEMENT],
    }
    assert [one.path for one in papers.slices] == [BINARY]
    assert (papers.beside, papers.sha256) == ({}, ""), "nothing is beside it: nobody needs its hash"


def test_what_lies_beside_it_is_read_and_the_wheel_is_hashed(tmp_path: Path) -> None:
    path = write(tmp_path, demo_files())
    (tmp_path / f"{path.name}.provenance.json").write_bytes(b"{}")
    (tmp_path / f"{path.name}.lock.json").mkdir()
    papers = gather(path).papers
    assert papers.beside == {".provenance.json": b"{}"}
    assert papers.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_of_other_wheels_nothing_is_read(tmp_path: Path) -> None:
    files = {name: data for name, data in demo_files().items() if "fatwheel" not in name}
    assert gather(write(tmp_path, files)).papers == NO_PAPERS


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_too_much_is_not_read(tmp_path: Path, place: str) -> None:
    files, much = demo_files(), b" " * (MOST + 1)
    if place == "inside":
        files[STATEMENT] = much
    path = write(tmp_path, files)
    if place == "beside":
        (tmp_path / f"{path.name}.lock.json").write_bytes(much)
        with pytest.raises(FormatError, match=f"{MOST} are the most"):
            read_beside(path)
    with pytest.raises(FormatError, match=f"{MOST} are the most"):
        gather(path)


@pytest.mark.parametrize(
    ("archs", "codes"),
    [
        ((), set()),
        (("80",), {"sm_80"}),
        (("80+ptx", "90a"), {"sm_80", "compute_80", "sm_90a"}),
        (("ptx89",), {"compute_89"}),
    ],
)
def test_archs_ask_for_images(archs: tuple[str, ...], codes: set[str]) -> None:
    assert asked_codes(archs) == codes


@pytest.mark.parametrize("text", ["", "eighty", "80+sass", "ptx", "ptx80+ptx", "8" * 1000])
def test_what_is_no_architecture_is_refused(text: str) -> None:
    with pytest.raises(FormatError) as caught:
        asked_codes((text,))
    assert len(str(caught.value)) < 200
