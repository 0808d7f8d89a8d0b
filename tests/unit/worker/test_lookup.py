from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.model import Front, Unit
from fatwheel.worker.assemble import Lookup, look_up, object_of, slice_digests
from fatwheel.worker.context import Context

from ...helpers.standins import calls, cpp_unit, cuda_unit, front, fronts_of_list, make_context

FRONTS = (front("80", "sm_80", "sm_86"), front("90a"))


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = make_context(folder, fronts=fronts_of_list(800, 900))
        for name in ("a.cu", "b.cu", "c.cpp"):
            self.write(name, f"int {name[0]};\n")
        self.units = (cuda_unit("a"), cuda_unit("b"), cpp_unit("c"))

    def write(self, name: str, text: str) -> None:
        (self.folder / "src" / name).write_text(text)

    def with_list(self, *numbers: int) -> Context:
        return dataclasses.replace(self.context, fronts=fronts_of_list(*numbers))

    def look_up(self, fronts: tuple[Front, ...] = FRONTS, context: Context | None = None) -> Lookup:
        return look_up(self.units, fronts, context or self.context, threads=2)

    def compile(
        self,
        unit: Unit,
        fronts: tuple[Front, ...] = FRONTS,
        context: Context | None = None,
    ) -> None:
        context = context or self.context
        object_of(context, context.store(), unit, fronts)


@pytest.fixture
def bench(tmp_path: Path, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(tmp_path)


def labels(lookup: Lookup) -> list[str]:
    return [job.label + (" host" if job.host else "") for job in lookup.pending]


# -- looking up ----------------------------------------------------------------------------------


def test_an_empty_store_answers_nothing(bench: Bench) -> None:
    found = bench.look_up()
    assert labels(found) == [
        "a [sm_80,sm_86]", "a [sm_90a] host", "b [sm_80,sm_86]", "b [sm_90a] host", "c host",
    ]  # fmt: skip
    assert (found.units, found.slices, found.hits, found.archlist_units) == (3, 6, 0, ())


def test_the_jobs_are_without_estimates(bench: Bench) -> None:
    assert {(job.memory, job.seconds) for job in bench.look_up().pending} == {(0, 0)}


def test_what_the_store_answers_is_no_job(bench: Bench) -> None:
    bench.compile(cuda_unit("a"), FRONTS[:1])
    bench.compile(cpp_unit("c"))
    found = bench.look_up()
    assert labels(found) == ["a [sm_90a] host", "b [sm_80,sm_86]", "b [sm_90a] host"], (
        "the host object of a depends on what the new front registers"
    )
    assert (found.slices, found.hits) == (6, 2)


def test_a_full_store_answers_everything_without_a_compiler(bench: Bench) -> None:
    for unit in bench.units:
        bench.compile(unit)
    before = len(calls(bench.folder / "cuda"))
    found = bench.look_up()
    assert (found.pending, found.slices, found.hits) == ((), 6, 6)
    assert len(calls(bench.folder / "cuda")) == before


def test_an_answer_of_the_trunk_counts(bench: Bench) -> None:
    """As in a container, whose store may only be read."""
    bench.compile(cuda_unit("a"))
    trunk = bench.context.store_root
    beside = dataclasses.replace(
        bench.context, store_root=str(bench.folder / "branch"), store_trunks=(trunk,)
    )
    assert labels(bench.look_up(context=beside)) == [
        "b [sm_80,sm_86]", "b [sm_90a] host", "c host",
    ]  # fmt: skip


def test_units_whose_text_changes_with_the_list_are_named(bench: Bench) -> None:
    bench.write("a.cu", "int list[] = {__CUDA_ARCH_LIST__};\n")
    for unit in bench.units:
        bench.compile(unit, FRONTS[:1], bench.with_list(800))
    found = bench.look_up(context=bench.with_list(800, 900))
    assert labels(found) == ["a [sm_80,sm_86]", "a [sm_90a] host", "b [sm_90a] host"]
    assert found.archlist_units == ("a",), "b lacks only what is new"


# -- digests of slices ---------------------------------------------------------------------------


def test_slices_are_named_by_the_digests_of_their_bytes(bench: Bench) -> None:
    for unit in bench.units:
        bench.compile(unit)
    found = slice_digests(bench.units, FRONTS, bench.context)
    assert [unit["name"] for unit in found] == ["a", "b"], "C++ has no slices"
    slices = found[0]["slices"]
    assert list(slices) == ["sm_80", "sm_86", "sm_90a"]
    objects = Path(bench.context.store_root, "objects")
    for digest in slices.values():
        assert digest
        stored = (objects / digest[:2] / digest).read_bytes()
        assert hashlib.sha256(stored).hexdigest() == digest
    assert len(set(slices.values())) == 3


def test_two_units_of_one_name_both_have_slices(bench: Bench) -> None:
    """One source compiled in two ways, as for two modules of a project."""
    one = cuda_unit("a")
    other = dataclasses.replace(one, codegen=(*one.codegen, "--use_fast_math"))
    for unit in (one, other):
        bench.compile(unit)
    first, second = slice_digests([one, other], FRONTS, bench.context)
    assert (first["name"], second["name"]) == ("a", "a")
    assert all(first["slices"].values())
    assert all(second["slices"].values())


def test_a_slice_that_is_not_there_has_no_digest(bench: Bench) -> None:
    bench.compile(cuda_unit("a"), FRONTS[:1])
    found = slice_digests(bench.units, FRONTS, bench.context)
    there, absent = (unit["slices"] for unit in found)
    assert there["sm_80"]
    assert there["sm_86"]
    assert there["sm_90a"] is None
    assert absent == {"sm_80": None, "sm_86": None, "sm_90a": None}
