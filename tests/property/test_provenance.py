"""A wheel's provenance with anything at any place of it: `verify` refuses it in words."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fatwheel.errors import FormatError
from fatwheel.verify.report import verify_wheel

from ..helpers.statedwheels import (
    LOCK,
    RECORD,
    SBOM,
    STATEMENT,
    demo_files,
    edited,
    state_again,
    write,
)

FILES = demo_files()
ANYTHING = st.sampled_from(
    [None, True, 0, -1, 10**30, 1.5, "", "x", "\ud800", "../..", "a" * 5000, [], {}, [[]],
     {"a": {}}, [None], ["80"], [1, 2], {"name": 1}, {"sha256": "0" * 64}]
)  # fmt: skip
# What says nothing that could be held against anything else: names of units, and what is only for
# tools that read SBOMs, of which a change is a warning.
FREE = {RECORD: ("units", "schema")}


def places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*place, key)
            yield from places(value[key], (*place, key))


def changed(data: bytes, place: tuple[str | int, ...], value: Any, remove: bool) -> bytes:
    def change(content: Any) -> None:
        for step in place[:-1]:
            content = content[step]
        if remove:
            del content[place[-1]]
        else:
            content[place[-1]] = copy.deepcopy(value)

    return edited(data, change)


@pytest.mark.parametrize("name", [RECORD, LOCK, SBOM, STATEMENT])
@settings(max_examples=40, deadline=None)
@given(data=st.data(), value=ANYTHING, remove=st.booleans())
def test_any_change_is_refused_and_none_ends_in_a_traceback(
    name: str, data: st.DataObject, value: Any, remove: bool
) -> None:
    files = dict(FILES)
    place = data.draw(st.sampled_from(list(places(json.loads(files[name])))))
    files[name] = changed(files[name], place, value, remove)
    assume(files[name] != FILES[name])
    if name == LOCK:
        sha256 = hashlib.sha256(files[LOCK]).hexdigest()
        files[RECORD] = edited(files[RECORD], lambda record: record.update(lock=sha256))
    if name != STATEMENT:
        state_again(files)
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = verify_wheel(write(Path(folder), files))
        except FormatError:
            return
    json.dumps(report.to_json())
    [check] = [check for check in report.checks if check.name == "provenance"]
    if place[0] not in FREE.get(name, ()):
        assert check.result == ("wrong" if name != SBOM else check.result)
        assert check.result != "ok", f"nobody sees {place}"
