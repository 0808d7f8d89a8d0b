"""Everything a user reads, as snapshots that were read and approved by a person.

tests/data/snapshots/NAME.txt holds the text of a test. When words change on purpose, run the
tests with FATWHEEL_WRITE_SNAPSHOTS=1, read the difference in version control, and commit it.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fatwheel.arch import parse_arch, parse_arch_list
from fatwheel.cli.console import show_error, show_note, show_planned
from fatwheel.cli.progress import LiveBoard, PlainBoard, Standing, board, picture
from fatwheel.cli.reports import show_inspection
from fatwheel.cli.results import show_cache, show_capture, show_json, show_proof, show_wheels
from fatwheel.config.pinned import Sdist
from fatwheel.config.recipe import Recipe, SourcePin, Target
from fatwheel.config.toolchain import Toolchain
from fatwheel.errors import CompileError, FatwheelError, UsageError
from fatwheel.events import (
    Event,
    JobFailed,
    JobFinished,
    JobsDropped,
    JobStarted,
    MemoryUsed,
    Note,
    Planned,
    Progress,
    ShardSaid,
    StepFinished,
    StepStarted,
    WheelMade,
)
from fatwheel.model import Front, Job, Unit
from fatwheel.pipeline.proof import Proof, UnitProof
from fatwheel.storage.cache import CacheReport
from fatwheel.storage.store import Damage, Usage
from fatwheel.worker.assemble import Reason

from ...helpers.mangled import needs_library

SNAPSHOTS = Path(__file__).parents[2] / "data" / "snapshots"
MIB, GIB = 2**20, 2**30
ARCHS = [parse_arch(name) for name in ("80", "86", "89")]
HOSTILE = "evil\x1b[31m\x07name"
COVERAGE = {
    "7.5": "none", "8.0": "none", "8.6": "native", "8.9": "native", "9.0": "jit", "10.0": "jit",
    "10.3": "jit", "12.0": "jit",
}  # fmt: skip


RECIPE = Recipe(
    name="flash-attn",
    project="flash-attn",
    version="2.3.6",
    source=SourcePin(
        Sdist("flash-attn", "2.3.6", "flash_attn-2.3.6.tar.gz", 1, "0" * 64, "source")
    ),
    archs=("80", "86", "89"),
    environment={},
    imports=("flash_attn",),
    memory=5 * GIB,
    seconds=100.0,
    costs=(),
    epoch=0,
    folder=Path("kernels/flash-attn"),
    digest="0" * 64,
)
TOOLCHAIN = Toolchain(
    name="linux-cuda13.0",
    platform="linux_x86_64",
    cuda="13.0",
    nvcc="13.0.88",
    archs=tuple(ARCHS),
    gcc=(6, 15),
    packages=(),
    builds=(),
    digest="0" * 64,
    default_torch="2.11.0",
)
TARGET = Target(RECIPE, TOOLCHAIN, "3.11", "2.11.0", parse_arch_list("80,86,89+ptx", ARCHS))
PLAN = Planned(
    targets=(TARGET,),
    engine="process",
    front="auto: shared, by the proof kept with the recipe",
    shards=3,
    jobs=16,
    memory=48 * GIB,
    units=48,
    slices=144,
    hits=96,
    work=7500.0,
    archlist_units=("csrc/a", "csrc/b", "csrc/c", "csrc/d"),
    pending=48,
)
JOBS = [
    Job(
        Unit(f"csrc/{name}", "cuda", f"{name}.cu", (), ()),
        Front(ARCHS[1], ("sm_86",)),
        True,
        GIB,
        9,
    )
    for name in ("fwd", "bwd", "update")
]
WHEELS = [
    WheelMade(
        path=f"dist/flash_attn-2.3.6+cu130torch2.11.sm80.sm86.sm89.ptx-{tag}-{tag}-linux_x86_64.whl",
        size=123_456_789,
        sha256="0123456789abcdef" * 4,
        archs="80, 86, 89+ptx",
        seconds=3723.0,
        hits=96,
        compiled=48,
    )
    for tag in ("cp310", "cp311")
]
INSPECTION: dict[str, Any] = {
    "file": "dist/selftest-1.0-cp311-cp311-linux_x86_64.whl",
    "wheel": {"name": "selftest", "version": "1.0", "tags": ["cp311-cp311-linux_x86_64"]},
    "binaries": [
        {
            "path": "selftest/_C.so",
            "format": "elf",
            "machine": "x86_64",
            "containers": 2,
            "kernels": 12,
            "images": [
                {"kind": "elf", "arch": "sm_86", "count": 2, "bytes": 81_920, "compressed": True},
                {
                    "kind": "ptx",
                    "arch": "compute_86",
                    "count": 1,
                    "bytes": 900,
                    "compressed": False,
                },
            ],
            "drivers": {
                "8.6": {"driver": "525.60.13", "kind": "cuda", "reason": "CUDA 12"},
                "8.9": {"driver": "570.26", "kind": "ptx", "reason": "PTX 8.7"},
            },
        },
        {
            "path": "selftest/plain.so",
            "format": "elf",
            "machine": "x86_64",
            "containers": 0,
            "kernels": 0,
            "images": [],
            "drivers": {},
        },
    ],
    "coverage": COVERAGE,
    "units_served": {capability: {"native": 9, "jit": 0, "none": 0} for capability in COVERAGE},
}
CACHE = CacheReport(
    folder=Path("/home/someone/.cache/fatwheel"),
    usage=(
        Usage("host", 48, 96 * MIB, 0.0, 86_400.0),
        Usage("slice", 144, 5 * GIB, 0.0, 90_000.0),
        Usage("environments", 1, 4_700_000_000, 0.0, 86_400.0),
    ),
    damaged=(Damage("slice", "ab" * 32, "object cd has different content"),),
)
USAGE_ERROR = UsageError(
    "unusable architecture list",
    where="--arch 85,foo",
    details=[
        "'85' is an architecture this toolchain's nvcc does not know",
        "'foo' is not an architecture (valid: 80, 90a, 120f, 80+ptx)",
    ],
    hint="this toolchain's nvcc knows: 80, 86, 89",
)
COMPILE_ERROR = CompileError(
    "csrc/fwd does not compile for sm_86",
    where="csrc/fwd.cu",
    details=[
        'csrc/fwd.cu(12): error: identifier "foo" is undefined\n      x = foo;\n          ^',
        "to repeat it: nvcc -c csrc/fwd.cu -o fwd.o -gencode arch=compute_86,code=sm_86",
    ],
    hint="the other units are kept in the store",
)


def make_proof(*different: str) -> Proof:
    return Proof(
        project="flash-attn",
        version="2.3.6",
        source="0" * 64,
        toolchain="linux-cuda13.0",
        compiler_id="0" * 64,
        front=ARCHS[0],
        archs=tuple(ARCHS),
        parts=4,
        units=(
            UnitProof("csrc/fwd", 200, {}, {"shared": different, "split": ()}),
            UnitProof("csrc/bwd", 42, {}, {"shared": (), "split": ("sm_86 kernel",)}),
        ),
        path=Path("kernels/flash-attn/proofs/linux-cuda13.0-sm80.sm86.sm89.json"),
    )


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of the machine that runs the tests changes what they see."""
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns without colours that keeps what is written."""
    monkeypatch.setattr("fatwheel.cli.console._interactive", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")  # known to rich as a terminal without colours


def stripped(text: str) -> str:
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


def check_snapshot(name: str, text: str) -> None:
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("FATWHEEL_WRITE_SNAPSHOTS"):
        path.write_text(stripped(text), encoding="utf-8")
    assert stripped(text) == path.read_text(encoding="utf-8"), f"not what {path} says"


def play(board: Callable[[Event], None]) -> None:
    """A build, from beginning to end."""
    events: list[Event] = [
        StepStarted("toolchain", "linux-cuda13.0"),
        *(Progress("download", done * 10 * MIB, 1000 * MIB) for done in range(101)),
        StepFinished("toolchain", 83.0, "4.7 GiB"),
        PLAN,
        StepStarted("compile"),
        *(JobStarted(job, "sm86") for job in JOBS),
        MemoryUsed(2 * GIB),
        JobFinished(JOBS[0], "sm86", 12.1, 12.0, GIB),
        JobFailed(JOBS[1], "sm86", "killed for memory at 5.1 GiB", retry=True),
        JobStarted(JOBS[1], "sm86"),
        JobFailed(JOBS[1], "sm86", 'identifier "foo" is undefined', retry=False),
        JobFinished(JOBS[2], "sm86", 83.0, 82.0, 3 * GIB),
        StepFinished("compile", 95.2),
        Note("1 of 3 jobs failed."),
        WHEELS[1],
    ]
    for event in events:
        board(event)


# -- plain: pipes, files, CI ---------------------------------------------------------------------


def test_plan(capsys: pytest.CaptureFixture[str]) -> None:
    show_planned(PLAN)
    check_snapshot("plan", capsys.readouterr().err)


def test_plan_with_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    other = replace(TARGET, python="3.12")
    show_planned(replace(PLAN, targets=(TARGET, other), hits=144, pending=0, archlist_units=()))
    check_snapshot("plan-nothing-to-do", capsys.readouterr().err)


def test_plain_board(capsys: pytest.CaptureFixture[str]) -> None:
    with board() as shown:
        play(shown)
    captured = capsys.readouterr()
    check_snapshot("board-plain", captured.err)
    assert captured.out == "", "progress belongs to stderr"


def test_wheels(capsys: pytest.CaptureFixture[str]) -> None:
    show_wheels(WHEELS)
    captured = capsys.readouterr()
    check_snapshot("wheels", captured.out)
    assert captured.err == "", "a result belongs to stdout"


def test_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(USAGE_ERROR)
    captured = capsys.readouterr()
    check_snapshot("error-usage", captured.err)
    assert captured.out == "", "an error belongs to stderr"


def test_compile_error(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(COMPILE_ERROR)
    check_snapshot("error-compile", capsys.readouterr().err)


def test_error_with_only_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(FatwheelError("it is broken"))
    assert capsys.readouterr().err == "error: it is broken\n"


def test_inspection(capsys: pytest.CaptureFixture[str]) -> None:
    show_inspection(INSPECTION)
    check_snapshot("inspection", capsys.readouterr().out)


def test_inspection_of_a_file_without_gpu_code(capsys: pytest.CaptureFixture[str]) -> None:
    show_inspection({**INSPECTION, "binaries": [], "wheel": None, "file": "README"})
    assert capsys.readouterr().out == "README\nno GPU code\n"


def test_cache(capsys: pytest.CaptureFixture[str]) -> None:
    show_cache(CACHE)
    check_snapshot("cache", capsys.readouterr().out)


def test_proof(capsys: pytest.CaptureFixture[str]) -> None:
    show_proof(make_proof())
    check_snapshot("proof-same", capsys.readouterr().out)


@needs_library
def test_counter_example(capsys: pytest.CaptureFixture[str]) -> None:
    show_proof(make_proof(*(f"sm_86 _Z3fwdILi{number}EEvPf" for number in range(12))))
    check_snapshot("proof-different", capsys.readouterr().out)


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    show_json(INSPECTION)
    assert json.loads(capsys.readouterr().out) == INSPECTION


def test_plain_text_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither ours nor those of the wheels, paths and compilers that we quote."""
    hostile_job = replace(JOBS[0], unit=replace(JOBS[0].unit, name=HOSTILE))
    with board() as shown:
        play(shown)
        shown(JobFinished(hostile_job, "s", 1.0, 1.0, GIB))
        shown(JobFailed(hostile_job, "s", HOSTILE, retry=False))
        shown(StepStarted(HOSTILE, HOSTILE))
        shown(StepFinished(HOSTILE, 1.0, HOSTILE))
        shown(Note(HOSTILE))
        shown(replace(WHEELS[0], path=HOSTILE))
    show_wheels([replace(WHEELS[0], path=HOSTILE)])
    show_error(UsageError(HOSTILE, where=HOSTILE, hint=HOSTILE, details=[HOSTILE]))
    show_inspection({**INSPECTION, "file": HOSTILE})
    show_inspection({**INSPECTION, "binaries": [{**INSPECTION["binaries"][0], "path": HOSTILE}]})
    show_cache(CACHE)
    show_proof(replace(make_proof(HOSTILE), path=Path(HOSTILE)))
    show_note(HOSTILE)
    captured = capsys.readouterr()
    printed = captured.out + captured.err
    strange = {char for char in printed if not char.isprintable()} - {"\n"}
    assert strange == set(), "control characters in plain text"
    assert captured.out.count("evil\\x1b[31m\\x07name") == 5
    assert captured.err.count("evil\\x1b[31m\\x07name") == 14


FORGED = "evil\x1b[31m\nmade  dist/forged.whl\r\nerror: forged"


def test_what_a_project_named_is_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Names of files may hold line ends; a process tells of them as they are."""
    unit = replace(JOBS[0].unit, name=FORGED, source=FORGED, codegen=("-D", FORGED))
    hostile_job = replace(JOBS[0], unit=unit)
    again = (Reason(f"{FORGED} changed", (FORGED,)),)
    with board() as shown:
        shown(replace(PLAN, archlist_units=(FORGED,), reasons=again))
        shown(StepStarted(FORGED, FORGED))
        shown(StepFinished(FORGED, 1.0, FORGED))
        shown(JobFinished(hostile_job, "s", 1.0, 1.0, GIB))
        shown(JobFailed(hostile_job, "s", FORGED, retry=False))
        shown(JobsDropped((hostile_job,)))
        shown(Note(FORGED))
    show_error(CompileError(FORGED, where=FORGED, hint=FORGED))
    show_note(FORGED)
    show_proof(replace(make_proof(FORGED), path=Path(FORGED)))
    report = {
        "project": FORGED, "version": "1", "units": [{**asdict(unit), "images": []}],
        "links": [["g++", FORGED]], "shares": [],
    }  # fmt: skip
    show_capture(report, options=True)
    captured = capsys.readouterr()
    lines = (captured.out + captured.err).splitlines()
    assert sum("forged.whl" in line for line in lines) >= 15
    assert [line for line in lines if re.match(r"\W*(made  dist|error: forged)", line)] == []
    assert [line for line in lines if "\x1b" in line] == []


def test_a_live_board_keeps_each_job_on_its_line() -> None:
    job = replace(JOBS[0], unit=replace(JOBS[0].unit, name=FORGED))
    standing = Standing()
    for event in (PLAN, JobStarted(job, "s"), ShardSaid("s", FORGED), Progress(FORGED, 1, 2)):
        standing.note(event, 0.0)
    console = Console(file=io.StringIO(), width=200)
    console.print(picture(standing, 1.0, 200, 40))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert sum("forged.whl" in line for line in lines) == 3
    assert [line for line in lines if line.strip().startswith(("made", "error"))] == []


def test_json_has_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"name": FORGED})
    assert json.loads(capsys.readouterr().out) == {"name": FORGED}


def test_an_ascii_terminal_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    show_wheels([replace(WHEELS[0], path="dist/größe.whl")])
    sys.stdout.flush()
    assert b"dist/gr\\xf6\\xdfe.whl" in raw.getvalue()


# -- terminals -----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_live_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(board(), LiveBoard)


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("CI", "1"), ("TERM", "dumb")])
def test_a_terminal_that_is_not_watched_gets_plain_lines(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv(name, value)
    assert isinstance(board(), PlainBoard)
    with board() as shown:
        play(shown)
    assert "\x1b" not in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_colours_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    show_error(USAGE_ERROR)
    assert "\x1b[1;31merror: " in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    show_error(USAGE_ERROR)
    printed = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "31m" not in printed, "red is a colour"


def test_wheels_on_a_narrow_terminal(narrow: None, capsys: pytest.CaptureFixture[str]) -> None:
    show_wheels(WHEELS)
    shown = capsys.readouterr().out
    check_snapshot("wheels-narrow", shown)
    for wheel in WHEELS:
        assert f"{wheel.path}\n" in shown, "a wheel's name was cut off"
        assert f"{wheel.sha256}\n" in shown, "a digest was cut off"


def test_inspection_on_a_narrow_terminal(narrow: None, capsys: pytest.CaptureFixture[str]) -> None:
    show_inspection(INSPECTION)
    shown = capsys.readouterr().out
    check_snapshot("inspection-narrow", shown)
    assert max(map(len, shown.splitlines())) <= 80


def test_plan_on_a_narrow_terminal(narrow: None, capsys: pytest.CaptureFixture[str]) -> None:
    show_planned(PLAN)
    shown = capsys.readouterr().err
    check_snapshot("plan-narrow", shown)
    assert max(map(len, shown.splitlines())) <= 80


def live_console() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=80, height=24, color_system=None)


def test_the_live_board_leaves_only_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a terminal shows at the end: the lines above the picture; the picture is erased."""
    console = live_console()
    with LiveBoard(console) as board:
        play(board)
    assert isinstance(console.file, io.StringIO)
    check_snapshot("board-live-rest", screen(console.file.getvalue()))


def screen(text: str) -> str:
    """What a terminal shows after these bytes: only the sequences that a live board uses."""
    lines, row, column = [""], 0, 0
    position = 0
    while position < len(text):
        if text[position] == "\x1b":
            end = position + 2
            while not text[end].isalpha():
                end += 1
            if text[end] == "A":
                row -= int(text[position + 2 : end] or 1)
            elif text[end] == "K":
                lines[row] = ""
            position = end
        elif text[position] == "\r":
            column = 0
        elif text[position] == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        else:
            lines[row] = (
                lines[row][:column].ljust(column) + text[position] + lines[row][column + 1 :]
            )
            column += 1
        position += 1
    return "\n".join(lines).rstrip() + "\n"


def test_the_live_board_shows_running_jobs() -> None:
    console = live_console()
    with LiveBoard(console) as board:
        board(StepStarted("compile"))
        board(PLAN)
        board(JobStarted(JOBS[0], "sm86"))
        board._live.refresh()
        assert isinstance(console.file, io.StringIO)
        shown = screen(console.file.getvalue())
    assert "0 of 48, about 8 min left" in shown  # 7500 s in 16 slots
    assert "csrc/fwd [sm_86]" in shown


def test_the_live_board_takes_events_from_many_threads() -> None:
    console = live_console()

    def work(shard: str) -> None:
        for job in JOBS * 20:
            board(JobStarted(job, shard))
            board(Note(shard))
            board(JobFinished(job, shard, 0.0, 0.0, 0))

    with LiveBoard(console) as board:
        threads = [threading.Thread(target=work, args=(f"s{n}",), daemon=True) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert not any(thread.is_alive() for thread in threads), "the board is locked up"
        assert board._standing.finished == 8 * 60


def test_the_terminal_is_put_right_after_a_failure() -> None:
    console = live_console()

    def fail() -> None:
        with LiveBoard(console) as board:
            board(StepStarted("compile"))
            raise UsageError("no")

    with pytest.raises(UsageError):
        fail()
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().rstrip().rsplit("\x1b[?25", 1)[-1].startswith("h"), (
        "the cursor is still hidden"
    )


# -- downloads in plain lines --------------------------------------------------------------------


def plain_lines(events: list[Event]) -> list[str]:
    stream = io.StringIO()
    board = PlainBoard(Console(file=stream, width=1000, color_system=None))
    for event in events:
        board(event)
    return stream.getvalue().splitlines()


def test_a_download_gets_at_most_a_line_per_tenth() -> None:
    lines = plain_lines([Progress("torch", n * GIB // 1000, GIB) for n in range(1001)])
    assert [line.split()[1] for line in lines] == [str(tenth * 10) for tenth in range(1, 11)]


def test_a_small_download_gets_one_line() -> None:
    lines = plain_lines([Progress("numpy", n * MIB, 20 * MIB) for n in range(21)])
    assert lines == ["numpy: 100 % of 20.0 MiB"]


def test_a_download_of_unknown_size_says_how_far_it_is() -> None:
    lines = plain_lines([Progress("source", n * MIB, 0) for n in range(130)])
    assert lines == ["source: 64.0 MiB", "source: 128.0 MiB"]


def test_a_second_download_of_the_same_name_is_reported_again() -> None:
    events: list[Event] = [Progress("download", MIB, MIB), Progress("download", 0, MIB)]
    assert len(plain_lines([*events, Progress("download", MIB, MIB)])) == 2
