"""Files in one piece: what is packed comes out, and nothing else does."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from fatwheel.engines import bundle
from fatwheel.errors import FormatError

FILES = {"a.cu": b"int a;\n", "csrc/b.h": b"", "csrc/deep/c.h": bytes(range(256)) * 99}
SHA = "ab" * 32


def forged(listing: object, content: bytes = b"") -> bytes:
    head = json.dumps(listing).encode()
    return len(head).to_bytes(8, "big") + head + zlib.compress(content)


def test_what_is_packed_comes_out(tmp_path: Path) -> None:
    found = bundle.unpack(bundle.pack(FILES), 1 << 20)
    assert found == FILES
    bundle.write(found, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == FILES
    assert bundle.unpack(bundle.pack({}), 0) == {}


def test_the_same_files_are_the_same_bundle() -> None:
    other = dict(reversed(FILES.items()))
    assert bundle.pack(other) == bundle.pack(FILES)
    shas = bundle.shas_of(FILES)
    assert bundle.identity(shas) == bundle.identity(bundle.shas_of(other))
    assert bundle.identity({**shas, "a.cu": SHA}) != bundle.identity(shas)
    assert bundle.identity({name + "x": sha for name, sha in shas.items()}) != bundle.identity(shas)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../up", "a/../../up", "a//b", "", ".", "a/.", "a\0b", "..", "a/"],
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(FormatError, match="a file that cannot be"):
        bundle.unpack(forged([[name, 0, SHA]]), 1 << 20)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no listing"),
        (b"\0" * 7, "no listing"),
        ((99).to_bytes(8, "big") + b"[]", "no listing"),
        ((1 << 63).to_bytes(8, "big"), "no listing"),
        ((2).to_bytes(8, "big") + b"]]" + zlib.compress(b""), "listing is none"),
        (forged({"a": 1}), "listing is none"),
        (forged([["a", -1, SHA]]), "cannot be"),
        (forged([["a", True, SHA]], b"x"), "cannot be"),
        (forged([["a", 1, "ab"]], b"x"), "cannot be"),
        (forged([["a", 1, SHA, 0]], b"x"), "cannot be"),
        (forged([["b", 0, SHA], ["a", 0, SHA]]), "in another order"),
        (forged([["a", 0, SHA], ["a", 0, SHA]]), "twice"),
        (forged([["a", 1, SHA]], b"x"), "not what its listing says"),
        (forged([["a", 2, SHA]], b"x"), "another size"),
        (forged([["a", 1, SHA]], b"xy"), "another size"),
        (forged([["a", 1 << 40, SHA]]), "more than"),
        (forged([], b"")[:-1], "another size"),
        (forged([], b"") + b"more", "another size"),
        (forged([])[:10] + b"no zlib", "damaged"),
    ],
)
def test_what_is_no_bundle_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        bundle.unpack(data, 1 << 20)


def test_a_bomb_is_not_unpacked() -> None:
    bomb = forged([["a", 10, SHA]], b"\0" * (64 << 20))
    with pytest.raises(FormatError, match="another size"):
        bundle.unpack(bomb, 1 << 20)


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.cu").symlink_to("/dev/null")
    with pytest.raises(FileExistsError):
        bundle.write(FILES, tmp_path)
