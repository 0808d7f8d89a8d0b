"""How commands end: exit codes, and what is said on the way out."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fatwheel.cli.arguments import reported
from fatwheel.errors import FormatError, StoreError


def ending(problem: BaseException) -> object:
    """The exit code that a problem leads to."""
    with pytest.raises(SystemExit) as caught, reported():
        raise problem
    assert caught.value.__suppress_context__, "a traceback would show what has been told already"
    return caught.value.code


def test_a_command_that_works_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with reported():
        print("result")
    assert capfd.readouterr() == ("result\n", "")


def test_a_known_failure(capfd: pytest.CaptureFixture[str]) -> None:
    assert ending(FormatError("it is cut off", where="a.whl", details=["one", "two"])) == 11
    assert capfd.readouterr() == (
        "",
        "error: it is cut off\n  where: a.whl\n    one\n    two\n",
    )


def test_an_interruption(capfd: pytest.CaptureFixture[str]) -> None:
    assert ending(KeyboardInterrupt()) == 130
    assert capfd.readouterr() == ("", "interrupted; what was finished is kept\n")


@pytest.mark.parametrize(
    ("filename", "shown"),
    [
        ("/some/file", "/some/file"),
        (b"/some/\xff", "/some/\\udcff"),
        (Path("/some/file"), "/some/file"),
        (None, None),
        (3, None),  # of an open file
    ],
)
def test_trouble_with_a_disk(
    filename: object, shown: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    problem = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    problem.filename = filename
    assert ending(problem) == StoreError.exit_code
    first, *others = capfd.readouterr().err.splitlines()
    assert first == "error: cannot continue: No space left on device"
    assert [line for line in others if "where:" in line] == ([f"  where: {shown}"] if shown else [])


@pytest.mark.parametrize(
    "bug",
    [
        ValueError("a bug"),
        FileNotFoundError(errno.ENOENT, "a bug, too: who opens a file says what is wrong"),
        OSError("without a number"),
        SystemExit(7),
    ],
)
def test_bugs_are_not_hidden(bug: BaseException, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(bug)) as caught, reported():
        raise bug
    assert caught.value is bug
    assert capfd.readouterr() == ("", "")


def test_a_reader_that_has_gone_is_no_failure_to_speak_of() -> None:
    """As in `inspect x.whl --json | head -1`: no traceback, not even from the last flush."""
    program = (
        "from fatwheel.cli.console import write_verbatim\n"
        "from fatwheel.cli.arguments import reported\n"
        "input()\n"
        "with reported():\n"
        "    write_verbatim('a short result')\n"
    )
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", program], env=buffered, stdin=pipe, stdout=pipe, stderr=pipe
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.write(b"go on\n")
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
