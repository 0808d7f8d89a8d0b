"""Lines from workers and containers: what is ours is understood, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from fatwheel.engines.conversation import (
    AssembledLine,
    CapturedLine,
    FailedLine,
    KilledLine,
    MadeLine,
    SaidLine,
    assemble_line,
    capture_line,
    checked_capture,
    checked_lookup,
    checked_slices,
    worker_line,
)
from fatwheel.errors import CompileError, EngineError
from fatwheel.model import Front, Host, Job, Stage
from fatwheel.worker.assemble import Lookup, Pass, Reason, all_jobs

from ...helpers.standins import cpp_unit, cuda_unit, front, job

FRONTS = (front("80", "sm_80", "compute_80"), front("90a"))
UNITS = (cuda_unit("a", "-D", "X=1"), cpp_unit("b"))
HOST = Host("g++ 12.2.0", "ab" * 32, "3.11.7")
FAILED = {
    "outcome": "failed", "class": "CompileError", "what": "nvcc failed", "where": "a [sm_80]",
    "hint": None, "details": ["line 1", "line 2"],
}  # fmt: skip
DEEP = "[" * 100_000 + "]" * 100_000
HUGE = "1" * 5000
MADE = ((),) * len(all_jobs(UNITS, FRONTS))
PENDING = (job(UNITS[0], FRONTS[0], host=True), job(UNITS[1], None))


def captured(**changes: Any) -> dict[str, Any]:
    lookup = Lookup(PENDING, units=2, slices=3, hits=1, archlist_units=(), made=MADE)
    return {
        "outcome": "made", "units": [asdict(unit) for unit in UNITS],
        "notes": [], "links": [["g++", "a.o"]], "wheel": "demo-1.0-cp311-cp311-linux_x86_64.whl",
        "lookup": asdict(lookup), "host": asdict(HOST), **changes,
    }  # fmt: skip


def read(**changes: Any) -> tuple[Any, Lookup, Host]:
    line = capture_line(json.dumps(captured(**changes)))
    assert isinstance(line, CapturedLine)
    return checked_capture(line, FRONTS)


# -- workers -------------------------------------------------------------------------------------


def test_what_workers_say_is_understood() -> None:
    made = {
        "id": 3,
        "outcome": "made",
        "seconds": 2,
        "cpu": 1.5,
        "rss": 7,
        "taken": True,
        "entries": [],
    }
    line = worker_line(json.dumps(made))
    assert isinstance(line, MadeLine)
    assert (line.made.seconds, line.made.cpu, line.made.rss) == (2, 1.5, 7)
    assert worker_line(json.dumps({"said": "a: begun"})) == SaidLine(said="a: begun")
    killed = worker_line(json.dumps({"id": 3, "outcome": "killed", "rss": 7}))
    assert isinstance(killed, KilledLine)


def test_an_error_is_as_it_was_raised_there() -> None:
    line = worker_line(json.dumps({"id": None, **FAILED}))
    assert isinstance(line, FailedLine)
    error = line.error
    assert type(error) is CompileError
    assert (error.what, error.where, error.hint) == ("nvcc failed", "a [sm_80]", None)
    assert error.details == ("line 1", "line 2")


def test_no_text_from_there_steers_the_terminal() -> None:
    evil = "\x1b]0;title\x07 \x1b[2J"
    said = worker_line(json.dumps({"said": evil}))
    assert isinstance(said, SaidLine)
    fields = dict.fromkeys(("what", "where", "hint"), evil)
    failed = worker_line(json.dumps({"id": 1, **FAILED, **fields, "details": [evil]}))
    assert isinstance(failed, FailedLine)
    with pytest.raises(EngineError) as nonsense:
        worker_line(evil)
    assert "\x1b" not in f"{said.said} {failed.error} {nonsense.value}"


def test_an_error_from_there_does_not_fill_the_screen() -> None:
    """Nor look like several, of which one is ours."""
    long = "x" * 100_000
    details = [f"b\nc {long}"] * 100 + ["d"] * 50_000
    fields = {"what": f"a\nfatwheel: {long}", "details": details}
    failed = worker_line(json.dumps({"id": 1, **FAILED, **fields}))
    assert isinstance(failed, FailedLine)
    error = failed.error
    assert "\n" not in error.what
    assert not any("\n" in line for line in error.details)
    assert len(error.what) + max(map(len, error.details)) < 5000
    assert len(error.details) == 1000


def test_a_line_with_more_names_than_ours_have_is_refused_before_it_costs_memory() -> None:
    line = "{" + ",".join(f'"{number:x}": 1' for number in range(5000)) + "}"
    with pytest.raises(EngineError):
        worker_line(line)


@pytest.mark.parametrize("name", ["InterruptedBuildError", "LockError", "KeyError", "annotations"])
def test_only_errors_that_are_raised_there_are_believed(name: str) -> None:
    line = worker_line(json.dumps({"id": 1, **FAILED, "class": name}))
    assert isinstance(line, FailedLine)
    with pytest.raises(EngineError):
        _ = line.error


@pytest.mark.parametrize(
    "line",
    [
        "", "null", "{}", DEEP, f'{{"said": {DEEP}}}', HUGE, f'{{"id": {HUGE}, "outcome": "made"}}',
        '{"said": 3}', '{"said": "a", "more": 1}', '{"said": "\\ud800"}', '"' + "x" * (17 << 20),
        '{"id": 1, "outcome": "made", "seconds": NaN, "cpu": 1, "rss": 1, "taken": false, '
        '"entries": []}',
        '{"id": 1, "outcome": "made", "seconds": 1e400, "cpu": 1, "rss": 1, "taken": false, '
        '"entries": []}',
        '{"id": 1, "outcome": "made", "seconds": -1, "cpu": 1, "rss": 1, "taken": false, '
        '"entries": []}',
        '{"id": true, "outcome": "killed", "rss": 1}', '{"id": 1.0, "outcome": "killed", "rss": 1}',
        '{"id": 1, "outcome": "killed", "rss": 1e999}',
    ],
    ids=lambda line: line[:30],
)  # fmt: skip
def test_anything_else_is_an_error_of_ours(line: str) -> None:
    with pytest.raises(EngineError) as caught:
        worker_line(line)
    assert len(str(caught.value)) < 2000


# -- capture -------------------------------------------------------------------------------------


def test_what_capture_finds_is_understood() -> None:
    units, lookup, host = read()
    assert units == UNITS
    assert lookup.pending == (job(UNITS[0], FRONTS[0], host=True), job(UNITS[1], None))
    assert (lookup.units, lookup.slices, lookup.hits) == (2, 3, 1)
    assert host == HOST


def test_what_a_job_costs_is_not_for_a_container_to_say() -> None:
    lied = Job(UNITS[0], FRONTS[1], False, memory=1 << 60, seconds=-5)
    _, lookup, _ = read(lookup=asdict(Lookup((lied,), 2, 10**9, -1, ("nobody",), made=MADE)))
    assert [(one.memory, one.seconds) for one in lookup.pending] == [(0, 0)]
    assert (lookup.slices, lookup.hits, lookup.archlist_units) == (3, 2, ())


def test_why_units_are_compiled_again_is_words_about_units() -> None:
    name = UNITS[0].name
    why = Reason("a.h\n\x1b[2J" + "x" * 999, ("nobody", name))
    lookup = Lookup(PENDING, 2, 3, 0, (), (), MADE, (), (why,) * 999, "é")
    _, found, _ = read(lookup=asdict(lookup))
    assert found.reasons[0].what.startswith("a.h")
    assert found.reasons[0].what.isprintable()
    assert found.reasons[0].units == (name,)
    assert found.state == ""


@pytest.mark.parametrize(
    "reasons",
    [
        (Reason("it is so", ("nobody",)),),
        (Reason("it is so", ()),) * 999,
        (Reason("", (UNITS[0].name,)),),
        (Reason("it is so", (UNITS[1].name,)),),  # which is not compiled
    ],
)
def test_a_reason_of_no_unit_or_no_words_is_none(reasons: tuple[Reason, ...]) -> None:
    lookup = Lookup(PENDING[:1], 2, 3, 0, (UNITS[1].name,), (), MADE, (), reasons)
    _, found, _ = read(lookup=asdict(lookup))
    assert (found.reasons, found.archlist_units) == ((), ())


def test_no_more_units_are_compiled_again_than_there_are() -> None:
    """One source that is compiled in two ways is two units of one name."""
    units = (*UNITS, cuda_unit(UNITS[0].name, "-D", "X=2"))
    name, other = UNITS[0].name, UNITS[1].name
    pending = (*PENDING, job(units[2], FRONTS[0], host=True))
    reasons = (
        Reason("of this", (name, *(name, other) * 999)), Reason("of that", (name, other)),
    )  # fmt: skip
    made = ((),) * len(all_jobs(units, FRONTS))
    lookup = Lookup(pending, 3, 6, 0, (name,) * 999, (), made, (), reasons)
    found = checked_lookup(lookup, units, FRONTS)
    assert found.reasons == (Reason("of this", (name, name, other)),)
    assert found.archlist_units == (name,)


KEY = "ab" * 32


def test_keys_that_are_asked_for_elsewhere_are_read() -> None:
    passes = (Pass("compute_80", (KEY,), (KEY,)),)
    absent = (("slice", KEY), ("host", KEY))
    _, lookup, _ = read(lookup=asdict(Lookup((), 2, 3, 0, (), passes, MADE, absent)))
    assert (lookup.passes, lookup.made, lookup.absent) == (passes, MADE, absent)


@pytest.mark.parametrize(
    ("passes", "made", "absent"),
    [
        ((), MADE, (("slice", "../../etc"),)),
        ((), MADE, (("slice", KEY.upper()),)),
        ((), MADE, (("wheel", KEY),)),
        ((), MADE, (("text", KEY),)),
        ((), MADE[1:], ()),
        ((), ((("wheel", KEY),), *MADE[1:]), ()),
        ((Pass("x", ("no key",), ()),), MADE, ()),
        ((Pass("x", (), ("no key",)),), MADE, ()),
        ((Pass("x\n", (), ()),), MADE, ()),
        ((Pass("x", (), ()), Pass("x", (), ())), MADE, ()),
    ],
)
def test_what_is_no_key_is_refused(passes: Any, made: Any, absent: Any) -> None:
    with pytest.raises(EngineError):
        read(lookup=asdict(Lookup((), 2, 3, 0, (), passes, made, absent)))


@pytest.mark.parametrize(
    "wrong",
    [
        job(cuda_unit("other"), FRONTS[0]), job(UNITS[0], front("86")), job(UNITS[0], None),
        job(UNITS[1], FRONTS[0]), job(UNITS[0], front("80", "sm_86")),
        job(UNITS[0], replace(FRONTS[0], split=4)),
        job(UNITS[0], front("80", "sm_80", "sm_80")), Job(UNITS[1], None, False, 0, 0),
    ],
)  # fmt: skip
def test_a_job_that_nobody_asked_for_is_refused(wrong: Job) -> None:
    with pytest.raises(EngineError):
        read(lookup=asdict(Lookup((wrong,), 2, 3, 0, (), made=MADE)))


def staged(stage: Stage, *codes: str, host: bool = False) -> Job:
    return Job(UNITS[0], Front(FRONTS[0].virtual, codes), host, 0, 0, stage)


def test_stages_that_need_no_front_may_be_left() -> None:
    parts = (staged("ptxas", "sm_80"), staged("ptxas", "compute_80"), staged("host", host=True))
    _, lookup, _ = read(lookup=asdict(Lookup(parts, 2, 3, 0, (), made=MADE)))
    assert lookup.pending == parts
    assert (lookup.slices, lookup.hits) == (3, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        staged("front"), staged("front", "compute_80"), staged("ptxas"),
        staged("ptxas", "sm_80", "compute_80"), staged("ptxas", "sm_80", host=True),
        staged("host"), staged("host", "sm_80", host=True), staged("whole", host=True),
        staged("ptxas", "sm_86"), Job(UNITS[1], None, True, 0, 0, "host"),
    ],
)  # fmt: skip
def test_other_stages_are_refused(wrong: Job) -> None:
    with pytest.raises(EngineError):
        read(lookup=asdict(Lookup((wrong,), 2, 3, 0, (), made=MADE)))


def test_what_two_jobs_would_make_is_refused() -> None:
    twice = (staged("ptxas", "sm_80"), staged("whole", "sm_80", "compute_80"))
    with pytest.raises(EngineError):
        read(lookup=asdict(Lookup(twice, 2, 3, 0, (), made=MADE)))


def test_no_other_word_is_a_stage() -> None:
    line = {**asdict(staged("ptxas", "sm_80")), "stage": "cicc"}
    lookup = asdict(Lookup((), 2, 3, 0, (), made=MADE))
    with pytest.raises(EngineError):
        read(lookup={**lookup, "pending": [line]})


def test_a_job_that_is_named_twice_is_refused() -> None:
    again = job(UNITS[0], FRONTS[0])
    with pytest.raises(EngineError):
        read(lookup=asdict(Lookup((again, again), 2, 3, 0, (), made=MADE)))


@pytest.mark.parametrize(
    "changes",
    [
        {"units": [{**asdict(UNITS[0]), "kind": "shell"}]},
        {"units": [{**asdict(UNITS[0]), "name": ""}]},
        {"units": [{**asdict(UNITS[0]), "name": "a\x1b[2J"}]},
        {"units": [{**asdict(UNITS[0]), "codegen": "-O3"}]},
        {"units": [{**asdict(UNITS[0]), "source": None}]},
        {"units": {}},
        {"host": {**asdict(HOST), "compiler": "x" * 1000}},
        {"host": {**asdict(HOST), "python": "3.11\n"}},
        {"host": None},
        {"notes": ["x"] * 11},
        {"notes": [1]},
        {"links": ["g++"]},
        {"wheel": "../demo-1.0-py3-none-any.whl"},
        {"more": 1},
    ],
)
def test_units_and_hosts_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(EngineError):
        read(**changes)


def test_what_containers_note_cannot_steer_a_terminal() -> None:
    line = capture_line(json.dumps(captured(notes=["g++ \x1b[2J", "two\nlines", "x" * 9000])))
    assert isinstance(line, CapturedLine)
    assert line.sentences == ("g++ \\x1b[2J", "two\\nlines", "x" * 2000)


def test_there_are_only_so_many_units() -> None:
    unit = {"name": "a", "kind": "c++", "source": "", "codegen": [], "preprocessor": []}
    with pytest.raises(EngineError):
        read(units=[unit] * 100_001)


# -- assembling ----------------------------------------------------------------------------------


def assembled(**changes: Any) -> AssembledLine:
    slices = {"sm_80": "ab" * 32, "compute_80": None, "sm_90a": "cd" * 32}
    answer = {"outcome": "made", "wheel": "a-1.0-py3-none-any.whl", "linked": []}
    line = assemble_line(
        json.dumps({**answer, "slices": [{"name": "a", "slices": slices}], **changes})
    )
    assert isinstance(line, AssembledLine)
    return line


def test_a_wheel_and_its_slices_are_understood() -> None:
    line = assembled()
    assert line.wheel == "a-1.0-py3-none-any.whl"
    [unit] = checked_slices(line, UNITS, FRONTS)
    assert (unit["name"], list(unit["slices"])) == ("a", ["sm_80", "compute_80", "sm_90a"])


@pytest.mark.parametrize(
    "name",
    [
        "../../x.whl",
        "/x.whl",
        "x\\y.whl",
        "",
        ".whl",
        "x.tar",
        "x.whl\n",
        "x" * 300 + ".whl",
        "ü.whl",
    ],
)
def test_a_wheel_has_the_name_of_one(name: str) -> None:
    with pytest.raises(EngineError):
        assembled(wheel=name)


def test_what_was_linked_is_told_after_the_units() -> None:
    linked = [{"name": "dlink", "slices": {"sm_80": "ef" * 32}}]
    _, found = checked_slices(assembled(linked=linked), UNITS, FRONTS)
    assert found == {"name": "dlink", "slices": {"sm_80": "ef" * 32}}


@pytest.mark.parametrize(
    ("name", "image"),
    [("dlink", "sm_91"), ("dlink", "compute_80"), ("\x1b[2J", "sm_80"), ("", "sm_80")],
)
def test_what_was_linked_is_for_what_was_asked_for(name: str, image: str) -> None:
    linked = [{"name": name, "slices": {image: "ef" * 32}}]
    with pytest.raises(EngineError):
        checked_slices(assembled(linked=linked), UNITS, FRONTS)


@pytest.mark.parametrize(
    "slices",
    [
        [], [{"name": "b", "slices": {}}], [{"name": "a", "slices": {"sm_80": "ab" * 32}}],
        [{"name": "a", "slices": {"sm_80": None, "compute_80": None, "sm_91": None}}],
    ],
)  # fmt: skip
def test_slices_are_those_that_were_asked_for(slices: Any) -> None:
    with pytest.raises(EngineError):
        checked_slices(assembled(slices=slices), UNITS, FRONTS)


def test_a_digest_is_one() -> None:
    with pytest.raises(EngineError):
        assembled(slices=[{"name": "a", "slices": {"sm_80": "../x"}}])
