"""Which CUDA made device code: test cubins by several CUDAs, and texts of PTX."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from fatwheel.errors import FormatError
from fatwheel.fatbin.cubin import cuda_of_cubin, version_of_ptx

DATA = Path(__file__).parents[2] / "data" / "device"


@pytest.mark.parametrize("path", sorted(DATA.glob("cuda*.cubin")), ids=lambda path: path.stem)
def test_a_cubin_says_which_cuda_made_it(path: Path) -> None:
    """The version is in the file's name, as the README there says how it was made."""
    major, minor = path.stem.removeprefix("cuda").partition("-")[0].split(".")
    assert cuda_of_cubin(path.read_bytes()) == (int(major), int(minor))


def test_what_does_not_say_it_is_not_known() -> None:
    old = bytearray((DATA / "cuda11.8-sm_80.cubin").read_bytes())
    struct.pack_into("<I", old, 20, 1)
    assert cuda_of_cubin(bytes(old)) is None
    new = (DATA / "cuda13.0-sm_80.cubin").read_bytes()
    assert (
        cuda_of_cubin(new.replace(b"compilation tools, release", b"compilation tools, edition"))
        is None
    )
    assert cuda_of_cubin(new.replace(b".note.nv.tkinfo", b".note.nv.absent")) is None


def test_other_files_are_no_cubins() -> None:
    with pytest.raises(FormatError):
        cuda_of_cubin(b"\x7fELF" + bytes(100))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (".version 8.7\n.target sm_90\n", (8, 7)),
        ("//\n// Compiler Build ID\n//\n\n.version\t9.0\n.target sm_80", (9, 0)),
        ("// .version 1.0 was older\n  .version 7.8", (7, 8)),
        (".target sm_90\n", None),
        (".versions 8.7", None),
        (".version 8", None),
        ("", None),
    ],
)
def test_ptx_names_its_version(text: str, version: tuple[int, int] | None) -> None:
    assert version_of_ptx(text.encode()) == version
    assert version_of_ptx(memoryview(text.encode() + b"\0")) == version
