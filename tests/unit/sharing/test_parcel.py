"""Parcels: what was sent comes out, and nothing else does."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fatwheel.errors import FatwheelError, FormatError
from fatwheel.sharing.parcel import Piece, Trust, contents, read_head, write_parcel

KEY, SCOPE = "ab" * 32, "cd" * 32
KINDS = st.sampled_from(["slice", "abi", "host", "text", "wheel"])
KEYS = st.integers(0, 1 << 64).map(lambda number: f"{number:064x}")


def written(pieces: list[Piece], name: str = f"slice/{KEY}", scope: str = SCOPE) -> bytes:
    out = io.BytesIO()
    write_parcel(out, name, scope, pieces, Trust())
    return out.getvalue()


def read(data: bytes) -> dict[tuple[str, str], bytes]:
    stream = io.BytesIO(data)
    parcel = read_head(stream, "here", Trust())
    return {
        (item.kind, item.key): b"".join(iter(lambda: entry.read(1000), b""))  # noqa: B023
        for item, entry in contents(stream, parcel, "here")
    }


@given(st.dictionaries(st.tuples(KINDS, KEYS), st.binary(max_size=3000), max_size=5))
def test_what_was_sent_comes_out(entries: dict[tuple[str, str], bytes]) -> None:
    assert read(written([Piece(*name, data) for name, data in entries.items()])) == entries


SOUND = written([Piece("slice", KEY, b"code" * 50), Piece("abi", KEY, b"{}")])


@given(st.data())
def test_no_change_of_a_byte_makes_other_entries(data: st.DataObject) -> None:
    """It is noticed, or changes nothing that counts (the name, facts; those are checked by who
    asked)."""
    place = data.draw(st.integers(0, len(SOUND) - 1))
    other = data.draw(st.integers(0, 255))
    changed = SOUND[:place] + bytes([other]) + SOUND[place + 1 :]
    try:
        found = read(changed)
    except FatwheelError:
        return
    assert sorted(found.values()) == sorted(read(SOUND).values())


@given(st.integers(0, len(SOUND) - 1))
def test_a_part_of_a_parcel_is_none(size: int) -> None:
    with pytest.raises(FormatError):
        read(SOUND[:size])


def test_a_file_may_be_sent(tmp_path: Path) -> None:
    (tmp_path / "w.whl").write_bytes(b"wheel" * 1_000_000)
    found = read(written([Piece("wheel", KEY, tmp_path / "w.whl")]))
    assert found == {("wheel", KEY): b"wheel" * 1_000_000}


def test_the_same_entries_make_the_same_parcel() -> None:
    assert written([Piece("slice", KEY, b"code")]) == written([Piece("slice", KEY, b"code")])


# -- heads -----------------------------------------------------------------------------------------


def head(**changes: object) -> bytes:
    data = b"code"
    sound = {
        "name": f"slice/{KEY}", "scope": SCOPE, "about": {},
        "entries": [["slice", KEY, hashlib.sha256(data).hexdigest(), len(data)]],
    }  # fmt: skip
    line = json.dumps({**sound, **changes}).encode()
    return b"fatwheel parcel 1\n" + line + b"\n" + zstandard.compress(data)


def test_a_head_that_somebody_else_wrote_is_read() -> None:
    assert read(head()) == {("slice", KEY): b"code"}


SHA = hashlib.sha256(b"code").hexdigest()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../../etc/passwd"}, {"name": f"slice/{KEY}\n"}, {"name": 7}, {"scope": "x"},
        {"about": []}, {"about": {"a": 7}}, {"about": {str(n): "" for n in range(200)}},
        {"about": {"a": "x" * 5000}}, {"entries": {}}, {"entries": [[]]},
        {"entries": [["slice", KEY, SHA, -1]]}, {"entries": [["slice", KEY, SHA, True]]},
        {"entries": [["slice", KEY, SHA, 1 << 60]]}, {"entries": [["slice", KEY, SHA, 4.0]]},
        {"entries": [["slice", "../x", SHA, 4]]}, {"entries": [["slice", KEY, "x", 4]]},
        {"entries": [["evil", KEY, SHA, 4]]}, {"entries": [["slice", KEY, SHA, 4]] * 2},
        {"entries": [["slice", KEY, SHA, 4, 4]]}, {"entries": [["slice", KEY.upper(), SHA, 4]]},
    ],
)  # fmt: skip
def test_a_head_that_says_anything_else_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        read(head(**changes))


@pytest.mark.parametrize(
    "data",
    [b"", b"fatwheel parcel 1\n", b"fatwheel parcel 1\n{}", b"fatwheel parcel 1\n{}\n", b"\0" * 99,
     b"fatwheel parcel 1\n" + b"[" * 100_000 + b"\n", b"fatwheel parcel 1\nnull\n"],
)  # fmt: skip
def test_what_is_no_parcel_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        read(data)


def test_another_format_is_named() -> None:
    with pytest.raises(FormatError, match="it has the format 2, and this fatwheel reads 1"):
        read(head().replace(b"1", b"2", 1))


# -- bodies ----------------------------------------------------------------------------------------


def test_what_unpacks_to_more_than_it_says_is_not_unpacked() -> None:
    bomb = zstandard.compress(b"\0" * (256 << 20))
    first, line, _ = head().split(b"\n", 2)
    with pytest.raises(FormatError, match="are not those that it names"):
        read(b"\n".join((first, line, bomb)))


def test_more_after_the_last_entry_is_refused() -> None:
    first, line, _ = head().split(b"\n", 2)
    with pytest.raises(FormatError, match="more follows"):
        read(b"\n".join((first, line, zstandard.compress(b"code and more"))))


def test_a_window_larger_than_ours_is_refused() -> None:
    """It would be allocated."""
    parameters = zstandard.ZstdCompressionParameters(window_log=30)
    body = zstandard.ZstdCompressor(compression_params=parameters)
    packed = body.compressobj()
    data = packed.compress(b"code") + packed.flush()
    first, line, _ = head().split(b"\n", 2)
    with pytest.raises(FormatError, match="it cannot be unpacked"):
        read(b"\n".join((first, line, data)))
