"""The worst finding of a check is its result."""

from __future__ import annotations

import pytest

from fatwheel.verify.findings import Check, Finding, note, warning, wrong


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
