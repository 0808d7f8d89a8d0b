"""Reading from a wheel how it was built; and wheels that do not say, or not to us."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fatwheel.errors import FormatError, UsageError
from fatwheel.provenance.lock import lock_bytes
from fatwheel.provenance.origin import read_held
from fatwheel.provenance.record import RecordedRecipe, RecordedToolchain, record_bytes
from fatwheel.provenance.statement import EDIT, predicate_of, statement_bytes

from ...helpers.somelocks import ROOT, some_lock
from ...helpers.tinywheels import Draft

KERNELS = ROOT / "kernels"
LOCK = some_lock()
RECORD: dict[str, Any] = {
    "schema": 1, "fatwheel": "0.1.0", "archs": ["80", "86+ptx"], "front": "shared",
    "fronts": [
        {"virtual": "compute_80", "codes": ["sm_80"]},
        {"virtual": "compute_86", "codes": ["sm_86", "compute_86"]},
    ],
    "units": [], "python": LOCK.python, "torch": LOCK.torch,
    "lock": hashlib.sha256(lock_bytes(LOCK)).hexdigest(),
    "recipe": RecordedRecipe.of(LOCK.recipe).model_dump(),
    "toolchain": RecordedToolchain.of(LOCK.toolchain).model_dump(),
}  # fmt: skip


def wheel(folder: Path, record: Any = RECORD, **files: bytes | None) -> Path:
    """One with a record, a lock, and these files of its dist-info folder; None leaves one out."""
    record_data = record if isinstance(record, bytes) else record_bytes(record)
    held = {"fatwheel.json": record_data, "fatwheel.lock.json": lock_bytes(LOCK)}
    held |= {name.replace("_", "."): data for name, data in files.items() if data is not None}
    for name, data in files.items():
        if data is None:
            del held[name.replace("_", ".")]
    return Draft(files={f"demo-1.0.dist-info/{name}": data for name, data in held.items()}).write(
        folder
    )


def changed(**values: Any) -> Mapping[str, Any]:
    return {**RECORD, **values}


def test_all_that_a_build_needs(tmp_path: Path) -> None:
    held = read_held(wheel(tmp_path), KERNELS)
    assert [str(arch) for arch in held.archs] == ["80", "86+ptx"]
    assert [(front.virtual.name, front.codes) for front in held.fronts] == [
        ("80", ("sm_80",)), ("86", ("sm_86", "compute_86")),
    ]  # fmt: skip
    assert held.front == "shared"
    assert lock_bytes(held.lock) == held.lock_data == lock_bytes(LOCK)


def test_a_rebuild_splits_what_was_split(tmp_path: Path) -> None:
    first, second = RECORD["fronts"]
    split = changed(front="fast", fronts=[{**first, "split": 4}, second])
    held = read_held(wheel(tmp_path, split), KERNELS)
    assert (held.front, [front.split for front in held.fronts]) == ("fast", [4, 0])


def test_a_rebuild_shares_fronts_among_the_same_units(tmp_path: Path) -> None:
    """A proof may name units that a project does not compile for all architectures or torches."""
    some = changed(front="auto", front_units=["csrc/a", "csrc/hopper"])
    assert read_held(wheel(tmp_path, some), KERNELS).front_units == ("csrc/a", "csrc/hopper")
    assert read_held(wheel(tmp_path), KERNELS).front_units == (), "as older wheels have it"


@pytest.mark.parametrize("value", [None, "csrc/a", {"csrc/a": 1}, [1], [["csrc/a"]]])
def test_units_of_fronts_that_are_no_names(tmp_path: Path, value: object) -> None:
    with pytest.raises(FormatError) as caught:
        read_held(wheel(tmp_path, changed(front="auto", front_units=value)), KERNELS)
    assert "front_units" in str(caught.value.details)


def test_somebody_else_s_wheel(tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        read_held(wheel(tmp_path, fatwheel_json=None), KERNELS)
    assert "not built by fatwheel" in str(caught.value)


def test_a_wheel_without_a_lock(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"fatwheel 0\.1\.0 did not include one"):
        read_held(wheel(tmp_path, fatwheel_lock_json=None), KERNELS)


@pytest.mark.parametrize("version", ["0.1.1", "1!0.1", "99"])
def test_a_wheel_of_a_newer_fatwheel(tmp_path: Path, version: str) -> None:
    with pytest.raises(FormatError) as caught:
        read_held(wheel(tmp_path, changed(fatwheel=version)), KERNELS)
    assert f"fatwheel {version} made it" in str(caught.value)
    assert f"use fatwheel {version}" in str(caught.value)


def test_an_edited_wheel(tmp_path: Path) -> None:
    statement = statement_bytes(
        [("a", "a" * 64)], predicate_of(LOCK, {**RECORD, "lock": "x"}, build_type=EDIT)
    )
    with pytest.raises(FormatError, match="invoke thin"):
        read_held(wheel(tmp_path, fatwheel_provenance_json=statement), KERNELS)


def test_a_wheel_of_several_builds(tmp_path: Path) -> None:
    several = {"schema": 1, "stitched": [RECORD, changed(python="3.12")]}
    with pytest.raises(FormatError, match="stitched from 2 builds"):
        read_held(wheel(tmp_path, several), KERNELS)


@pytest.mark.parametrize(
    "change",
    [
        {"archs": "80"}, {"archs": []}, {"archs": ["x"]}, {"archs": [5]}, {"front": "other"},
        {"front": None}, {"fatwheel": "x"}, {"fatwheel": None}, {"python": "3.12"},
        {"torch": None}, {"fronts": [{"virtual": "compute_7", "codes": []}]},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_that_makes_no_sense(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="damaged"):
        read_held(wheel(tmp_path, changed(**change)), KERNELS)


def test_a_lock_that_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="damaged") as caught:
        read_held(wheel(tmp_path, fatwheel_lock_json=json.dumps({"schema": 1}).encode()), KERNELS)
    assert "fatwheel.lock.json" in str(caught.value.where)


def test_no_wheel_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_held(tmp_path / "x.whl", KERNELS)
