"""What the rows of plans and results say that no snapshot of test_ui shows."""

from __future__ import annotations

from fatwheel.arch import CAPABILITIES
from fatwheel.cli import tables


def test_every_capability_has_gpus_that_people_know() -> None:
    assert tuple(tables.gpu_names()) == CAPABILITIES


def test_gpus_are_named_once() -> None:
    names = [name for listed in tables.gpu_names().values() for name in listed]
    assert len(names) == len(set(names))


def test_a_capability_without_a_known_gpu_is_still_shown() -> None:
    rows = tables.coverage_rows({"99.0": "none"})
    assert rows == [{"capability": "99.0", "code": "none", "GPUs": ""}]


def test_kinds_of_images_are_named_as_people_know_them() -> None:
    kinds = ("elf", "ptx", "lto", "other")
    rows = tables.image_rows(
        [{"kind": kind, "arch": "", "count": 1, "bytes": 0, "compressed": False} for kind in kinds]
    )
    assert [row["kind"] for row in rows] == ["cubin", "PTX", "LTO-IR", "other"]
