"""docs/cli.md says what the commands themselves say."""

from __future__ import annotations

import subprocess
import sys

from ...helpers.commandline import ROOT


def test_the_reference_of_commands_is_current() -> None:
    """In a process of its own: command lines that other tests run use up the commands' help."""
    command = [sys.executable, "-m", "tests.helpers.clireference", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
