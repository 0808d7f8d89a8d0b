"""What the rows of plans and results say that no snapshot of test_ui shows."""

from __future__ import annotations

from typing import Any

from fatwheel.cli import tables


def need(driver: str) -> dict[str, str]:
    return {"driver": driver, "kind": "cuda", "reason": "CUDA"}


def test_gpus_of_the_binaries_computers_are_named() -> None:
    served = {"native": 2, "jit": 0, "none": 0}
    report: dict[str, Any] = {
        "binaries": [
            {"machine": "x86_64", "drivers": {"9.0": need("525.60.13"), "9.9": need("580")}},
            {"machine": "cuda", "drivers": {"9.0": need("1000"), "9.9": need("580")}},
        ],
        "coverage": {"9.0": "native", "9.9": "part", "10.0": "none"},
        "units_served": {"9.0": served, "9.9": {"native": 2, "jit": 1, "none": 2}, "10.0": served},
    }
    assert tables.coverage_rows(report) == [
        {
            "capability": "9.0", "code": "native", "driver": "525.60.13 to 1000",
            "GPUs": "H100, H200",
        },
        {"capability": "9.9", "code": "in part: 3 of 5 units", "driver": "580", "GPUs": ""},
        {"capability": "10.0", "code": "none", "driver": "", "GPUs": "B200"},
    ]  # fmt: skip


def test_drivers_are_told_once_for_all_libraries_that_need_them() -> None:
    old, new = {"9.0": need("525.60.13")}, {"9.0": need("580")}
    report: dict[str, Any] = {
        "binaries": [
            {"path": path, "drivers": needs}
            for path, needs in (("a.so", old), ("b.so", new), ("c.so", old), ("d.so", {}))
        ],
        "units_served": {"9.0": {"native": 3, "jit": 0, "none": 0}},
    }
    assert list(tables.driver_lines(report)) == [
        "driver 525.60.13 or newer (CUDA): a.so and 1 more",
        "driver 580 or newer (CUDA): b.so",
    ]
    jit = {"9.0": {"native": 3, "jit": 1, "none": 0}, "8.9": {"native": 4, "jit": 0, "none": 0}}
    first, second = tables.driver_lines({"binaries": report["binaries"][:1], "units_served": jit})
    assert first == "driver 525.60.13 or newer (CUDA)"
    assert second.startswith("all or some code for 9.0 is PTX alone: the driver compiles it")


def test_kinds_of_images_are_named_as_people_know_them() -> None:
    kinds = ("elf", "ptx", "lto", "other")
    rows = tables.image_rows(
        [{"kind": kind, "arch": "", "count": 1, "bytes": 0, "compressed": False} for kind in kinds]
    )
    assert [row["kind"] for row in rows] == ["cubin", "PTX", "LTO-IR", "other"]


def test_what_thin_saves_is_told_where_a_gpu_runs_anything() -> None:
    served = {"native": 2, "jit": 0, "none": 0}
    report: dict[str, Any] = {
        "binaries": [{"machine": "x86_64", "drivers": {}}],
        "coverage": {"8.9": "native", "9.0": "none"},
        "units_served": {"8.9": served, "9.0": served},
        "thinned": {"8.9": {"saves": 3 << 20, "percent": 56.4}},
    }
    assert [row["thin saves"] for row in tables.coverage_rows(report)] == ["3.0 MiB, 56 %", ""]


def test_a_file_that_was_only_measured_has_no_digest() -> None:
    report: dict[str, Any] = {
        "file": "dist/a.whl", "written": False, "size": 1 << 20, "size_before": 4 << 20,
        "sha256": None, "archs": ["sm80"], "notes": [],
    }  # fmt: skip
    row = {"not written": "dist/a.whl", "size": "1.0 MiB, 75 % less than before", "archs": "sm80"}
    assert tables.edited_row(report) == row
    stitched = {**report, "written": True, "size_before": None, "sha256": "ab"}
    assert tables.edited_row(stitched) == {
        "file": "dist/a.whl", "size": "1.0 MiB", "sha256": "ab", "archs": "sm80",
    }  # fmt: skip
