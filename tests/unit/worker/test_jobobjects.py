"""Windows' job objects. What they do is tried in tests/integration/test_windows_processes, under
Wine; here is what can be said without a Windows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fatwheel.worker import jobobjects

ROOT = Path(__file__).parents[3]


def test_there_are_none_on_other_systems() -> None:
    assert not hasattr(jobobjects, "Group")


def test_what_runs_on_windows_is_typed_as_windows_has_it() -> None:
    """Half of the code is for Windows; mypy reads it only when it is told so."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--platform", "win32", "fatwheel/worker"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
