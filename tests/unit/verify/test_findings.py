"""The worst finding of a check is its result."""

from __future__ import annotations

import pytest

from fatwheel.errors import FormatError
from fatwheel.verify.evidence import Check, Finding, note, refused, warning, wrong


@pytest.mark.parametrize(
    ("findings", "result"),
    [
        ([], "ok"),
        ([note("n")], "ok"),
        ([note("n"), warning("w")], "warning"),
        ([warning("w"), wrong("x"), note("n")], "wrong"),
    ],
)
def test_the_worst_finding_decides(findings: list[Finding], result: str) -> None:
    assert Check("name", tuple(findings)).result == result


def test_what_cannot_be_read_is_told_with_all_that_its_error_says() -> None:
    error = FormatError("it is damaged", where="a.json", details=["one", "two"], hint="try b")
    assert refused(error) == wrong("it is damaged", "a.json", ["one", "two", "try b"])
    assert refused(FormatError("it is damaged")) == wrong("it is damaged")
