"""How commands end: exit codes, and what is said on the way out."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fatwheel.cli.arguments import reported
from fatwheel.errors import FormatError, StoreError

from ...helpers.standins import DATA


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


# -- readers that go ----------------------------------------------------------------------------


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("size", [1, 1_000_000])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_has_gone_changes_nothing(stream: str, size: int, unbuffered: str) -> None:
    """As in `verify *.whl --json | head -1`: the exit code is that of what was found, and there is
    no traceback, not even from the last flush."""
    program = (
        "import sys\n"
        "from fatwheel.cli.arguments import reported\n"
        "from fatwheel.errors import VerifyError\n"
        "input()\n"
        "with reported():\n"
        f"    sys.{stream}.write('x' * {size})\n"
        f"    sys.{stream}.flush()\n"
        f"    sys.{stream}.write('x' * {size})\n"
        "    raise VerifyError('bad')\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdin=pipe, stdout=pipe, stderr=pipe,
    ) as process:  # fmt: skip
        gone = getattr(process, stream)
        other = process.stderr if stream == "stdout" else process.stdout
        assert process.stdin
        assert other
        gone.close()
        process.stdin.write(b"go on\n")
        process.stdin.close()
        assert other.read() == (b"error: bad\n" if stream == "stdout" else b"")
    assert process.returncode == 13


def test_help_may_be_cut(tmp_path: Path) -> None:
    line = '{ "$0" -m fatwheel inspect --help; echo "code $?" >&2; } | true'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.stderr == "code 0\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
@pytest.mark.parametrize(
    ("line", "full", "code", "said"),
    [
        ("--help", ">", 10, "error: cannot continue: No space left on device"),
        ("inspect FILE", ">", 10, "error: cannot continue: No space left on device"),
        ("inspect --json FILE", ">", 10, "error: cannot continue: No space left on device"),
        ("inspect nowhere", ">", 2, "error: cannot read this file: No such file or directory"),
        ("inspect nowhere", "2>", 2, ""),
        ("inspect FILE", "2>", 0, ""),
    ],
)
def test_a_disk_that_is_full_is_told_once(line: str, full: str, code: int, said: str) -> None:
    """And not by Python, which would write what is left when it ends."""
    words = line.replace("FILE", str(DATA / "none.fatbin"))
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m fatwheel {words} {full} /dev/full', sys.executable],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert done.stderr.partition("\n")[0] == said
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


# -- signals -------------------------------------------------------------------------------------

ENDS = """
import os, signal, sys, time
from pathlib import Path
from fatwheel.cli.arguments import reported
from fatwheel.storage.files import replacing

with reported():
    with replacing(Path(sys.argv[1], "result")) as stream:
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            # As a terminal does that is closed, and whoever loses patience.
            for name in sys.argv[2:]:
                os.kill(os.getpid(), getattr(signal, name))
            print("tidied up", flush=True)
print("went on", flush=True)
"""


def ended(folder: Path, number: signal.Signals, *again: str) -> tuple[int, str, str]:
    """How a command ends that a signal asks to, and what it says."""
    with subprocess.Popen(
        [sys.executable, "-c", ENDS, str(folder), *again], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)  # into the sleep, not into the print
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_a_signal_to_end_is_obeyed_as_ctrl_c_is(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    said = "interrupted; what was finished is kept\n"
    assert ended(tmp_path, number) == (code, "tidied up\n", said)
    assert list(tmp_path.iterdir()) == []


def test_more_signals_do_not_stop_the_tidying_up(tmp_path: Path) -> None:
    code, out, _ = ended(tmp_path, signal.SIGHUP, "SIGHUP", "SIGTERM")
    assert (code, out) == (129, "tidied up\n")
    assert list(tmp_path.iterdir()) == []


def test_what_is_ignored_stays_so(tmp_path: Path) -> None:
    """nohup."""
    before = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    with subprocess.Popen(
        [sys.executable, "-c", before + ENDS.replace("60", "1"), str(tmp_path)], text=True,
        stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.stdout.read() == "tidied up\nwent on\n"
    assert process.returncode == 0


def test_signals_mean_what_they_did_when_a_command_has_ended() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with reported():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
