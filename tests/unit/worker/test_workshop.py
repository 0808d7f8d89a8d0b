from __future__ import annotations

import dataclasses
import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.errors import StoreError
from fatwheel.model import Environment
from fatwheel.storage.store import Branch
from fatwheel.worker import roots
from fatwheel.worker.assemble import look_up, slice_digests
from fatwheel.worker.upstream import Project
from fatwheel.worker.workshop import Order, laid_out, upstream_of

from ...helpers.standins import cpp_unit, cuda_unit, front, write_nvcc

FRONTS = (front("80", "sm_80", "sm_86"), front("90a"))


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "demo-1.0"
        for name in ("a.cu", "b.cu", "c.cpp"):
            self.write(name, f"int {name[0]};\n")
        home = write_nvcc(folder / "env")
        self.environment = Environment(
            root=folder / "env", python=Path(sys.executable), site=folder / "env" / "site",
            cuda_home=home, include=folder / "env" / "python", python_version="3.11",
            torch="2.11.0", compiler_id="compilers",
        )  # fmt: skip

    def write(self, name: str, text: str) -> None:
        path = self.root / "csrc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def order(self, **changes: Any) -> Order:
        order = Order(
            name="demo-1.0", project=Project(self.root, "backend", (".",), (), 1_700_000_000),
            environment=self.environment, cxx=shutil.which("g++") or "g++", host_id="g++ 12",
            python=sys.executable, seeded=True, variables=(), store_root=str(self.folder / "store"),
            store_limit=1 << 30, store_scope="", store_trunks=(), work=str(self.folder / "work"),
            refuge=str(self.folder / "refuge"),
        )  # fmt: skip
        return dataclasses.replace(order, **changes)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    monkeypatch.setattr(roots, "VIEW_ROOT", tmp_path / "view")
    return Bench(tmp_path)


def test_sources_and_environment_are_at_their_places(bench: Bench) -> None:
    with laid_out(bench.order(), bench.root, FRONTS) as context:
        places = context.places
        assert places.source == str(bench.folder / "view" / "demo-1.0" / "src")
        assert Path(places.source, "csrc", "a.cu").read_text() == "int a;\n"
        assert dict(places.links) == {
            "site": str(bench.folder / "env" / "site"), "env": str(bench.folder / "env"),
            "cuda": str(bench.folder / "env" / "cuda"),
            "python": str(bench.folder / "env" / "python"),
        }  # fmt: skip


def test_a_copy_of_the_view_is_as_good_as_the_project(bench: Bench, tmp_path: Path) -> None:
    """What capture brings out of a container is what shards and assembling see."""
    bench.write("own.h", "int own;\n")
    (bench.root / "build" / "lib.x").mkdir(parents=True)
    (bench.root / "build" / "lib.x" / "made.h").write_text("int made;\n")
    with laid_out(bench.order(), bench.root, FRONTS) as context:
        shutil.copytree(context.places.source, tmp_path / "copy")
        places = context.places
    with laid_out(bench.order(), tmp_path / "copy", FRONTS) as context:
        assert context.places == places
        assert Path(places.source, "csrc", "own.h").read_text() == "int own;\n"


def test_another_file_is_another_listing(bench: Bench) -> None:
    with laid_out(bench.order(), bench.root, FRONTS) as context:
        before = context.places.listing
    bench.write("a.cu", "int changed;\n")
    with laid_out(bench.order(), bench.root, FRONTS) as context:
        assert context.places.listing == before, "the names alone count"
    bench.write("d.h", "int d;\n")
    with laid_out(bench.order(), bench.root, FRONTS) as context:
        assert context.places.listing != before


def test_a_context_is_of_the_order_and_the_fronts(bench: Bench) -> None:
    with laid_out(bench.order(), bench.root, FRONTS) as context:
        assert (context.device_id, context.host_id, context.seeded) == ("compilers", "g++ 12", True)
        assert context.archlist(cuda_unit()) == (800, 900)
        assert Path(context.scratch).is_dir()
        assert Path(context.scratch).is_relative_to(bench.folder / "work")
        assert context.places.in_view(context.nvcc) == "/proc/self/cwd/cuda/bin/nvcc"
        assert context.store().root == bench.folder / "store"
        assert not isinstance(context.store(), Branch)


def test_compilers_see_what_the_order_says_and_none_of_the_users_variables(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CPATH", "NVCC_APPEND_FLAGS", "INCLUDE"):
        monkeypatch.setenv(name, "/users")
    order = bench.order(variables=(("INCLUDE", "/of/the/image"), ("DISTUTILS_USE_SDK", "1")))
    with laid_out(order, bench.root, FRONTS) as context:
        variables = dict(context.environment)
    assert sorted(variables) == [
        "DISTUTILS_USE_SDK", "INCLUDE", "LC_ALL", "PATH", "SOURCE_DATE_EPOCH",
    ]  # fmt: skip
    assert variables["INCLUDE"] == "/of/the/image"
    assert variables["SOURCE_DATE_EPOCH"] == "1700000000"


def test_an_orders_path_comes_before_the_systems(bench: Bench) -> None:
    with laid_out(bench.order(variables=(("PATH", "/msvc"),)), bench.root, FRONTS) as context:
        assert context.variables(bench.folder)["PATH"] == "/msvc"


def test_a_store_that_may_only_be_read_has_a_branch_beside_it(bench: Bench) -> None:
    order = bench.order(store_trunks=(str(bench.folder / "trunk"),))
    with laid_out(order, bench.root, FRONTS) as context:
        store = context.store()
    assert isinstance(store, Branch)
    assert store.root == bench.folder / "store"


def test_its_context_is_enough_to_ask_the_store(bench: Bench) -> None:
    units = tuple(
        dataclasses.replace(unit, source=f"@src@/csrc/{unit.source.rpartition('/')[2]}")
        for unit in (cuda_unit("a"), cuda_unit("b"), cpp_unit("c"))
    )
    with laid_out(bench.order(), bench.root, FRONTS) as context:
        found = look_up(units, FRONTS, context, threads=1)
        assert (found.units, found.slices, found.hits, len(found.pending)) == (3, 6, 0, 5)
        nothing = {"sm_80": None, "sm_86": None, "sm_90a": None}
        assert slice_digests(units, FRONTS, context) == [
            {"name": name, "slices": nothing} for name in "ab"
        ]


def test_upstreams_build_works_in_the_orders_folder(bench: Bench) -> None:
    upstream = upstream_of(bench.order())
    assert upstream.work == bench.folder / "work" / "upstream"
    assert (upstream.project.root, upstream.cxx) == (bench.root, bench.order().cxx)


def test_sources_that_cannot_be_laid_out_are_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bench.folder / "file").write_text("")
    monkeypatch.setattr(roots, "VIEW_ROOT", bench.folder / "file" / "view")
    order = bench.order(refuge=str(bench.folder / "file" / "refuge"))
    with (
        pytest.raises(StoreError, match="cannot make a folder"),
        laid_out(order, bench.root, FRONTS),
    ):
        pass


def test_sources_at_another_path_are_told_of(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (bench.folder / "view").write_text("in the way")
    monkeypatch.setenv("PATH", "/nowhere")  # without unshare
    told: list[str] = []
    with laid_out(bench.order(), bench.root, FRONTS, told.append) as context:
        source = Path(context.places.source)
        assert source == bench.folder / "refuge" / "view" / "demo-1.0" / "src"
        assert ["will differ" in words for words in told] == [True]
        assert (source / "csrc" / "a.cu").read_text() == "int a;\n"


def test_a_context_knows_what_was_laid_out(bench: Bench) -> None:
    sha = hashlib.sha256(b"int a;\n").hexdigest()
    with laid_out(bench.order(), bench.root, FRONTS) as context:
        assert dict(context.places.files or ())["csrc/a.cu"] == sha
