"""The worker as a real process: its protocol, and that nothing outlives it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fatwheel.model import Job
from fatwheel.worker.context import Context

from ...helpers.standins import alive, cpp_unit, cuda_unit, descendants, front, job, make_context

START = "from fatwheel.worker.shard import main; main()"


class Worker:
    def __init__(self, context: Context) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", START], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.write(context.to_wire())

    def write(self, message: dict[str, Any]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def send(self, number: int, job: Job) -> None:
        self.write({"id": number, "job": dataclasses.asdict(job)})

    def line(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"the worker ended: {self.process.stderr and self.process.stderr.read()}"
        found: dict[str, Any] = json.loads(line)
        return found

    def answer(self) -> dict[str, Any]:
        """The next outcome; what is only said on the way is left out."""
        while "said" in (found := self.line()):
            pass
        return found

    def end(self) -> int:
        self.process.communicate(timeout=120)
        return self.process.returncode


@pytest.fixture
def context(tmp_path: Path, tool: Callable[[str], str]) -> Context:
    tool("g++")
    return make_context(tmp_path)


@pytest.fixture
def start() -> Iterator[Callable[[Context], Worker]]:
    workers: list[Worker] = []

    def start_(context: Context) -> Worker:
        workers.append(Worker(context))
        return workers[-1]

    yield start_
    for worker in workers:
        worker.process.kill()
        worker.process.communicate()


def write(context: Context, name: str, text: str) -> None:
    (Path(context.places.source) / name).write_text(text)


def test_each_job_gets_one_answer_by_its_number(
    context: Context, start: Callable[[Context], Worker]
) -> None:
    worker = start(context)
    write(context, "a.cu", "int a;\n")
    write(context, "b.cpp", "int b;\n")
    worker.send(7, job(cuda_unit(), front("80"), host=True))
    worker.send(9, job(cpp_unit(), None))
    answers = {answer["id"]: answer for answer in (worker.answer(), worker.answer())}
    assert set(answers) == {7, 9}
    for answer in answers.values():
        assert answer["outcome"] == "made"
        assert min(answer["seconds"], answer["cpu"], answer["rss"]) > 0
    assert {usage.kind for usage in context.store().usage()} >= {"slice", "host", "text", "seen"}


def test_what_happens_is_said_line_by_line(
    context: Context, start: Callable[[Context], Worker]
) -> None:
    write(context, "a.cu", "#warning look here\nint a;\n")
    worker = start(context)
    worker.send(1, job(cuda_unit(), front("80")))
    said = []
    while "said" in (found := worker.line()):
        said.append(found["said"])
    assert found["outcome"] == "made"
    assert said[0] == "a [sm_80]: begun"
    assert said[-1].startswith("a [sm_80]: made in ")
    assert any("look here" in line for line in said[1:-1]), "what the compiler says on success"


def test_a_compile_error_comes_back_whole(
    context: Context, start: Callable[[Context], Worker]
) -> None:
    write(context, "a.cu", '#error "quotes" and ünïcode\n')
    worker = start(context)
    worker.send(1, job(cuda_unit(), front("80")))
    answer = worker.answer()
    assert (answer["outcome"], answer["class"]) == ("failed", "CompileError")
    assert answer["where"] == "a [sm_80]"
    assert '#error "quotes" and ünïcode' in "\n".join(answer["details"])
    assert answer["hint"].startswith("cd ")


def test_a_worker_goes_on_after_a_failure(
    context: Context, start: Callable[[Context], Worker]
) -> None:
    worker = start(context)
    for number, text in enumerate(["// stand-in: says no\n", "int a;\n"]):
        write(context, f"{number}.cu", text)
        worker.send(number, job(cuda_unit(str(number)), front("80")))
        assert worker.answer()["outcome"] == ("failed" if number == 0 else "made")


def test_a_compiler_killed_for_memory_is_no_failure(
    context: Context, start: Callable[[Context], Worker]
) -> None:
    write(context, "a.cu", "// stand-in: killed\n")
    worker = start(context)
    worker.send(1, job(cuda_unit(), front("80")))
    answer = worker.answer()
    assert answer == {"id": 1, "outcome": "killed", "rss": answer["rss"]}
    assert answer["rss"] > 1 << 20


def test_trouble_with_folders_is_named(
    context: Context, start: Callable[[Context], Worker]
) -> None:
    worker = start(dataclasses.replace(context, scratch="/no/such/folder"))
    worker.send(1, job(cuda_unit(), front("80")))
    answer = worker.answer()
    assert (answer["outcome"], answer["class"]) == ("failed", "StoreError")
    assert "/no/such/folder" in answer["what"]


def test_a_mistake_of_our_own_is_an_answer_too(
    context: Context, start: Callable[[Context], Worker]
) -> None:
    """Without one the build would wait for ever."""
    worker = start(context)
    broken = dataclasses.asdict(job(cuda_unit(), front("80")))
    broken["front"]["virtual"] = {"no": "such field"}
    worker.write({"id": 2, "job": broken})
    answer = worker.answer()
    assert (answer["id"], answer["outcome"]) == (2, "failed")
    assert (answer["class"], answer["where"]) == ("FatwheelError", "a")
    assert "Traceback" in answer["details"][0]


def test_compilers_end_with_the_workers_input(
    context: Context, start: Callable[[Context], Worker]
) -> None:
    write(context, "a.cu", "// stand-in: waits\n")
    worker = start(context)
    worker.send(1, job(cuda_unit(), front("80")))
    # sh became Python, which runs sleep.
    below = descendants(worker.process.pid, until="sleep")
    assert worker.end() == -9, "the worker ends its whole group"
    deadline = time.monotonic() + 60
    while any(map(alive, below)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, below)), "a compiler outlived its worker"
