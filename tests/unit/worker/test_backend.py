"""The script that runs a project's back end, run as it is: by file name, in another Python."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fatwheel.worker import backend

from ...helpers.shuffled import shuffling
from ...helpers.standins import alive, descendants

PRINTS = """
    import os, sys
    def build_wheel(directory, config_settings=None, metadata_directory=None):
        print("cwd", os.getcwd())
        print("path", sys.path[0])
        return "demo-1.0-py3-none-any.whl"
"""


LISTS = """
    import glob, os
    from pathlib import Path
    def build_wheel(directory, config_settings=None, metadata_directory=None):
        for name in "cabd":
            Path(name + ".txt").write_text("")
        print(os.listdir("."))
        print(glob.glob("*.txt"))
        print([path.name for path in Path(".").glob("*.txt")])
        print([names for _, _, names in os.walk(".")])
        with os.scandir() as found:
            print([entry.name for entry in found if entry.is_file()])
        return "demo-1.0-py3-none-any.whl"
"""


class Project:
    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self.out = folder / "out"
        for path in (self.root, self.out):
            path.mkdir()
        self.pipe = os.pipe()

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def start(
        self, hook: str, paths: str, variables: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        theirs = self.pipe[0]
        # As `upstream` starts it.
        plain = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(
            [sys.executable, "-s", backend.__file__, str(self.root), hook, paths, str(self.out),
             str(theirs)],
            pass_fds=[theirs], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, env={**plain, **(variables or {})},
        )  # fmt: skip

    def build(
        self, hook: str, paths: str = ".", variables: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]:
        process = self.start(hook, paths, variables)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_back_end_in_the_project_runs_in_the_projects_folder(project: Project) -> None:
    project.write("own.py", PRINTS)
    code, out, err = project.build("own")
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"cwd {project.root}", f"path {project.root}/."]
    assert (project.out / "name").read_text() == "demo-1.0-py3-none-any.whl"


def test_a_back_end_may_be_an_object_in_a_module(project: Project) -> None:
    project.write(
        "tools/own.py",
        """
        class Hooks:
            class inner:
                @staticmethod
                def build_wheel(directory):
                    return "inner.whl"
        """,
    )
    assert project.build("own:Hooks.inner", "tools")[0] == 0
    assert (project.out / "name").read_text() == "inner.whl"


def test_backend_paths_come_first_and_in_order(project: Project) -> None:
    project.write("one/json.py", PRINTS)
    project.write("two/json.py", "raise SystemExit('the second folder was taken')")
    code, out, err = project.build("json", os.pathsep.join(["one", "two"]))
    assert (code, err) == (0, "")
    assert f"path {project.root}/one" in out


def test_the_projects_folder_is_not_on_the_path_unless_it_says_so(project: Project) -> None:
    """PEP 517: without backend-path the project's own modules are not importable."""
    project.write("own.py", PRINTS)
    code, _, err = project.build("own", "")
    assert code == 1
    assert "No module named 'own'" in err


def test_fatwheels_own_modules_cannot_be_taken_for_the_projects(project: Project) -> None:
    """This script lies beside modules called `context` and `view`."""
    code, _, err = project.build("commands", "")
    assert code == 1
    assert "No module named 'commands'" in err


def test_a_failing_back_end_leaves_no_name(project: Project) -> None:
    project.write("own.py", "def build_wheel(directory): raise RuntimeError('no compiler here')")
    code, _, err = project.build("own")
    assert code == 1
    assert "no compiler here" in err
    assert list(project.out.iterdir()) == []


def test_when_the_builder_is_gone_the_build_ends_with_all_that_it_started(
    project: Project,
) -> None:
    project.write(
        "own.py",
        """
        import subprocess
        def build_wheel(directory):
            subprocess.run(["sh", "-c", "sleep 600 & wait"])
        """,
    )
    process = project.start("own", ".")
    pids = descendants(process.pid, until="sleep")
    assert process.poll() is None
    os.close(project.pipe[1])
    assert process.wait(timeout=120) == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, pids))
    process.communicate()


def test_files_are_seen_in_the_order_of_their_names(
    project: Project, tool: Callable[[str], str], tmp_path: Path
) -> None:
    """On a file system whose own order is another."""
    project.write("lister.py", LISTS)
    shuffled = shuffling(tool("gcc"), tmp_path)
    returncode, out, err = project.build("lister", variables={"LD_PRELOAD": str(shuffled)})
    assert returncode == 0, err
    names = ["a.txt", "b.txt", "c.txt", "d.txt"]
    everything = sorted([*names, "lister.py"])
    code = f"import os; print(os.listdir({str(project.root)!r}))"
    plain = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "LD_PRELOAD": str(shuffled)}, check=True,
        capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert sorted(ast.literal_eval(plain)) == everything != ast.literal_eval(plain), plain
    assert out.splitlines()[:5] == [
        str(everything), str(names), str(names), str([everything]), str(everything),
    ]  # fmt: skip
