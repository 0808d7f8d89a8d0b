"""Upstream's wheel becomes ours: what its dist-info folder holds then."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from fatwheel.arch import ArchRequest, parse_arch
from fatwheel.model import Front
from fatwheel.pipeline.pack import folder_notes, pack
from fatwheel.pipeline.plan import PlannedWheel
from fatwheel.provenance.lock import BuildLock, lock_bytes, target_of
from fatwheel.worker.assemble import SliceDigests

from ...helpers.somelocks import WINDOWS, some_lock
from ...helpers.tinywheels import Draft

ARCHS = (ArchRequest(parse_arch("80")), ArchRequest(parse_arch("86")))
FRONTS = (Front(parse_arch("80"), ("sm_80",)), Front(parse_arch("86"), ("sm_86",)))
SLICES: SliceDigests = [{"name": "csrc/a", "slices": {"sm_80": "a" * 64, "sm_86": "b" * 64}}]


def upstream(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    files = {"causal_conv1d/__init__.py": b"", "causal_conv1d_cuda.so": b"code"}
    return Draft(project="causal_conv1d", version="1.5.2", files=files).write(folder)


def packed(folder: Path, lock: BuildLock) -> Path:
    target = target_of(lock, ARCHS)
    wheel = PlannedWheel(target, FRONTS)
    return pack(upstream(folder / "in"), folder, wheel, lock, SLICES, "exact")


@pytest.fixture
def members(tmp_path: Path) -> dict[str, bytes]:
    """The files of a finished wheel, those of its dist-info folder without that."""
    with zipfile.ZipFile(packed(tmp_path, some_lock())) as archive:
        return {
            name.rpartition(".dist-info/")[2]: archive.read(name) for name in archive.namelist()
        }


def test_the_name_says_what_it_is_for(tmp_path: Path) -> None:
    wheel = packed(tmp_path, some_lock())
    assert wheel.name == (
        "causal_conv1d-1.5.2+cu130torch2.11.sm80.sm86-cp311-cp311-linux_x86_64.whl"
    )


def test_the_record_names_the_lock(members: dict[str, bytes]) -> None:
    assert members["fatwheel.lock.json"] == lock_bytes(some_lock())
    record = json.loads(members["fatwheel.json"])
    assert record["lock"] == hashlib.sha256(members["fatwheel.lock.json"]).hexdigest()
    assert record["units"] == SLICES


def test_the_statement_is_over_every_other_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(packed(tmp_path, some_lock())) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    [place] = [name for name in held if name.endswith("/fatwheel.provenance.json")]
    statement = json.loads(held[place])
    said = {one["name"]: one["digest"]["sha256"] for one in statement["subject"]}
    folder = place.rpartition("/")[0]
    assert said == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in held.items()
        if name not in (place, f"{folder}/RECORD")
    }
    assert list(held)[-2:] == [place, f"{folder}/RECORD"]


def test_the_sbom_lies_where_tools_look_for_it(members: dict[str, bytes]) -> None:
    sbom = json.loads(members["sboms/fatwheel.cdx.json"])
    assert sbom["metadata"]["component"]["version"] == "1.5.2+cu130torch2.11.sm80.sm86"


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    first = packed(tmp_path / "a", some_lock()).read_bytes()
    assert packed(tmp_path / "b", some_lock()).read_bytes() == first


def test_another_lock_is_another_wheel(tmp_path: Path) -> None:
    first = packed(tmp_path / "a", some_lock()).read_bytes()
    other = packed(tmp_path / "b", some_lock(WINDOWS))
    assert other.name != packed(tmp_path / "a", some_lock()).name, "another CUDA"
    assert other.read_bytes() != first


def test_a_wheel_that_names_the_folder_of_its_build_is_told_of(tmp_path: Path) -> None:
    """Also where a text is in two of the pieces in which large files are read."""
    where = str(tmp_path / "work").encode()
    files = {
        "demo/one.so": bytes((1 << 20) - 5) + where + bytes(1 << 20),
        "demo/two.so": where[:-1],
        "demo/three.txt": b"in " + where + b"/src",
    }
    wheel = Draft(project="demo", version="1.0", files=files).write(tmp_path)
    [note] = folder_notes(wheel, tmp_path / "work")
    assert note.endswith("gives other bytes: demo/one.so, demo/three.txt")
    assert list(folder_notes(wheel, tmp_path / "elsewhere")) == []
