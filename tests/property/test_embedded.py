"""Device code among any data: all of it is found, and nothing in random bytes is taken for it."""

from __future__ import annotations

import random
import struct

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fatwheel.fatbin.binary import read_binary
from fatwheel.fatbin.embedded import Bound, EmbeddedCode, find_embedded

from ..helpers.cudawheels import LZ4, NONE
from ..helpers.datasections import elf_library
from ..helpers.standins import DATA

CUBINS = [path.read_bytes() for path in sorted(DATA.glob("cuda*.cubin"))]
WHOLE = {"containers": [NONE, LZ4], "cubins": CUBINS}

MAGIC = struct.pack("<I", 0xBA55ED50)
# What makes random bytes look more like device code than they ever do.
BEGINNINGS = [
    MAGIC,
    MAGIC + struct.pack("<HH", 1, 16),
    MAGIC + struct.pack("<HHQ", 1, 16, 64),
    MAGIC + struct.pack("<HHQHHIQ", 1, 16, 4096, 2, 0x101, 64, 64),
    b"\x7fELF\x02\x01\x01",
    b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HHI", 2, 190, 1),
    NONE[:400],
    CUBINS[0][:400],
]


def found_in(data: bytes) -> tuple[EmbeddedCode, ...]:
    library = memoryview(elf_library({".data": data}))
    return find_embedded(library, read_binary(library).format, Bound())


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_nothing_is_found_in_random_bytes(seed: int) -> None:
    """A megabyte each, with a beginning every 4 KiB at any place."""
    generator = random.Random(seed)
    data = bytearray(generator.randbytes(1 << 20))
    for place in range(0, len(data) - 8192, 4096):
        beginning = generator.choice(BEGINNINGS)
        at = place + generator.randrange(4096)
        data[at : at + len(beginning)] = beginning
    assert found_in(bytes(data)) == ()


fillers = st.binary(max_size=200) | st.builds(
    lambda start, rest: start + rest, st.sampled_from(BEGINNINGS[:6]), st.binary(max_size=200)
)
pieces = st.sampled_from([(kind, data) for kind, every in WHOLE.items() for data in every])


@given(st.lists(st.tuples(fillers, pieces), min_size=1, max_size=6), fillers)
@example([(MAGIC[:3], ("containers", LZ4)), (b"\x7f", ("cubins", CUBINS[0]))], MAGIC)
@settings(max_examples=150, deadline=None)
def test_all_of_it_is_found(held: list[tuple[bytes, tuple[str, bytes]]], end: bytes) -> None:
    [place] = found_in(b"".join(filler + data for filler, (_, data) in held) + end)
    kinds = [kind for _, (kind, _) in held]
    assert (place.containers, place.cubins) == (kinds.count("containers"), kinds.count("cubins"))
    assert place.size == sum(len(data) for _, (_, data) in held)


@given(pieces, st.integers(1, 64), st.binary(max_size=3))
@settings(max_examples=150, deadline=None)
def test_what_is_cut_off_is_not_found(
    piece: tuple[str, bytes], missing: int, before: bytes
) -> None:
    kind, data = piece
    for place in found_in(before + data[:-missing]):
        assert kind == "containers", "a cubin is not whole"
        assert place.containers == 0, "only whole cubins in it are"
