"""Upstream's build, with projects whose back end is a few lines in their own folder."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.errors import ToolchainError, UpstreamError
from fatwheel.fatbin.stitch import image_name, slices_of
from fatwheel.model import Environment
from fatwheel.worker.upstream import Project, Upstream

from ...helpers.standins import alive, descendants, front, make_context, write_nvcc

# Compiles every source of the project and puts the objects in a wheel.
BACKEND = """
    import json, os, subprocess, sys, zipfile
    from pathlib import Path

    def build_wheel(directory, config_settings=None, metadata_directory=None):
        Path("variables.json").write_text(json.dumps(dict(os.environ)))
        nvcc = os.environ["CUDA_HOME"] + "/bin/nvcc"
        objects = []
        for source in sorted([*Path("csrc").glob("*.cu"), *Path("csrc").glob("*.cpp")]):
            target = Path("build/temp.x/csrc", source.name).with_suffix(".o")
            target.parent.mkdir(parents=True, exist_ok=True)
            tool = [nvcc, "-arch=sm_80"] if source.suffix == ".cu" else [os.environ["CXX"]]
            command = [*tool, "-c", str(source), "-o", str(target), "-I", "csrc", *FLAGS]
            if not target.exists():
                subprocess.run(command, check=True)
            objects.append(target)
        name = "demo-1.0-py3-none-any.whl"
        with zipfile.ZipFile(Path(directory, name), "w") as wheel:
            for target in objects:
                wheel.write(target, target.name)
        return name

    FLAGS = ["-DA"]
"""


FRONTS = (front("80"), front("90a", "sm_90a", "compute_90a"))


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "demo-1.0"
        self.write("backend.py", BACKEND)
        self.write("csrc/b.cu", "int b;\n")
        self.write("csrc/a.cu", '#include "own.h"\n')
        self.write("csrc/own.h", "int own;\n")
        self.write("csrc/c.cpp", "int c;\n")
        self.project = Project(self.root, "backend", (".",), (("DEMO", "yes"),), 1_000_000_000)
        home = write_nvcc(folder / "env")
        (home / "include").mkdir()
        self.environment = Environment(
            root=folder / "env", python=Path(sys.executable), site=folder / "env" / "site",
            cuda_home=home, include=folder / "env" / "python", python_version="3.11",
            torch="2.0", compiler_id="id",
        )  # fmt: skip
        self.made = 0

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def upstream(self, **changes: Any) -> Upstream:
        project = dataclasses.replace(self.project, **changes)
        self.made += 1
        cxx = shutil.which("g++") or "g++"
        work = self.folder / f"work{self.made}"
        return Upstream(project, self.environment, cxx, work, sys.executable)

    def refusal(self, **changes: Any) -> UpstreamError:
        with pytest.raises(UpstreamError) as caught:
            self.upstream(**changes).capture(FRONTS)
        return caught.value


@pytest.fixture
def bench(tmp_path: Path, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(tmp_path)


# -- capturing ---------------------------------------------------------------------------------


def test_the_units_of_a_build_are_found_without_compiling(bench: Bench) -> None:
    units = bench.upstream().capture(FRONTS).units
    assert [(unit.name, unit.kind, unit.source) for unit in units] == [
        ("csrc/a", "cuda", "@src@/csrc/a.cu"),
        ("csrc/b", "cuda", "@src@/csrc/b.cu"),
        ("csrc/c", "c++", "@src@/csrc/c.cpp"),
    ]
    assert {unit.preprocessor for unit in units} == {("-I", "@src@/csrc", "-D", "A")}
    assert not (bench.environment.cuda_home / "calls.jsonl").exists(), "nvcc itself was called"


@pytest.mark.parametrize(
    ("reads", "told"),
    [
        ("config_settings.get('known')", "other"),
        ("'known' in config_settings and config_settings['known']", "other"),
        ("dict(config_settings)", ""),
        ("[config_settings[name] for name in config_settings]", ""),
        ("None", "known, other"),
        # The project's own code may write anything where this is put down.
        ("atexit.register(lambda: Path(directory, 'ignored').write_text('[[1], {}, 7]'))", ""),
        ("atexit.register(lambda: Path(directory, 'ignored').write_text('7'))", ""),
    ],
)
def test_settings_that_the_back_end_does_not_ask_for_are_told(
    bench: Bench, reads: str, told: str
) -> None:
    bench.write(
        "backend.py", BACKEND.replace("objects = []", f"objects = []; import atexit; {reads}")
    )
    notes = bench.upstream(settings=(("known", "1"), ("other", "2"))).capture(FRONTS).notes
    assert [note.partition("recipe: ")[2] for note in notes] == ([told] if told else [])


def test_a_run_finds_nothing_that_an_earlier_one_left_at_home(bench: Bench) -> None:
    """ccache has a cache there: it would give the empty objects of the capture to the assembly."""
    leaving = "objects = []; cache = Path(os.environ['HOME'], 'cache'); cache.mkdir()"
    bench.write("backend.py", BACKEND.replace("objects = []", leaving))
    upstream = bench.upstream()
    assert upstream.capture(FRONTS) == upstream.capture(FRONTS)


def test_headers_of_cuda_among_the_requirements_are_found_last(bench: Bench) -> None:
    bench.write("requirements/site/nvidia/cu13/include/cuda_profiler_api.h", "")
    units = bench.upstream(requirements="requirements").capture(FRONTS).units
    found = "@src@/requirements/site/nvidia/cu13/include"
    assert {unit.preprocessor[-2:] for unit in units} == {("-isystem", found)}
    assert {unit.preprocessor[:2] for unit in units} == {("-I", "@src@/csrc")}


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (
            "CMake 3.26 or higher is required.  You are running version 3.24.3",
            'requires = ["cmake>=3.26"]',
        ),
        (
            "CMakeNotFoundError: Could not find CMake with version >=3.26",
            'requires = ["cmake>=3.26"]',
        ),
        (
            "/usr/bin/ld: cannot find -lcublas: No such file or directory",
            "does CUDA have libcublas.so? The project does not say where, so set under "
            '[environment] in the recipe: LIBRARY_PATH = "{cuda_home}/lib64"',
        ),
    ],
)
def test_what_to_do_is_known_by_what_is_printed(bench: Bench, said: str, hint: str) -> None:
    bench.write("backend.py", f"raise SystemExit({said!r})")
    error = bench.refusal()
    assert said in error.details
    assert hint in str(error.hint)


def test_units_are_the_same_in_another_folder(bench: Bench, tmp_path: Path) -> None:
    units = bench.upstream().capture(FRONTS).units
    shutil.rmtree(bench.root / "build")
    moved = tmp_path / "elsewhere" / "demo-1.0"
    moved.parent.mkdir()
    bench.root.rename(moved)
    assert bench.upstream(root=moved).capture(FRONTS).units == units


def test_the_environment_is_known_by_placeholders(bench: Bench) -> None:
    env = bench.environment
    flags = [f"-I{env.site}/torch", f"-I{env.include}", f"-I{env.root}/include"]
    bench.write("backend.py", BACKEND.replace('["-DA"]', repr(flags)))
    [unit, *_] = bench.upstream().capture(FRONTS).units
    assert unit.preprocessor[3::2] == ("@site@/torch", "@python@", "@env@/include")


def test_cuda_home_is_known_by_its_placeholder(bench: Bench) -> None:
    bench.write(
        "backend.py", BACKEND.replace('["-DA"]', '["-I" + os.environ["CUDA_HOME"] + "/include"]')
    )
    [unit, *_] = bench.upstream().capture(FRONTS).units
    assert unit.preprocessor[3] == "@cuda@/include"


def test_upstream_sees_the_recipes_variables_and_none_of_the_users(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NVCC_APPEND_FLAGS", "CXXFLAGS", "PYTHONPATH", "TORCH_CUDA_ARCH_LIST", "CPATH"):
        monkeypatch.setenv(name, "users")
    recipes = (("DEMO", "yes"), ("MAX_JOBS", "3"), ("ITS_ARCHS", "{archs:capability}"))
    upstream = bench.upstream(variables=recipes)
    upstream.capture(FRONTS)
    found = json.loads((bench.root / "variables.json").read_text())
    assert "users" not in found.values()
    assert (found["DEMO"], found["MAX_JOBS"]) == ("yes", "3"), "a recipe has the last word"
    assert found["SOURCE_DATE_EPOCH"] == "1000000000"
    assert found["TORCH_CUDA_ARCH_LIST"] == "8.0;9.0a+PTX"
    assert found["CUDAARCHS"] == found["CMAKE_CUDA_ARCHITECTURES"] == "80-real;90a"
    assert found["ITS_ARCHS"] == "8.0;9.0"
    for name in ("CUDA_HOME", "CC", "CXX"):
        assert found[name].startswith(str(upstream.work)), f"{name} is not a stand-in's"


def test_settings_in_the_users_home_do_not_count(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(bench.folder))
    bench.upstream().capture(FRONTS)
    home = json.loads((bench.root / "variables.json").read_text())["HOME"]
    assert home != str(bench.folder)
    assert list(Path(home).iterdir()) == []


def test_commands_that_are_called_without_need_do_nothing(bench: Bench) -> None:
    call = 'subprocess.run(["fatwheel-no-such-git", "submodule"], check=True)'
    bench.write("backend.py", BACKEND.replace("objects = []", f"objects = []; {call}"))
    assert "fatwheel-no-such-git" in str(bench.refusal())
    assert bench.upstream(stub_commands=("fatwheel-no-such-git",)).capture(FRONTS).units


@pytest.mark.parametrize("place", ["build/temp.x", "build", "made", "csrc"])
def test_every_run_starts_from_the_project_as_it_was(bench: Bench, place: str) -> None:
    """Objects of an earlier run are empty, and newer than the sources."""
    script = BACKEND.replace('"build/temp.x/csrc"', repr(place))
    bench.write("backend.py", script)
    upstream = bench.upstream()
    first = upstream.capture(FRONTS).units
    assert len(first) == 3
    assert upstream.capture(FRONTS).units == first


def test_a_folder_called_build_may_be_the_projects_own(bench: Bench) -> None:
    bench.write("build/flags.txt", "-DFROM_BUILD")
    bench.write("backend.py", BACKEND.replace('["-DA"]', '[Path("build/flags.txt").read_text()]'))
    [unit, *_] = bench.upstream().capture(FRONTS).units
    assert unit.preprocessor[-1] == "FROM_BUILD"


# -- assembling --------------------------------------------------------------------------------


def test_the_wheel_is_upstreams_with_stitched_objects(bench: Bench, tmp_path: Path) -> None:
    upstream = bench.upstream()
    units = upstream.capture(FRONTS).units
    context = make_context(tmp_path / "view")
    shutil.copytree(bench.root / "csrc", Path(context.places.source) / "csrc")
    wheel = upstream.assemble(context, (front("80"), front("90a")), ())
    assert wheel.name == "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        assert archive.namelist() == ["a.o", "b.o", "c.o"]
        for name in ("a.o", "b.o"):
            images = [image_name(entry) for entry in slices_of(archive.read(name))]
            assert images == ["sm_80", "sm_90a"], "an object of the capture was taken for finished"
    assert len(units) == 3


def test_a_build_folder_that_outlives_the_capture_is_refused(bench: Bench, tmp_path: Path) -> None:
    """Its objects are empty since then, and up to date."""
    stale = BACKEND.replace('"build/temp.x/csrc"', repr(str(tmp_path / "outside")))
    bench.write("backend.py", stale)
    upstream = bench.upstream()
    units = upstream.capture(FRONTS).units
    with pytest.raises(UpstreamError) as caught:
        upstream.assemble(make_context(bench.folder / "env"), FRONTS, units)
    assert "did not compile everything again" in caught.value.what
    assert caught.value.details == ("csrc/a", "csrc/b", "csrc/c")


@pytest.mark.parametrize("name", ["cmake", "ninja"])
def test_a_build_tool_of_the_machine_is_not_used(bench: Bench, name: str) -> None:
    call = f'subprocess.run(["{name}", "--version"], check=True)'
    bench.write("backend.py", BACKEND.replace("objects = []", call))
    bench.environment.site.mkdir(parents=True, exist_ok=True)
    environment = dataclasses.replace(bench.environment, python=bench.folder / "bin" / "python")
    environment.python.parent.mkdir()
    environment.python.symlink_to(sys.executable)
    bench.environment = environment
    refused = bench.refusal()
    assert any(
        line.startswith(f"{name}: not among the pinned packages") for line in refused.details
    )


def test_a_compile_error_while_assembling_is_shown(bench: Bench, tmp_path: Path) -> None:
    upstream = bench.upstream()
    upstream.capture(FRONTS)
    context = make_context(tmp_path / "view")
    shutil.copytree(bench.root / "csrc", Path(context.places.source) / "csrc")
    (Path(context.places.source) / "csrc" / "a.cu").write_text("#error only now\n")
    with pytest.raises(UpstreamError) as caught:
        upstream.assemble(context, (front("80"),), ())
    assert "#error only now" in "\n".join(caught.value.details)


# -- builds that fail --------------------------------------------------------------------------


def test_a_failing_build_is_an_error_with_the_end_of_its_output(bench: Bench) -> None:
    bench.write(
        "backend.py",
        """
        def build_wheel(directory):
            for line in range(100):
                print("line", line)
            raise RuntimeError("CUDA is too old")
        """,
    )
    error = bench.refusal()
    assert error.exit_code == 7
    assert error.where == "demo-1.0, capture"
    assert "failed (exit code 1)" in error.what
    assert error.details[-1] == "RuntimeError: CUDA is too old"
    assert "line 99" in error.details
    assert "line 9" not in error.details, "it shows the end alone"


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("def build_wheel(directory): raise SystemExit(3)", "failed (exit code 3)"),
        ("import os\ndef build_wheel(directory): os._exit(0)", "ended without making a wheel"),
        ("import os\ndef build_wheel(directory): os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
        ("def build_sdist(directory): ...", "failed (exit code 1)"),
    ],
)
def test_how_a_build_ended_is_said(bench: Bench, script: str, what: str) -> None:
    bench.write("backend.py", script)
    assert what in bench.refusal().what


def test_a_back_end_that_is_missing_is_named(bench: Bench) -> None:
    error = bench.refusal(backend="no_such_backend")
    assert any("no_such_backend" in line for line in error.details)


def test_a_project_without_cuda_units_is_refused(bench: Bench) -> None:
    for path in (bench.root / "csrc").glob("*.cu"):
        path.unlink()
    error = bench.refusal()
    assert error.what == "this project's build compiles no CUDA unit"
    assert "[environment]" in (error.hint or "")


def test_device_code_that_is_compiled_when_it_is_linked_is_refused_by_unit(bench: Bench) -> None:
    bench.write("backend.py", BACKEND.replace('"-arch=sm_80"', '"-dlto"'))
    error = bench.refusal()
    assert error.details == ("csrc/a: -dlto", "csrc/b: -dlto")
    assert "link-time optimisation" in (error.hint or "")


def test_a_cpp_compiler_that_does_not_work_is_named(bench: Bench, tmp_path: Path) -> None:
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\necho 'no cc1plus here' >&2\nexit 1\n")
    broken.chmod(0o755)
    upstream = bench.upstream()
    upstream.cxx = str(broken)
    with pytest.raises(ToolchainError) as caught:
        upstream.capture(FRONTS)
    assert (caught.value.where, caught.value.details) == (str(broken), ("no cc1plus here",))


# -- ending ------------------------------------------------------------------------------------

CAPTURES = """
    import shutil, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from tests.unit.worker.test_upstream import FRONTS, Bench
    bench = Bench(Path(sys.argv[2]))
    bench.write("backend.py", '''
        import subprocess
        def build_wheel(directory):
            subprocess.run(["sh", "-c", "sleep 600 & wait"])
    ''')
    bench.upstream().capture(FRONTS)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_upstreams_build_ends_with_ours(tmp_path: Path, number: signal.Signals) -> None:
    root = str(Path(__file__).parents[3])
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CAPTURES), root, str(tmp_path)],
        stderr=subprocess.DEVNULL,
    )
    pids = descendants(process.pid, until="sleep")
    os.kill(process.pid, number)
    process.wait(timeout=120)
    deadline = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, pids)), "upstream's build went on"
