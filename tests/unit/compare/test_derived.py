"""RECORD and statements: what must differ, and what must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fatwheel.compare.differences import Difference, Position
from fatwheel.compare.documents import differing_listings, differing_statements

from ...helpers.statedwheels import BINARY, INFO, STATEMENT, demo_files, edited

PLACE = Position("x")
ROWS = "demo/a.py,sha256=AAA,3\ndemo/b.py,sha256=BBB,4\ndemo-1.0.dist-info/RECORD,,\n"
FOLDERS = ("demo-1.0.dist-info", "demo-1.0.dist-info")


def listings(other: str, *explained: str, folder: str = FOLDERS[1]) -> list[Difference]:
    data = ROWS.encode(), other.encode()
    return list(differing_listings(PLACE, data, (FOLDERS[0], folder), explained))


def test_the_line_of_a_file_that_differs_is_no_news() -> None:
    other = ROWS.replace("AAA,3", "CCC,9")
    assert listings(other, "demo/a.py") == []
    [found] = listings(other)
    assert (found.level, found.what) == ("text", "the line of demo/a.py")
    assert (found.one, found.other) == ("demo/a.py,sha256=AAA,3", "demo/a.py,sha256=CCC,9")


def test_a_file_more() -> None:
    other = "demo/c.py,sha256=DDD,1\n" + ROWS
    assert listings(other, "demo/c.py") == []
    [found] = listings(other)
    assert (found.what, found.one) == ("the line of demo/c.py", None)


def test_another_version_in_names() -> None:
    other = ROWS.replace("demo-1.0", "demo-1.1")
    assert listings(other, folder="demo-1.1.dist-info") == []


def test_another_order() -> None:
    one, two, *rest = ROWS.splitlines(keepends=True)
    [found] = listings("".join([two, one, *rest]))
    assert found.what == "its lines are in a different order"


@pytest.mark.parametrize("other", [ROWS + ROWS, 'demo/a.py,"sha256\n', ROWS.replace("\n", "\r\n")])
def test_whatever_it_is_something_is_told(other: str) -> None:
    assert listings(other)


# -- statements ----------------------------------------------------------------------------------

FILES = demo_files()


def statements(
    change: Callable[[Any], object], *explained: str, locked: bool = False
) -> list[tuple[str, str]]:
    data = FILES[STATEMENT], edited(FILES[STATEMENT], change)
    found = differing_statements(PLACE, data, (INFO, INFO), explained, locked)
    return [(each.level, each.what) for each in found]


def test_the_digest_of_a_file_that_differs_is_no_news() -> None:
    def change(statement: Any) -> None:
        [subject] = [one for one in statement["subject"] if one["name"] == BINARY]
        subject["digest"]["sha256"] = "0" * 64

    assert statements(change, BINARY) == []
    [(level, what)] = statements(change)
    assert level == "text"
    assert what.startswith(f"subject[{BINARY}].digest.sha256: ")
    assert what.endswith(f" became {'0' * 64}")


def test_a_subject_in_the_dist_info_folder() -> None:
    def change(statement: Any) -> None:
        statement["subject"] = [
            one for one in statement["subject"] if not one["name"].endswith("/METADATA")
        ]

    assert statements(change, ".dist-info/METADATA") == []
    assert len(statements(change)) == 2  # its name and its digest


def test_a_predicate_is_made_from_the_lock() -> None:
    def change(statement: Any) -> None:
        statement["predicate"]["buildDefinition"]["buildType"] = "urn:other"

    [(_, what)] = statements(change)
    assert what.startswith("predicate.buildDefinition.buildType: urn:fatwheel:build:1 became ")
    assert statements(change, locked=True) == []


def test_what_is_no_statement_is_compared_by_its_lines() -> None:
    data = FILES[STATEMENT], b"{\n"
    found = list(differing_statements(PLACE, data, (INFO, INFO), (), locked=True))
    assert found
    assert {each.level for each in found} == {"text"}
