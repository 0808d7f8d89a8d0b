"""All checks of a machine, as one result with a schema."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import jsonschema
import pytest

from fatwheel.doctor.facts import Facts, Silence, Trouble
from fatwheel.doctor.report import refusal, report_on
from fatwheel.errors import ToolchainError

from ...helpers.schemas import schema_of
from ...helpers.workstations import BROKEN, HEALTHY, IN_CONTAINERS, NO_ENGINE, SERVER, facts

FOLDER = Path(__file__).parents[3] / "fatwheel" / "doctor" / "schema"
SCHEMA = schema_of("doctor")
DOCUMENT = (FOLDER.parents[2] / "docs" / "workstation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("about", [HEALTHY, IN_CONTAINERS, SERVER])
def test_a_healthy_machine(about: Facts) -> None:
    report = report_on(about)
    assert report.ok
    assert {finding.status for finding in report.findings} == {"ok", "not applicable"}
    assert all(not finding.fixes for finding in report.findings)


def test_a_broken_machine_tells_all_at_once() -> None:
    report = report_on(BROKEN)
    assert not report.ok
    wrong = {finding.name for finding in report.findings if finding.status == "wrong"}
    assert wrong == {"cache", "index", "places", "isolation"}


def test_whatever_is_wrong_the_exit_code_is_one() -> None:
    """docs/workstation.md and docs/cli.md say so."""
    error = refusal(report_on(BROKEN))
    assert isinstance(error, ToolchainError)
    assert error.exit_code == 6
    assert "cache folder, package index" in error.what
    engine = refusal(report_on(facts(IN_CONTAINERS, container_engine=NO_ENGINE)))
    assert (engine.exit_code, "container engine" in engine.what) == (6, True)


@pytest.mark.parametrize("about", [HEALTHY, IN_CONTAINERS, SERVER, BROKEN])
def test_the_schema(about: Facts) -> None:
    document = json.loads(json.dumps(report_on(about).to_json()))
    jsonschema.validate(document, SCHEMA)
    assert sum(document["summary"].values()) == len(document["checks"]) == 21


def test_the_schema_names_each_check_once() -> None:
    names = [finding.name for finding in report_on(HEALTHY).findings]
    assert names == SCHEMA["$defs"]["check"]["properties"]["name"]["enum"]
    assert len(names) == len(set(names))


def test_the_schema_refuses_what_is_no_report() -> None:
    document = report_on(HEALTHY).to_json()
    for key in list(document):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**document, key: None}, SCHEMA)


SILENT = Silence("no answer in 5 s")


@pytest.mark.parametrize("base", [HEALTHY, IN_CONTAINERS, SERVER, BROKEN])
def test_whatever_does_not_answer_every_check_has_a_word(base: Facts) -> None:
    """Each fact silent or in trouble, alone and all together: no check fails itself."""
    silences = {
        "windows": SILENT, "cache": SILENT, "stock": SILENT, "container_engine": SILENT,
        "images": SILENT, "proxies": SILENT, "index": SILENT, "compiler": SILENT,
        "pythons": SILENT, "gpu": SILENT,
    }  # fmt: skip
    troubles = {name: Trouble("no") for name in ("images", "index", "compiler")}
    alone = [{name: value} for name, value in (*silences.items(), *troubles.items())]
    for changes in (*alone, silences, {"loads": (), "places": (), "daemon_file": ""}):
        document = json.loads(json.dumps(report_on(replace(base, **changes)).to_json()))
        jsonschema.validate(document, SCHEMA)


def test_what_is_not_ok_says_why_and_what_to_do() -> None:
    cases = [BROKEN, facts(IN_CONTAINERS, container_engine=NO_ENGINE)]
    for about in (*cases, replace(BROKEN, container_engine=SILENT)):
        for finding in report_on(about).findings:
            if finding.status in ("wrong", "warning"):
                assert finding.why, f"{finding.name} does not say why"
                assert finding.fixes, f"{finding.name} does not say what to do"


def test_windows_needs_no_powershell() -> None:
    for about, silent in product((BROKEN, SERVER), (True, False)):
        changed = replace(about, container_engine=NO_ENGINE) if silent else about
        text = json.dumps(report_on(changed).to_json()).lower()
        assert "powershell" not in text
        assert "sudo" not in text, "that is no command of Windows"


def test_every_check_is_documented() -> None:
    for finding in report_on(HEALTHY).findings:
        title = finding.title.removeprefix("the ")
        assert f"{title}" in DOCUMENT, f"docs/workstation.md does not explain {finding.title!r}"
