"""The script that runs a project's back end, run as it is: by file name, in another Python."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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
        self, hook: str, paths: str, variables: Mapping[str, str] | None = None, **asked: Any
    ) -> subprocess.Popen[str]:
        theirs = self.pipe[0]
        # As `upstream` starts it.
        plain = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(
            [sys.executable, "-s", backend.__file__, str(self.root), hook, paths, str(self.out),
             json.dumps({"settings": {}, "pretend": "", **asked}), str(theirs)],
            pass_fds=[theirs], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, env={**plain, **(variables or {})},
        )  # fmt: skip

    def build(
        self,
        hook: str,
        paths: str = ".",
        variables: Mapping[str, str] | None = None,
        **asked: Any,
    ) -> tuple[int, str, str]:
        process = self.start(hook, paths, variables, **asked)
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
    project.write("one/csv.py", PRINTS)
    project.write("two/csv.py", "raise SystemExit('the second folder was taken')")
    code, out, err = project.build("csv", os.pathsep.join(["one", "two"]))
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


# -- what a recipe adds ------------------------------------------------------------------------


def test_settings_reach_the_back_end(project: Project) -> None:
    project.write("backend.py", """
        def build_wheel(directory, config_settings=None, metadata_directory=None):
            print(config_settings)
            return "demo-1.0-py3-none-any.whl"
    """)  # fmt: skip
    code, out, err = project.build("backend", settings={"cmake.define.A": "ON", "verbose": ""})
    assert (code, ast.literal_eval(out)) == (0, {"cmake.define.A": "ON", "verbose": ""}), err
    assert project.build("backend")[1] == "None\n", "a back end may take none"


def test_setuptools_gets_options_of_setup_py(project: Project) -> None:
    project.write("setup.py", """
        import sys
        from setuptools import setup
        print("words", sys.argv[1:])
        setup(name="demo", version="1.0", py_modules=[])
    """)  # fmt: skip
    settings = {"--global-option": "--quiet", "--build-option": "--build-number=7"}
    # Whether this Python's setuptools can make a wheel does not matter.
    _, out, err = project.build("setuptools.build_meta", ".", settings=settings)
    [line] = [line for line in out.splitlines() if line.startswith("words")]
    words = ast.literal_eval(line.removeprefix("words "))
    assert words[:2] == ["--quiet", "bdist_wheel"]
    assert words[-2:] == ["--compression=stored", "--build-number=7"], err


ASKS = """
    import torch, torch.cuda
    def build_wheel(directory, config_settings=None, metadata_directory=None):
        properties = torch.cuda.get_device_properties(0)
        print(
            torch.cuda.is_available(), torch.cuda.device_count(), torch.cuda.current_device(),
            torch.cuda.get_device_capability(), torch.cuda.get_device_capability(0),
            (properties.major, properties.minor), torch.cuda.other(),
        )
        return "demo-1.0-py3-none-any.whl"
"""


def test_torch_seems_to_have_a_gpu(project: Project) -> None:
    """The parts of torch that setup.py files ask; a module of this name stands for it."""
    project.write("torch/__init__.py", "")
    project.write("torch/cuda/__init__.py", """
        def is_available(): return False
        def device_count(): return 0
        def other(): return is_available(), device_count()
        def get_device_capability(device=None): raise RuntimeError("no GPU")
        current_device = get_device_properties = get_device_capability
    """)  # fmt: skip
    project.write("backend.py", ASKS)
    code, _, err = project.build("backend")
    assert code == 1
    assert "no GPU" in err
    code, out, err = project.build("backend", pretend="8.9")
    assert code == 0, err
    assert out == "True 1 0 (8, 9) (8, 9) (8, 9) (True, 1)\n"
