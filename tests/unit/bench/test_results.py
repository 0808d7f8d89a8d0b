"""Kept results of whole builds: read again, as a table, as a picture; the document has them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.report import Machine
from bench.results import (
    DOCUMENT,
    FOLDER,
    PICTURE,
    MachineResult,
    Subject,
    Way,
    keep,
    picture,
    read_results,
    section,
    updated,
)
from fatwheel.errors import FormatError

GIB = 1 << 30
RESULT = MachineResult(
    "2026-11-30",
    Subject("demo", "1.0", ("80", "90a"), "shared"),
    Machine("Some CPU <x>", 16, 128 * GIB, "Linux 6.1", 0.5, {"nvcc": "13.0.88"}),
    3,
    Way(100.0, 200.0, 4 * GIB),
    Way(50.0, 150.0, 5 * GIB),
)


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    other = replace(RESULT, rounds=1)
    keep(tmp_path / "b.json", RESULT)
    keep(tmp_path / "a.json", other)
    assert read_results(tmp_path) == (other, RESULT)


@pytest.mark.parametrize("content", ["{", "[]", "null", json.dumps({"when": "today"})])
def test_what_is_no_result_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "broken.json").write_text(content)
    with pytest.raises(FormatError, match=r"broken\.json"):
        read_results(tmp_path)


def test_a_number_is_no_text(tmp_path: Path) -> None:
    wrong = asdict(RESULT)
    wrong["own"]["wall"] = "fast"
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    with pytest.raises(FormatError, match=r"own\.wall"):
        read_results(tmp_path)


def test_the_table_has_both_ways_and_their_ratio() -> None:
    text = section([RESULT])
    assert "| demo 1.0 for 80, 90a, --front shared | 16 | 50.0 s of 1 min 40 s, 0.50× |" in text
    assert "2 min 30 s of 3 min 20 s, 0.75×" in text
    assert "5.0 GiB of 4.0 GiB, 1.25×" in text
    assert (
        "- 16 cores: Some CPU <x>, 128.0 GiB, Linux 6.1; nvcc 13.0.88; 2026-11-30, median" in text
    )


def test_bars_are_as_long_as_their_ratios() -> None:
    result = replace(RESULT, subject=Subject("a<b", "1", ("80",), "auto"))
    tree = ElementTree.fromstring(picture([result, replace(RESULT, upstream=Way(50.0, 150.0, 0))]))
    bars = tree.findall("{*}rect")
    widths = [float(bar.get("width", "")) for bar in bars]
    assert [bar.get("class") for bar in bars] == ["wall", "CPU", "memory", "wall", "CPU"]
    longest = widths[2]
    assert widths == pytest.approx([w * longest / 1.25 for w in (0.5, 0.75, 1.25, 1, 1)], abs=0.06)
    [line] = tree.findall("{*}line")
    start = float(bars[0].get("x", ""))
    assert float(line.get("x1", "")) == pytest.approx(start + longest / 1.25, abs=0.06)
    assert any("a<b 1" in "".join(text.itertext()) for text in tree.findall("{*}text"))


def test_only_the_marked_part_of_a_document_changes() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    changed = updated(document, [RESULT])
    assert updated(changed, read_results(FOLDER)) == document
    with pytest.raises(ValueError, match="no place"):
        updated("# Nothing\n", [RESULT])


def test_the_document_is_current() -> None:
    results = read_results(FOLDER)
    assert results, "nothing was ever kept"
    words = "run: python -m bench.results"
    document = DOCUMENT.read_text(encoding="utf-8")
    assert updated(document, results) == document, words
    assert picture(results) == PICTURE.read_text(encoding="utf-8"), words
