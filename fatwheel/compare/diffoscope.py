"""Runs diffoscope on two files, if it is installed.

It looks into many formats with the tools that it finds, and may take very long, so it gets a limit
of time, and what it says one of size.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

_SECONDS = 60.0
_MOST = 256 << 10  # bytes of its words
_LARGEST = 64 << 20  # bytes of a file that it is given
_DIFFERENT = 1  # its exit code where files differ
_PLACES = ("first", "second")

Content = Iterable[bytes | memoryview]


def find_diffoscope() -> str | None:
    """Its path, or None; on Windows there is none."""
    return shutil.which("diffoscope") if os.name == "posix" else None


def said_of(name: str, sizes: Sequence[int], contents: Sequence[Content]) -> str:
    """What diffoscope says of two versions of a file; '' where it is not installed, fails or takes
    too long, or where the files are too large for it."""
    program = find_diffoscope()
    if program is None or max(sizes) > _LARGEST:
        return ""
    try:
        with tempfile.TemporaryDirectory(prefix="fatwheel-compare-") as folder:
            files = [f"{place}/{name.rpartition('/')[2]}" for place in _PLACES]
            for file, content in zip(files, contents, strict=True):
                _write(Path(folder, file), content)
            return _run([program, *files], Path(folder))
    except OSError:  # a full disk: the report does without
        return ""


def _write(path: Path, content: Content) -> None:
    path.parent.mkdir()
    with path.open("wb") as stream:
        for piece in content:
            stream.write(piece)


def _run(command: list[str], folder: Path) -> str:
    words = folder / "words"
    options = ["--no-progress", "--text-color=never", f"--max-text-report-size={_MOST}"]
    running = subprocess.Popen(
        [command[0], *options, f"--text={words.name}", *command[1:]],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = running.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        return ""
    finally:
        with suppress(ProcessLookupError):  # with the tools that it started
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    if code != _DIFFERENT or not words.is_file():
        return ""
    with words.open("rb") as stream:
        return stream.read(_MOST).decode("utf-8", "replace")
