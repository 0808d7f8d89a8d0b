"""What the rows of plans and results say that no snapshot of test_ui shows."""

from __future__ import annotations

from typing import Any

from fatwheel.cli import tables


def test_gpus_of_the_binaries_computers_are_named() -> None:
    served = {"native": 2, "jit": 0, "none": 0}
    report: dict[str, Any] = {
        "binaries": [{"machine": "x86_64"}, {"machine": "cuda"}],
        "coverage": {"9.0": "native", "9.9": "part", "10.0": "none"},
        "units_served": {"9.0": served, "9.9": {"native": 2, "jit": 1, "none": 2}, "10.0": served},
    }
    assert tables.coverage_rows(report) == [
        {"capability": "9.0", "code": "native", "GPUs": "H100, H200"},
        {"capability": "9.9", "code": "in part: 3 of 5 units", "GPUs": ""},
        {"capability": "10.0", "code": "none", "GPUs": "B200"},
    ]


def test_kinds_of_images_are_named_as_people_know_them() -> None:
    kinds = ("elf", "ptx", "lto", "other")
    rows = tables.image_rows(
        [{"kind": kind, "arch": "", "count": 1, "bytes": 0, "compressed": False} for kind in kinds]
    )
    assert [row["kind"] for row in rows] == ["cubin", "PTX", "LTO-IR", "other"]
