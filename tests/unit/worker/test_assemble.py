from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.decoders import payload
from fatwheel.errors import CompileError, OutOfMemoryError, StitchError
from fatwheel.fatbin.stitch import image_name, slices_of
from fatwheel.model import Front
from fatwheel.pipeline.costs import estimated
from fatwheel.storage.store import Store
from fatwheel.worker.assemble import jobs_of, look_up_text, object_of
from fatwheel.worker.context import Context
from fatwheel.worker.preprocess import HOST_PASS, Texts, pass_of
from fatwheel.worker.slices import missing, slice_key

from ...helpers.plaintargets import plain_recipe
from ...helpers.standins import (
    DATA,
    calls,
    cpp_unit,
    cuda_unit,
    front,
    fronts_of_list,
    job,
    make_context,
)

FRONTS = (front("80", "sm_80", "compute_80", "sm_86"), front("90a"))


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = make_context(folder, fronts=fronts_of_list(800, 900))
        self.write("a.cu", "int a;\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / "src" / name).write_text(text)

    def object(self, *fronts: Front, context: Context | None = None) -> bytes:
        context = context or self.context
        return object_of(context, context.store(), cuda_unit(), fronts or FRONTS)

    def images(self, *fronts: Front) -> list[str]:
        return [image_name(entry) for entry in slices_of(self.object(*fronts))]

    def calls(self) -> list[str]:
        """What was asked of nvcc, call by call."""
        return [call[call.index("-gencode") + 1] for call in calls(self.folder / "cuda")]


@pytest.fixture
def bench(tmp_path: Path, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(tmp_path)


def test_a_unit_has_a_job_for_each_front_and_the_last_makes_the_host_object() -> None:
    """As one nvcc call for all of them takes the stub of the last."""
    unit = cuda_unit()
    assert jobs_of(unit, FRONTS) == [job(unit, FRONTS[0]), job(unit, FRONTS[1], host=True)]
    assert jobs_of(cpp_unit(), FRONTS) == [job(cpp_unit(), None)]


def test_an_object_holds_the_images_of_all_fronts_in_nvccs_order(bench: Bench) -> None:
    """Ascending, each cubin before its PTX: what nvcc -dryrun passes to fatbinary."""
    entries = slices_of(bench.object())
    assert [image_name(entry) for entry in entries] == ["sm_80", "compute_80", "sm_86", "sm_90a"]
    files = ["cuda13.0-sm_80.cubin", "scale.ptx", "cuda12.4-sm_86.cubin", "cuda13.0-sm_90a.cubin"]
    for entry, name in zip(entries, files, strict=True):
        assert bytes(payload(entry)).rstrip(b"\0") == (DATA / name).read_bytes().rstrip(b"\0")


def test_what_is_missing_is_compiled_on_the_spot_once(bench: Bench) -> None:
    first = bench.object()
    assert bench.calls() == [
        "arch=compute_80,code=[sm_80,compute_80,sm_86]", "arch=compute_90a,code=[sm_90a]",
    ]  # fmt: skip
    assert bench.object() == first
    assert len(bench.calls()) == 2, "the store could have answered"


def test_another_architecture_compiles_that_alone(bench: Bench) -> None:
    bench.object(front("80"))
    assert bench.images(front("80"), front("90a")) == ["sm_80", "sm_90a"]
    assert bench.calls() == ["arch=compute_80,code=[sm_80]", "arch=compute_90a,code=[sm_90a]"]


def test_a_cpp_object_comes_from_the_store_too(bench: Bench) -> None:
    bench.write("b.cpp", "int b;\n")
    context = bench.context
    first = object_of(context, context.store(), cpp_unit(), FRONTS)
    broken = dataclasses.replace(context, cxx="/no/such/compiler")
    assert object_of(broken, broken.store(), cpp_unit(), FRONTS) == first


def test_texts_are_looked_up_where_the_unit_is_known_in_another_state(
    bench: Bench, tmp_path: Path
) -> None:
    """Another Python's environment with other headers that give the same text: no compiling."""
    bench.write("a.cu", "#include <env.h>\nint a;\n")
    unit = cuda_unit("a", "-isystem", "@site@")
    (bench.folder / "site" / "env.h").write_text("int env; // one\n")
    store = bench.context.store()
    object_of(bench.context, store, unit, FRONTS)
    (bench.folder / "site" / "env.h").write_text("int env; // two\n")
    texts = Texts(bench.context, store)
    assert texts.recorded(unit, HOST_PASS) is None
    for work in jobs_of(unit, FRONTS):
        look_up_text(texts, bench.context, bench.context.store(), work)
        assert missing(texts, bench.context, store, work) == ()


def test_where_the_fronts_text_is_new_the_hosts_is_not_looked_up(bench: Bench) -> None:
    bench.write("a.cu", "#include <env.h>\nint a;\n")
    unit = cuda_unit("a", "-isystem", "@site@")
    (bench.folder / "site" / "env.h").write_text("int env;\n")
    store = bench.context.store()
    object_of(bench.context, store, unit, FRONTS)
    (bench.folder / "site" / "env.h").write_text("int other;\n")
    texts = Texts(bench.context, store)
    *_, last = jobs_of(unit, FRONTS)
    look_up_text(texts, bench.context, store, last)
    assert texts.recorded(unit, pass_of(last.front)) is not None
    assert texts.recorded(unit, HOST_PASS) is None
    assert [work.host for work in missing(texts, bench.context, store, last)] == [True]


def test_nothing_is_preprocessed_for_a_unit_that_was_never_compiled(bench: Bench) -> None:
    shutil.rmtree(bench.folder / "cuda")
    work = job(cuda_unit(), FRONTS[0], host=True)
    store = bench.context.store()
    look_up_text(Texts(bench.context, store), bench.context, store, work)


def test_a_source_that_no_longer_preprocesses_is_reported_by_the_compiler(bench: Bench) -> None:
    bench.object()
    bench.write("a.cu", "#error no more\n")
    with pytest.raises(CompileError, match="#error no more"):
        bench.object()


def test_a_unit_that_has_not_enough_memory_is_an_error_with_the_figure(bench: Bench) -> None:
    bench.write("a.cu", "// stand-in: killed\n")
    with pytest.raises(OutOfMemoryError, match=r"at \d+\.\d GiB"):
        bench.object()


def test_a_damaged_slice_is_made_again(bench: Bench) -> None:
    first = bench.object()
    for path in (bench.folder / "store" / "objects").rglob("*"):
        if path.is_file() and path.stat().st_size > 2000:
            path.write_bytes(path.read_bytes()[:-1])
    assert bench.object() == first


@pytest.mark.parametrize(
    ("kind", "value"),
    [("slice", b""), ("slice", b"no fatbin"), ("host", b"no object"), ("abi", b"[7]"),
     ("abi", b"{"), ("abi", b'{"names": [], "layouts": {}}'),
     ("text", b"{}"), ("text", b"[" * 50_000),
     ("text", b'[7, {"text": 1}, {"archlist": null, "files": [["x"]], "text": "x"}]'),
     ("cost", b'{"rss": "much", "cpu": null}'), ("cost", b'{"rss": -1, "cpu": NaN}')],
    ids=lambda value: value[:40] if isinstance(value, str) else value[:40].decode(),
)  # fmt: skip
def test_sound_bytes_of_another_shape_are_as_nothing(bench: Bench, kind: str, value: bytes) -> None:
    """Whatever put them there: the store holds what it was given."""
    first = bench.object()
    store = bench.context.store()
    for path in list((store.root / "refs" / kind).rglob("*")):
        if path.is_file():
            store.put(kind, path.name, value)
    assert bench.object() == first
    recipe = plain_recipe(Path("/x"), memory=1, seconds=1)
    for work in jobs_of(cuda_unit(), FRONTS):
        assert estimated(work, store, recipe).seconds > 0


def test_in_a_branch_too_what_is_no_slice_is_made_again(bench: Bench, tmp_path: Path) -> None:
    """The trunk stays as it is."""
    first = bench.object()
    trunk = bench.context.store()
    for path in (trunk.root / "refs" / "slice").rglob("*"):
        if path.is_file():
            trunk.put("slice", path.name, b"no fatbin")
    before = {path: path.read_bytes() for path in trunk.root.rglob("*") if path.is_file()}
    branch = dataclasses.replace(
        bench.context, store_root=str(tmp_path / "branch"), store_trunks=(str(trunk.root),)
    )
    assert bench.object(context=branch) == first
    assert {path: path.read_bytes() for path in before} == before


def kept_with(bench: Bench, code: str) -> tuple[Store, str, dict[str, Any]]:
    """The store, a slice's key there, and what is kept with the slice."""
    store, unit = bench.context.store(), cuda_unit()
    text = Texts(bench.context, store).recorded(unit, f"compute_{code}")
    assert text
    key = slice_key(bench.context, unit, front(code), f"sm_{code}", text)
    known: dict[str, Any] = store.get_json("abi", key)
    assert known, "a slice's kernels and parameters are kept with it"
    return store, key, known


@pytest.mark.parametrize("codes", [("80",), ("80", "90a")], ids=lambda codes: "-".join(codes))
def test_the_host_object_registers_what_the_last_front_has(
    bench: Bench, codes: tuple[str, ...]
) -> None:
    """Whichever other fronts are compiled before or after it."""
    bench.write("a.cu", "// stand-in: own stub\n")
    for order in (codes, ("80",), ("80", "90a"), codes):
        last = f"compute_{order[-1]}".encode()
        made = bench.object(*map(front, order))
        [registered] = set(re.findall(rb"\0(compute_\w+)\0", made))
        assert registered == last, order


def test_sets_of_architectures_share_a_host_object(bench: Bench) -> None:
    for order in (("80",), ("90a",), ("80", "90a")):
        bench.object(*map(front, order))
    objects = list((bench.folder / "store" / "refs" / "host").rglob("*"))
    assert len([path for path in objects if path.is_file()]) == 1


def test_fronts_may_have_kernels_of_their_own(bench: Bench) -> None:
    """As from a source that leaves some out for other architectures."""
    first = bench.object(front("80"), front("90a"))
    store, key, known = kept_with(bench, "90a")
    kernels = {**known["kernels"], "more": "no parameters"}
    store.put_json("abi", key, {**known, "kernels": kernels})
    assert bench.object(front("80"), front("90a")) == first


def test_images_of_one_front_with_other_kernels_are_made_again(bench: Bench) -> None:
    both = front("80", "sm_80", "compute_80")
    first = bench.object(both)
    store, unit = bench.context.store(), cuda_unit()
    text = Texts(bench.context, store).recorded(unit, "compute_80")
    assert text
    key = slice_key(bench.context, unit, both, "compute_80", text)
    known = store.get_json("abi", key)
    store.put_json("abi", key, {**known, "kernels": dict.fromkeys(["$empty", "scalf"])})
    assert bench.object(both) == first
    assert store.get_json("abi", key) == known


def test_managed_variables_that_not_all_have_are_refused_by_name(bench: Bench) -> None:
    """The host's code reads them through pointers, which stay null on other GPUs."""
    bench.object(front("80"), front("90a"))
    store, key, known = kept_with(bench, "90a")
    store.put_json("abi", key, {**known, "managed": ["_ZN4demo5shownE"]})
    with pytest.raises(StitchError, match="the same __managed__ variables") as caught:
        bench.object(front("80"), front("90a"))
    assert caught.value.where == "a"
    assert caught.value.details == ("only in sm_90a: _ZN4demo5shownE",)
    store, key, known = kept_with(bench, "80")
    store.put_json("abi", key, {**known, "managed": ["_ZN4demo5shownE"]})
    assert bench.images(front("80"), front("90a")) == ["sm_80", "sm_90a"]


def test_slices_with_other_parameters_are_refused_by_name(bench: Bench) -> None:
    bench.object(front("80"), front("90a"))
    store, key, known = kept_with(bench, "90a")
    kernels = {**known["kernels"], "scale": "#0 of 8 bytes"}
    store.put_json("abi", key, {**known, "kernels": kernels})
    with pytest.raises(StitchError, match="disagree on kernel parameters") as caught:
        bench.object(front("80"), front("90a"))
    assert caught.value.details == (
        f"scale: sm_80 has {known['kernels']['scale']}",
        "scale: sm_90a has #0 of 8 bytes",
    )


def test_a_slice_without_what_is_kept_with_it_is_missing(bench: Bench) -> None:
    first = bench.object(front("80"), front("90a"))
    store, key, known = kept_with(bench, "90a")
    store.remove("abi", key)
    texts = Texts(bench.context, store)
    work = job(cuda_unit(), front("90a"))
    [part] = missing(texts, bench.context, store, work)
    assert part.label == "a [sm_90a] ptxas", "it is made beforehand, like others"
    assert bench.object(front("80"), front("90a")) == first
    assert len(bench.calls()) == 2, "its front is kept"
    assert store.get_json("abi", key) == known


@pytest.mark.parametrize(
    "changed",
    [
        {"kernels": None}, {"kernels": ["scale"]}, {"kernels": {"scale": 7}},
        {"kernels": {"scale": None}}, {"managed": None}, {"managed": [7]}, {"stub": None},
        {"stub": 7},
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("code", ["80", "90a"])
def test_what_does_not_tell_of_kernels_is_made_again(
    bench: Bench, code: str, changed: dict[str, object]
) -> None:
    first = bench.object(front("80"), front("90a"))
    store, key, known = kept_with(bench, code)
    store.put_json("abi", key, {**known, **changed})
    assert bench.object(front("80"), front("90a")) == first
    assert store.get_json("abi", key) == known
