"""Kept reports of simulations: as a table, as a picture; the document has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from bench import simulated
from bench.simulated import FOLDER, picture, read_report, section, updated
from fatwheel.pipeline.simulate import LIMITS
from fatwheel.pipeline.workload import read_workload

from ...helpers.schemas import schema_of


def row(workers: int, seconds: float, **parts: float) -> dict[str, Any]:
    named = {name.replace("_", " "): value for name, value in parts.items()}
    return {
        "workers": workers, "cores": 4 * workers, "seconds": seconds, "bound": seconds / 2,
        "busy": 0.5, "sent": 3 << 20, "received": 5 << 20,
        "limit": max(named, key=named.__getitem__),
        "parts": {**dict.fromkeys(LIMITS, 0.0), **named},
    }  # fmt: skip


REPORT = {
    "project": "a<b", "version": "1.0", "archs": ["80", "86"],
    "worker": {"cores": 4, "memory": 14 << 30},
    "rows": [row(1, 1200, cores=900, critical_path=300), row(20, 45, critical_path=36, memory=9)],
}  # fmt: skip


def test_the_table_has_a_line_for_each_cluster() -> None:
    lines = section(REPORT).splitlines()
    assert lines[2] == (
        "| 1 | 4 | 20 min 00 s | 10 min 00 s | 50 % | 3.0 MiB | 5.0 MiB | cores, 75 % |"
    )
    assert lines[3].endswith("| critical path, 80 % |")


def test_bars_are_as_high_as_their_parts() -> None:
    tree = ElementTree.fromstring(picture(REPORT))
    bars = [bar for bar in tree.findall("{*}rect") if bar.find("{*}title") is not None]
    assert [(bar.get("class"), float(bar.get("height", ""))) for bar in bars] == [
        ("path", 50.0), ("cores", 150.0), ("path", 160.0), ("memory", 40.0),
    ]  # fmt: skip
    for first, second in ((0, 1), (2, 3)):
        top = float(bars[second].get("y", "")) + float(bars[second].get("height", ""))
        assert top == pytest.approx(float(bars[first].get("y", ""))), "one on the other"
    words = [text.text for text in tree.findall("{*}text")]
    assert words[0] == "a<b 1.0 for 80, 86: what costs which part of the time"
    assert {"critical path", "cores", "memory", "20 min", "45 s", "1"} <= set(words)
    assert "losses" not in words


def test_only_what_is_between_the_marks_is_replaced() -> None:
    marks = simulated._BEGIN + "old\n" + simulated._END
    assert "old" not in updated(f"before\n{marks}after\n", REPORT)
    assert updated(updated(f"before\n{marks}after\n", REPORT), REPORT).startswith("before\n")
    with pytest.raises(ValueError, match="no place for it"):
        updated("nothing", REPORT)


def test_the_document_is_current() -> None:
    assert simulated.main(["--check"]) == 0


def test_what_is_kept_is_as_its_schemas_say() -> None:
    report = read_report(FOLDER)
    jsonschema.validate(report, schema_of("simulate"))
    [file] = FOLDER.glob("*.costs.json")
    jsonschema.validate(json.loads(file.read_bytes()), schema_of("costs"))
    costs = read_workload(file)
    assert report["work"] == pytest.approx(sum(job.seconds for job in costs.jobs))
    assert (report["calls"], report["measured"]) == (len(costs.calls), costs.measured)
    assert Path(simulated.PICTURE).is_file()
