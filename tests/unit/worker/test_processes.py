from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from fatwheel.worker.processes import KILLS_VARIABLE, ProcessUsage, run_measured

MIB = 1 << 20


def run(folder: Path, script: str, **environment: str) -> ProcessUsage:
    command = [sys.executable, "-I", "-S", "-c", textwrap.dedent(script)]
    return run_measured(command, folder, environment)


def test_output_and_errors_come_back_as_one_text(tmp_path: Path) -> None:
    usage = run_measured(["sh", "-c", "echo one; echo two >&2; echo three; exit 3"], tmp_path, {})
    assert (usage.returncode, usage.output) == (3, "one\ntwo\nthree\n")


def test_output_need_not_be_text(tmp_path: Path) -> None:
    assert run_measured(["printf", r"\377x"], tmp_path, {}).output == "\ufffdx"


def test_folder_and_environment_are_what_was_given(tmp_path: Path) -> None:
    environment = {"A": "1", "PWD": "/proc/self/cwd"}
    usage = run_measured(["env"], tmp_path, {**environment, "PATH": os.defpath})
    assert sorted(usage.output.splitlines()) == ["A=1", f"PATH={os.defpath}", "PWD=/proc/self/cwd"]
    assert run_measured(["/bin/pwd", "-P"], tmp_path, {}).output == f"{tmp_path}\n"


def test_there_is_no_input(tmp_path: Path) -> None:
    usage = run_measured(["cat"], tmp_path, {"PATH": os.defpath})
    assert (usage.returncode, usage.output) == (0, "")


def test_a_signal_is_a_negative_exit_code(tmp_path: Path) -> None:
    usage = run_measured(["sh", "-c", "kill -9 $$"], tmp_path, {"PATH": os.defpath})
    assert usage.returncode == -signal.SIGKILL


def test_a_program_that_is_not_there_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run_measured(["/no/such/compiler"], tmp_path, {})


# A small process that measures, because its own peak is the least that it can measure.
MEASURES = """
    import json, sys
    from dataclasses import asdict
    from pathlib import Path
    from fatwheel.worker.processes import run_measured
    usage = run_measured([sys.executable, "-ISc", sys.argv[1]], Path.cwd(), {})
    print(json.dumps(asdict(usage)))
"""


def test_the_peak_is_that_of_the_largest_descendant(tmp_path: Path) -> None:
    script = """
        import subprocess, sys
        for size in (10, 200, 20):
            holds = f"held = b'x' * ({size} << 20)"
            subprocess.run([sys.executable, "-ISc", holds], check=True)
        """
    measured = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURES), textwrap.dedent(script)],
        cwd=tmp_path, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    usage = ProcessUsage(**json.loads(measured.stdout))
    assert (usage.returncode, usage.output) == (0, "")
    assert 200 < usage.rss / MIB < 300


def test_cpu_seconds_are_those_of_all_descendants(tmp_path: Path) -> None:
    burn = "import time; end = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
    usage = run(
        tmp_path,
        f"""
        import subprocess, sys
        for _ in range(2):
            subprocess.run([sys.executable, "-ISc", {burn!r}], check=True)
        """,
    )
    assert 0.4 <= usage.cpu < 5


# -- process groups ---------------------------------------------------------------------------

LEADER = """
    import subprocess, sys, threading
    from pathlib import Path
    from fatwheel.worker.processes import end_group, lead_group, run_measured
    lead_group()
    command = ["sh", "-c", "echo $$ >> pids; sleep 600 & echo $! >> pids; wait"]
    threading.Thread(target=run_measured, args=(command, Path.cwd(), {}), daemon=True).start()
    sys.stdin.read()
    end_group()
"""


def _lines(path: Path, count: int) -> list[str]:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        lines = path.read_text().split() if path.exists() else []
        if len(lines) == count:
            return lines
        time.sleep(0.02)
    raise AssertionError(f"{path.name} never had {count} lines")


def alive(pid: str) -> bool:
    """Whether a process exists and is not only waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("new_session", [True, False])
def test_ending_the_group_ends_compilers_and_what_they_started(
    tmp_path: Path, new_session: bool
) -> None:
    leader = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LEADER)],
        cwd=tmp_path, stdin=subprocess.PIPE, start_new_session=new_session,
    )  # fmt: skip
    pids = _lines(tmp_path / "pids", 2)
    assert all(map(alive, pids))
    leader.communicate(timeout=120)
    assert leader.returncode == -signal.SIGKILL, "the leader is of the group too"
    deadline = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, pids)), "a compiler outlived its group"


@pytest.mark.parametrize("before", ["low 0\noom 0\noom_kill 0\n", "oom_kill_disable 0\noom_kill 0"])
def test_what_linux_kills_while_a_compiler_runs_may_have_been_the_compiler(
    before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As control groups of either version count: Wine's exit code says nothing of it."""
    counter = tmp_path / "counter"
    counter.write_text(before)
    monkeypatch.setenv(KILLS_VARIABLE, str(counter))
    fine = run_measured(["true"], tmp_path, {"PATH": os.defpath})
    assert fine.returncode == 0
    command = ["sh", "-c", f"echo 'oom_kill 1' > '{counter}'"]
    killed = run_measured(command, tmp_path, {"PATH": os.defpath})
    assert killed.returncode == 0xC0000017
