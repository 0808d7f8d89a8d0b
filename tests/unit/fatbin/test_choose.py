"""Choosing images for GPUs; expectations are the rules of NVIDIA's programming guide, by hand."""

from __future__ import annotations

import itertools

import pytest

from fatwheel.arch import Arch, ArchRequest, parse_arch, parse_gpu_list
from fatwheel.fatbin.container import Entry
from fatwheel.fatbin.select import Selection, choose, every_ptx, loaded_by, selection_for

from ...helpers.deviceimages import entries, raw


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
