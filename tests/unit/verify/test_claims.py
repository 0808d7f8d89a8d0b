"""The images that a record's archs ask for."""

from __future__ import annotations

import pytest

from fatwheel.errors import FormatError
from fatwheel.verify.papers import asked_codes


@pytest.mark.parametrize(
    ("archs", "codes"),
    [
        ((), set()),
        (("80",), {"sm_80"}),
        (("80+ptx", "90a"), {"sm_80", "compute_80", "sm_90a"}),
        (("ptx89",), {"compute_89"}),
    ],
)
def test_archs_ask_for_images(archs: tuple[str, ...], codes: set[str]) -> None:
    assert asked_codes(archs) == codes


@pytest.mark.parametrize("text", ["", "eighty", "80+sass", "ptx", "ptx80+ptx", "8" * 1000])
def test_what_is_no_architecture_is_refused(text: str) -> None:
    with pytest.raises(FormatError) as caught:
        asked_codes((text,))
    assert len(str(caught.value)) < 200
