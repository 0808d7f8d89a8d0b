"""nvcc calls in stages, with the stand-in: what is made is what one call makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fatwheel.errors import CompileError
from fatwheel.model import Job
from fatwheel.pipeline.costs import apart
from fatwheel.worker.context import Context
from fatwheel.worker.preprocess import Texts
from fatwheel.worker.slices import (
    KilledForMemoryError,
    absent_keys,
    cost_key,
    known_host_key,
    known_stub,
    made_keys,
    missing,
    run_job,
    slice_key,
)
from fatwheel.worker.stages import Kept, keep_front, kept_front

from ...helpers.standins import calls, cuda_unit, front, job, make_context

CODES = ("sm_80", "sm_86", "compute_80")
FRONT = front("80", *CODES)
WHOLE = job(cuda_unit(), FRONT, host=True)


@pytest.fixture(autouse=True)
def _compiler(tool: Callable[[str], str]) -> None:
    tool("g++")


class Bench:
    def __init__(self, folder: Path, source: str = "int host = 1;\n") -> None:
        self.home = folder / "cuda"
        self.context: Context = make_context(folder, fronts=(FRONT,))
        (folder / "src" / "a.cu").write_text(source)
        self.store = self.context.store()

    def run(self, *jobs: Job) -> None:
        for one in jobs:
            run_job(self.context, self.store, Texts(self.context, self.store), one)

    def missing(self, wanted: Job) -> tuple[Job, ...]:
        return missing(Texts(self.context, self.store), self.context, self.store, wanted)

    def calls(self) -> int:
        """How often a front ran."""
        return len(calls(self.home))

    def made(self) -> dict[str, str | None]:
        """Digests of all that a whole call makes."""
        texts = Texts(self.context, self.store)
        text = texts.recorded(cuda_unit(), "compute_80")
        assert text
        found = {}
        for code in CODES:
            key = slice_key(self.context, cuda_unit(), FRONT, code, text)
            found[code] = self.store.digest("slice", key)
            found[f"abi of {code}"] = self.store.digest("abi", key)
        host = known_host_key(texts, self.context, self.store, cuda_unit(), FRONT)
        return {**found, "host": host and self.store.digest("host", host)}


SOURCES = ["int host = 1;\n", "// stand-in: own stub\n__managed__ int m;\n"]


@pytest.mark.parametrize("source", SOURCES)
def test_stages_make_what_one_call_makes(source: str, tmp_path: Path) -> None:
    whole, stages = Bench(tmp_path / "whole", source), Bench(tmp_path / "stages", source)
    whole.run(WHOLE)
    stages.run(*apart(WHOLE))
    assert [one.label for one in apart(WHOLE)] == [
        "a [compute_80] front", "a [sm_80] ptxas", "a [sm_86] ptxas", "a [compute_80] host",
    ]  # fmt: skip
    assert None not in whole.made().values()
    assert stages.made() == whole.made()
    assert stages.calls() == 1, "one front, and no whole call"
    assert stages.missing(WHOLE) == ()


def _is_whole_or_stage(number: int) -> str:
    return ("whole", *(one.stage for one in apart(WHOLE)))[number]


@pytest.mark.parametrize("number", range(5), ids=_is_whole_or_stage)
def test_the_keys_of_a_job_are_those_of_what_it_puts(number: int, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    asked = (WHOLE, *apart(WHOLE))[number]
    if asked.stage in ("ptxas", "host"):
        bench.run(apart(WHOLE)[0])
    bench.store = bench.context.store()
    bench.run(asked)
    texts = Texts(bench.context, bench.store)
    found = {name: texts.recorded(asked.unit, name) for name in ("compute_80", "host")}
    digests = {name: text for name, text in found.items() if text}
    stub = known_stub(texts, bench.context, bench.store, asked.unit, asked.front)
    keys = made_keys(bench.context, texts, asked, digests, stub)
    assert len(keys) == len(set(keys))
    assert set(keys) == {(kind, key) for kind, key, _ in bench.store.written}
    assert set(made_keys(bench.context, texts, asked, {}, None)) <= set(keys)


def test_a_stage_for_a_host_object_has_the_key_of_the_call_for_it(tmp_path: Path) -> None:
    """A remote is asked for what the store lost, though the front is kept."""
    bench = Bench(tmp_path)
    bench.run(WHOLE)
    texts = Texts(bench.context, bench.store)
    key = known_host_key(texts, bench.context, bench.store, cuda_unit(), FRONT)
    assert key
    bench.store.remove("host", key)
    [left] = bench.missing(WHOLE)
    assert left.stage == "host"
    assert absent_keys(texts, bench.context, bench.store, left) == [("host", key)]


def test_exact_and_split_code_lie_apart_in_the_store(tmp_path: Path) -> None:
    """Host objects have no device code: they are the same, as is known once both fronts ran."""
    bench = Bench(tmp_path)
    split = replace(WHOLE, front=replace(FRONT, split=4))
    bench.run(WHOLE)
    assert bench.missing(split) == (split,), "nothing is known, its stub neither"
    assert cost_key(split) != cost_key(WHOLE)
    for stage in apart(replace(split, host=False)):
        bench.run(stage)
    assert bench.missing(split) == bench.missing(WHOLE) == ()
    assert [any("--split-compile=4" in word for word in call) for call in calls(bench.home)] == [
        False, True,
    ]  # fmt: skip


def test_the_order_of_stages_after_the_front_is_free(tmp_path: Path) -> None:
    one, other = Bench(tmp_path / "one"), Bench(tmp_path / "other")
    first, *later = apart(WHOLE)
    one.run(first, *later)
    other.run(first, *reversed(later))
    assert one.made() == other.made()


def test_another_image_of_a_front_costs_no_front(tmp_path: Path) -> None:
    bench, reference = Bench(tmp_path / "bench"), Bench(tmp_path / "reference")
    reference.run(WHOLE)
    bench.run(job(cuda_unit(), front("80", "sm_80"), host=True))
    more = bench.missing(WHOLE)
    assert [one.label for one in more] == ["a [sm_86] ptxas", "a [compute_80] ptxas"]
    bench.run(*more)
    assert bench.calls() == 1
    assert bench.made() == reference.made()


def test_a_build_that_ended_between_stages_goes_on_after_the_front(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first, second, *_ = apart(WHOLE)
    bench.run(first, second)
    labels = [one.label for one in bench.missing(WHOLE)]
    assert labels == ["a [sm_86] ptxas", "a [compute_80] host"]


@pytest.mark.parametrize("harm", ["gone", "no zlib", "cut off", "without a stub"])
def test_what_the_store_lost_of_a_front_is_made_again(harm: str, tmp_path: Path) -> None:
    bench, reference = Bench(tmp_path / "bench"), Bench(tmp_path / "reference")
    reference.run(WHOLE)
    first, *later = apart(WHOLE)
    bench.run(first)
    spoil(bench, harm)
    bench.run(*later)
    assert bench.made() == reference.made()
    assert bench.calls() == 2, "the first stage after the loss ran the front again"


def spoil(bench: Bench, harm: str) -> None:
    from fatwheel.worker.stages import front_key

    text = Texts(bench.context, bench.store).recorded(cuda_unit(), "compute_80")
    assert text
    key = front_key(bench.context, cuda_unit(), FRONT, text)
    packed = bench.store.get("ptx", key)
    assert packed
    if harm == "without a stub":
        bench.store.remove("stub", key)
    elif harm == "gone":
        bench.store.remove("ptx", key)
    else:
        bench.store.put("ptx", key, packed[:-9] if harm == "cut off" else b"no zlib")


def test_an_edit_between_stages_is_compiled_as_it_is_then(tmp_path: Path) -> None:
    bench, reference = Bench(tmp_path / "bench"), Bench(tmp_path / "reference", "int other;\n")
    reference.run(WHOLE)
    first, *later = apart(WHOLE)
    bench.run(first)
    (tmp_path / "bench" / "src" / "a.cu").write_text("int other;\n")
    bench.run(*later)
    left = bench.missing(WHOLE)
    assert [one.label for one in left] == ["a [compute_80] ptxas"], "PTX was made before the edit"
    bench.run(*left)
    assert bench.made() == reference.made()


def test_a_stage_that_fails_says_which_and_how_to_repeat_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "// stand-in: ptxas-fails\n")
    first, second, *_ = apart(WHOLE)
    bench.run(first)
    with pytest.raises(CompileError) as caught:
        bench.run(second)
    error = caught.value
    assert error.where == "a [sm_80] ptxas"
    assert "ptxas fatal   : no" in error.details
    assert error.hint
    assert "arch=compute_80,code=[sm_80]" in error.hint


def test_a_stage_that_is_killed_for_memory_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "// stand-in: ptxas-killed\n")
    first, second, *_ = apart(WHOLE)
    bench.run(first)
    with pytest.raises(KilledForMemoryError):
        bench.run(second)


def test_nothing_is_kept_of_a_front_where_steps_cannot_be_listed(tmp_path: Path) -> None:
    """nvcc.exe lists what cmd understands."""
    context = make_context(tmp_path, cxx="C:\\msvc\\cl.exe")
    keep_front(context, context.store(), "ab" * 32, Kept(b"ptx", b"stub"))
    assert not context.store().has("ptx", "ab" * 32)


@pytest.mark.parametrize("head", [b"//\n// by NVVM\n\n.version 9.0\n.target sm_80\n", b""])
def test_a_host_object_needs_no_more_of_ptx_than_what_it_begins_with(
    tmp_path: Path, head: bytes
) -> None:
    """Unless it begins in no way that is known."""
    context = make_context(tmp_path)
    store, ptx = context.store(), head + b".address_size 64\n" * bool(head) + b"code;\n" * 9999
    keep_front(context, store, "ab" * 32, Kept(ptx, b"stub"))
    assert kept_front(store, "ab" * 32) == Kept(ptx, b"stub")
    short = head + b".address_size 64\n" if head else ptx
    assert kept_front(store, "ab" * 32, for_host=True) == Kept(short, b"stub")
