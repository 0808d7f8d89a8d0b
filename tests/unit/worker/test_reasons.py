"""Why units are compiled again."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.model import Front, Unit
from fatwheel.worker.assemble import Lookup, Reason, look_up, object_of
from fatwheel.worker.context import Context
from fatwheel.worker.preprocess import HOST_PASS, Texts
from fatwheel.worker.reasons import LAST, last_key

from ...helpers.standins import cpp_unit, cuda_unit, fronts_of_list, make_context

FRONTS = fronts_of_list(800)
CODES = b'{"device":"","host":"","listing":"","codes":[[]],"commands":[],"units":[]}'


class Bench:
    """Two CUDA units and a C++ unit; two of them include a header of a library."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = make_context(folder, fronts=FRONTS)
        self.header = folder / "site" / "torch" / "include" / "torch" / "macros.h"
        self.header.parent.mkdir(parents=True)
        self.header.write_text("int macros;\n")
        include = ("-isystem", "@site@/torch/include")
        for name in ("a.cu", "b.cu", "c.cpp"):
            self.write(name, f"int {name[0]};\n")
        for name in ("a.cu", "c.cpp"):
            self.write(name, f"#include <torch/macros.h>\nint {name[0]};\n")
        self.units = (cuda_unit("a", *include), cuda_unit("b"), cpp_unit("c", *include))

    def write(self, name: str, text: str) -> None:
        (self.folder / "src" / name).write_text(text, errors="surrogateescape")

    def build(self, fronts: tuple[Front, ...] = FRONTS, **changes: object) -> Lookup:
        """Look up, compile what is lacking, and keep with what."""
        context: Context = dataclasses.replace(self.context, fronts=fronts, **changes)  # type: ignore[arg-type]
        found = look_up(self.units, fronts, context, threads=2)
        store = context.store()
        for unit in self.units:
            object_of(context, store, unit, fronts)
        store.put(LAST, last_key(), found.state.encode())
        return found


@pytest.fixture
def bench(tmp_path: Path, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(tmp_path)


def test_a_first_and_a_second_build_have_no_reasons(bench: Bench) -> None:
    assert bench.build().reasons == ()
    found = bench.build()
    assert (found.pending, found.reasons) == ((), ())


def test_a_header_of_a_library_is_named_as_users_know_it(bench: Bench) -> None:
    bench.build()
    bench.header.write_text("int other;\n")
    assert bench.build().reasons == (Reason("torch/macros.h changed", ("a", "c")),)
    bench.header.write_text("int macros;\n")  # as two torches take turns
    assert bench.build().reasons == ()


def test_a_source_is_named_by_its_place_in_the_project(bench: Bench) -> None:
    bench.build()
    bench.build()
    bench.write("b.cu", "int other;\n")
    assert bench.build().reasons == (Reason("b.cu changed", ("b",)),)


def test_many_files_are_counted_and_the_one_that_most_units_share_is_named(bench: Bench) -> None:
    bench.build()
    for name in ("a.cu", "c.cpp"):
        bench.write(name, f"#include <torch/macros.h>\nint other_{name[0]};\n")
    bench.header.write_text("int other;\n")
    [reason] = bench.build().reasons
    assert reason == Reason("torch/macros.h and 1 more file changed", ("a", "c"))


def test_a_comment_is_no_reason(bench: Bench) -> None:
    bench.build()
    bench.header.write_text("int macros; // the same\n")
    found = bench.build()
    assert (found.pending, found.reasons) == ((), ())


def test_options_are_named(bench: Bench) -> None:
    bench.build()
    a, b, c = bench.units
    bench.units = (a, dataclasses.replace(b, codegen=("-use_fast_math",)), c)
    assert bench.build().reasons == (Reason("options changed (new: -use_fast_math)", ("b",)),)
    bench.units = (a, b, c)
    assert bench.build().pending == ()
    bench.units = (dataclasses.replace(a, preprocessor=("-D", "X=1", *a.preprocessor)), b, c)
    assert bench.build().reasons == (Reason("options changed (new: -D X=1)", ("a",)),)


def test_words_of_the_project_make_no_lines(bench: Bench) -> None:
    bench.build()
    a, b, c = bench.units
    bench.units = (a, dataclasses.replace(b, codegen=("-DX=1\nmade  x.whl",)), c)
    [reason] = look_up(bench.units, FRONTS, bench.context, threads=2).reasons
    assert reason.what == "options changed (new: -DX=1 made  x.whl)"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"device_id": "other"}, "CUDA's compilers changed"),
        ({"host_id": "other"}, "the host compiler changed"),
    ],
)
def test_compilers_are_told_apart(bench: Bench, change: dict[str, object], what: str) -> None:
    bench.build()
    assert what in [reason.what for reason in bench.build(**change).reasons]


def test_another_architecture_is_none(bench: Bench) -> None:
    bench.build()
    fronts = fronts_of_list(800, 900)
    context = dataclasses.replace(bench.context, fronts=fronts)
    found = look_up(bench.units, fronts, context, threads=2)
    assert [job.label for job in found.pending] == ["a [sm_90]", "b [sm_90]"]
    assert found.reasons == ()


def test_what_the_store_lost_is_said(bench: Bench) -> None:
    bench.build()
    bench.build()
    store = bench.context.store()
    for key in (key for made in bench.build().made for kind, key in made if kind == "slice"):
        store.remove("slice", key)
    what = "the store no longer has what was made of them"
    assert bench.build().reasons == (Reason(what, ("a", "b")),)


def test_records_may_go_while_they_are_compared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where another build makes room in the store."""
    bench.build()
    store = bench.context.store()
    texts, kept = Texts(bench.context, store), Texts._variants

    def lost(self: Texts, unit: Unit, pass_: str) -> list[dict[str, object]]:
        found = kept(self, unit, pass_)
        store.remove("text", self.key(unit, pass_))
        return found

    monkeypatch.setattr(Texts, "_variants", lost)
    assert texts.changed(bench.units[2], HOST_PASS, texts.under(bench.context), None) == []


def test_names_of_any_bytes_can_be_told(bench: Bench) -> None:
    name = os.fsdecode(b"\xff.h")
    bench.write("c.cpp", f'#include "{name}"\n')
    bench.write(name, "int c;\n")
    bench.build()
    bench.write(name, "int d;\n")
    assert bench.build().reasons == (Reason("\\udcff.h changed", ("c",)),)


@pytest.mark.parametrize("kept", [b"", b"[]", b'{"units": [7]}', b"\xff", CODES])
def test_what_is_kept_may_be_anything(bench: Bench, kept: bytes) -> None:
    bench.build()
    bench.context.store().put(LAST, last_key(), kept)
    bench.header.write_text("int other;\n")
    shutil.rmtree(bench.folder / "scratch", ignore_errors=True)
    (bench.folder / "scratch").mkdir()
    found = bench.build()
    assert found.reasons == ()
    assert found.pending
