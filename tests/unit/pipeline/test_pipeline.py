"""Whole builds of a small project, with a stand-in for nvcc and everything else real."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from fatwheel.arch import parse_arch, parse_arch_list
from fatwheel.compilers.nvcc import PARTS
from fatwheel.config.pinned import Package
from fatwheel.config.recipe import Target
from fatwheel.engines import process
from fatwheel.engines.registry import engine_named
from fatwheel.errors import (
    CompileError,
    HashMismatchError,
    StoreError,
    ToolchainError,
    UpstreamError,
    UsageError,
    VerifyError,
)
from fatwheel.events import (
    Event,
    JobFinished,
    JobStarted,
    Note,
    Planned,
    StepStarted,
    WheelMade,
    silent,
)
from fatwheel.fatbin.stitch import image_name, slices_of
from fatwheel.pipeline import build as build_module
from fatwheel.pipeline import resolve
from fatwheel.pipeline.build import build, check_replaced, split
from fatwheel.pipeline.plan import BuildPlan, BuildRequest, plan_build, planned_wheel
from fatwheel.pipeline.proof import Way
from fatwheel.provenance.lock import target_of
from fatwheel.storage.cache import open_store

from ...helpers.demoproject import Demo
from ...helpers.somelocks import some_lock
from ...helpers.standins import calls

NAME = "demo-1.0+cu130torch2.11.sm80.sm86-py3-none-linux_x86_64.whl"


class Bench(Demo):
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.out = folder / "dist"
        self.events: list[Event] = []
        for name in ("load_recipe", "load_toolchain"):
            monkeypatch.setattr(resolve, name, getattr(self, name))
        monkeypatch.setattr(process, "ready_tools", self.ready_tools)

    def plan(
        self, archs: str | None = None, front: str | None = "exact", **changes: Any
    ) -> BuildPlan:
        wanted: dict[str, Any] = {
            "kernel": "demo", "archs": archs, "pythons": "3.11", "torch": None,
            "toolchain": "tools", "engine": "process", "shards": None, "jobs": 2,
            "memory": 1 << 30, "front": front, "out": self.out,
        }  # fmt: skip
        return plan_build(BuildRequest(**{**wanted, **changes}))

    def build(self, *words: str | None, **changes: Any) -> WheelMade:
        self.events.clear()
        [made] = build(self.plan(*words, **changes), self.events.append)
        return made

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def compiled(self) -> list[str]:
        return sorted(event.job.label for event in self.of(JobFinished))

    def nvcc_calls(self) -> int:
        return len(calls(self.home))

    def wheels(self) -> list[str]:
        return sorted(path.name for path in self.out.glob("*.whl"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(tmp_path, monkeypatch)


# -- a build -----------------------------------------------------------------------------------


def test_a_build_makes_a_wheel_with_all_images_in_all_units(bench: Bench) -> None:
    made = bench.build()
    assert bench.wheels() == [NAME]
    assert made.path == str(bench.out / NAME)
    known = subprocess.run(["sha256sum", made.path], capture_output=True, text=True, check=True)
    assert (made.sha256, made.size) == (known.stdout.split()[0], Path(made.path).stat().st_size)
    assert (made.archs, made.hits, made.compiled) == ("80,86", 0, 4)
    with zipfile.ZipFile(made.path) as wheel:
        for unit in ("a", "b"):
            images = [image_name(entry) for entry in slices_of(wheel.read(f"demo/{unit}.o"))]
            assert images == ["sm_80", "sm_86"]
        [name] = [name for name in wheel.namelist() if name.endswith("/fatwheel.json")]
        record = json.loads(wheel.read(name))
    assert [unit["name"] for unit in record["units"]] == ["csrc/a", "csrc/b"]
    assert all(all(unit["slices"].values()) for unit in record["units"])


def test_the_steps_of_a_build_in_order(bench: Bench) -> None:
    bench.build()
    assert [event.step for event in bench.of(StepStarted)] == [
        "source", "capture", "plan", "compile", "assemble", "pack", "check",
    ]  # fmt: skip
    [planned] = bench.of(Planned)
    assert (planned.units, planned.slices, planned.hits, planned.pending) == (3, 4, 0, 5)
    assert (planned.shards, planned.jobs, planned.memory) == (2, 2, 1 << 30)
    assert bench.compiled() == [
        "csrc/a [sm_80]", "csrc/a [sm_86]", "csrc/b [sm_80]", "csrc/b [sm_86]", "csrc/c",
    ]  # fmt: skip
    assert isinstance(bench.events[-1], WheelMade)
    assert bench.work_folders() == []


def test_two_builds_from_nothing_give_the_same_bytes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench.build()
    monkeypatch.setenv("FATWHEEL_CACHE", str(bench.folder / "other-cache"))
    second = bench.build(out=bench.folder / "other-dist")
    assert (second.compiled, second.sha256) == (4, first.sha256)


def test_the_same_build_again_comes_from_the_store(bench: Bench) -> None:
    first = bench.build()
    before = bench.nvcc_calls()
    again = bench.build(out=bench.folder / "elsewhere")
    assert (again.sha256, again.hits, again.compiled) == (first.sha256, 4, 0)
    assert bench.nvcc_calls() == before
    assert bench.of(StepStarted) == [], "nothing was unpacked, captured or assembled"


def test_a_wheel_is_split_into_one_per_architecture(bench: Bench) -> None:
    fat = bench.build("80+ptx,86")
    thin = split([fat], None, bench.events.append)
    label = "demo-1.0+cu130torch2.11"
    assert [made.path.name for made in thin] == [
        f"{label}.sm80.ptx-py3-none-linux_x86_64.whl", f"{label}.sm86-py3-none-linux_x86_64.whl",
    ]  # fmt: skip
    assert {made.path.parent for made in thin} == {bench.out}
    for made, expected in zip(thin, (["sm_80", "compute_80"], ["sm_86"]), strict=True):
        with zipfile.ZipFile(made.path) as wheel:
            for unit in ("a", "b"):
                images = [image_name(entry) for entry in slices_of(wheel.read(f"demo/{unit}.o"))]
                assert images == expected
            [name] = [name for name in wheel.namelist() if name.endswith("/fatwheel.json")]
            units = json.loads(wheel.read(name))["units"]
            assert {code for unit in units for code in unit["slices"]} == set(expected)


def test_a_wheel_for_one_architecture_is_not_split(bench: Bench) -> None:
    assert split([bench.build("80")], None, bench.events.append) == []
    note = bench.of(Note)[-1]
    assert note.text.endswith("is for one architecture already: nothing to split")


def test_a_lost_wheel_is_put_together_again_without_compiling(bench: Bench) -> None:
    first = bench.build()
    before = bench.nvcc_calls()
    open_store().clear("wheel")
    again = bench.build(out=bench.folder / "elsewhere")
    assert (again.sha256, again.hits, again.compiled) == (first.sha256, 4, 0)
    assert bench.nvcc_calls() == before
    assert bench.compiled() == []


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "swap"])
def test_a_store_of_which_nothing_is_whole(bench: Bench, harm: str) -> None:
    """The same bytes as from an empty one, and nothing is left to assembling."""
    first = bench.build()
    files = [path for path in open_store().root.rglob("*") if path.is_file()]
    contents = [path.read_bytes() for path in files]
    for path, data, other in zip(files, contents, contents[1:] + contents[:1], strict=True):
        middle = len(data) // 2
        flip = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"flip": flip, "cut": data[:-1], "empty": b"", "swap": other}[harm])
    again = bench.build(out=bench.folder / "elsewhere")
    assert (again.sha256, again.hits, again.compiled) == (first.sha256, 0, 4)
    assert len(bench.compiled()) == 5, "compiled as planned, not where it was missed"
    assert open_store().check() == []


def test_another_architecture_compiles_that_alone(bench: Bench) -> None:
    bench.build("80,86")
    made = bench.build("80,86,90a")
    assert bench.compiled() == ["csrc/a [sm_90a]", "csrc/b [sm_90a]"]
    assert (made.hits, made.compiled) == (4, 2)
    assert bench.wheels() == [NAME, NAME.replace("sm86", "sm86.sm90a")]


def test_units_that_read_the_list_are_compiled_again_and_it_is_said(bench: Bench) -> None:
    bench.write("csrc/a.cu", "int list[] = {__CUDA_ARCH_LIST__};\n")
    bench.build("80")
    bench.build("80,86")
    assert bench.compiled() == ["csrc/a [sm_80]", "csrc/a [sm_86]", "csrc/b [sm_86]"]
    [planned] = bench.of(Planned)
    assert planned.archlist_units == ("csrc/a",)
    assert not [note for note in bench.of(Note) if "csrc/b" in note.text]


def test_an_edit_compiles_what_it_touches(bench: Bench) -> None:
    bench.build()
    bench.write("csrc/b.cu", "int b = 2;\n")
    made = bench.build()
    assert bench.compiled() == ["csrc/b [sm_80]", "csrc/b [sm_86]"]
    assert (made.hits, made.compiled) == (2, 2)


def test_ptx_is_built_from_its_own_architecture(bench: Bench) -> None:
    made = bench.build("80+ptx")
    with zipfile.ZipFile(made.path) as wheel:
        images = [image_name(entry) for entry in slices_of(wheel.read("demo/a.o"))]
    assert images == ["sm_80", "compute_80"]
    assert "sm80.ptx" in made.path


# -- fronts ------------------------------------------------------------------------------------


def test_one_front_for_several_architectures_makes_one_job_a_unit(bench: Bench) -> None:
    made = bench.build(front="shared")
    assert bench.compiled() == ["csrc/a [sm_80,sm_86]", "csrc/b [sm_80,sm_86]", "csrc/c"]
    assert made.compiled == 4, "slices, not jobs"


def test_how_fronts_were_shared_makes_another_wheel(bench: Bench) -> None:
    exact = bench.build(front="exact")
    shared = bench.build(front="shared", out=bench.folder / "shared")
    assert exact.sha256 != shared.sha256, "the record says which"


def _target(bench: Bench, archs: str) -> Target:
    known = tuple(parse_arch(name) for name in ("80", "86", "89"))
    requests = parse_arch_list(archs, known)
    return Target(bench.recipe, bench.toolchain, "3.11", "2.11.0", requests)


def _fronts(target: Target, mode: str) -> list[str]:
    return [f"{front.key}: {' '.join(front.codes)}" for front in planned_wheel(target, mode).fronts]


OWN, OWN_SPLIT = ["80: sm_80", "86: sm_86"], ["80 split 4: sm_80", "86 split 4: sm_86"]
SHARED, BOTH = ["80: sm_80 sm_86"], ["80 split 4: sm_80 sm_86"]
DIFFERS = ("sm_86 k",)


@pytest.mark.parametrize(
    ("archs", "ways", "fronts"),
    [
        ("80,86", {"shared": ()}, SHARED),
        ("80,86", {"shared": DIFFERS}, OWN),
        ("80,86", {"shared": (), "split": (), "both": ()}, BOTH),
        ("80,86", {"shared": (), "split": (), "both": DIFFERS}, SHARED),
        ("80,86", {"shared": DIFFERS, "split": (), "both": DIFFERS}, OWN_SPLIT),
        ("80,86", {"split": DIFFERS, "both": DIFFERS}, OWN),
        ("80,86", {}, OWN),
        ("80,86,89", {"shared": (), "both": ()}, [*OWN, "89: sm_89"]),
        ("80,86,89", {"split": ()}, [*OWN_SPLIT, "89: sm_89"]),
        ("86", {"split": ()}, OWN_SPLIT[1:]),
        ("86", {"both": ()}, OWN[1:]),
        # PTX of a split front tells drivers to split it: that is not proven.
        ("80,86+ptx", {"split": ()}, [OWN_SPLIT[0], "86: sm_86 compute_86"]),
        ("80+ptx,86", {"shared": (), "both": ()}, ["80: sm_80 compute_80 sm_86"]),
        ("80,86+ptx", {"shared": (), "both": ()}, [*BOTH, "86: compute_86"]),
    ],
)
def test_auto_goes_the_cheapest_way_that_a_proof_covers(
    bench: Bench, archs: str, ways: dict[Way, tuple[str, ...]], fronts: list[str]
) -> None:
    bench.prove(ways)
    target = _target(bench, archs)
    assert _fronts(target, "auto") == fronts


def test_a_unit_that_differs_is_built_as_nvcc_does_and_others_share(bench: Bench) -> None:
    bench.prove({"shared": DIFFERS}, others={"csrc/b": {"shared": ()}})
    wheel = planned_wheel(_target(bench, "80,86"), "auto")
    assert ([front.key for front in wheel.fronts], wheel.front_units) == (["80"], ("csrc/b",))


def test_a_sample_does_not_speak_for_a_unit_that_differs_by_another_proof(bench: Bench) -> None:
    bench.prove({"shared": ()})
    target = _target(bench, "80,86")
    assert planned_wheel(target, "auto").front_units == (), "for all"
    bench.prove({"shared": ()}, "80,86,89", {"csrc/b": {"shared": ("sm_89 k",)}})
    assert planned_wheel(target, "auto").front_units == (), "89 is not asked for"
    bench.prove({"shared": ()}, "80,86,89", {"csrc/b": {"shared": DIFFERS}})
    wheel = planned_wheel(target, "auto")
    assert ([front.key for front in wheel.fronts], wheel.front_units) == (["80"], ("csrc/a",))


def test_a_proof_of_other_compilers_shows_nothing(bench: Bench) -> None:
    bench.prove({"shared": (), "split": (), "both": ()})
    target = _target(bench, "80,86")
    nvcc = Package("nvcc", "13.1", "nvcc.whl", 7, "ab" * 32, "compiler")
    other = dataclasses.replace(target.toolchain, packages=(nvcc,))
    assert _fronts(dataclasses.replace(target, toolchain=other), "auto") == OWN


@pytest.mark.parametrize(
    ("mode", "fronts"),
    [("exact", OWN), ("shared", SHARED), ("split", OWN_SPLIT), ("fast", BOTH), ("auto", OWN)],
)
def test_who_asks_for_a_way_needs_no_proof(bench: Bench, mode: str, fronts: list[str]) -> None:
    assert _fronts(_target(bench, "80,86"), mode) == fronts


def test_a_fast_wheel_takes_no_other_ones_place(bench: Bench) -> None:
    """They have the same name: known once it is built, or by the plan, where it is as usual."""
    exact = bench.build()
    with pytest.raises(UsageError, match="was not built with --fast") as caught:
        bench.build(front=None, fast=True)
    plan = bench.plan(front=None, fast=True)
    check_replaced(plan)
    shutil.copy(exact.path, bench.out / plan.wheels[0].name.filename)
    with pytest.raises(UsageError, match="was not built with --fast"):
        check_replaced(plan)
    assert "--out FOLDER" in (caught.value.hint or "")
    known = subprocess.run(["sha256sum", exact.path], capture_output=True, text=True, check=True)
    assert known.stdout.split()[0] == exact.sha256
    with zipfile.ZipFile(exact.path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(exact.path, "w") as archive:  # as the project's own builders make it
        for name, data in members.items():
            if not name.endswith("/fatwheel.json"):
                archive.writestr(name, data)
    with pytest.raises(UsageError, match="was not built with --fast"):
        bench.build(front=None, fast=True)


def test_a_fast_slice_answers_no_exact_build(bench: Bench) -> None:
    """Nor the other way round: each compiles its own, and the wheels differ by their records."""
    bench.write("csrc/a.cu", "// stand-in: split code\nint a;\n")
    fast = bench.build(front=None, fast=True, out=bench.folder / "fast")
    assert bench.compiled() == ["csrc/a [sm_80,sm_86]", "csrc/b [sm_80,sm_86]", "csrc/c"]
    exact = bench.build(front="exact")
    assert bench.compiled() == [
        "csrc/a [sm_80]", "csrc/a [sm_86]", "csrc/b [sm_80]", "csrc/b [sm_86]",
    ]  # fmt: skip
    again = bench.build(front=None, fast=True, out=bench.folder / "fast")
    assert bench.compiled() == []
    assert again.sha256 == fast.sha256 != exact.sha256
    for wheel, front, fronts in (
        (exact, "exact", [None, None]), (fast, "fast", [PARTS]),
    ):  # fmt: skip
        with zipfile.ZipFile(wheel.path) as archive:
            [name] = [one for one in archive.namelist() if one.endswith("/fatwheel.json")]
            record = json.loads(archive.read(name))
        assert (record["front"], [one.get("split") for one in record["fronts"]]) == (front, fronts)


def test_an_nvcc_that_cannot_split_says_so_before_it_compiles(bench: Bench) -> None:
    (bench.home / "old").touch()
    with pytest.raises(ToolchainError, match="this nvcc has no --split-compile") as caught:
        bench.build(front="split")
    assert caught.value.hint == (
        "a newer CUDA's has it; or use --front shared, and for proofs --ways shared"
    )
    assert bench.compiled() == []
    bench.build(front="shared")


# -- failures ----------------------------------------------------------------------------------


def test_a_compile_error_in_one_unit_keeps_the_others(bench: Bench) -> None:
    bench.write("csrc/a.cu", "#error not yet\n")
    with pytest.raises(CompileError) as caught:
        bench.build()
    assert "#error not yet" in str(caught.value)
    assert "csrc/a [sm_80]" in str(caught.value)
    assert "csrc/a [sm_86]" in str(caught.value), "both failed"
    assert bench.compiled() == ["csrc/b [sm_80]", "csrc/b [sm_86]", "csrc/c"]
    assert bench.wheels() == []
    assert bench.work_folders() == []
    bench.write("csrc/a.cu", "int a;\n")
    bench.build()
    assert bench.compiled() == ["csrc/a [sm_80]", "csrc/a [sm_86]"]


def test_a_single_failure_is_shown_as_it_is(bench: Bench) -> None:
    bench.write("csrc/a.cu", "// stand-in: says a word\n")
    with pytest.raises(CompileError) as caught:
        bench.build("80")
    assert caught.value.where == "csrc/a [sm_80]"
    assert "a word" in caught.value.details


def test_a_wheel_that_is_not_what_it_should_be_never_looks_finished(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *about: object) -> None:
        assert path.exists()
        raise VerifyError("not what was asked for")

    monkeypatch.setattr(build_module, "check_wheel", refuse)
    with pytest.raises(VerifyError):
        bench.build()
    assert bench.wheels() == []
    assert [usage.kind for usage in open_store().usage() if usage.kind == "wheel"] == []


def test_a_failing_upstream_build_ends_it(bench: Bench) -> None:
    bench.write("own_backend.py", "def build_wheel(directory): raise SystemExit('broken')")
    with pytest.raises(UpstreamError, match="broken"):
        bench.build()
    assert (bench.wheels(), bench.work_folders()) == ([], [])


def test_a_folder_for_wheels_that_is_a_file_is_refused_before_the_work(bench: Bench) -> None:
    bench.out.write_text("")
    with pytest.raises(StoreError) as caught:
        bench.build()
    assert "--out FOLDER" in (caught.value.hint or "")
    assert bench.events == []


@pytest.mark.parametrize(
    ("changes", "where"), [({"front": "fast"}, "--front"), ({"engine": "cloud"}, "--engine")]
)
def test_choices_that_do_not_exist_are_refused(
    bench: Bench, changes: dict[str, str], where: str
) -> None:
    with pytest.raises(UsageError) as caught:
        bench.build(**changes)
    assert caught.value.where == where
    assert (caught.value.hint or "").startswith("valid: ")


def test_an_interrupt_ends_the_workers_and_keeps_what_is_finished(bench: Bench) -> None:
    bench.write("csrc/b.cu", "// stand-in: waits\n")
    collect = bench.events.append

    def emit(event: Event) -> None:
        collect(event)
        if isinstance(event, JobFinished):
            raise KeyboardInterrupt

    bench.events = _Interrupting(emit)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        bench.build()
    assert bench.work_folders() == []
    left = [child.name() for child in psutil.Process().children(recursive=True)]
    assert "sleep" not in left
    bench.events = []
    bench.write("csrc/b.cu", "int b;\n")
    bench.build()
    started = {event.job.label for event in bench.of(JobStarted)}
    assert len(started) < 5, "what was finished was compiled again"


class _Interrupting(list[Event]):
    def __init__(self, emit: Callable[[Event], None]) -> None:
        super().__init__()
        self.append = emit  # type: ignore[method-assign]


# -- several targets ---------------------------------------------------------------------------


def test_a_wheel_for_each_python_compiles_once(bench: Bench) -> None:
    request = BuildRequest(
        "demo", "80", "3.11,3.12", None, "tools", "process", None, 2, 1 << 30, "exact", bench.out
    )
    made = build(plan_build(request), bench.events.append)
    assert [(wheel.hits, wheel.compiled) for wheel in made] == [(0, 2), (2, 0)]


# -- a folder for wheels into which others can write ---------------------------------------------


def test_a_wheel_that_is_exchanged_where_it_was_published(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is said of it or signed, and what is kept is what was made."""
    honest = Path(bench.build("80").path).read_bytes()
    other = Path(bench.build("86", out=bench.folder / "other").path).read_bytes()
    monkeypatch.setenv("FATWHEEL_CACHE", str(bench.folder / "another-cache"))
    published = build_module.publish

    def exchange(wheel: Path, out: Path, action: str) -> Path:
        path = published(wheel, out, action)
        path.write_bytes(other)
        return path

    monkeypatch.setattr(build_module, "publish", exchange)
    with pytest.raises(HashMismatchError, match="was changed after it was made"):
        bench.build("80")
    assert not any(isinstance(event, WheelMade) for event in bench.events)
    again = bench.build("80", out=bench.folder / "of-ones-own")
    assert again.compiled == 0
    assert Path(again.path).read_bytes() == honest


# -- keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["digest", "epoch"])
def test_a_finished_wheel_is_that_of_its_recipe(bench: Bench, field: str) -> None:
    bench.build("80")
    bench.recipe = dataclasses.replace(
        bench.recipe, **{field: "d1" * 32 if field == "digest" else 1_600_000_000}
    )
    bench.build("80")
    assert bench.of(StepStarted), "the old wheel was given out"


def test_a_finished_wheel_is_that_of_its_compiler_and_our_code(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.build("80")
    compiler = dataclasses.replace(bench.tools.compiler, id="c1" * 32)
    bench.tools = dataclasses.replace(bench.tools, compiler=compiler)
    bench.build("80")
    assert bench.of(StepStarted)
    bench.build("80")
    assert not bench.of(StepStarted)
    monkeypatch.setattr(build_module, "code_digest", lambda: "a newer fatwheel")
    bench.build("80")
    assert bench.of(StepStarted)


# -- files that are there already ----------------------------------------------------------------


@pytest.mark.parametrize(("engine", "place"), [("process", "downloads"), ("docker", "image-files")])
def test_files_that_are_found_go_where_their_engine_looks(
    engine: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, str] = {}

    def note(places: Any, folder: Path, emit: object) -> None:
        assert folder == tmp_path / "have"
        asked.update({pin.name: path.name for pin, path in places})

    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build_module, "seed", note)
    target = target_of(some_lock(), ())

    build_module.find_files(target, engine_named(engine), tmp_path / "have", silent)

    assert asked.pop("causal_conv1d") == "downloads", "sources are unpacked on this machine"
    assert asked["torch"] == asked["nvidia-cuda-nvcc"] == place
    assert ("pip" in asked) == (engine == "docker"), "only images have pip installed"
    assert set(asked.values()) == {place}
