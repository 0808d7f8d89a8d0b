"""What the workflows may do, and that the commands in them are commands of fatwheel.

Their own checker runs in tests/integration/test_workflow_files.py.
"""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from invoke.parser import Parser

from bench.windowsreport import PARTS
from fatwheel.arch import parse_arch_list
from fatwheel.cli.main import commands
from fatwheel.config.load import load_recipe
from fatwheel.engines.registry import ENGINES, engine_named
from fatwheel.shipped import DEFAULT_TOOLCHAINS, KERNELS

from ..helpers.commandline import exit_code_of
from ..helpers.toolchains import shipped_toolchain
from ..helpers.workflows import Workflow, workflows

EVERY = workflows()
NAMES = {
    "ci.yml",
    "flash-attn.yml",
    "flash-attn-shares.yml",
    "release.yml",
    "windows.yml",
    "windows-docker.yml",
    "wine.yml",
}
PINNED = re.compile(r"actions/[\w-]+(/[a-z]+)?@[0-9a-f]{40}")
every = pytest.mark.parametrize("workflow", EVERY, ids=lambda workflow: workflow.path.name)
# The one that publishes, and what its jobs may do beside reading.
RELEASE = next(workflow for workflow in EVERY if workflow.path.name == "release.yml")
TESTING = [workflow for workflow in EVERY if workflow is not RELEASE]
reading = pytest.mark.parametrize("workflow", TESTING, ids=lambda workflow: workflow.path.name)
ALLOWED = {
    "publish": {"contents": "write", "id-token": "write", "attestations": "write"},
    "pages": {"pages": "write", "id-token": "write"},
}


def test_they_are_there() -> None:
    assert {workflow.path.name for workflow in EVERY} >= NAMES


@reading
def test_they_may_only_read_and_know_no_secrets(workflow: Workflow) -> None:
    assert workflow.document["permissions"] == {"contents": "read"}
    assert not [name for name, job in workflow.jobs.items() if "permissions" in job]
    assert "secrets" not in workflow.path.read_text(encoding="utf-8")
    assert "pull_request_target" not in workflow.document[True]


def test_a_release_is_written_by_jobs_that_run_no_project_s_code() -> None:
    assert RELEASE.document["permissions"] == {"contents": "read"}
    assert list(RELEASE.document[True]) == ["workflow_dispatch"]
    found = {name: job["permissions"] for name, job in RELEASE.jobs.items() if "permissions" in job}
    assert found == ALLOWED
    for name, job in RELEASE.jobs.items():
        builds = any("fatwheel build" in step.get("run", "") for step in job["steps"])
        assert not (builds and name in ALLOWED)
        assert ("secrets." in str(job)) == (name == "publish")


def test_steps_that_know_the_token_read_no_wheel() -> None:
    for job, step in RELEASE.steps():
        assert "GH_TOKEN" not in job.get("env", {})
        assert not ("GH_TOKEN" in step.get("env", {}) and "fatwheel " in step["run"])


@every
def test_every_job_has_an_end(workflow: Workflow) -> None:
    for name, job in workflow.jobs.items():
        assert 0 < job["timeout-minutes"] <= 360, name
        assert "container" not in job, "Windows has none; Docker is called in steps"
        assert job["defaults"]["run"]["shell"] == "bash", f"{name}: others go on after a failure"


@every
def test_actions_are_pinned_and_their_versions_said(workflow: Workflow) -> None:
    text = workflow.path.read_text(encoding="utf-8")
    used = [step["uses"] for _, step in workflow.steps() if "uses" in step]
    assert [one for one in used if not PINNED.fullmatch(one)] == []
    for one in used:
        assert re.search(rf"{re.escape(one)} # v\d+\.\d+\.\d+\n", text), one


def test_an_action_is_the_same_everywhere() -> None:
    used = {step["uses"] for one in EVERY for _, step in one.steps() if "uses" in step}
    assert len(used) == len({one.partition("@")[0] for one in used}), used


@every
def test_a_checkout_leaves_no_credentials_behind(workflow: Workflow) -> None:
    for _, step in workflow.steps():
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@every
def test_what_was_found_is_kept_after_a_failure_too(workflow: Workflow) -> None:
    """The logs, what doctor says, and the wheels, of all jobs that have such."""
    for job in workflow.jobs.values():
        if not any("fatwheel " in step.get("run", "") for step in job["steps"]):
            continue
        last = job["steps"][-1]
        assert last["uses"].startswith("actions/upload-artifact@")
        assert last["if"] == "always()"
        assert set(last["with"]["path"].split()) == {"report", "dist"}
        scripts = "\n".join(step.get("run", "") for step in job["steps"])
        assert "doctor.json" in scripts


@every
def test_what_comes_from_outside_is_no_part_of_a_script(workflow: Workflow) -> None:
    """An input would be code there; it comes as a variable."""
    for _, step in workflow.steps():
        assert "${{" not in step.get("run", "")
        assert "GITHUB_ENV" not in step.get("run", ""), "a line more would be a variable more"


@reading
def test_steps_that_show_something_are_told_of(workflow: Workflow) -> None:
    known = {step["id"] for _, step in workflow.steps() if "id" in step}
    assert known <= set(PARTS), "bench/windowsreport.py does not know them"


def test_every_part_of_a_report_is_a_step() -> None:
    known = {step["id"] for one in TESTING for _, step in one.steps() if "id" in step}
    assert known == set(PARTS)


COMMANDS = [
    pytest.param(words, id=f"{one.path.name}: {' '.join(words)}")
    for one in EVERY
    for words in one.commands()
]


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("words", COMMANDS)
def test_commands_are_fatwheel_s_own(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With options that there are, and values that they take."""
    monkeypatch.setattr(sys, "argv", words)
    [found] = [
        context
        for context in Parser(contexts=commands().to_contexts()).parse_argv(words[1:])
        if context.name is not None
    ]
    values = {name: argument.value for name, argument in found.args.items()}
    toolchain = shipped_toolchain(values.get("toolchain") or DEFAULT_TOOLCHAINS["linux"])
    if values.get("kernel"):
        load_recipe(values["kernel"], KERNELS)
    if values.get("arch"):
        parse_arch_list(values["arch"], toolchain.archs)
    assert values.get("engine") in (None, *ENGINES)


BUILDS = [param for param in COMMANDS if param.values[0][1] == "build"]  # type: ignore[index]


@pytest.mark.parametrize("words", BUILDS)
def test_builds_can_be_planned(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with a request is found before anything is fetched or started."""
    if "--from-shares" in words:  # which an earlier job has left there
        (tmp_path / "1.share").touch()
        place = words.index("--from-shares") + 1
        words = [*words[:place], str(tmp_path), *words[place + 1 :]]
    where = {name: value for name, value in pairwise(words) if name.startswith("--")}
    if "--toolchain" in where:
        toolchain = shipped_toolchain(where["--toolchain"])
        if obstacle := engine_named(where["--engine"]).obstacle(toolchain):
            pytest.skip(f"{toolchain.name} {obstacle}")
    assert exit_code_of(commands(), (*words[1:], "--plan"), monkeypatch) == 0
