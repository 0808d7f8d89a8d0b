"""What thin and stitch promise of any wheel: thin wheels, stitched in any order, are the wheel
thinned to all their GPUs, byte for byte; and thinning twice is thinning once."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fatwheel.arch import Arch, ArchRequest
from fatwheel.edit.stitch import stitch_wheels
from fatwheel.edit.thin import thin_wheel
from fatwheel.edit.union import FileContainers, unite
from fatwheel.errors import StitchError
from fatwheel.fatbin.container import Entry
from fatwheel.fatbin.images import Selection, choose, selection_for
from fatwheel.fatbin.stitch import nvcc_order

from ..helpers import elflibraries, peimages
from ..helpers.deviceimages import ONE, TWO, compute, container, entries, raw, sm, write_wheel

NUMBERS = (75, 80, 86, 87, 90, 100, 101)
SUFFIXES = {75: [""], 80: [""], 86: [""], 87: [""], 90: ["", "a"], 100: ["", "a", "f"], 101: [""]}
KERNELS = [ONE, TWO, {**ONE, **TWO}, {}]
SLOW = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass(frozen=True)
class Sample:
    """Fatbins by name, each with containers of raw entries, and a record or none."""

    fatbins: dict[str, list[list[bytes]]]
    record: bytes | None

    def wheel(self, folder: Path) -> Path:
        files = {
            f"demo/{name}.fatbin": b"".join(container(*raws) for raws in containers)
            for name, containers in self.fatbins.items()
        }
        more = {"fatwheel.json": self.record} if self.record is not None else None
        return write_wheel(folder, {**files, "demo/text.py": b"text"}, version="1.0+x", more=more)


@st.composite
def containers(draw: st.DrawFn) -> list[bytes]:
    """Images of one unit: cubins and PTX of the same kernels, and others of any kind."""
    kernels = draw(st.sampled_from(KERNELS))
    made: list[bytes] = []
    for number in draw(st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=5, unique=True)):
        suffix = draw(st.sampled_from(SUFFIXES[number]))
        compression = draw(st.sampled_from(["", "lz4", "zstd"]))
        how = {"suffix": suffix, "compression": compression}
        kinds = draw(st.sampled_from(["elf", "ptx", "both"]))
        if kinds != "ptx":
            made.append(sm(number, kernels, **how))
        if kinds != "elf":
            made.append(compute(number, kernels, **how))
    if draw(st.booleans()):
        made.append(raw(draw(st.sampled_from(["lto", "other"])), 80, b"whatever"))
    return draw(st.permutations(made))


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    fatbins = {
        name: draw(st.lists(containers(), min_size=1, max_size=4))
        for name in draw(st.sampled_from(["a", "b", "ab"]))
    }
    record = draw(st.sampled_from([None, record_of(fatbins)]))
    return Sample(fatbins, record)


def record_of(fatbins: dict[str, list[list[bytes]]]) -> bytes:
    """As a build of all these images writes it, in some order."""
    raws = [data for all_of_one in fatbins.values() for some in all_of_one for data in some]
    codes = {
        (entry.arch.sm if entry.kind == "elf" else entry.arch.compute): entry.arch
        for entry in entries(*raws)
        if entry.kind in ("elf", "ptx")
    }
    fronts: dict[str, list[str]] = {}
    for code, arch in codes.items():
        fronts.setdefault(arch.compute, []).append(code)
    record = {
        "schema": 1,
        "fronts": [{"virtual": virtual, "codes": made} for virtual, made in fronts.items()],
        "units": [{"name": name, "slices": dict.fromkeys(codes, name)} for name in fatbins],
    }
    return json.dumps(record).encode()


gpus = st.lists(
    st.sampled_from((75, 80, 86, 87, 89, 90, 100, 101, 103, 110)), min_size=1, unique=True
)


@st.composite
def selections(draw: st.DrawFn) -> list[ArchRequest]:
    return [ArchRequest(Arch(number), draw(st.booleans())) for number in draw(gpus)]


def thinned(wheel: Path, selection: Selection, folder: Path) -> Path:
    try:
        return thin_wheel(wheel, selection, folder).path
    except StitchError:  # nothing in it for these GPUs
        assume(False)
        raise


@SLOW
@given(samples(), selections(), selections())
def test_stitching_two_thin_wheels(
    sample: Sample, one: list[ArchRequest], other: list[ArchRequest]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fat = sample.wheel(folder)
        a, b = (
            thinned(fat, selection_for(requests), folder / place)
            for place, requests in (("a", one), ("b", other))
        )
        both = thin_wheel(fat, selection_for([*one, *other]), folder / "both").path.read_bytes()
        for order in ([a, b], [b, a]):
            stitched = stitch_wheels(order, folder / "stitched").path
            assert stitched.read_bytes() == both, f"{one} and {other}"


@SLOW
@given(samples(), selections(), st.booleans())
def test_thinning_twice_is_thinning_once(
    sample: Sample, requests: list[ArchRequest], keep_ptx: bool
) -> None:
    selection = selection_for(requests)
    if keep_ptx:
        selection = selection.with_every_ptx()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        once = thinned(sample.wheel(folder), selection, folder / "once")
        twice = thin_wheel(once, selection, folder / "twice").path
        assert twice.name == once.name
        assert twice.read_bytes() == once.read_bytes()


@given(containers(), selections(), selections())
def test_choosing_for_more_gpus_is_uniting_what_is_chosen(
    raws: list[bytes], one: list[ArchRequest], other: list[ArchRequest]
) -> None:
    held = entries(*raws)
    chosen = [choose(selection_for(requests), held) for requests in (one, other)]
    together = choose(selection_for([*one, *other]), held)
    assert nvcc_order([*chosen[0], *chosen[1]]) == together
    assert choose(selection_for(one), chosen[0]) == chosen[0]


@given(st.lists(containers(), max_size=4), st.data())
def test_laws_of_uniting(given_containers: list[list[bytes]], data: st.DataObject) -> None:
    """Whatever is split is whole again, in any order and grouping, and once is enough."""
    held = [entries(*raws) for raws in given_containers]
    whole = tuple(map(nvcc_order, held))
    parts = [
        FileContainers(str(number), tuple(split))
        for number, split in enumerate(split_up(data, held))
    ]
    for order in itertools.permutations(parts):
        assert unite(order).containers == whole
    first, *others = parts
    grouped = FileContainers("grouped", unite(others).containers) if others else first
    assert unite([first, grouped]).containers == whole
    assert unite([FileContainers("whole", whole), *parts]).containers == whole


def split_up(
    data: st.DataObject, held: Sequence[tuple[Entry, ...]]
) -> list[list[tuple[Entry, ...]]]:
    """Up to three parts of the containers; every part has an image with the kernels of each."""
    parts: list[list[tuple[Entry, ...]]] = [[], [], []]
    for images in held:
        telling = [image for image in images if image.kind in ("elf", "ptx")]
        for part in parts:
            some = data.draw(st.sets(st.sampled_from(images)))
            part.append((data.draw(st.sampled_from(telling)), *some))
    missing = [set(images) for images in held]
    for part in parts:
        for left, taken in zip(missing, part, strict=True):
            left -= set(taken)
    parts[0] = [(*taken, *left) for taken, left in zip(parts[0], missing, strict=True)]
    return parts


# -- linked libraries ----------------------------------------------------------------------------

ARCHS = (80, 86, 90)
FIRST = [sm(number, ONE) for number in ARCHS]
SECOND = [*(sm(number, TWO) for number in ARCHS), compute(90, TWO)]


@pytest.fixture(scope="module", params=["elf", "elf-relr", "pe", "pe-2-gib"])
def library(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tool: Callable[[str], str],
) -> bytes:
    """A linked library with two containers."""
    if request.param.startswith("pe"):
        image = peimages.library(entries(*FIRST), entries(*SECOND))
        if request.param == "pe-2-gib":  # nothing can follow its last section
            far = peimages.Part(".far", 0x7FFFE000, bytes(4096))
            image = replace(image, parts=[*image.parts, far])
        return image.write()
    variant = elflibraries.LIBRARIES["relr" if request.param == "elf-relr" else "rela"]
    return elflibraries.link(
        tool,
        tmp_path_factory.mktemp("library"),
        [*elflibraries.LIBRARY, *variant],
        first=container(*FIRST),
        second=container(*SECOND),
    )


def test_libraries_are_split_and_stitched_in_any_order(library: bytes, tmp_path: Path) -> None:
    fat = write_wheel(tmp_path, {"demo/library": library})

    def thin(wheel: Path, *archs: int) -> Path:
        folder = tmp_path / wheel.parent.name / "-".join(map(str, archs))
        requests = [ArchRequest(Arch(arch)) for arch in archs]
        return thin_wheel(wheel, selection_for(requests), folder).path

    single = {arch: thin(fat, arch) for arch in ARCHS}
    for count in (2, 3):
        for archs in itertools.permutations(ARCHS, count):
            made = stitch_wheels([single[arch] for arch in archs], tmp_path / "stitched")
            assert made.notes == (), "their host code is the same"
            assert made.path.read_bytes() == thin(fat, *archs).read_bytes(), f"{archs}"
    whole = thin(fat, *ARCHS)
    for arch in ARCHS:
        assert thin(whole, arch).read_bytes() == single[arch].read_bytes()
        assert thin(single[arch], arch).read_bytes() == single[arch].read_bytes()
