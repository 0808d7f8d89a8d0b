"""A record's slices against those of binaries; test_verify_provenance has whole wheels."""

from __future__ import annotations

import pytest

from fatwheel.provenance.record import RecordedUnit, Slices
from fatwheel.verify.device import slice_findings
from fatwheel.verify.papers import BinarySlices

A = RecordedUnit(name="a.o", slices={"sm_80": "1", "sm_90": "2"})
B = RecordedUnit(name="b.o", slices={"sm_80": "3", "sm_90": "4"})


def told(
    units: list[RecordedUnit], *containers: Slices, linked: tuple[Slices, ...] = ()
) -> list[str]:
    """Severities, and the first words of details."""
    binary = BinarySlices("x.so", containers, linked)
    return [
        f"{finding.severity}: {finding.what}: {'; '.join(finding.details)}"
        for finding in slice_findings(units, [binary])
    ]


@pytest.mark.parametrize(
    ("units", "containers"),
    [
        ([], []),
        ([A], [A.slices]),
        ([A, B], [B.slices, A.slices]),
        ([A], [A.slices, A.slices]),  # linked into two modules
        ([A], [A.slices, {}]),
        ([A, A], [A.slices]),
    ],
)
def test_slices_that_fit(units: list[RecordedUnit], containers: list[Slices]) -> None:
    assert told(units, *containers) == []


def test_a_slice_that_is_missing_is_wrong() -> None:
    [line] = told([A, B], A.slices, {"sm_80": "3"})
    assert line == "wrong: it names slices that are not in the wheel: b.o: sm_90"


def test_a_slice_without_a_digest_is_wrong() -> None:
    """Else a record could pass over code in silence."""
    lines = told(
        [RecordedUnit(name="a.o", slices={"sm_80": None, "sm_90": "2"})],
        {"sm_80": "anything", "sm_90": "2"},
    )
    assert lines[0] == "wrong: it does not name its slices: a.o: sm_80"
    assert len(lines) == 2, "nor is what lies there named"


def test_a_slice_that_is_another_is_wrong() -> None:
    lines = told([A], {"sm_80": "1", "sm_90": "5"})
    assert lines == [
        "wrong: it names slices that are not in the wheel: a.o: sm_90",
        "wrong: units in the wheel have slices that it does not list: x.so, container 0: sm_90",
    ]


def test_a_whole_unit_that_is_another_is_wrong() -> None:
    lines = told([A, B], A.slices, {"sm_80": "5"})
    assert lines == [
        "wrong: it names units that are not in the wheel: b.o",
        "wrong: it does not cover all device code: x.so, container 1: sm_80",
    ]


def test_a_unit_that_was_not_linked_is_a_warning() -> None:
    assert told([A, B], A.slices) == ["warning: it names units that are not in the wheel: b.o"]


def test_device_code_of_others_is_a_warning() -> None:
    assert told([A], A.slices, {"sm_80": "7"}) == [
        "warning: it does not cover all device code: x.so, container 1: sm_80"
    ]


def test_where_it_tells_of_nothing_that_is_wrong() -> None:
    assert told([], A.slices) == [
        "wrong: it does not cover all device code: x.so, container 0: sm_80, sm_90"
    ]


def test_linked_code_is_a_unit_beside_those_that_it_was_linked_from() -> None:
    linked = {"sm_80": "made by the linker"}
    link = RecordedUnit(name="dlink", slices=linked)
    assert told([A, link], linked, linked=(A.slices,)) == []
    [line] = told([A, B, link], linked, linked=(A.slices,))
    assert line == "warning: it names units that are not in the wheel: b.o"
    [line] = told([A], linked, linked=(A.slices,))
    assert line == "warning: it does not cover all device code: x.so, container 0: sm_80"
    lines = told([A, link], {"sm_80": "linked by another"}, linked=(A.slices,))
    assert lines == [
        "wrong: it names units that are not in the wheel: dlink",
        "wrong: it does not cover all device code: x.so, container 0: sm_80",
    ]
