"""Names of kernels: whatever a file says one is, it is shown, and soon."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fatwheel.cli import kernelnames
from fatwheel.cli.kernelnames import fitted, readable

from ..helpers.mangled import mangled, substitution

SOUND = tuple(mangled())
# Parts that mean something, substitutions among them, and parts of sound names.
PARTS = st.one_of(
    st.text("_ZNKSTtIJLEPRKVOFXDpTsUlUtAaCcdivmjb0123456789.$", max_size=4),
    st.integers(0, 80).map(substitution),
    st.sampled_from(("Dp", "T_", "T0_", "1a", "1bI", "EE", "J", "Li3E", "NS_", "Ul", "Z1fvE")),
    st.builds(lambda name, a, b: name[a:b], st.sampled_from(SOUND), st.integers(2, 30),
              st.integers(30, 90)),
)  # fmt: skip
NAMES = st.builds(
    lambda sound, place, parts: sound[:place] + "".join(parts) + sound[place:],
    st.sampled_from(SOUND), st.integers(2, 60), st.lists(PARTS, max_size=60),
)  # fmt: skip


@settings(deadline=None)
@given(NAMES, st.one_of(st.none(), st.integers(3, 300)))
def test_any_name_becomes_text_soon(name: str, longest: int | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernelnames, "_seconds", 0.0)
        begun = time.process_time()
        found = readable(name, longest)
        assert time.process_time() - begun < 20
    assert found.isascii()
    assert found.isprintable()
    assert found == name or len(found) <= (longest or 1 << 15)


@given(st.text(), st.text(), st.integers(0, 200))
def test_words_without_names_stay_as_they_are(before: str, after: str, width: int) -> None:
    words = f"{before} {after}".replace("_Z", "_")
    assert readable(words) == words
    assert fitted(words, width) == words
