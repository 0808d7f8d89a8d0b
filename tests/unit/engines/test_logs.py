from __future__ import annotations

import os
from pathlib import Path

import pytest

from fatwheel.engines.base import log_name, new_logs, shard_purpose


@pytest.mark.parametrize(
    ("purpose", "name"),
    [
        ("capture", "capture.log"),
        (shard_purpose("1:compute_80"), "shard-1-compute_80.log"),
        (shard_purpose("2:compute_90a+compute_120f"), "shard-2-compute_90a+compute_120f.log"),
        ("a/b\\c:d*e", "a-b-c-d-e.log"),
    ],
)
def test_a_log_has_a_name_for_any_system(purpose: str, name: str) -> None:
    assert log_name(purpose) == name


def test_a_shard_of_many_fronts_has_a_name_that_files_can_have() -> None:
    many = "+".join(["compute_120f"] * 40)
    one, other = (log_name(shard_purpose(f"{number}:{many}")) for number in (3, 4))
    assert len(one) < 120
    assert one != other


def test_shards_have_logs_of_their_own() -> None:
    names = [f"{number}:compute_{arch}" for number in (1, 11) for arch in ("80", "86")]
    assert len({log_name(shard_purpose(name)) for name in names}) == 4


def test_every_build_has_a_folder_of_its_own(tmp_path: Path) -> None:
    parent = tmp_path / "cache" / "logs"
    folders = {new_logs(parent, "demo-1.0-3.11") for _ in range(3)}
    assert len(folders) == 3
    assert all(folder.is_dir() and folder.parent == parent for folder in folders)
    assert all(folder.name.startswith("demo-1.0-3.11-") for folder in folders)


def test_the_oldest_go(tmp_path: Path) -> None:
    old = []
    for age in range(60):
        folder = tmp_path / f"build-{age:08x}"
        folder.mkdir()
        (folder / "capture.log").write_text("x")
        os.utime(folder, (1_700_000_000 - age, 1_700_000_000 - age))
        old.append(folder)
    new = new_logs(tmp_path, "demo")
    left = sorted(tmp_path.iterdir())
    assert len(left) == 50
    assert left == [*old[:49], new]


def test_what_else_is_there_stays(tmp_path: Path) -> None:
    """Logs of workers lie below those of builds, and a worker may outlive any number of builds."""
    of_worker = new_logs(tmp_path / "workers", "node")
    os.utime(tmp_path / "workers", (1_700_000_000, 1_700_000_000))
    for _ in range(51):
        new_logs(tmp_path, "demo")
    assert of_worker.is_dir()
    assert len(list(tmp_path.iterdir())) == 51


def test_a_link_among_them_costs_nothing_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    parent = tmp_path / "logs"
    parent.mkdir()
    for number in range(60):
        (parent / f"link-{number:08x}").symlink_to(outside)
    new_logs(parent, "demo")
    assert (outside / "file").exists()


def test_what_another_build_deletes_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = [tmp_path / f"gone-{number:08x}" for number in range(60)]
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(gone))
    assert new_logs(tmp_path, "demo").is_dir()


def test_a_folder_that_cannot_be_made_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        new_logs(tmp_path / "file", "demo")
