"""Comparing images, with device code from data/device, and choosing images for GPUs: expectations
are the rules of NVIDIA's programming guide, by hand."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import pytest

from fatwheel.arch import Arch, ArchRequest, parse_arch, parse_gpu_list
from fatwheel.errors import StitchError
from fatwheel.fatbin.container import Entry, parse_containers
from fatwheel.fatbin.images import (
    Described,
    Selection,
    choose,
    compare,
    disagreements,
    every_ptx,
    in_part,
    loaded_by,
    selection_for,
    shorten,
)
from fatwheel.fatbin.stitch import slices_of

from ...helpers.deviceimages import check_parity, entries, raw

DATA = Path(__file__).parents[2] / "data" / "device"


def entry(image: bytes, number: int, *, kind: int = 2, flags: int = 0x11) -> Entry:
    header = (kind, 0x101, 64, len(image), 0, 0, 0, 0, number, 0, 0, flags, 0, 0)
    raw = struct.pack("<HHIQIIHHIIIQQQ", *header) + image
    (container,) = parse_containers(struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(raw)) + raw)
    return container.entries[0]


def cubin(name: str) -> bytes:
    return (DATA / f"{name}.cubin").read_bytes()


@pytest.mark.parametrize("name", ["none", "lz4", "zstd"])
def test_slices_that_agree_pass(name: str) -> None:
    check_parity("unit", slices_of((DATA / f"{name}.fatbin").read_bytes()))


def test_slices_of_different_cuda_versions_agree() -> None:
    entries = [entry(cubin("cuda11.8-sm_80"), 80), entry(cubin("cuda13.0-sm_120f"), 120)]
    check_parity("unit", entries)


def test_kernels_of_some_images_only_are_no_contradiction() -> None:
    """Sources leave kernels out for some architectures; PTX may have others, too."""
    images = [
        Described("sm_80", frozenset({"a", "b"}), {"a": "8", "b": "8"}),
        Described("sm_90", frozenset({"a", "c"}), {"a": "8", "c": "8"}),
        Described("compute_90", frozenset({"a", "c"}), None),
    ]
    compare("unit", images)
    assert in_part(images) == {"b": ("sm_80",), "c": ("sm_90", "compute_90")}
    assert in_part(images[1:]) == {}
    assert in_part([]) == {}


def test_a_kernel_is_compared_wherever_it_is_defined() -> None:
    """Also where the first image does not define it."""
    images = [
        Described("sm_70", frozenset({"a"}), {"a": "8"}),
        Described("sm_80", frozenset({"a", "b"}), {"a": "8", "b": "8"}),
        Described("sm_90", frozenset({"a", "b"}), {"a": "8", "b": "4"}),
    ]
    [found] = disagreements(images)
    assert found.what == "sm_80 and sm_90 disagree on kernel parameters"
    assert found.lines == ("b: sm_80 has 8", "b: sm_90 has 4")
    with pytest.raises(StitchError, match="sm_80 and sm_90 disagree"):
        compare("unit", images)


def test_other_layouts_are_refused_with_both() -> None:
    changed = bytearray(cubin("cuda12.4-sm_86"))
    # KPARAM_INFO of parameter 1: index 0, ordinal 1, offset 8, and in the top 14 bits size 12.
    record = changed.find(struct.pack("<BBHIHH", 4, 0x17, 12, 0, 1, 8))
    assert record > 0, "the sample must have the record"
    (value,) = struct.unpack_from("<I", changed, record + 12)
    assert value >> 18 == 12
    struct.pack_into("<I", changed, record + 12, value - (4 << 18))
    entries = [entry(cubin("cuda13.0-sm_80"), 80), entry(bytes(changed), 86)]
    with pytest.raises(StitchError, match="sm_80 and sm_86 disagree on kernel param") as caught:
        check_parity("csrc/unit", entries)
    assert caught.value.where == "csrc/unit"
    assert caught.value.details == (
        "scale: sm_80 has #0 of 8 bytes, #1 of 12 bytes, #2 of 2 bytes",
        "scale: sm_86 has #0 of 8 bytes, #1 of 8 bytes, #2 of 2 bytes",
    )


def test_long_lists_are_shortened() -> None:
    assert shorten(map(str, range(12))) == [str(number) for number in range(12)]
    assert shorten(map(str, range(100)))[11:] == ["11", "... and 88 more"]


def test_images_that_cannot_be_compared_are_left_alone() -> None:
    check_parity("unit", [entry(cubin("cuda13.0-sm_80"), 80), entry(b"IR", 80, kind=8)])


def image(name: str) -> bytes:
    """`sm_90a` or `compute_80`, or another kind: `lto_80`, `other_80`."""
    kind, _, rest = name.partition("_")
    arch = parse_arch(rest)
    kinds = {"sm": "elf", "compute": "ptx"}
    return raw(kinds.get(kind, kind), arch.number, name.encode(), suffix=arch.suffix)


def container(names: str) -> tuple[Entry, ...]:
    return entries(*map(image, names.split()))


def names_of(images: tuple[Entry, ...]) -> str:
    return " ".join(bytes(entry.raw[64:]).rstrip(b"\0").decode() for entry in images)


FAT = "sm_80 sm_86 sm_90 compute_80 compute_90"


@pytest.mark.parametrize(
    ("held", "gpu", "loaded"),
    [
        (FAT, 80, "sm_80"),
        (FAT, 86, "sm_86"),
        (FAT, 89, "sm_86"),  # the same major number, and no higher minor one
        (FAT, 90, "sm_90"),
        (FAT, 100, "compute_90"),  # nothing native: the newest PTX
        (FAT, 75, ""),
        ("sm_89 compute_86", 86, "compute_86"),  # a higher minor number does not run
        ("sm_90 compute_80", 89, "compute_80"),
        ("sm_90 sm_90a", 90, "sm_90 sm_90a"),  # the driver chooses between variants
        ("sm_90a compute_80", 100, "compute_80"),  # 'a' runs on 9.0 alone
        ("sm_90a compute_90a compute_80", 100, "compute_80"),  # as PTX too
        ("sm_80 compute_90a", 90, "compute_90a"),
        ("sm_100 sm_100a sm_100f", 100, "sm_100 sm_100a sm_100f"),
        ("sm_100 sm_100a sm_100f", 103, "sm_100 sm_100f"),  # 'f': the whole family
        ("sm_100f compute_100f compute_90", 120, "compute_90"),  # and no other
        ("compute_120f", 121, "compute_120f"),
        ("lto_80 other_80", 80, ""),
        # Integrated GPUs do not load code of discrete ones, or nobody knows whether they do.
        ("sm_80 sm_86 sm_87 compute_80", 87, "sm_87"),  # its own, for certain
        ("sm_80 sm_86 compute_80", 87, "sm_86 compute_80"),
        ("sm_80 sm_86 compute_80a", 87, "sm_86"),
        ("sm_80 sm_86 sm_87 compute_80", 89, "sm_86 sm_87"),  # nor the other way round
        ("sm_80 sm_87 sm_89", 89, "sm_89"),
        ("sm_87 compute_80", 89, "sm_87 compute_80"),
        ("sm_70 sm_72", 75, "sm_70 sm_72"),
        ("sm_70 sm_72 sm_75", 75, "sm_75"),
        ("sm_70", 72, "sm_70"),
        ("sm_50 sm_52 sm_53", 53, "sm_53"),
        ("sm_60 sm_61 compute_61", 62, "sm_61 compute_61"),
        ("sm_86 sm_87 compute_80", 88, "sm_86 sm_87 compute_80"),
        ("sm_100 sm_101 sm_101a", 103, "sm_100 sm_101"),
        # Thor has two numbers.
        ("sm_100 sm_101a sm_110 compute_90", 110, "sm_110 sm_101a"),
        ("sm_101 compute_90", 110, "compute_90 sm_101"),
        ("sm_100 sm_110f", 101, "sm_100 sm_110f"),
        ("sm_120 compute_90", 121, "sm_120"),  # GB10 loads what discrete GPUs do
    ],
)
def test_what_a_gpu_loads(held: str, gpu: int, loaded: str) -> None:
    assert names_of(loaded_by(Arch(gpu), container(held))) == loaded


@pytest.mark.parametrize(
    ("held", "arch", "kept"),
    [
        (FAT, "80,90", "sm_80 sm_90"),
        (FAT, "86,89", "sm_86"),
        (FAT, "75,80", "sm_80"),
        (FAT, "80+ptx", "sm_80 compute_80"),
        (FAT, "86+ptx", "sm_86"),  # there is no PTX of exactly that architecture
        (FAT, "80,90+ptx", "sm_80 sm_90 compute_90"),
        (FAT, "90,100", "sm_90 compute_90"),
        ("sm_90 sm_90a", "90a", "sm_90 sm_90a"),
        ("sm_80 sm_86 sm_87 compute_80", "80,86,87", "sm_80 sm_86 sm_87"),
        ("lto_75 sm_80 other_75", "90", "lto_75 other_75"),  # unknown kinds stay
    ],
)
def test_selecting_by_architectures(held: str, arch: str, kept: str) -> None:
    selection = selection_for(parse_gpu_list(arch))
    assert names_of(choose(selection, container(held))) == kept


def test_every_ptx_can_be_kept() -> None:
    chosen = choose(Selection((Arch(80),)).with_every_ptx(), container(FAT))
    assert names_of(chosen) == "sm_80 compute_80 compute_90"
    assert choose(Selection((Arch(80),), also=every_ptx), container(FAT)) == chosen


def test_the_order_of_the_images_does_not_matter() -> None:
    held = ["compute_80", "sm_80", "lto_80", "sm_90a", "sm_90"]
    selection = selection_for([ArchRequest(Arch(80), ptx=True), ArchRequest(Arch(90))])
    for order in itertools.permutations(held):
        chosen = choose(selection, container(" ".join(order)))
        assert names_of(chosen) == "sm_80 compute_80 lto_80 sm_90 sm_90a"


def test_identical_images_are_kept_once_and_different_ones_both() -> None:
    one, other = raw("elf", 80, b"one"), raw("elf", 80, b"other")
    chosen = choose(selection_for(parse_gpu_list("80")), entries(other, one, one, other))
    assert names_of(chosen) == "one other"
