"""How the worker starts programs on Windows, measures them and ends them, under Wine; what Wine
itself does not measure (memory of a job object) is not tried here."""

from __future__ import annotations

import ast
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.compilers.msvc import join_words, split_words

from .windows import PATIENCE, WindowsPython, windows_path
from .windowsinside import ROOT

pytestmark = pytest.mark.slow

START = "import sys, os; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
MEASURED = """
from fatwheel.worker.processes import run_measured
usage = run_measured([sys.executable, "-Ic", sys.argv[3]], Path(sys.argv[2]), dict(os.environ))
print(dict(code=usage.returncode, output=usage.output, cpu=usage.cpu))
"""
# A program that goes on for a while after the one that started it has ended.
LEAVES_ONE = """
import subprocess, sys
subprocess.Popen([sys.executable, "-Ic", "import time; time.sleep(5); open(r'{}', 'w')"])
"""
ENDS_ALL = """
import subprocess
from fatwheel.worker.processes import end_group, lead_group
lead_group()
lead_group()
subprocess.Popen([sys.executable, "-Ic", sys.argv[3]])
print("begun", flush=True)
end_group()
"""


@pytest.fixture
def run(windows_python: WindowsPython, tmp_path: Path) -> Callable[..., str]:
    def call(code: str, *arguments: str) -> str:
        return windows_python.run("-c", START + code, ROOT, tmp_path, *arguments)

    return call


def test_a_program_s_end_output_and_time(run: Callable[..., str]) -> None:
    burn = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    found = ast.literal_eval(run(MEASURED, f"import sys; print('said')\n{burn}\nsys.exit(3)"))
    assert (found["code"], found["output"].split()) == (3, ["said"])
    assert 0 < found["cpu"] < 10, "Wine counts coarsely, Windows does not"


def test_what_a_compiler_leaves_running_ends_with_it(
    run: Callable[..., str], tmp_path: Path
) -> None:
    late = tmp_path / "late"
    found = ast.literal_eval(run(MEASURED, LEAVES_ONE.format(windows_path(late))))
    assert found["code"] == 0, found
    time.sleep(7)
    assert not late.exists(), "a compiler's child outlived it"


def test_what_wine_lost_is_run_once_more(run: Callable[..., str], tmp_path: Path) -> None:
    """nvcc.exe ends with 255, and without a word, where it lost a program that it started."""
    begun = windows_path(tmp_path / "begun")
    first = (
        f"import os, sys\nif not os.path.exists(r'{begun}'): open(r'{begun}', 'w'); sys.exit(255)"
    )
    found = ast.literal_eval(run(MEASURED, f"{first}\nprint('said')"))
    assert (found["code"], found["output"].split()[-1]) == (0, "said")
    assert "Wine lost a program at its start" in found["output"]
    found = ast.literal_eval(run(MEASURED, "import sys; print('why'); sys.exit(255)"))
    assert (found["code"], found["output"].split()) == (255, ["why"])


def test_what_wine_does_not_start_is_started_again(run: Callable[..., str]) -> None:
    code = """
import _winapi, subprocess
real, lost = _winapi.CreateProcess, []
def lose_two(*arguments):
    if len(lost) == int(sys.argv[3]):
        return real(*arguments)
    lost.append(arguments)
    raise OSError(0, "Internal error", None, 1359)
_winapi.CreateProcess = lose_two
from fatwheel.worker.wine import start_again_what_is_lost
start_again_what_is_lost()
start_again_what_is_lost()
try:
    said = subprocess.run([sys.executable, "-Ic", "print('begun')"], capture_output=True).stdout
except OSError as error:
    said = error.winerror
print([len(lost), said])
"""
    assert ast.literal_eval(run(code, "2")) == [2, b"begun\r\n"]
    assert ast.literal_eval(run(code, "9")) == [4, 1359], "one that never starts is an error"


def test_all_of_a_worker_s_group_ends(
    windows_python: WindowsPython, run: Callable[..., str], tmp_path: Path
) -> None:
    late = tmp_path / "late"
    sleeper = f"import time; time.sleep(5); open(r'{windows_path(late)}', 'w')"
    done = windows_python.wine.run(
        windows_python.folder / "python.exe", "-I", "-c", START + ENDS_ALL, ROOT, tmp_path, sleeper
    )
    assert done.stdout.split() == ["begun"], done.stderr
    time.sleep(7)
    assert not late.exists(), "a worker's child outlived it"


def test_windows_splits_command_lines_as_we_do(run: Callable[..., str]) -> None:
    """CommandLineToArgvW, and the C run time of CPython, on lines of all kinds."""
    lines = [
        'a "b c" d', r'"ab\"c" "\\" d', r'a\\\b d"e f"g h', r'a\\\"b c d', r'a\\\\"b c" d e',
        r'-DA="x y" -IC:\a\ b', '"" x', join_words(["a b\\", 'c"d', "", "C:\\x y\\z"]),
    ]  # fmt: skip
    code = """
import ctypes, json
from ctypes import wintypes
split = ctypes.windll.shell32.CommandLineToArgvW
split.restype = ctypes.POINTER(wintypes.LPWSTR)
count = ctypes.c_int()
answers = []
for line in json.loads(sys.argv[3]):
    found = split("program " + line, ctypes.byref(count))
    answers.append(found[1:count.value])
print(json.dumps(answers))
"""
    answers = json.loads(run(code, json.dumps(lines)))
    assert dict(zip(lines, answers, strict=True)) == {line: split_words(line) for line in lines}


def test_commands_of_any_length_start(run: Callable[..., str]) -> None:
    """Windows takes 32,767 characters; a response file takes the rest."""
    code = """
from fatwheel.worker.roots import fitting
folder = Path(sys.argv[2])
words = ["-DA=" + "x" * 100, '-DB="a b"', "-IC:\\\\with space\\\\"] * 400
short = fitting(["cl.exe", *words[:3]], folder)
long = [fitting([program, *words], folder) for program in ("cl.exe", "C:/cuda/bin/nvcc.exe")]
from fatwheel.compilers.msvc import split_words
same = split_words((folder / "words.rsp").read_text()) == words
print(dict(short=len(short), long=long, same=same))
"""
    found = ast.literal_eval(run(code))
    assert found == {
        "short": 4,
        "long": [["cl.exe", "@words.rsp"], ["C:/cuda/bin/nvcc.exe", "-optf", "words.rsp"]],
        "same": True,
    }


def test_the_project_s_own_build_ends_with_whoever_started_it(
    windows_python: WindowsPython, tmp_path: Path
) -> None:
    late = tmp_path / "late"
    code = f"""
from fatwheel.worker.processes import run_group
sleep = "import time; time.sleep(6); open(r'{windows_path(late)}', 'w')"
run_group([sys.executable, "-Ic", sleep], dict(os.environ), Path(sys.argv[2], "log"))
"""
    process = subprocess.Popen(
        [windows_python.wine.wine, str(windows_python.folder / "python.exe"), "-I", "-c",
         "import threading, os; threading.Timer(2, lambda: os._exit(9)).start()\n" + START + code,
         windows_path(ROOT), windows_path(tmp_path)],
        env=windows_python.wine.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    # Its streams are not read to their end: what Wine itself starts may hold them for minutes.
    try:
        assert process.wait(timeout=PATIENCE) == 9
    finally:
        process.kill()
    time.sleep(7)
    assert not late.exists(), "upstream's build outlived the worker"


def test_a_folder_of_the_user_s_own(run: Callable[..., str], tmp_path: Path) -> None:
    code = """
from fatwheel.storage.permissions import private_folder
folder = Path(sys.argv[2], "own")
print(private_folder(folder), private_folder(folder))
(folder / "file").write_text("kept")
try:
    private_folder(folder / "none" / "below")
except FileNotFoundError as error:
    print(error.winerror)
"""
    assert run(code).split() == ["True", "True", "3"]
    assert (tmp_path / "own" / "file").read_text() == "kept"
    assert (tmp_path / "own").stat().st_mode & 0o007 == 0, "others may look into it"
