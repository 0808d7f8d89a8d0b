"""The command line: what each argument becomes, how failures end, what the README says of it."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invoke.collection import Collection

from fatwheel import errors
from fatwheel.compare.differences import Comparison, Side
from fatwheel.events import WheelMade
from fatwheel.pipeline.compile import Effort
from fatwheel.pipeline.plan import BuildPlan, BuildRequest
from fatwheel.pipeline.prove import ProveRequest
from fatwheel.pipeline.rebuild import RebuildRequest, Rebuilt
from fatwheel.trial.verify import Trials

from ...helpers.commandline import ROOT, exit_code_of, load_tasks
from ...helpers.plandocuments import WINDOWS as PLAN
from ...helpers.tinywheels import Draft
from .test_ui import check_snapshot

README = (ROOT / "README.md").read_text(encoding="utf-8")

Run = Callable[..., int]


COLLECTION = Collection.from_module(load_tasks())
# Asking a task for its arguments takes their help away from it, so these are tasks of their own.
ARGUMENTS = {
    name: task.get_arguments() for name, task in Collection.from_module(load_tasks()).tasks.items()
}


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in this process; its exit code."""

    def run(*arguments: str) -> int:
        return exit_code_of(COLLECTION, arguments, monkeypatch)

    return run


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `build` and `prove` were asked for; nothing is built."""
    asked: list[Any] = []

    def plan_build(request: BuildRequest) -> BuildRequest:
        asked.append(request)
        return request

    def build(plan: BuildRequest, emit: object, agree: object) -> list[WheelMade]:
        assert plan is asked[-1]
        return []

    def prove(request: ProveRequest, emit: object) -> None:
        asked.append(request)

    monkeypatch.setattr("fatwheel.pipeline.plan.plan_build", plan_build)
    monkeypatch.setattr("fatwheel.pipeline.build.build", build)
    monkeypatch.setattr("fatwheel.pipeline.prove.prove", prove)
    monkeypatch.setattr("fatwheel.cli.results.show_proof", lambda proof: None)
    return asked


# -- arguments -----------------------------------------------------------------------------------


def test_build_without_options_leaves_the_choice_to_recipe_and_machine(
    run: Run, requests: list[Any]
) -> None:
    assert run("build") == 0
    assert requests == [
        BuildRequest(
            kernel=None,
            archs=None,
            pythons=None,
            torch=None,
            toolchain=None,
            engine=None,
            shards=None,
            jobs=None,
            memory=None,
            front=None,
            out=Path("dist"),
        )
    ]


def test_build_splits_when_asked(
    run: Run, requests: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def split(wheels: list[WheelMade], sign: object, emit: object) -> list[WheelMade]:
        asked.append(wheels)
        return []

    monkeypatch.setattr("fatwheel.pipeline.build.split", split)
    assert run("build") == 0
    assert asked == []
    assert run("build", "--split") == 0
    assert asked == [[]]


def test_build_passes_every_option_on(run: Run, requests: list[Any]) -> None:
    line = (
        "build --kernel k --arch 80,86+ptx --python 3.10,3.11 --torch 2.1 --toolchain t "
        "--engine e --shards 5 --jobs 3 --memory 1.5GiB --front f --fast --audit a "
        "--out some/where --locked W.whl.lock.json --find files --sign me.pem"
    )
    assert run(*line.split()) == 0
    assert requests == [
        BuildRequest(
            kernel="k",
            archs="80,86+ptx",
            pythons="3.10,3.11",
            torch="2.1",
            toolchain="t",
            engine="e",
            shards=5,
            jobs=3,
            memory=1_610_612_736,
            front="f",
            fast=True,
            audit="a",
            out=Path("some/where"),
            locked=Path("W.whl.lock.json"),
            find=Path("files"),
            sign=Path("me.pem"),
        )
    ]


def test_a_rebuild_passes_every_option_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[RebuildRequest] = []

    def build_again(request: RebuildRequest, emit: object, agree: object) -> Rebuilt:
        asked.append(request)
        side = Side(Path("W.whl"), 1, "a" * 64)
        return Rebuilt(Comparison(side, side), None, 4, 1, ())

    monkeypatch.setattr("fatwheel.pipeline.rebuild.rebuild", build_again)
    line = (
        "rebuild W.whl --engine e --from-store never --find files --shards 5 --jobs 3 "
        "--memory 1.5GiB --out some/where"
    )
    assert run(*line.split()) == 0
    assert run("rebuild", "W.whl") == 0
    assert asked == [
        RebuildRequest(
            Path("W.whl"), "e", "never", Path("files"),
            Effort(5, 3, 1_610_612_736), Path("some/where"),
        ),
        RebuildRequest(Path("W.whl"), None, "slices", None, Effort(), Path("rebuilt")),
    ]  # fmt: skip


def test_what_a_rebuild_found_decides_the_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sides = Side(Path("W.whl"), 1, "a" * 64), Side(Path("W.whl"), 1, "b" * 64)
    rebuilt = Rebuilt(Comparison(*sides), Path("rebuilt/W.whl"), 4, 1, ("Python: 1 became 2",))
    monkeypatch.setattr("fatwheel.pipeline.rebuild.rebuild", lambda request, emit, agree: rebuilt)
    assert run("rebuild", "W.whl") == 15
    told = capfd.readouterr()
    assert told.out.startswith("built again, 4 slices: 1 compiled, 3 from the store\nnot the same")
    assert "what differed this time\n  Python: 1 became 2" in told.out
    assert "rebuilt/W.whl" in told.err
    assert run("rebuild", "W.whl", "--json") == 15
    assert json.loads(capfd.readouterr().out)["identical"] is False


def test_verify_passes_every_option_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Trials] = []

    class Report:
        ok = True

        def to_json(self) -> dict[str, Any]:
            return {}

    def verify(wheel: Path, request: Trials, emit: object) -> Report:
        asked.append(request)
        return Report()

    monkeypatch.setattr("fatwheel.trial.verify.verify", verify)
    monkeypatch.setattr("fatwheel.cli.reports.show_verification", lambda report, everything: None)
    assert run("verify", "W.whl") == 0
    assert run("verify", "W.whl", "--key", "k.pub", "--import", "--gpu") == 0
    assert run("verify", "W.whl", "--import", "--beside", "A.whl,b/B.whl") == 0
    assert run("verify", "W.whl", "--beside", "A.whl") == 2
    assert run("verify", "W.whl", "--beside", "") == 2
    assert asked == [
        Trials(), Trials(Path("k.pub"), importing=True, gpu=True),
        Trials(importing=True, beside=(Path("A.whl"), Path("b/B.whl"))),
    ]  # fmt: skip


def test_a_plan_is_shown_in_place_of_building(
    run: Run,
    requests: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    planned: list[BuildRequest] = []

    def plan_build(request: BuildRequest) -> BuildPlan:
        planned.append(request)
        return PLAN

    monkeypatch.setattr("fatwheel.pipeline.plan.plan_build", plan_build)
    assert run("build", "--arch", "80", "--plan") == 0
    assert "nothing was started" in capfd.readouterr().out
    assert run("build", "--arch", "80", "--plan", "--json") == 0
    assert json.loads(capfd.readouterr().out)["toolchain"] == PLAN.first.toolchain.name
    assert requests == [], "something was built"
    assert [request.archs for request in planned] == ["80", "80"]


def test_json_without_a_plan_builds_nothing(
    run: Run, requests: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("build", "--json") == 2
    assert "add --plan" in capfd.readouterr().err
    assert requests == []


def test_prove_passes_every_option_on(run: Run, requests: list[Any]) -> None:
    line = (
        "prove --kernel k --arch 80,86 --units *hdim64* --ways split --toolchain t --python 3.10 "
        "--torch 2.8 --cuda 13.0 --platform p --engine e --jobs 3 --memory 48GiB"
    )
    assert run(*line.split()) == 0
    assert requests == [
        ProveRequest(
            kernel="k",
            archs="80,86",
            units="*hdim64*",
            toolchain="t",
            python="3.10",
            jobs=3,
            memory=48 * 2**30,
            ways="split",
            engine="e",
            torch="2.8",
            cuda="13.0",
            platform="p",
        )
    ]


@pytest.mark.parametrize("arguments", [["--arch", ""], ["--arch="]])
def test_an_empty_list_of_architectures_is_not_the_default(
    arguments: list[str], run: Run, requests: list[Any]
) -> None:
    """So that `--arch "$ARCHS"` with an unset variable is refused, not taken for all."""
    assert run("build", *arguments) == 0
    assert requests[0].archs == ""


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--jobs", "0"),
        ("--jobs", "-1"),
        ("--jobs", "many"),
        ("--jobs", "1.5"),
        ("--jobs", "²"),
        ("--jobs", "9" * 5000),
        ("--jobs", ""),
        ("--shards", "0"),
        ("--memory", "12"),
        ("--memory", "0GiB"),
        ("--memory", "-3GiB"),
        ("--memory", "lots"),
        ("--memory", ""),
        ("--out", ""),
        ("--out", __file__),
        ("--out", f"{__file__}/below"),
        ("--out", "/dev/null"),
    ],
)
def test_nonsense_is_refused_with_the_option_and_what_would_be_valid(
    option: str,
    value: str,
    run: Run,
    requests: list[Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run("build", option, value) == errors.UsageError.exit_code
    told = capfd.readouterr().err
    assert told.startswith("error: ")
    assert option in told
    assert "valid" in told
    assert requests == [], "it was built all the same"


def test_relative_paths_are_relative_to_where_the_user_is(tmp_path: Path) -> None:
    """tasks.py is found from a folder below; the file is looked for in that folder."""
    folder = ROOT / "tests" / "unit" / "cli"
    command = [sys.executable, "-m", "invoke", "inspect", "test_tasks.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == errors.FormatError.exit_code, done.stderr
    there = [sys.executable, "-m", "invoke", "-r", str(ROOT), "inspect", "missing.whl"]
    done = subprocess.run(there, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == errors.UsageError.exit_code, done.stderr
    assert "missing.whl" in done.stderr


# -- results and failures ------------------------------------------------------------------------


def all_errors() -> list[type[errors.FatwheelError]]:
    found = [errors.FatwheelError]
    for kind in found:
        found += kind.__subclasses__()
    return found


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_each_failure_has_its_message_and_exit_code(
    kind: type[errors.FatwheelError],
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def build(request: object, emit: object, agree: object) -> list[WheelMade]:
        raise kind("it did not work", where="here", hint="try again")

    monkeypatch.setattr("fatwheel.pipeline.build.build", build)
    assert run("build") == kind.exit_code
    captured = capfd.readouterr()
    assert captured.err == "error: it did not work\n  where: here\n  hint:  try again\n"
    assert captured.out == ""


def test_ctrl_c_is_one_line_and_130(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def build(request: object, emit: object, agree: object) -> list[WheelMade]:
        raise KeyboardInterrupt

    monkeypatch.setattr("fatwheel.pipeline.build.build", build)
    assert run("build") == 130
    assert capfd.readouterr().err == "interrupted; what was finished is kept\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_a_disk_that_gives_up_is_no_bug(
    number: int, run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def build(request: object, emit: object, agree: object) -> list[WheelMade]:
        raise OSError(number, os.strerror(number), "/some/file")

    monkeypatch.setattr("fatwheel.pipeline.build.build", build)
    assert run("build") == errors.StoreError.exit_code
    told = capfd.readouterr().err
    assert told.startswith(f"error: cannot continue: {os.strerror(number)}\n  where: /some/file\n")
    assert "FATWHEEL_CACHE" in told


def test_wheels_are_the_result(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    made = WheelMade("dist/x.whl", 1024, "ab" * 32, "80", 1.0, 1, 2)
    monkeypatch.setattr("fatwheel.pipeline.build.build", lambda request, emit, agree: [made])
    assert run("build") == 0
    captured = capfd.readouterr()
    assert "dist/x.whl" in captured.out
    assert captured.err == ""


def test_inspect_prints_what_was_found(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    report = {"file": "x.so", "wheel": None, "binaries": [], "coverage": {}}
    monkeypatch.setattr("fatwheel.verify.inspect.inspect_file", lambda path: report)
    assert run("inspect", "x.so", "--json") == 0
    assert json.loads(capfd.readouterr().out) == report
    assert run("inspect", "x.so") == 0
    assert capfd.readouterr().out.startswith("x.so\n")


def test_inspect_shows_units_when_asked(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    report = {"file": "x.so", "wheel": None, "binaries": [], "coverage": {}}
    monkeypatch.setattr("fatwheel.verify.inspect.inspect_units", lambda path: report)
    assert run("inspect", "x.so", "--units", "--json") == 0
    assert json.loads(capfd.readouterr().out) == report


@pytest.mark.parametrize(("version", "code"), [("1.0", 0), ("1.1", errors.VerifyError.exit_code)])
def test_verify_reports_before_it_fails(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str], version: str, code: int
) -> None:
    """The same wheel, with the version in its name as in METADATA, and with another."""
    draft = Draft(tag="py3-none-any", filename=f"demo-{version}-py3-none-any.whl")
    wheel = draft.write(tmp_path)
    assert run("verify", str(wheel), "--json") == code
    captured = capfd.readouterr()
    assert json.loads(captured.out)["ok"] is (code == 0)
    assert captured.err.startswith("error: this wheel failed checks: names" if code else "")
    assert run("verify", str(wheel)) == code
    captured = capfd.readouterr()
    assert captured.out.startswith(f"{wheel.name}\ndemo 1.0 for py3-none-any\n")
    assert "there is no device code in this wheel" in captured.out


def test_verify_of_other_files_is_a_format_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"no wheel")
    assert run("verify", str(tmp_path / "a.whl")) == errors.FormatError.exit_code
    assert run("verify", str(tmp_path / "b.whl")) == errors.UsageError.exit_code


def test_cache_is_shown_and_tended(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from fatwheel.storage.cache import open_store

    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path))
    open_store().put("slice", "ab" * 32, b"12345")
    assert run("cache", "--check", "--limit", "1GiB", "--json") == 0
    assert json.loads(capfd.readouterr().out)["kinds"][0]["entries"] == 1
    assert run("cache", "--clean") == 0
    assert capfd.readouterr().out == f"{tmp_path}: 0 B\n"
    assert run("cache", "--limit", "none") == errors.UsageError.exit_code


def test_a_closed_pipe_is_no_error_of_ours(tmp_path: Path) -> None:
    """As in `invoke cache --json | head -n 1`, with a reader that has left already."""
    command = [sys.executable, "-m", "invoke", "cache", "--json"]
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "FATWHEEL_CACHE": str(tmp_path)}
    done = subprocess.run(
        command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, env=environment, timeout=300
    )
    os.close(writer)
    assert done.returncode == 0
    assert done.stderr == b""


def test_an_output_that_was_closed_from_the_beginning(tmp_path: Path) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "invoke", "cache"]
    environment = {**os.environ, "FATWHEEL_CACHE": str(tmp_path)}
    done = subprocess.run(
        command, cwd=ROOT, stderr=subprocess.PIPE, env=environment, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


# -- invoke test ---------------------------------------------------------------------------------


def test_missing_test_tools_are_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run("test") == errors.ToolchainError.exit_code
    assert "python -m pip install -e '.[test]'" in capfd.readouterr().err


# -- help and README -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", COLLECTION.task_names)
def test_help_teaches(name: str) -> None:
    assert f"invoke {name}" in COLLECTION[name].__doc__, "no example"
    for argument in ARGUMENTS[name]:
        assert argument.help, f"{argument.name} has no help"


def test_help_of_build_reads_as_it_was_approved() -> None:
    """What `invoke --help build` prints, 80 columns wide, as it does where there is no terminal."""
    command = [sys.executable, "-m", "invoke", "--help", "build"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    check_snapshot("help-build", shown.stdout)


def test_unknown_options_are_refused_by_invoke(
    run: Run, requests: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """Before any task runs, so with invoke's own exit code; docs/cli.md says so."""
    assert run("build", "--archs", "80") == 1
    assert capfd.readouterr().err == "No idea what '--archs' is!\n"


def test_exit_codes_are_distinct() -> None:
    codes = [kind.exit_code for kind in all_errors()]
    assert len(codes) == len(set(codes))


def test_the_readme_names_the_gpus_as_inspect_does() -> None:
    from fatwheel.verify.contents import gpu_names

    listed = dict(re.findall(r"^\| (\d+) \| ([^|]+) \|$", README, re.M))
    assert listed, "the table of GPUs is gone"
    for arch, names in listed.items():
        capability = f"{int(arch) // 10}.{int(arch) % 10}"
        assert names == ", ".join(gpu_names({"x86_64"})[capability]), f"--arch {arch}"


def test_the_two_commands_come_first() -> None:
    commands = re.findall(r"^```sh\n(.*?)\n```$", README, re.M | re.S)
    assert commands[:2] == [
        "python -m pip install -e . && invoke build --kernel causal-conv1d --arch 80,86,89",
        "python -m pip install -e '.[test]' && invoke test",
    ]


def test_ci_runs_the_readmes_test_command() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert "python -m pip install -e '.[test]' && invoke test" in lines
