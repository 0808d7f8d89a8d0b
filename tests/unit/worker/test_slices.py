"""Jobs with a stand-in for nvcc that puts NVIDIA's own images in its fatbins."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.decoders import payload
from fatwheel.errors import CompileError, FormatError
from fatwheel.model import Front, Job, Unit
from fatwheel.worker import roots
from fatwheel.worker.context import Context
from fatwheel.worker.preprocess import Texts
from fatwheel.worker.roots import choose_root
from fatwheel.worker.slices import (
    KilledForMemoryError,
    Made,
    commands_of,
    cost_key,
    host_key,
    known_host_key,
    load_slice,
    missing,
    put_cost,
    run_job,
    slice_key,
    steady,
)

from ...conftest import missing as nowhere
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

FRONT = front("80", "sm_80", "sm_86", "compute_80")
FRONT_STAGE = dataclasses.replace(
    job(cuda_unit(), Front(FRONT.virtual, ("compute_80",))), stage="front"
)
HOST_STAGE = dataclasses.replace(
    job(cuda_unit(), Front(FRONT.virtual, ()), host=True), stage="host"
)


def ptxas(code: str) -> Job:
    return dataclasses.replace(job(cuda_unit(), front("80", code)), stage="ptxas")


@pytest.fixture(autouse=True)
def _compiler(tool: Callable[[str], str]) -> None:
    tool("g++")


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = make_context(folder)
        self.write("a.cu", "__global__ void kernel();\nint host = 1;\n")
        self.write("b.cpp", "int b = 1;\n")

    def write(self, name: str, text: str) -> None:
        (self.folder / "src" / name).write_text(text)

    def texts(self, context: Context | None = None) -> Texts:
        context = context or self.context
        return Texts(context, context.store())

    def run(self, job: Job, context: Context | None = None) -> Made:
        context = context or self.context
        return run_job(context, context.store(), self.texts(context), job)

    def missing(self, job: Job, context: Context | None = None) -> tuple[Job, ...]:
        context = context or self.context
        return missing(self.texts(context), context, context.store(), job)

    def image(self, unit: Unit, code: str) -> bytes | None:
        """The stored slice's one image, without padding."""
        text = self.texts().recorded(unit, "compute_80")
        assert text
        data = self.context.store().get("slice", slice_key(self.context, unit, FRONT, code, text))
        if data is None:
            return None
        [entry] = load_slice(data)
        return bytes(payload(entry))

    def host(self, unit: Unit, stub_of: Front | None = None) -> bytes | None:
        """The stored host object, for CUDA the one with this front's stub."""
        store = self.context.store()
        key = known_host_key(self.texts(), self.context, store, unit, stub_of)
        assert key
        return store.get("host", key)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# -- commands ----------------------------------------------------------------------------------


def test_the_command_of_a_cuda_job(tmp_path: Path) -> None:
    context = make_context(tmp_path, cxx="/usr/bin/g++")
    unit = cuda_unit("csrc/a", "-I", "@site@/torch", "-D", "A", codegen=("-O3", "-lineinfo"))
    command = commands_of(context, job(unit, FRONT, host=True))
    seed = command[command.index("-frandom-seed") + 1]
    for_the_host = [word for option in steady(context, unit) for word in ("-Xcompiler", option)]
    assert f"-ffile-prefix-map={tmp_path}/src={tmp_path.name}" in for_the_host
    assert "-ffile-prefix-map=/proc/self/cwd/site=site" in for_the_host
    assert command == [
        "/proc/self/cwd/cuda/bin/nvcc", "-ccbin", "/usr/bin/g++", *for_the_host,
        "-include", "fatwheel.h", "-I", "/proc/self/cwd/site/torch", "-D", "A",
        "-O3", "-lineinfo", "-frandom-seed", seed,
        "-gencode", "arch=compute_80,code=[sm_80,sm_86,compute_80]",
        "-c", f"{tmp_path}/src/csrc/a.cu",
    ]  # fmt: skip


def test_further_fronts_make_device_code_alone(bench: Bench) -> None:
    command = commands_of(bench.context, job(cuda_unit(), front("90a")))
    assert command[-4:-1] == ["-gencode", "arch=compute_90a,code=[sm_90a]", "-fatbin"]


def test_seeds_are_for_nvccs_that_know_them_and_differ_from_unit_to_unit(tmp_path: Path) -> None:
    seeded = make_context(tmp_path)
    old = dataclasses.replace(seeded, seeded=False)
    assert "-frandom-seed" not in commands_of(old, job(cuda_unit(), FRONT))
    one, two = (commands_of(seeded, job(cuda_unit(name), FRONT)) for name in ("a", "b"))
    assert one[one.index("-frandom-seed") + 1] != two[two.index("-frandom-seed") + 1]
    again = commands_of(seeded, job(cuda_unit("a"), front("90a")))
    assert again[again.index("-frandom-seed") + 1] == one[one.index("-frandom-seed") + 1]


def test_a_front_is_split_by_its_number_or_by_the_units_own(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    split = dataclasses.replace(FRONT, split=4)
    assert "--split-compile=4" in commands_of(context, job(cuda_unit(), split, host=True))
    assert not any("--split" in word for word in commands_of(context, job(cuda_unit(), FRONT)))
    own = cuda_unit(codegen=("-split-compile", "2"))
    assert "--split-compile=4" not in commands_of(context, job(own, split))
    # nvcc tells ptxas its number last, and the last one counts.
    for others in (("-split-compile-extended", "2"), ("-Xptxas", "--split-compile=2")):
        assert "--split-compile=4" in commands_of(context, job(cuda_unit(codegen=others), split))


# -- keys --------------------------------------------------------------------------------------

ONLY = {"fronts": fronts_of_list(800, 900), "scratch": "/x", "seeded": False, "environment": ()}


def changed(context: Context, name: str) -> Context:
    changes: dict[str, Any] = {**ONLY, "device_id": "other", "host_id": "other", "cxx": "/other"}
    return dataclasses.replace(context, **{name: changes[name]})


@pytest.mark.parametrize("name", [*ONLY, "host_id", "cxx"])
def test_a_slice_does_not_know(name: str, tmp_path: Path) -> None:
    context = make_context(tmp_path)
    key = slice_key(context, cuda_unit(), FRONT, "sm_80", "text")
    assert slice_key(changed(context, name), cuda_unit(), FRONT, "sm_80", "text") == key


def test_what_makes_a_slice_another(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    keys = {
        slice_key(context, cuda_unit(), FRONT, "sm_80", "text"),
        slice_key(changed(context, "device_id"), cuda_unit(), FRONT, "sm_80", "text"),
        slice_key(context, cuda_unit(codegen=["-O3"]), FRONT, "sm_80", "text"),
        slice_key(context, cuda_unit(), front("86"), "sm_80", "text"),
        slice_key(context, cuda_unit(), FRONT, "sm_86", "text"),
        slice_key(context, cuda_unit(), FRONT, "sm_80", "other text"),
        *(
            slice_key(context, cuda_unit(), dataclasses.replace(FRONT, split=n), "sm_80", "text")
            for n in (2, 4)
        ),
    }
    assert len(keys) == 8


def test_a_slice_does_not_know_its_name_or_macros_but_through_its_text(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    key = slice_key(context, cuda_unit("a"), FRONT, "sm_80", "text")
    assert slice_key(context, cuda_unit("b", "-D", "X"), FRONT, "sm_80", "text") == key


def test_what_makes_a_host_object_another(tmp_path: Path) -> None:
    context, unit = make_context(tmp_path), cuda_unit("a", "-D", "A", "-I", "/x")
    key = host_key(context, unit, "text")
    for name in ("device_id", "host_id"):
        assert host_key(changed(context, name), unit, "text") != key, name
    assert host_key(context, unit, "other") != key
    assert host_key(context, unit, "text", "another stub") != host_key(context, unit, "text", "one")
    assert host_key(context, cuda_unit("a", "-D", "B", "-I", "/x"), "text") != key, (
        "nvcc's stub is compiled with the macros once more"
    )
    assert host_key(context, cuda_unit("a", "-D", "A", "-I", "/y"), "text") == key
    for name in ONLY:
        assert host_key(changed(context, name), unit, "text") == key, name


def test_objects_name_other_folders_for_sources_elsewhere(tmp_path: Path) -> None:
    """What an object calls its sources is no part of the text."""
    context, unit = make_context(tmp_path), cpp_unit("b")
    places = dataclasses.replace(context.places, source=f"{tmp_path}/other-2.0/src")
    other = dataclasses.replace(context, places=places)
    assert host_key(other, unit, "text") != host_key(context, unit, "text")
    links = tuple((name, f"/elsewhere/{name}") for name, _ in context.places.links)
    places = dataclasses.replace(context.places, links=links)
    other = dataclasses.replace(context, places=places)
    assert host_key(other, unit, "text") == host_key(context, unit, "text")


def test_a_cpp_object_depends_on_nothing_of_cuda(tmp_path: Path) -> None:
    context, unit = make_context(tmp_path), cpp_unit("b", "-D", "A")
    key = host_key(context, unit, "text")
    assert host_key(changed(context, "device_id"), unit, "text") == key
    assert host_key(context, cpp_unit("b"), "text") == key, "the text has the macros in it"
    assert host_key(changed(context, "host_id"), unit, "text") != key


def test_costs_survive_edits_but_are_those_of_a_job(tmp_path: Path) -> None:
    unit = cuda_unit("a")
    key = cost_key(job(unit, FRONT))
    assert cost_key(job(cuda_unit("a", "-D", "NEW", codegen=["-O2"]), FRONT)) == key
    others = [job(cuda_unit("b"), FRONT), job(unit, front("80")), job(unit, FRONT, host=True)]
    assert len({key, *map(cost_key, others)}) == 4


# -- making ------------------------------------------------------------------------------------


def test_a_jobs_images_are_kept_one_by_one(bench: Bench) -> None:
    bench.run(job(cuda_unit(), FRONT))
    for code, name in (
        ("sm_80", "cuda13.0-sm_80.cubin"),
        ("sm_86", "cuda12.4-sm_86.cubin"),
        ("compute_80", "scale.ptx"),
    ):
        image = bench.image(cuda_unit(), code)
        assert image is not None
        assert image.rstrip(b"\0") == (DATA / name).read_bytes().rstrip(b"\0"), code


def test_a_host_object_is_kept_without_device_code(bench: Bench, tmp_path: Path) -> None:
    bench.run(job(cuda_unit(), FRONT, host=True))
    host = bench.host(cuda_unit(), FRONT)
    assert host
    (tmp_path / "host.o").write_bytes(host)
    table = subprocess.run(
        ["readelf", "-SW", "host.o"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    [line] = [line for line in table.splitlines() if " .nv_fatbin " in line]
    assert line.split("]")[1].split()[4] == "000000", f"its size is not 0: {line}"


def test_a_cpp_object_is_kept_as_it_is(bench: Bench, tmp_path: Path) -> None:
    bench.run(job(cpp_unit(), None))
    data = bench.host(cpp_unit())
    assert data
    (tmp_path / "b.o").write_bytes(data)
    symbols = subprocess.run(["nm", "b.o"], cwd=tmp_path, capture_output=True, text=True).stdout
    assert symbols.split()[1:] == ["D", "b"]


def test_debug_information_does_not_name_the_jobs_folder(tmp_path: Path) -> None:
    """Two builds from nothing make the same object, wherever their folders are."""
    objects = []
    for name in ("one", "two"):
        bench = Bench(tmp_path / name)
        places = dataclasses.replace(bench.context.places, source=str(tmp_path / "one" / "src"))
        bench.context = dataclasses.replace(bench.context, places=places)
        unit = cpp_unit(codegen=["-g", "-O2"])
        bench.run(job(unit, None))
        objects.append(bench.host(unit))
    assert objects[0] == objects[1]
    assert b"job-" not in (objects[0] or b"")
    assert str(tmp_path).encode() not in (objects[0] or b""), "nor where the sources are"


def test_a_jobs_folder_is_gone_afterwards(bench: Bench) -> None:
    bench.run(job(cuda_unit(), FRONT, host=True))
    assert list((bench.folder / "scratch").iterdir()) == []


def test_the_cost_is_kept_for_the_next_time(bench: Bench) -> None:
    work = job(cuda_unit(), FRONT, host=True)
    made = bench.run(work)
    assert made.cpu > 0.01
    assert made.seconds > 0.01
    assert made.rss > 5 << 20, "the compiler proper needs more than that"
    store = bench.context.store()
    put_cost(store, work, made)
    kept = store.get_json("cost", cost_key(work))
    assert kept == {"seconds": made.seconds, "cpu": made.cpu, "rss": made.rss}


# -- what the store lacks ----------------------------------------------------------------------


def test_at_first_everything_is_missing(bench: Bench) -> None:
    for work in (
        job(cuda_unit(), FRONT, host=True),
        job(cuda_unit(), FRONT),
        job(cpp_unit(), None),
    ):
        assert bench.missing(work) == (work,)


def test_what_was_made_is_not_missing(bench: Bench) -> None:
    for work in (job(cuda_unit(), FRONT, host=True), job(cpp_unit(), None)):
        bench.run(work)
        assert bench.missing(work) == ()
    assert bench.missing(job(cuda_unit(), FRONT)) == ()
    assert len(calls(bench.folder / "cuda")) == 1


def test_only_the_images_that_are_missing_are_asked_for(bench: Bench) -> None:
    bench.run(job(cuda_unit(), front("80", "sm_80")))
    parts = bench.missing(job(cuda_unit(), FRONT))
    assert parts == (ptxas("sm_86"), ptxas("compute_80")), "its front is kept"
    for kind in ("ptx", "stub"):
        bench.context.store().clear(kind)
        whole = job(cuda_unit(), front("80", "sm_86", "compute_80"))
        assert bench.missing(job(cuda_unit(), FRONT)) == (whole,)


def test_a_missing_host_object_is_made_with_one_image_unless_its_front_is_kept(
    bench: Bench,
) -> None:
    wanted = job(cuda_unit(), FRONT, host=True)
    bench.run(job(cuda_unit(), FRONT))
    assert bench.missing(wanted) == (HOST_STAGE,)
    bench.context.store().clear("ptx")
    assert bench.missing(wanted) == (job(cuda_unit(), front("80", "sm_80"), host=True),)


def test_fronts_with_one_stub_share_a_host_object(bench: Bench) -> None:
    bench.run(job(cuda_unit(), FRONT, host=True))
    bench.run(job(cuda_unit(), front("90a")))
    assert bench.missing(job(cuda_unit(), front("90a"), host=True)) == ()
    assert bench.host(cuda_unit(), front("90a")) == bench.host(cuda_unit(), FRONT)


def test_a_front_with_a_stub_of_its_own_needs_a_host_object_of_its_own(bench: Bench) -> None:
    """It registers other kernels."""
    bench.write("a.cu", "// stand-in: own stub\n")
    bench.run(job(cuda_unit(), FRONT, host=True))
    bench.run(job(cuda_unit(), front("90a")))
    wanted = job(cuda_unit(), front("90a"), host=True)
    [stage] = bench.missing(wanted)
    assert (stage.stage, stage.host) == ("host", True)
    bench.run(stage)
    assert bench.missing(wanted) == ()
    for own in (FRONT, front("90a")):
        assert own.virtual.compute.encode() in (bench.host(cuda_unit(), own) or b"")


def test_another_list_of_architectures_changes_nothing_that_does_not_read_it(bench: Bench) -> None:
    work = job(cuda_unit(), FRONT, host=True)
    bench.run(work)
    assert (
        bench.missing(work, dataclasses.replace(bench.context, fronts=fronts_of_list(800, 900)))
        == ()
    )


def test_an_edit_is_missing(bench: Bench) -> None:
    work = job(cuda_unit(), FRONT, host=True)
    bench.run(work)
    bench.write("a.cu", "int host = 2;\n")
    assert bench.missing(work) == (work,)


# -- failures ----------------------------------------------------------------------------------


def test_a_compile_error_has_the_compilers_words_and_can_be_repeated(bench: Bench) -> None:
    bench.write("a.cu", "#error this does not compile\n")
    with pytest.raises(CompileError) as caught:
        bench.run(job(cuda_unit(), FRONT, host=True))
    error = caught.value
    assert error.where == "a [sm_80,sm_86,compute_80]"
    assert any("#error this does not compile" in line for line in error.details)
    assert list((bench.folder / "scratch").iterdir()) == []
    # After the build, when its work folder is gone:
    (bench.folder / "scratch").rmdir()
    assert error.hint
    again = subprocess.run(["sh", "-c", error.hint], capture_output=True, text=True)
    assert again.returncode == 1
    assert "#error this does not compile" in again.stderr, again.stderr


def test_a_cpp_error_can_be_repeated(bench: Bench) -> None:
    bench.write("b.cpp", "int b = missing;\n")
    with pytest.raises(CompileError, match="missing") as caught:
        bench.run(job(cpp_unit(), None))
    assert caught.value.hint
    again = subprocess.run(["sh", "-c", caught.value.hint], capture_output=True, text=True)
    assert "missing" in again.stderr


def test_an_error_where_compilers_see_a_private_folder_can_be_repeated(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp, refuge = bench.folder / "tmp", bench.folder / "refuge"
    tmp.mkdir()
    (tmp / "fatwheel").write_text("in the way")
    monkeypatch.setattr(roots, "VIEW_ROOT", tmp / "fatwheel")
    root = choose_root(refuge, ())
    if root.cover is None:
        nowhere("no user may mount in a namespace here (unshare --user --mount)")
    source = root.folder / "p-1" / "src"
    source.mkdir(parents=True)
    (source / "a.cu").write_text("#error this does not compile\n")
    places = dataclasses.replace(bench.context.places, source=root.seen(source), cover=root.cover)
    with pytest.raises(CompileError) as caught:
        bench.run(job(cuda_unit(), FRONT), dataclasses.replace(bench.context, places=places))
    (bench.folder / "scratch").rmdir()
    assert caught.value.hint
    assert "\n" not in caught.value.hint
    again = subprocess.run(["sh", "-c", caught.value.hint], capture_output=True, text=True)
    assert again.returncode == 1, again.stderr
    assert f"{tmp}/fatwheel/p-1/src/a.cu" in again.stderr
    [kept] = (source.parent / "failed").iterdir()
    assert str(kept) in caught.value.hint, "it lies where nobody else can read it"


def test_a_killed_step_is_no_compile_error(bench: Bench) -> None:
    bench.write("a.cu", "// stand-in: killed\n")
    with pytest.raises(KilledForMemoryError) as caught:
        bench.run(job(cuda_unit(), FRONT))
    assert caught.value.rss > 1 << 20


# As the tools print them (gcc 12, binutils 2.40, CUDA 13.0's nvcc, LLVM, EDG).
OUT_OF_MEMORY = [
    "nvcc error   : 'cicc' died due to signal 9 (Kill signal)",
    "g++: fatal error: Killed signal terminated program cc1plus",
    "/usr/bin/x86_64-linux-gnu-g++-12: fatal error: Killed signal terminated program cc1plus",
    "cc1plus: out of memory allocating 65536 bytes after a total of 3891200 bytes",
    "/usr/bin/ld: out of memory allocating 1024 bytes after a total of 1 bytes",
    "LLVM ERROR: out of memory",
    "Catastrophic error: out of memory",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "virtual memory exhausted: Cannot allocate memory",
    "g++: fatal error: cannot execute 'cc1plus': vfork: Cannot allocate memory",
    "ptxas fatal   : Memory allocation failure",
]


@pytest.mark.parametrize("words", OUT_OF_MEMORY)
def test_how_compilers_say_that_there_is_no_memory(bench: Bench, words: str) -> None:
    bench.write("a.cu", f"// stand-in: says {words}\n")
    with pytest.raises(KilledForMemoryError):
        bench.run(job(cuda_unit(), FRONT))


@pytest.mark.parametrize(
    "words",
    [
        "a.cu(7): error: static assertion failed with \"out of memory\"",
        "a.cu:7:3: error: #error Cannot allocate memory",
        "   12 |   throw std::bad_alloc();",
        "a.cu(9): error: namespace \"std\" has no member \"bad_alloc\"",
        "a.cu(3): error: raise(signal 9) is undefined",
        "nvcc error   : 'ptxas' died due to signal 11 (Invalid memory reference)",
        "ptxas error   : Entry function 'k' uses too much shared data",
    ],
)  # fmt: skip
def test_sources_may_speak_of_memory(bench: Bench, words: str) -> None:
    bench.write("a.cu", f"// stand-in: says {words}\n")
    with pytest.raises(CompileError) as caught:
        bench.run(job(cuda_unit(), FRONT))
    assert words.strip() in "\n".join(caught.value.details)


def test_a_compiler_killed_from_outside_is_taken_for_killed_for_memory(tmp_path: Path) -> None:
    killed = tmp_path / "g++"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    bench = Bench(tmp_path / "bench")
    with pytest.raises(KilledForMemoryError):
        bench.run(job(cpp_unit(), None), dataclasses.replace(bench.context, cxx=str(killed)))


def test_an_image_that_was_not_made_is_an_error_with_the_units_name(bench: Bench) -> None:
    bench.write("a.cu", "// stand-in: no image\n")
    with pytest.raises(FormatError, match="no image for sm_80") as caught:
        bench.run(job(cuda_unit(), front("80")))
    assert caught.value.where == "a [sm_80]"


def test_a_failed_job_leaves_nothing_that_answers(bench: Bench) -> None:
    bench.write("a.cu", "// stand-in: says no\n")
    with pytest.raises(CompileError):
        bench.run(job(cuda_unit(), FRONT))
    assert bench.missing(job(cuda_unit(), FRONT)) == (job(cuda_unit(), FRONT),)
