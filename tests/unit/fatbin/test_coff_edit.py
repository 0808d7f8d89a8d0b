"""The COFF rewriter, against what the compilers write themselves and what LIEF reads."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import lief
import pytest

from fatwheel.decoders import may_have_kernels
from fatwheel.errors import FormatError
from fatwheel.fatbin.coff import Section, read_coff
from fatwheel.fatbin.coff_edit import replace_section, rewrite_object
from fatwheel.fatbin.container import Entry, parse_containers, write_container

from ...helpers.coffobjects import COMPILERS, SOURCE, compile_object, without_time

Compile = Callable[..., bytes]

FATBIN = (Path(__file__).parents[2] / "data" / "device" / "none.fatbin").read_bytes()
ENTRIES = parse_containers(FATBIN)[0].entries
# Where numbers stand in a section header: offset and size of contents, number of lines.
SIZE, OFFSET, LINES = 16, 20, 34


@pytest.fixture(scope="module")
def compile_(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Compile:
    """compile_(compiler, payload, source=..., suffix=...), always in the same folder: its name
    gets into debug information."""
    folder = tmp_path_factory.mktemp("coff")

    def call(compiler: str, payload: bytes = FATBIN, **options: str) -> bytes:
        return compile_object(tool, folder, compiler, payload, **options)

    return call


@pytest.fixture(scope="module", params=COMPILERS)
def compiler(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def obj(compile_: Compile, compiler: str) -> bytes:
    return compile_(compiler)


def contents(data: bytes) -> list[tuple[str, int, bytes]]:
    """Name, number of relocations and bytes of each section, as LIEF reads them."""
    parsed = lief.COFF.parse(list(data))
    assert parsed is not None, "LIEF does not read it"
    return [
        (
            section.coff_string.string if section.coff_string else section.name,
            len(section.relocations),
            bytes(section.content) if section.pointerto_raw_data else b"",
        )
        for section in parsed.sections
    ]


def row(data: bytes, name: str) -> int:
    """Where the header of a section stands."""
    coff = read_coff(data)
    return (56 if coff.big else 20) + 40 * (coff.named(name)[0].index - 1)


def with_number(data: bytes, at: int, value: int, code: str = "<I") -> bytes:
    changed = bytearray(data)
    struct.pack_into(code, changed, at, value)
    return bytes(changed)


# -- sections ------------------------------------------------------------------------------------


def test_replacing_nothing_gives_what_the_compiler_wrote(obj: bytes) -> None:
    assert replace_section(obj, {}) == obj


@pytest.mark.parametrize("size", [8, 4096, 100_000])
def test_the_result_is_what_the_compiler_writes_for_these_bytes(
    obj: bytes, compile_: Compile, compiler: str, size: int
) -> None:
    """Checksums and symbols included; only the time of making differs."""
    new = os.urandom(size)
    changed = replace_section(obj, {".nv_fatb": new})
    assert without_time(changed) == without_time(compile_(compiler, new))


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100_003])
def test_other_sections_keep_their_bytes(obj: bytes, size: int) -> None:
    new = os.urandom(size)
    changed = replace_section(obj, {".nv_fatb": new})
    assert contents(changed) == [
        (name, relocations, new if name == ".nv_fatb" else data)
        for name, relocations, data in contents(obj)
    ]
    # No dead bytes: putting the old content back gives the old file.
    assert replace_section(changed, {".nv_fatb": FATBIN}) == obj


def test_a_section_that_the_compiler_left_empty_is_filled(compile_: Compile, compiler: str) -> None:
    empty = compile_(compiler, b"")
    changed = replace_section(empty, {".nv_fatb": FATBIN})
    assert contents(changed) == [
        (name, relocations, FATBIN if name == ".nv_fatb" else data)
        for name, relocations, data in contents(empty)
    ]
    assert replace_section(replace_section(empty, {".nv_fatb": b""}), {".nv_fatb": FATBIN}) == (
        changed
    )


def test_dead_bytes_are_dropped(obj: bytes) -> None:
    """They are what remains where a section was moved to the file's end."""
    (section,) = read_coff(obj).named(".nv_fatb")
    moved = with_number(obj, row(obj, ".nv_fatb") + OFFSET, len(obj)) + FATBIN
    changed = replace_section(moved, {".nv_fatb": b"12345678"})
    assert len(changed) < len(obj) - section.size + 16
    assert b"12345678" in [data for _, _, data in contents(changed)]


def test_long_relocation_tables_stay_whole(compile_: Compile, compiler: str) -> None:
    source = '.section .nv_fatb,"dr"\n.quad 1\n.section .z,"dr"\n.rept 70000\n.quad x\n.endr\n'
    obj = compile_(compiler, source=source, suffix=".s")
    old, new = read_coff(obj), read_coff(replace_section(obj, {".nv_fatb": bytes(64)}))
    assert len(old.relocations(old.named(".z")[0])) == 700_010
    assert new.relocations(new.named(".z")[0]) == old.relocations(old.named(".z")[0])
    assert new.content(new.named(".z")[0]) == old.content(old.named(".z")[0])


def test_sections_that_cannot_be_replaced_are_refused(obj: bytes) -> None:
    for name, message in {
        ".none": "0 sections have this name",
        ".bss": "no bytes in the file",
        ".nvFatBi": "relocated",
    }.items():
        with pytest.raises(FormatError, match=message) as caught:
            replace_section(obj, {name: b""})
        assert caught.value.where == f"COFF section {name}"


def test_a_name_that_two_sections_have_is_refused(compile_: Compile) -> None:
    source = SOURCE + '__asm__(".section .nv_fatb,\\"dr\\",discard,other\\nother: .long 1\\n");'
    with pytest.raises(FormatError, match="2 sections have this name"):
        replace_section(compile_("clang", source=source), {".nv_fatb": b""})


def test_a_section_that_symbols_point_into_is_refused(compile_: Compile, compiler: str) -> None:
    source = SOURCE + '__asm__(".section .nv_fatb,\\"dr\\"\\nsecond: .long 1\\n.text\\n");'
    with pytest.raises(FormatError, match="symbols point into it"):
        replace_section(compile_(compiler, source=source), {".nv_fatb": b""})


def test_a_linked_file_is_refused() -> None:
    with pytest.raises(FormatError, match="not a COFF object"):
        replace_section(b"MZ" + bytes(1000), {".nv_fatb": b""})


def test_parts_that_share_bytes_are_refused(obj: bytes) -> None:
    """Laid out anew, a small file could grow without bound."""
    shared = with_number(obj, row(obj, ".a_long_name") + OFFSET, section(obj, ".text").offset)
    with pytest.raises(FormatError, match="overlaps another part"):
        replace_section(shared, {".nv_fatb": b""})
    headers = with_number(obj, row(obj, ".a_long_name") + OFFSET, 20)
    with pytest.raises(FormatError, match="overlaps another part"):
        replace_section(headers, {".nv_fatb": b""})


def test_a_section_outside_the_file_is_refused(obj: bytes) -> None:
    outside = with_number(obj, row(obj, ".a_long_name") + SIZE, 2**32 - 1)
    with pytest.raises(FormatError, match="but the file has only"):
        replace_section(outside, {".nv_fatb": b""})


def test_line_numbers_are_refused(obj: bytes) -> None:
    lines = with_number(obj, row(obj, ".text") + LINES, 1, "<H")
    with pytest.raises(FormatError, match="line numbers") as caught:
        replace_section(lines, {".nv_fatb": b""})
    assert caught.value.where == "COFF section .text"


def section(data: bytes, name: str) -> Section:
    return read_coff(data).named(name)[0]


# -- containers ----------------------------------------------------------------------------------


def rewrite(data: bytes, *contents: tuple[Entry, ...]) -> bytes:
    done = rewrite_object(read_coff(data), contents, may_have_kernels)
    assert done.notes == ()
    written = b"".join(done.pieces)
    assert len(written) == done.size
    return written


def test_the_container_gets_the_given_entries(obj: bytes) -> None:
    kept = ENTRIES[::2]
    data = contents(rewrite(obj, kept))
    assert [new for name, _, new in data if name == ".nv_fatb"] == [write_container(kept)]
    assert rewrite(obj, ENTRIES) == obj


def test_the_result_depends_on_the_entries_alone(obj: bytes) -> None:
    emptied = rewrite(obj, ())
    assert len(emptied) < len(obj) - 17_000
    assert rewrite(emptied, ENTRIES[1:]) == rewrite(obj, ENTRIES[1:])


def test_large_parts_are_not_copied(obj: bytes) -> None:
    coff = read_coff(obj)
    copied = [
        p for p in rewrite_object(coff, [ENTRIES], may_have_kernels).pieces if isinstance(p, bytes)
    ]
    assert sum(map(len, copied)) < len(obj) - len(FATBIN)


def test_one_sequence_of_entries_per_container(obj: bytes) -> None:
    for wrong in ((), (ENTRIES, ENTRIES)):
        with pytest.raises(ValueError, match=f"{len(wrong)} contents for 1 containers"):
            rewrite_object(read_coff(obj), wrong, may_have_kernels)


def test_several_containers_are_refused(compile_: Compile) -> None:
    obj = compile_("clang", FATBIN * 2)
    with pytest.raises(FormatError, match="2 containers, where only one"):
        rewrite(obj, (), ())


def test_a_container_that_does_not_start_its_section_is_refused(compile_: Compile) -> None:
    obj = compile_("clang", bytes(8) + FATBIN)
    with pytest.raises(FormatError, match="where only one at the section's start"):
        rewrite(obj, ())


def test_relocatable_device_code_is_refused_by_name(compile_: Compile, compiler: str) -> None:
    obj = compile_(compiler, source=SOURCE.replace(".nv_fatb", "__nv_rel"))
    with pytest.raises(FormatError, match="relocatable device code") as caught:
        rewrite(obj, ())
    assert caught.value.where == "section __nv_rel"


def test_a_container_that_nothing_points_to_is_refused(compile_: Compile, compiler: str) -> None:
    for changed in (
        SOURCE.replace('(".nvFatBi")', '(".other")'),
        SOURCE.replace("1, fatbin, 0}", "1, fatbin + 16, 0}"),
    ):
        assert changed != SOURCE
        obj = compile_(compiler, source=changed)
        with pytest.raises(FormatError, match=r"nothing shows how|no container is at"):
            rewrite(obj, ())
