"""Programs that are Python. Those of Windows are tried in tests/integration/test_windows_inside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fatwheel.worker.programs import show_at, write_program

ODD = ["", "a b", 'say "x"', "it's", "$HOME", "back\\slash", "*", "new\nline"]


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, check=False,
        env={"PATH": "/nowhere", "A": "1"},
    )  # fmt: skip


def test_a_program_gets_its_arguments_as_they_are(tmp_path: Path) -> None:
    write_program(
        tmp_path, "tell", sys.executable, tmp_path, "import sys; print(sys.argv[1:])", "first word"
    )
    done = run(tmp_path / "tell", *ODD)
    assert done.stdout == f"{['first word', *ODD]}\n", done.stderr


def test_a_program_ends_as_its_code_does(tmp_path: Path) -> None:
    write_program(tmp_path, "fail", sys.executable, tmp_path, "import sys; sys.exit(7)")
    assert run(tmp_path / "fail").returncode == 7


def test_a_program_may_become_another(tmp_path: Path) -> None:
    package = Path(__file__).resolve().parents[3]
    code = (
        f"import sys; sys.path.insert(0, {str(package)!r})\n"
        "from fatwheel.worker.programs import become\n"
        "become([sys.executable, '-Ic', 'import os, sys; print(os.environ); sys.exit(5)'], "
        "{'B': '2'})\nprint('not this')"
    )
    write_program(tmp_path, "other", sys.executable, tmp_path, code)
    done = run(tmp_path / "other")
    assert done.returncode == 5, done.stderr
    assert "'B': '2'" in done.stdout
    assert "'A'" not in done.stdout
    assert "not this" not in done.stdout


def test_a_folder_is_seen_at_another_path(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    show_at(tmp_path / "shown", tmp_path / "real")
    (tmp_path / "real" / "new").write_text("content")
    assert (tmp_path / "shown" / "new").read_text() == "content"
