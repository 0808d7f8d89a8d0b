"""Which front serves which architectures; __CUDA_ARCH_LIST__ as `nvcc --dryrun` defines it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.arch import ArchRequest, parse_arch
from fatwheel.model import Front
from fatwheel.pipeline.plan import Shown, exact_fronts, proven_fronts, shared_fronts

from ...helpers.standins import cuda_unit, make_context


def requests(text: str) -> list[ArchRequest]:
    return [
        ArchRequest(parse_arch(item.removesuffix("+ptx")), item.endswith("+ptx"))
        for item in text.split(",")
    ]


def show(fronts: tuple[Front, ...]) -> list[str]:
    return [f"{front.virtual}: {' '.join(front.codes)}" for front in fronts]


@pytest.mark.parametrize(
    ("archs", "expected"),
    [
        ("80", ["80: sm_80"]),
        ("80,86,89", ["80: sm_80", "86: sm_86", "89: sm_89"]),
        ("80+ptx,90a", ["80: sm_80 compute_80", "90a: sm_90a"]),
        ("90a+ptx", ["90a: sm_90a compute_90a"]),
        ("120f", ["120f: sm_120f"]),
    ],
)
def test_exact_fronts_are_one_for_each_architecture(archs: str, expected: list[str]) -> None:
    assert show(exact_fronts(requests(archs))) == expected


@pytest.mark.parametrize(
    ("archs", "expected"),
    [
        ("80,86,89", ["80: sm_80 sm_86 sm_89"]),
        ("86,89", ["86: sm_86 sm_89"]),
        ("89,80", ["80: sm_80 sm_89"]),
        ("80,86,90", ["80: sm_80 sm_86", "90: sm_90"]),
        ("100,103,120,121", ["100: sm_100 sm_103", "120: sm_120 sm_121"]),
        ("75,80,86", ["75: sm_75", "80: sm_80 sm_86"]),
        # A suffix is a family of its own: its front knows instructions that others have not.
        ("90,90a", ["90: sm_90", "90a: sm_90a"]),
        ("100,100a,103", ["100: sm_100 sm_103", "100a: sm_100a"]),
        ("100a,103a", ["100a: sm_100a", "103a: sm_103a"]),
        ("120f,121f", ["120f: sm_120f", "121f: sm_121f"]),
        # PTX of the lowest comes from the shared front, that of others from their own.
        ("80+ptx,86", ["80: sm_80 compute_80 sm_86"]),
        ("80,86,89+ptx", ["80: sm_80 sm_86 sm_89", "89: compute_89"]),
        ("80+ptx,86+ptx", ["80: sm_80 compute_80 sm_86", "86: compute_86"]),
        ("90", ["90: sm_90"]),
    ],
)
def test_shared_fronts_are_one_for_each_family(archs: str, expected: list[str]) -> None:
    assert show(shared_fronts(requests(archs))) == expected


def test_only_what_is_proven_is_shared() -> None:
    asked: list[str] = []

    def proven(front: Front) -> Shown:
        if (key := f"{front.key}: {' '.join(front.codes)}") not in asked:
            asked.append(key)
        return None if front.virtual.major == 8 and not front.split else frozenset()

    fronts, units = proven_fronts(requests("80,86,100,103,90"), proven)
    assert not units, "all of them"
    assert show(fronts) == ["80: sm_80 sm_86", "90: sm_90", "100: sm_100", "103: sm_103"]
    assert asked == [
        "80 split 4: sm_80 sm_86", "80: sm_80 sm_86", "90 split 4: sm_90",
        "100 split 4: sm_100 sm_103", "100: sm_100 sm_103",
        "100 split 4: sm_100", "103 split 4: sm_103",
    ], "one alone needs no proof"  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "fronts", "units"),
    [
        ({"80": {"a", "b"}}, ["80: sm_80 sm_86", "100: sm_100", "103: sm_103"], ("a", "b")),
        # One front for units of one family, another for the same units of the other one.
        ({"80": {"a", "b"}, "100": {"b", "c"}}, ["80: sm_80 sm_86", "100: sm_100 sm_103"], ("b",)),
        ({"80": None, "100": {"b"}}, ["80: sm_80 sm_86", "100: sm_100 sm_103"], ("b",)),
        ({"80": {"a"}, "100": {"b"}}, ["80: sm_80 sm_86", "100: sm_100", "103: sm_103"], ("a",)),
        # What is shown of all units comes before what is of some, though it may cost more.
        ({"80 split 4": {"a"}, "80": None},
         ["80: sm_80 sm_86", "100: sm_100", "103: sm_103"], ()),
        ({"80 split 4": {"a"}, "80": {"a", "b"}},
         ["80: sm_80 sm_86", "100: sm_100", "103: sm_103"], ("a", "b")),
        ({"own 80 split 4": {"a", "b"}, "own 86 split 4": {"b"}},
         ["80 split 4: sm_80", "86 split 4: sm_86", "100: sm_100", "103: sm_103"], ("b",)),
        ({"own 80 split 4": {"a"}, "own 86 split 4": set(), "own 100 split 4": None},
         ["80: sm_80", "86: sm_86", "100 split 4: sm_100", "103: sm_103"], ()),
        ({"80 split 4": {"a"}, "80": {"a"}},
         ["80 split 4: sm_80 sm_86", "100: sm_100", "103: sm_103"], ("a",)),
    ],
)  # fmt: skip
def test_what_is_proven_of_some_units_is_for_them_alone(
    shown: dict[str, set[str] | None], fronts: list[str], units: tuple[str, ...]
) -> None:
    def proven(front: Front) -> Shown:
        found = shown.get(front.key if len(front.codes) > 1 else f"own {front.key}", set())
        return None if found is None else frozenset(found)

    found, of = proven_fronts(requests("80,86,100,103"), proven)
    keys = [f"{front.key}: {' '.join(front.codes)}" for front in found]
    assert (keys, of) == (fronts, units)


@pytest.mark.parametrize("archs", ["80,86,89", "80+ptx,86,90a,120f", "75,80,86+ptx,89,90"])
def test_every_image_that_was_asked_for_is_made_once(archs: str) -> None:
    wanted = [r.arch.sm for r in requests(archs)]
    wanted += [r.arch.compute for r in requests(archs) if r.ptx]
    for fronts in (exact_fronts(requests(archs)), shared_fronts(requests(archs))):
        assert sorted(code for front in fronts for code in front.codes) == sorted(wanted)


@pytest.mark.parametrize(
    ("archs", "exact", "shared"),
    [
        ("80,86,89", (800, 860, 890), (800,)),
        ("90,90a", (900,), (900,)),
        ("120f,80,86", (800, 860, 1200), (800, 1200)),
        ("80,86+ptx", (800, 860), (800, 860)),
    ],
)
def test_the_list_is_that_of_one_nvcc_call_with_these_fronts(
    archs: str, exact: tuple[int, ...], shared: tuple[int, ...], tmp_path: Path
) -> None:
    def archlist(fronts: tuple[Front, ...]) -> tuple[int, ...]:
        return make_context(tmp_path, fronts=fronts).archlist(cuda_unit())

    assert archlist(exact_fronts(requests(archs))) == exact
    assert archlist(shared_fronts(requests(archs))) == shared
