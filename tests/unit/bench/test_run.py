"""The benchmark's own instruments: what it counts, measures and ends; nothing is compiled."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from bench import units
from bench.measure import Run, Sampled, kill_descendants, run_child
from bench.parts import sort_jobs, take_turns
from bench.plain import gencodes, write_nvcc
from bench.report import (
    BYTES,
    COUNT,
    PERCENT,
    RATIO,
    SECONDS,
    BenchReport,
    Figure,
    Machine,
    Measurement,
)
from bench.run import PARTS, BenchRequest, _cpu_model, bench
from bench.show import figure_rows, measurement_rows, show_bench, show_bench_markdown
from bench.workbench import CompiledJob, Workbench, read_output
from fatwheel.arch import parse_arch, parse_arch_list
from fatwheel.cli import tables
from fatwheel.cli.console import PLAIN_WIDTH
from fatwheel.cli.progress import PlainBoard
from fatwheel.config.load import load_recipe
from fatwheel.config.recipe import Target
from fatwheel.errors import UsageError
from fatwheel.events import JobFinished, Planned, silent
from fatwheel.model import Front, Job, Unit
from fatwheel.pipeline.costs import apart
from fatwheel.shipped import KERNELS

from ...helpers.toolchains import shipped_toolchain

ARCHS = [parse_arch(name) for name in ("80", "86", "89")]
GIB = 2**30


def ran(output: str = "", *, wall: float = 1.0, cpu: float = 1.0, seen: int = 0) -> Run:
    return Run(0, wall, cpu, output, Sampled(0, seen))


# -- the upstream way ----------------------------------------------------------------------------


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """An nvcc that prints the words it is called with, one a line."""
    path = tmp_path / "real nvcc"
    path.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    "theirs",
    [
        ["-gencode", "arch=compute_53,code=sm_53", "-gencode", "arch=compute_62,code=sm_62"],
        ["-gencode=arch=compute_70,code=sm_70", "--generate-code=arch=compute_70,code=sm_70"],
        ["--generate-code", "arch=compute_70,code=sm_70"],
        ["-arch", "sm_70", "-code", "sm_70", "--gpu-architecture", "x", "--gpu-code", "y"],
        ["-arch=sm_70", "-code=sm_70", "--gpu-architecture=x", "--gpu-code=y"],
        [],
    ],
)
def test_upstreams_architectures_are_replaced_and_nothing_else(
    theirs: list[str], stand_in: Path, tmp_path: Path
) -> None:
    script = tmp_path / "nvcc"
    write_nvcc(script, stand_in, parse_arch_list("80,86+ptx", ARCHS))
    kept = ["-O3", "--threads", "4", "-DNAME=\"two words\" 'and $more'", "-c", "a b.cu", ""]
    done = subprocess.run(
        [script, *kept[:3], *theirs, *kept[3:]], capture_output=True, text=True, check=True
    )
    ours = ["-gencode", "arch=compute_80,code=[sm_80]"]
    ours += ["-gencode", "arch=compute_86,code=[sm_86,compute_86]"]
    assert done.stdout.split("\n")[:-1] == [*kept, *ours]


def test_the_compilers_exit_code_comes_through(tmp_path: Path) -> None:
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\nexit 7\n")
    failing.chmod(0o755)
    write_nvcc(tmp_path / "nvcc", failing, parse_arch_list("80", ARCHS))
    assert subprocess.run([tmp_path / "nvcc", "-c", "x.cu"]).returncode == 7


def test_each_architecture_has_a_front_of_its_own() -> None:
    assert gencodes(parse_arch_list("80,89", ARCHS)) == [
        "-gencode", "arch=compute_80,code=[sm_80]", "-gencode", "arch=compute_89,code=[sm_89]",
    ]  # fmt: skip


# -- measuring -----------------------------------------------------------------------------------


BUSY = "import time\nwhile time.process_time() < {seconds}: pass\n"


def test_cpu_time_covers_grandchildren(tmp_path: Path) -> None:
    inner = [sys.executable, "-c", BUSY.format(seconds=0.5)]
    script = f"import subprocess; subprocess.run({inner!r}); print('done')"
    run = run_child([sys.executable, "-c", script], tmp_path, os.environ, tmp_path / "log")
    assert run.returncode == 0
    assert run.output == "done\n"
    assert 0.5 <= run.cpu < 5, "the grandchild's half a second is not in it"
    assert run.wall >= 0.5


def test_a_failure_keeps_its_code_and_output(tmp_path: Path) -> None:
    script = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    run = run_child([sys.executable, "-u", "-c", script], tmp_path, os.environ, tmp_path / "log")
    assert run.returncode == 3
    assert run.output == "out\nerr\n"


def test_memory_is_that_of_all_compilers_together(tmp_path: Path) -> None:
    """Two at a time, of 64 MiB each, called ptxas; the Python that starts them is not counted."""
    compiler = tmp_path / "ptxas"
    compiler.symlink_to(sys.executable)
    hold = "import time; held = bytearray(64 << 20); time.sleep(1.5)"
    # By a link, a process is named after it.
    calls = f"[subprocess.Popen([{str(compiler)!r}, '-S', '-c', {hold!r}]) for _ in range(2)]"
    script = f"import subprocess; [p.wait() for p in {calls}]"
    run = run_child(
        [sys.executable, "-c", script], tmp_path, os.environ, tmp_path / "log", sample=True
    )
    assert run.sampled.seen == 2
    assert 128 << 20 <= run.sampled.peak < 256 << 20


@pytest.mark.parametrize("own_group", [False, True], ids=["same group", "group of its own"])
def test_an_interrupt_leaves_no_process(
    own_group: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one that does not listen, in a process group of its own, as below ninja."""
    monkeypatch.setattr("bench.measure._GRACE", 0.5)
    note = tmp_path / "pid"
    deaf = (
        "import os, signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        f"open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    script = (
        "import subprocess, sys; "
        f"subprocess.run([sys.executable, '-c', {deaf!r}], start_new_session={own_group})"
    )

    def interrupt() -> None:
        while not (note.exists() and note.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_child([sys.executable, "-c", script], tmp_path, os.environ, tmp_path / "log")
    pid = int(note.read_text())
    deadline = time.monotonic() + 60
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(pid), "a grandchild outlived the interrupt"


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# -- what builds say -----------------------------------------------------------------------------


def test_the_lines_of_builds_are_understood() -> None:
    """As the plain board really prints them."""
    cuda, host = (Unit(name, kind, "s", (), ()) for name, kind in (("a/x", "cuda"), ("b", "c++")))
    shared = Front(ARCHS[0], ("sm_80", "sm_86"))
    stream = io.StringIO()
    board = PlainBoard(Console(file=stream, width=PLAIN_WIDTH))
    board(JobFinished(Job(cuda, shared, True, 0, 0), "1", 329.0, 300.0, GIB))
    board(JobFinished(Job(host, None, True, 0, 0), "1", 12.1, 12.0, 300))
    for stage in apart(Job(cuda, Front(ARCHS[0], ("sm_80",)), True, 0, 0)):
        board(JobFinished(stage, "1", 9.0, 9.0, GIB))
    built = read_output(ran(stream.getvalue()))
    stages = [CompiledJob("a/x", (code,)) for code in ("compute_80", "sm_80", "compute_80")]
    assert built.jobs == (
        CompiledJob("a/x", ("sm_80", "sm_86")), CompiledJob("b", ()), *stages,
    )  # fmt: skip
    assert built.archlist_units == set()
    assert built.compiler_calls == 5


def plan(units: tuple[str, ...]) -> Planned:
    recipe = load_recipe("selftest", KERNELS)
    toolchain = shipped_toolchain("linux-cuda13.0")
    target = Target(recipe, toolchain, "3.11", "2.11.0", parse_arch_list("80", ARCHS))
    return Planned(
        (target,), "process", "exact", shards=1, jobs=1, memory=GIB, units=9, slices=9, hits=0,
        work=1.0, archlist_units=units, pending=9,
    )  # fmt: skip


@pytest.mark.parametrize("more", [0, 1, 7])
def test_the_plans_words_on_the_list_of_architectures_are_understood(more: int) -> None:
    named = tuple(f"csrc/unit{number}" for number in range(tables.NAMES_SHOWN))
    stream = io.StringIO()
    board = PlainBoard(Console(file=stream, width=PLAIN_WIDTH))
    board(plan(named + tuple(f"other{number}" for number in range(more))))
    built = read_output(ran(stream.getvalue()))
    assert built.archlist_units == set(named), stream.getvalue()
    assert built.archlist_more == more


@pytest.mark.parametrize(
    ("took", "start"), [(9.3, 90.7), (0.04, 100.0), (62.0, 38.0), (3725.0, 100 - 3720)]
)
def test_the_first_compiler_started_a_jobs_length_before_its_line(
    took: float, start: float
) -> None:
    """In all the forms that the board has for a duration; hours come without seconds."""
    unit = Unit("a/b, c", "cuda", "s", (), ())
    stream = io.StringIO()
    board = PlainBoard(Console(file=stream, width=PLAIN_WIDTH))
    board(JobFinished(Job(unit, Front(ARCHS[0], ("sm_80",)), True, 0, 0), "1", took, 1.0, GIB))
    board(JobFinished(Job(unit, None, True, 0, 0), "1", 1.0, 1.0, GIB))
    built = read_output(replace(ran("compile: 2 jobs\n" + stream.getvalue()), marked=100.0))
    assert built.first_compiler == pytest.approx(start), stream.getvalue()


def test_without_jobs_no_compiler_started() -> None:
    assert read_output(ran("compile: 2 jobs\n")).first_compiler is None


def test_a_line_is_noted_when_it_comes(tmp_path: Path) -> None:
    script = (
        "import time; print('one', flush=True); time.sleep(0.6); print('two', flush=True); "
        "time.sleep(0.6)"
    )
    command = [sys.executable, "-c", script]
    runs = [
        run_child(command, tmp_path, os.environ, tmp_path / "log", mark=re.compile(pattern))
        for pattern in ("two\n", "three")
    ]
    marked = [run.marked for run in runs]
    assert marked[0] is not None
    assert 0.6 <= marked[0] <= runs[0].wall - 0.4
    assert marked[1] is None, "it never came"


def test_compilers_that_no_build_reported_are_counted_too() -> None:
    assert read_output(ran()).compiler_calls == 0
    assert read_output(ran(seen=3)).compiler_calls == 3, "compiled on the spot, while assembling"


LINES = (
    "[1/4] a [sm_90] 1.0 s, 1.0 GiB\n[2/4] cub [sm_80] 1.0 s, 1.0 GiB\n"
    "[3/4] a [sm_80] 1 min 02 s, 1.0 GiB\n[4/4] host 1.0 s, 12 B\n"
    "  again  {} whose code depends on the list of architectures: {}\n"
)


def test_jobs_for_other_architectures_are_without_need_unless_the_list_demands_it() -> None:
    needless, again = sort_jobs(read_output(ran(LINES.format("1 unit", "cub"))), "sm_90")
    assert needless == [CompiledJob("a", ("sm_80",)), CompiledJob("host", ())]
    assert again == [CompiledJob("cub", ("sm_80",))]


@pytest.mark.parametrize(("more", "needless"), [(1, 2), (2, 0)])
def test_units_that_the_plan_only_counts_may_be_compiled_again(more: int, needless: int) -> None:
    lines = LINES.format("some units", f"cub and {more} more")
    assert len(sort_jobs(read_output(ran(lines)), "sm_90")[0]) == needless


def test_a_workbench_shares_all_but_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "user"
    (user / "store").mkdir(parents=True)
    monkeypatch.setenv("FATWHEEL_CACHE", str(user))
    Workbench(tmp_path / "bench")
    found = {path.name: path.resolve() for path in (tmp_path / "bench" / "cache").iterdir()}
    assert found == {name: user / name for name in ("envs", "downloads", "packages")}


# -- the order of things -------------------------------------------------------------------------


def test_ways_take_turns_in_alternating_order() -> None:
    order: list[str] = []
    ways = {name: lambda name=name: order.append(name) or ran(wall=len(order)) for name in "abc"}
    runs = take_turns(ways, 3, silent)  # type: ignore[arg-type]
    assert "".join(order) == "abccbaabc"
    assert [run.wall for run in runs["a"]] == [1, 6, 7]


def test_tasks_run_in_their_order_within_slots_and_memory() -> None:
    lock, order, running, most = threading.Lock(), [], [0, 0], [0, 0]  # count, memory

    def task(name: int, memory: int) -> units.Task:
        def run() -> None:
            with lock:
                order.append(name)
                running[:] = running[0] + 1, running[1] + memory
                most[:] = max(most[0], running[0]), max(most[1], running[1] * (memory < 100))
                assert memory < 100 or running[0] == 1, "too large a task has company"
            time.sleep(0.05)
            with lock:
                running[:] = running[0] - 1, running[1] - memory

        return units.Task(memory, run)

    sizes = [4, 4, 4, 8, 2, 2, 200, 3, 6]
    units.run_in_order([task(*item) for item in enumerate(sizes)], slots=2, memory=10)
    assert sorted(order) == list(range(9))
    assert order.index(6) == 6, "the large one is passed"
    assert most[0] == 2, "the slots are not used"
    assert 8 < most[1] <= 10, "more memory than there is, or none beside the 8"


def test_an_error_ends_what_runs_and_starts_nothing_more() -> None:
    started: list[str] = []
    killed: list[int] = []

    def fail() -> None:
        raise ValueError("broken")

    def long() -> None:
        started.append("long")
        killed.append(subprocess.run(["sleep", "60"], check=False).returncode)

    tasks = [units.Task(1, long), units.Task(1, fail), units.Task(1, lambda: started.append("n"))]
    with pytest.raises(ValueError, match="broken"):
        units.run_in_order(tasks, slots=2, memory=10)
    assert killed == [-signal.SIGKILL]
    assert started == ["long"]


def test_only_descendants_are_killed() -> None:
    child = subprocess.Popen(["sleep", "60"])
    kill_descendants()
    assert child.wait(60) == -signal.SIGKILL


# -- asking --------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", ["builds,speed", "", "Builds"])
def test_unknown_parts_are_refused_with_the_list(parts: str) -> None:
    request = BenchRequest(parts, 1, "selftest", "selftest", "*", "linux-cuda13.0", None, "80")
    with pytest.raises(UsageError) as caught:
        bench(request, silent)
    assert ", ".join(PARTS) in str(caught.value)


def test_the_processors_name() -> None:
    assert _cpu_model("processor\t: 0\nmodel name\t: AMD EPYC 9R14: 96\n") == "AMD EPYC 9R14: 96"
    assert _cpu_model("") != "", "some systems name none"


# -- results -------------------------------------------------------------------------------------


REPORT = BenchReport(
    Machine("Some CPU", 2, 24 * GIB, "Linux 6.1", 0.25, {"nvcc": "13.0.88", "Python": "3.11"}),
    3,
    (
        Measurement("builds", "upstream's own build", 100.0, 200.0),
        Measurement("memory", "little", 65.0, 66.0, 2 * GIB, "a | note"),
    ),
    (
        Figure("builds", "CPU", 1.049, RATIO, 1.05),
        Figure("builds", "wall", 1.0, RATIO),
        Figure("again", "wall", 10.04, PERCENT, 10),
        Figure("again", "calls", 0, COUNT, 0),
        Figure("memory", "sum", 3 * GIB + 1, BYTES, 3 * GIB),
        Figure("containers", "start", 9.96, SECONDS, 10.0),
    ),
)


def test_targets_are_met_up_to_the_limit() -> None:
    assert [figure.met for figure in REPORT.figures] == [True, None, False, True, False, True]


def test_the_tables() -> None:
    assert figure_rows(REPORT)[0] == {
        "part": "builds", "figure": "CPU", "value": "1.049×", "at most": "1.050×", "met": "yes",
    }  # fmt: skip
    assert [row["value"] for row in figure_rows(REPORT)] == [
        "1.049×", "1.000×", "10.0 %", "0", "3.0 GiB", "10.0 s",
    ]  # fmt: skip
    assert [row["met"] for row in figure_rows(REPORT)] == [
        "yes",
        "",
        "no",
        "yes",
        "no",
        "yes",
    ]
    assert measurement_rows(REPORT)[0] == {
        "part": "builds", "measured": "upstream's own build", "wall": "1 min 40 s",
        "CPU": "3 min 20 s", "memory": "", "note": "",
    }  # fmt: skip


def test_a_table_for_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI", "true")
    show_bench(REPORT)
    told = capsys.readouterr().out
    assert told.startswith("Some CPU, 2 cores, 24.0 GiB, Linux 6.1, load 0.2 before the start; ")
    assert "; nvcc 13.0.88, Python 3.11; " in told
    assert "3 times, medians" in told
    assert "upstream's own build" in told


def test_a_table_for_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    show_bench_markdown(REPORT)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| part | measured | wall | CPU | memory | note |"
    assert lines[1] == "| --- | --- | --- | --- | --- | --- |"
    rows = [line for line in lines if line.startswith("| memory | little")]
    assert rows == ["| memory | little | 1 min 05 s | 1 min 06 s | 2.0 GiB | a \\| note |"]


def test_json_has_everything() -> None:
    found = json.loads(json.dumps(REPORT.to_json()))
    assert found["machine"]["cores"] == 2
    assert found["measurements"][1]["memory"] == 2 * GIB
    assert [figure["met"] for figure in found["figures"]] == [True, None, False, True, False, True]
