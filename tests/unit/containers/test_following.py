"""What is made of the answers of an engine that builds an image.

The answers are as Docker Engine 20.10's classic builder gave them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fatwheel.config.pinned import Download
from fatwheel.containers.contexts import BuildContext
from fatwheel.containers.imagebuild import Following
from fatwheel.errors import EngineError
from fatwheel.events import Event, Progress

FILES = (
    Download("a", "1", "", "a.whl", 600, "0" * 64),
    Download("b", "1", "", "b.whl", 400, "0" * 64),
)
BASE = "python:3.11@sha256:" + "1" * 64
CONTEXT = BuildContext("env", "fatwheel/x:env-1", BASE, (), FILES)
LOG = Path("/logs/x.log")


class Followed:
    def __init__(self) -> None:
        self.log = io.StringIO()
        self.events: list[Event] = []
        self.following = Following(CONTEXT, self.log, LOG, self.events.append)

    def take(self, *messages: Mapping[str, Any]) -> None:
        for message in messages:
            self.following.take(message)

    def lines(self, *lines: str) -> None:
        self.take(*({"stream": f"{line}\n"} for line in lines))

    def fail(self, error: str, **detail: Any) -> EngineError:
        with pytest.raises(EngineError) as caught:
            self.take({"errorDetail": {"message": error, **detail}, "error": error})
        return caught.value

    @property
    def done(self) -> list[int]:
        return [event.done for event in self.events if isinstance(event, Progress)]


@pytest.fixture
def followed() -> Followed:
    return Followed()


def test_progress_goes_on_with_what_steps_install(followed: Followed) -> None:
    followed.lines(
        "Step 1/6 : FROM x",
        " ---> 0123456789ab",
        "Step 2/6 : COPY r.txt files/a.whl /f/",
        "Step 3/6 : RUN pip install a",
        "Step 4/6 : COPY r.txt files/b.whl /f/",
        "Step 5/6 : RUN pip install b",
        "Step 6/6 : RUN check",
        "Successfully built 0123456789ab",
    )
    assert followed.done == [0, 0, 300, 600, 800, 1000]
    followed.following.finish()
    assert followed.done[-1] == 1000
    assert {event.total for event in followed.events if isinstance(event, Progress)} == {1000}


def test_the_log_has_every_line_whole_and_harmless(followed: Followed) -> None:
    followed.take(
        {"stream": "Step 1/1 : RUN x"},
        {"stream": "\n"},
        {"stream": "\x1b[91mred\x1b[0m and \x1b]0;title\x07"},
        {"stream": "\nlast"},
        {"status": "Pulling from library/python", "id": "3.11"},
        {"status": "Downloading", "progressDetail": {"current": 1}, "id": "abc"},
        {"aux": {"ID": "sha256:1"}},
    )
    followed.following.finish()
    assert followed.log.getvalue().splitlines() == [
        "Step 1/1 : RUN x",
        "red and \\x1b]0;title\\x07",
        "3.11 Pulling from library/python",
        "last",
    ]


def test_a_command_that_fails_is_told_with_its_last_lines(followed: Followed) -> None:
    followed.lines("Step 1/9 : FROM x", "Step 2/9 : RUN tool", *(f"line {n}" for n in range(40)))
    error = followed.fail("The command '/bin/sh -c tool' returned a non-zero code: 7", code=7)
    assert error.what == "building an image failed: a command exited with code 7"
    assert error.where == "fatwheel/x:env-1, step 2 of 9"
    assert error.details[0] == "RUN tool"
    assert error.details[-2:] == ("line 39", "full log: /logs/x.log")
    assert "line 1" not in error.details
    assert "the same command again" in str(error.hint)
    assert "non-zero code: 7" in followed.log.getvalue()


def test_output_of_earlier_steps_is_not_shown(followed: Followed) -> None:
    followed.lines("Step 1/3 : RUN a", "of a", "Step 2/3 : RUN b", " ---> Running in 12")
    assert "of a" not in followed.fail("returned a non-zero code: 1").details


@pytest.mark.parametrize(
    "lines",
    [
        ["OSError: [Errno 28] No space left on device"],
        ["There is not enough space on the disk."],
    ],
)
def test_a_full_disk_is_told_whoever_says_so(followed: Followed, lines: list[str]) -> None:
    followed.lines("Step 1/3 : RUN a", *lines, "more")
    error = followed.fail("The command 'a' returned a non-zero code: 1", code=1)
    assert "the engine's disk is full" in error.what
    assert lines[0] in error.details
    assert "docker image prune" in str(error.hint)


def test_a_full_disk_that_the_engine_itself_meets(followed: Followed) -> None:
    error = followed.fail("write /var/lib/docker/tmp/x: no space left on device")
    assert "the engine's disk is full" in error.what
    assert error.where == "fatwheel/x:env-1, before the first step"


def test_anything_else_is_shown_as_it_is(followed: Followed) -> None:
    followed.lines("Step 1/3 : COPY a b")
    error = followed.fail("COPY failed: forbidden path outside the build context")
    assert error.what.endswith("COPY failed: forbidden path outside the build context")
