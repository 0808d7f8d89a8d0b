from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fatwheel.engines.base import Limits, allot

GIB = 1 << 30


def test_where_there_is_room_all_are_open_and_share_the_memory() -> None:
    found = allot(shards=3, largest=2 * GIB, slots=4, memory=30 * GIB)
    assert found.at_once == 3
    assert found.each == Limits(4, 10 * GIB)
    assert found.whole == Limits(4, 30 * GIB)


@pytest.mark.parametrize(
    ("memory", "at_once"),
    # A job of 4 GiB needs 4 × 1.25 + 0.25 GiB.
    [(30, 4), (21, 4), (20, 3), (11, 2), (10, 1), (4, 1), (1, 1)],
)
def test_where_the_machine_is_small_fewer_are_open(memory: int, at_once: int) -> None:
    found = allot(shards=4, largest=4 * GIB, slots=2, memory=memory * GIB)
    assert found.at_once == at_once
    assert found.each.memory == memory * GIB // at_once


def test_jobs_whose_need_is_not_known_share_evenly() -> None:
    assert allot(shards=2, largest=0, slots=2, memory=8 * GIB).each == Limits(2, 4 * GIB)


@given(
    st.integers(1, 20), st.integers(0, 64 * GIB), st.integers(1, 64), st.integers(GIB, 256 * GIB)
)
def test_limits_fit_into_the_memory(shards: int, largest: int, slots: int, memory: int) -> None:
    found = allot(shards, largest, slots, memory)
    assert 1 <= found.at_once <= shards
    assert found.at_once * found.each.memory <= memory
    assert found.whole == Limits(slots, memory)
    assert found.at_once == 1 or found.each.memory >= largest, "the largest job does not fit"
    assert found.each.cpus == slots
