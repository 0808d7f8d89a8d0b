"""Uniting the containers of several files, with images that deviceimages encodes."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace

import pytest
from elftools.elf.elffile import ELFFile

from fatwheel.edit.union import FileContainers, title_of, unite
from fatwheel.errors import FatwheelError, FormatError, StitchError
from fatwheel.fatbin.cubin import kernels_of_cubin

from ...helpers.deviceimages import ONE, TWO, compute, cubin, entries, raw, sm


def part(name: str, *containers: tuple[bytes, ...]) -> FileContainers:
    return FileContainers(name, tuple(entries(*raws) for raws in containers))


def united(*parts: FileContainers) -> list[list[bytes]]:
    return [[bytes(entry.raw) for entry in one] for one in unite(parts).containers]


def message(*parts: FileContainers) -> str:
    with pytest.raises(StitchError) as caught:
        unite(parts)
    return str(caught.value)


def test_the_cubins_of_these_tests_are_cubins() -> None:
    data = cubin(80, {**ONE, **TWO})
    table = ELFFile(io.BytesIO(data)).get_section_by_name(".symtab")
    assert [symbol.name for symbol in table.iter_symbols()] == ["", "one", "two"]
    assert {name: str(layout) for name, layout in kernels_of_cubin(data).items()} == {
        "one": "#0 of 8 bytes, #1 of 4 bytes",
        "two": "#0 of 8 bytes",
    }


def test_images_of_all_parts_are_in_order_of_their_architectures() -> None:
    a, b = part("a", (sm(90), compute(80))), part("b", (sm(86), sm(80)))
    assert united(a, b) == [[sm(80), compute(80), sm(86), sm(90)]]


def test_containers_are_matched_by_their_kernels_and_keep_the_first_parts_order() -> None:
    a = part("a", (sm(80, ONE),), (sm(80, TWO),))
    b = part("b", (sm(90, TWO),), (sm(90, ONE),))
    assert united(a, b) == [[sm(80, ONE), sm(90, ONE)], [sm(80, TWO), sm(90, TWO)]]
    assert united(b, a) == [[sm(80, TWO), sm(90, TWO)], [sm(80, ONE), sm(90, ONE)]]


def test_containers_with_the_same_kernels_are_matched_in_order() -> None:
    a = part("a", (sm(80, code=b"first"),), (sm(80, TWO),), (sm(80, code=b"second"),))
    b = part("b", (sm(90, code=b"first"),), (sm(90, code=b"second"),), (sm(90, TWO),))
    assert united(a, b) == [
        [sm(80, code=b"first"), sm(90, code=b"first")],
        [sm(80, TWO), sm(90, TWO)],
        [sm(80, code=b"second"), sm(90, code=b"second")],
    ]


def test_ptx_alone_tells_kernels_too() -> None:
    a, b = part("a", (compute(80, ["one"]),)), part("b", (sm(90, ONE),))
    assert united(a, b) == [[compute(80, ["one"]), sm(90, ONE)]]


def test_identical_images_are_there_once() -> None:
    a, b = part("a", (sm(80), sm(86))), part("b", (sm(86), sm(90)))
    assert united(a, b) == [[sm(80), sm(86), sm(90)]]
    assert united(a, a) == [[sm(80), sm(86)]]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_images_may_be_compressed(compression: str) -> None:
    a, b = part("a", (sm(80, compression=compression),)), part("b", (sm(90),))
    assert united(a, b) == [[sm(80, compression=compression), sm(90)]]


def test_the_order_of_three_parts_does_not_matter() -> None:
    parts = [
        part("a", (sm(80, suffix=""), raw("lto", 80, b"ir"))),
        part("b", (compute(80), sm(90, suffix="a"))),
        part("c", (sm(90), raw("other", 80, b"what"))),
    ]
    [expected] = united(*parts)
    assert len(expected) == 6
    for order in itertools.permutations(parts):
        assert united(*order) == [expected]


def test_containers_without_kernels_are_united_in_order() -> None:
    a = part("a", (), (sm(80, {}),), (sm(80),))
    b = part("b", (sm(90),), (raw("lto", 90, b"ir"),), (sm(90, {}),))
    assert united(a, b) == [[raw("lto", 90, b"ir")], [sm(80, {}), sm(90, {})], [sm(80), sm(90)]]


def test_a_kernel_that_is_missing_is_named() -> None:
    a, b = part("a.so", (sm(80, ONE),), (sm(80, TWO),)), part("b.so", (sm(90, ONE),))
    assert message(a, b) == (
        "a.so and b.so do not have the same kernels\n"
        "  only in a.so: two\n"
        "  stitch files that were built from the same source, with the same options"
    )


def test_many_missing_kernels_are_counted() -> None:
    a = part("a", (sm(80, {f"kernel{number:02}": [] for number in range(50)}),))
    text = message(a, part("b", (sm(90, ONE),)))
    assert "only in a: kernel00" in text
    assert "... and 39 more" in text


def test_kernels_that_are_spread_over_other_containers_are_named() -> None:
    a = part("a", (sm(80, {**ONE, **TWO}),))
    b = part("b", (sm(90, ONE),), (sm(90, TWO),))
    assert message(a, b) == (
        "a and b have the same kernels, but not in the same containers\n"
        "  only in a: the container of kernel one and 1 more\n"
        "  only in b: the container of kernel one\n"
        "  only in b: the container of kernel two\n"
        "  stitch files that were built from the same source, with the same options"
    )


def test_other_parameters_are_shown() -> None:
    a, b = part("a", (sm(80, {"one": [(0, 8)]}),)), part("b", (sm(90, {"one": [(0, 4)]}),))
    assert message(a, b) == (
        "the container of kernel one: sm_80 of a and sm_90 of b disagree on kernel parameters\n"
        "  one: sm_80 of a has #0 of 8 bytes\n"
        "  one: sm_90 of b has #0 of 4 bytes\n"
        "  a host program passes the same parameters to both; the source depends on the "
        "architecture in a way that cannot work"
    )


def test_kernels_that_only_some_architectures_have() -> None:
    """Containers are told by the kernels that all parts have, whatever the order of linking."""
    both = {**ONE, **TWO}
    a = part("a", (sm(80, both),), (sm(80, {"three": []}),))
    b = part("b", (sm(50, {"three": []}),), (sm(50, ONE), compute(50, ["one", "two"])))
    assert united(a, b) == [
        [sm(50, ONE), compute(50, ["one", "two"]), sm(80, both)],
        [sm(50, {"three": []}), sm(80, {"three": []})],
    ]


def test_parts_of_one_file_go_by_place() -> None:
    """Also where their architectures have no kernel in common, or the same as another place."""
    a = part("a", (sm(80, {"old": []}),), (sm(80, ONE),), (sm(80, ONE, code=b"x"),))
    b = part("b", (sm(90, {"new": []}),), (), (sm(90, ONE),))
    assert [[bytes(e.raw) for e in one] for one in unite([a, b], same_host=True).containers] == [
        [sm(80, {"old": []}), sm(90, {"new": []})],
        [sm(80, ONE)],
        [sm(80, ONE, code=b"x"), sm(90, ONE)],
    ]


def test_files_of_other_sources_are_refused() -> None:
    a, b = part("a", (sm(80, ONE),)), part("b", (sm(90, TWO),))
    assert message(a, b) == (
        "a and b do not have the same kernels\n"
        "  only in a: one\n"
        "  only in b: two\n"
        "  stitch files that were built from the same source, with the same options"
    )


def test_two_images_for_one_architecture_contradict() -> None:
    a, b = part("a", (sm(80),)), part("b", (sm(80, code=b"else"),))
    assert message(a, b) == (
        "the container of kernel one: a and b hold different images for sm_80\n"
        "  only one of them can be right; leave that architecture out of one of the files: "
        "invoke thin FILE --arch ..."
    )


def test_variants_of_an_architecture_do_not_contradict() -> None:
    a, b = part("a", (sm(90),)), part("b", (sm(90, suffix="a"),))
    assert united(a, b) == [[sm(90), sm(90, suffix="a")]]


def test_a_damaged_image_is_placed() -> None:
    damaged = part("b", (sm(80, TWO),), (raw("elf", 90, b"no cubin"),))
    with pytest.raises(FormatError) as caught:
        unite([part("a", (sm(80),)), damaged])
    assert caught.value.where == "b, container 2 of 2"


def test_claims_of_too_much_are_refused() -> None:
    """Of a file so large that what its sections claim is likely."""
    [small] = entries(sm(80, compression="lz4"))
    huge = replace(small, uncompressed=2**40)
    with pytest.raises(FormatError, match="too many to read"):
        unite([FileContainers("a", ((huge,),)), part("b", (sm(90),))])


def test_titles() -> None:
    assert title_of(frozenset()) == "the container without kernels"
    assert title_of(frozenset({"b", "a", "c"})) == "the container of kernel a and 2 more"


def test_every_error_is_one_of_ours() -> None:
    with pytest.raises(FatwheelError):
        unite([part("a", (sm(80),)), part("b")])
