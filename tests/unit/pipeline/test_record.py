from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel import __version__
from fatwheel.arch import Arch, ArchRequest
from fatwheel.config.pinned import Sdist
from fatwheel.config.recipe import SourcePin, Target
from fatwheel.errors import StoreError
from fatwheel.pipeline.pack import build_record
from fatwheel.pipeline.plan import PlannedWheel
from fatwheel.provenance.record import record_bytes
from fatwheel.worker.assemble import object_of, slice_digests

from ...helpers.plaintargets import plain_recipe, plain_toolchain
from ...helpers.standins import cpp_unit, cuda_unit, front, make_context

FRONTS = (front("80", "sm_80", "sm_86"), front("90a"))


def target(source: SourcePin) -> Target:
    recipe = plain_recipe(Path("/x"), project="demo_project", source=source, digest="recipe digest")
    toolchain = plain_toolchain(name="linux-cuda13.0", digest="tools digest")
    archs = (ArchRequest(Arch(80)), ArchRequest(Arch(86)), ArchRequest(Arch(90, "a")))
    return Target(recipe, toolchain, "3.11", "2.11.0", archs)


SDIST = SourcePin(package=Sdist("demo", "1.0", "demo-1.0.tar.gz", 1, "ab" * 32, "source"))


class Bench:
    def __init__(self, folder: Path) -> None:
        self.context = make_context(folder)
        self.store = self.context.store()
        (folder / "src" / "a.cu").write_text("int a;\n")
        object_of(self.context, self.store, cuda_unit("a"), FRONTS)

    def record(self, source: SourcePin = SDIST) -> dict[str, Any]:
        units = (cuda_unit("a"), cpp_unit("b"))
        slices = slice_digests(units, FRONTS, self.context)
        return build_record(PlannedWheel(target(source), FRONTS), "1c" * 32, slices, "shared")


@pytest.fixture
def bench(tmp_path: Path, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(tmp_path)


def test_a_record_says_what_went_in(bench: Bench) -> None:
    record = bench.record()
    units = record.pop("units")
    assert record == {
        "schema": 1,
        "fatwheel": __version__,
        "lock": "1c" * 32,
        "recipe": {
            "name": "demo", "project": "demo_project", "version": "1.0", "source": "ab" * 32,
            "digest": "recipe digest",
        },
        "toolchain": {
            "name": "linux-cuda13.0", "platform": "linux-x86_64", "cuda": "13.0",
            "nvcc": "13.0.88", "digest": "tools digest",
        },
        "python": "3.11",
        "torch": "2.11.0",
        "archs": ["80", "86", "90a"],
        "front": "shared",
        "fronts": [
            {"virtual": "compute_80", "codes": ["sm_80", "sm_86"]},
            {"virtual": "compute_90a", "codes": ["sm_90a"]},
        ],
    }  # fmt: skip
    assert [unit["name"] for unit in units] == ["a"], "C++ has no slices"
    assert list(units[0]["slices"]) == ["sm_80", "sm_86", "sm_90a"]


def test_slices_are_named_by_the_digests_of_their_bytes(bench: Bench) -> None:
    [unit] = bench.record()["units"]
    for code, digest in unit["slices"].items():
        stored = Path(bench.store.root, "objects", digest[:2], digest).read_bytes()
        assert hashlib.sha256(stored).hexdigest() == digest, code
    assert len(set(unit["slices"].values())) == 3


def test_a_record_that_cannot_tell_a_slice_is_not_written(bench: Bench) -> None:
    """Another build's eviction between assembling and packing."""
    bench.store.clear("slice")
    with pytest.raises(StoreError, match="run the same command again") as caught:
        bench.record()
    assert "a [sm_80]" in caught.value.details


def test_a_recipe_with_sources_of_its_own_has_no_sdist(bench: Bench) -> None:
    assert bench.record(SourcePin(folder="/x"))["recipe"]["source"] is None


def test_nothing_of_the_machine_is_in_a_record(bench: Bench, tmp_path: Path) -> None:
    text = record_bytes(bench.record()).decode()
    assert str(tmp_path) not in text
    assert text == record_bytes(bench.record()).decode()
    assert json.loads(text)["schema"] == 1
    assert text.endswith("}\n")
