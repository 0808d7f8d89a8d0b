"""A Windows SDK as .msi with cabinets, made by Debian's tools, and taken apart by ours as by
msitools; and what strangers may have made of them."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.errors import ToolchainError
from fatwheel.provision import msi
from fatwheel.provision.msi import Cabinet
from fatwheel.provision.msvc import unpack

from ...helpers.installers import CABINET, FILES, pack, write_installer
from ...helpers.msvcpackages import PACKAGES, SDK, write_packages

MSVC = {name: members for name, members in PACKAGES.items() if name.endswith(".vsix")}


@pytest.fixture(autouse=True)
def tools(tool: Callable[[str], str]) -> None:
    for name in ("wixl", "gcab", "msiextract"):
        tool(name)


@pytest.fixture
def packages(tmp_path: Path) -> list[Path]:
    return [*write_packages(tmp_path / "made", MSVC), *write_installer(tmp_path / "sdk")]


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refusal(tmp_path: Path, packages: list[Path]) -> ToolchainError:
    with pytest.raises(ToolchainError) as caught:
        unpack(packages, tmp_path / "home")
    assert not (tmp_path / "late.h").exists()
    return caught.value


def change(path: Path, before: bytes, after: bytes) -> None:
    """Other words in the same place."""
    data = path.read_bytes()
    assert data.count(before) == 1
    assert len(before) == len(after)
    path.write_bytes(data.replace(before, after))


@pytest.mark.parametrize("zipped", [True, False])
def test_it_unpacks_as_by_msitools(tmp_path: Path, packages: list[Path], zipped: bool) -> None:
    packages[-1].unlink()
    keys = [f"fil{number:032X}" for number in range(len(FILES))]
    pack(packages[-1], tmp_path / "sdk" / "work", keys, zipped=zipped)
    told: list[int] = []
    unpack(packages, tmp_path / "home", told.append)
    subprocess.run(
        ["msiextract", "-C", str(tmp_path / "theirs"), str(packages[-2])], check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    theirs = content(tmp_path / "theirs" / "Program Files")
    ours = content(tmp_path / "home" / "Windows Kits")
    assert {f"Windows Kits/{name}": data for name, data in ours.items()} == {
        name: data for name, data in theirs.items() if "arm64" not in name and ".cat" not in name
    }
    assert ours[f"10/Include/{SDK}/um/empty.h"] == b""
    assert told[-1] >= packages[-1].stat().st_size + packages[-2].stat().st_size


def test_a_cabinet_that_is_missing_or_lacks_a_file(tmp_path: Path, packages: list[Path]) -> None:
    assert f"it needs the cabinet {CABINET!r}" in refusal(tmp_path, packages[:-1]).what
    packages[-1].unlink()
    (tmp_path / "x").write_bytes(b"x")
    pack(packages[-1], tmp_path, ["x"])
    other = tmp_path / "other"
    other.mkdir()
    error = refusal(other, packages)
    assert error.where == CABINET
    assert "which its package names" in error.what


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"ZQ", b".."), (b"ZQ", b"Q."), (b"QQQ", b"Q/Q"), (b"QQQ", b"Q\\Q"), (b"QQQ", b"nul"),
        (b"QQQ", b"Q\0Q"), (b"late.h", b"C:te.h"), (b"late.h", b"../a.h"), (b"late.h", b"/tmp/h"),
    ],
)  # fmt: skip
def test_a_name_that_leads_elsewhere(tmp_path: Path, before: bytes, after: bytes) -> None:
    files = {**FILES, f"Include/{SDK}/ZQ/QQQ/late.h": b"late"}
    packages = [*write_packages(tmp_path / "made", MSVC), *write_installer(tmp_path / "sdk", files)]
    change(packages[-2], before, after)
    assert "is no name that a file can have on Windows" in refusal(tmp_path, packages).what


def test_a_cabinet_that_is_a_bomb(tmp_path: Path) -> None:
    files = {**FILES, f"Include/{SDK}/um/bomb.h": bytes(64 << 20)}
    packages = [*write_packages(tmp_path / "made", MSVC), *write_installer(tmp_path / "sdk", files)]
    assert packages[-1].stat().st_size < 1 << 20
    error = refusal(tmp_path, packages)
    assert (error.where, error.what) == (CABINET, "it unpacks to more than 100 times its size")


def test_more_files_than_any_sdk_has(
    tmp_path: Path, packages: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(msi, "_MOST_ROWS", 9)
    assert "has more than 9 rows" in refusal(tmp_path, packages).what


def test_what_is_packed_otherwise_or_goes_on_elsewhere(
    tmp_path: Path, packages: list[Path]
) -> None:
    data = bytearray(packages[-1].read_bytes())
    data[36 + 6] = 3  # LZX, in the first folder
    packages[-1].write_bytes(data)
    assert "a method that is not read (3)" in refusal(tmp_path, packages).what
    data[30] |= 2
    packages[-1].write_bytes(data)
    (tmp_path / "b").mkdir()
    assert "it goes on in another cabinet" in refusal(tmp_path / "b", packages).what


@pytest.mark.parametrize("number", [-1, -2])
def test_damage_ends_in_one_message(tmp_path: Path, packages: list[Path], number: int) -> None:
    """Bytes changed, and cut off: what is wrong with a package is said, or it unpacks."""
    chance, path = random.Random(14), packages[number]
    whole = path.read_bytes()
    for attempt in range(60):
        data = bytearray(whole)
        for _ in range(1 + attempt % 8):
            data[chance.randrange(min(len(data), 6000))] = chance.randrange(256)
        path.write_bytes(data[: chance.randrange(len(data))] if attempt % 4 == 0 else data)
        try:
            unpack(packages, tmp_path / f"home{attempt}")
        except ToolchainError as error:
            assert error.where  # noqa: PT017


def test_a_stream_of_sectors_without_end(tmp_path: Path, packages: list[Path]) -> None:
    data = bytearray(packages[-2].read_bytes())
    first = int.from_bytes(data[0x30:0x34], "little")
    table = int.from_bytes(data[0x4C:0x50], "little")
    place = (table + 1) * 512 + 4 * first
    data[place : place + 4] = first.to_bytes(4, "little")
    packages[-2].write_bytes(data)
    assert refusal(tmp_path, packages).what == "one of its streams has no end"


def test_a_cabinet_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.cab").write_bytes(b"MSCF" + bytes(60))
    with (tmp_path / "a.cab").open("rb") as stream, pytest.raises(ValueError, match="no cabinet"):
        Cabinet(stream)
