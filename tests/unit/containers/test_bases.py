"""FATWHEEL_BASES."""

from __future__ import annotations

import pytest

from fatwheel.containers.contexts import VARIABLE, named_bases
from fatwheel.errors import UsageError


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", {}),
        ("3.11=base", {"3.11": "base"}),
        (
            " 3.11=host:5000/a/b:1.0 , 3.13=c@sha256:ab,",
            {"3.11": "host:5000/a/b:1.0", "3.13": "c@sha256:ab"},
        ),
    ],
)
def test_what_it_names(text: str, named: dict[str, str]) -> None:
    assert named_bases({VARIABLE: text}) == named


def test_it_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "3.11=mine")
    assert named_bases() == {"3.11": "mine"}
    monkeypatch.delenv(VARIABLE)
    assert named_bases() == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base", "'base' does not name a base image"),
        ("3.11=a b", "does not name a base image"),
        ("3.11=", "does not name a base image"),
        ("3.11=a\nRUN x", "does not name a base image"),
        ("3.11=a,3.11=b", "3.11 is named twice"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        named_bases({VARIABLE: text})
    assert caught.value.where == VARIABLE
    assert "3.11=my-base:1,3.13=other-base" in str(caught.value)
