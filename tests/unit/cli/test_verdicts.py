"""How reports of inspect and verify look, on terminals and elsewhere."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fatwheel.cli import reports
from fatwheel.cli.reports import show_inspection, show_verification

from ...helpers.mangled import LONG, needs_library
from ...helpers.schemas import schema_of
from .test_ui import HOSTILE, INSPECTION, check_snapshot, narrow

assert narrow  # a fixture

UNITS: dict[str, Any] = {
    **INSPECTION,
    "binaries": [
        {
            **INSPECTION["binaries"][0],
            "units": [
                {
                    "container": 0,
                    "kernels": [LONG, "scale"],
                    "images": [
                        {
                            "kind": "elf",
                            "arch": "sm_86",
                            "bytes": 40_960,
                            "compression": "zstd",
                            "version": "13.0",
                        },
                        {
                            "kind": "ptx",
                            "arch": "compute_86",
                            "bytes": 900,
                            "compression": "",
                            "version": None,
                        },
                    ],
                },
                {
                    "container": None,
                    "kernels": ["scale"],
                    "images": [
                        {
                            "kind": "elf",
                            "arch": "sm_86",
                            "bytes": 40_960,
                            "compression": "lz4",
                            "version": "12.4",
                        }
                    ],
                },
            ],
        }
    ],
}


def finding(severity: str, what: str, where: str | None = None, *details: str) -> dict[str, Any]:
    return {"severity": severity, "where": where, "what": what, "details": list(details)}


VERIFICATION: dict[str, Any] = {
    **{key: INSPECTION[key] for key in ("file", "wheel", "coverage", "units_served")},
    "ok": False,
    "checks": [
        {
            "name": "record",
            "result": "wrong",
            "findings": [
                *(finding("wrong", "it is not in RECORD", f"a/{n}.py") for n in range(22)),
                finding("warning", "RECORD has no size of it", "a/b.py"),
            ],
        },
        {
            "name": "imports",
            "result": "ok",
            "findings": [finding("note", "it needs 1 library", "a/_C.so", "system: libc.so.6")],
        },
        {
            "name": "parity",
            "result": "wrong",
            "findings": [
                finding(
                    "wrong",
                    "sm_80 and sm_90 do not have the same kernels",
                    "a/_C.so, container 3",
                    *(f"only in sm_80: {n}" for n in range(13)),
                )
            ],
        },
        {
            "name": "coverage",
            "result": "warning",
            "findings": [finding("warning", "there is no device code in this wheel")],
        },
        {"name": "names", "result": "ok", "findings": []},
    ],
    "binaries": INSPECTION["binaries"],
}


@needs_library
def test_units(capsys: pytest.CaptureFixture[str]) -> None:
    show_inspection(UNITS)
    check_snapshot("inspection-units", capsys.readouterr().out)


def many(count: int) -> dict[str, Any]:
    """A report of very many files, each with several architectures, and of all GPUs."""
    images = [
        {"kind": kind, "arch": f"{name}_{number}", "count": 7, "bytes": number, "compressed": True}
        for number in range(50, 121, 5)
        for kind, name in (("elf", "sm"), ("ptx", "compute"))
    ]
    binaries = [
        {**INSPECTION["binaries"][0], "path": f"a/{number}.so", "images": images[: number % 20]}
        for number in range(count)
    ]
    coverage = {f"{number // 10}.{number % 10}": "native" for number in range(50, 85)}
    served = {key: {"native": 1, "jit": 0, "none": 0} for key in coverage}
    return {**INSPECTION, "binaries": binaries, "coverage": coverage, "units_served": served}


@pytest.mark.parametrize("count", [1, 12, 80_000])
def test_a_long_inspection_is_a_summary(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    report = many(count) if count > 1 else {**many(20), "binaries": many(20)["binaries"][19:]}
    show_inspection(report)
    shown = capsys.readouterr().out
    assert shown.count("\n") < 60
    assert "with GPU code" in shown
    assert "(--all shows them)" in shown


def test_a_long_inspection_is_shown_as_a_whole_where_that_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = many(40)
    show_inspection(report, everything=True)
    shown = capsys.readouterr().out
    assert "(--all shows them)" not in shown
    assert all(f"\n{binary['path']}  (" in shown for binary in report["binaries"])
    assert all(f"\n{capability} " in shown for capability in report["coverage"])


def test_a_summary_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    show_inspection(many(41))
    shown = capsys.readouterr().out
    # Files 19 and 39 have 19 images of 7 each, 0, 20 and 40 have none: 2 * 7 * (1 + ... + 19).
    assert "38 files with GPU code (" in shown
    assert ", 2660 images), 3 without\n" in shown
    # sm_50 comes first in each of those.
    assert re.search(r"sm_50 +cubin +266 ", shown)
    assert "and 7 more (--all shows them)" in shown  # of 19 kinds of images
    assert "and 33 more (--all shows them)" in shown  # of 38 files


def test_a_short_inspection_is_not_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    report = {**INSPECTION, "binaries": INSPECTION["binaries"] * 3}
    show_inspection(report)
    shown = capsys.readouterr().out
    show_inspection(report, everything=True)
    assert capsys.readouterr().out == shown


@needs_library
def test_a_narrow_terminal_shortens_names_of_kernels_and_nothing_else(
    narrow: None, capsys: pytest.CaptureFixture[str]
) -> None:
    show_inspection(UNITS)
    shown = capsys.readouterr().out
    check_snapshot("inspection-units-narrow", shown)
    assert LONG not in shown
    assert "flash_bwd_dot_do_o_kernel<true, Flash_bwd_kernel_traits<128, 64, 128> >(...)" in shown
    assert "compute_86 (900 B)" in shown


def test_plain_output_cuts_no_names(capsys: pytest.CaptureFixture[str]) -> None:
    unit = {**UNITS["binaries"][0]["units"][0], "kernels": ["_Z" + "x" * 20_000]}
    binary = {**UNITS["binaries"][0], "units": [unit]}
    show_inspection({**UNITS, "binaries": [binary]})
    assert "\n    _Z" + "x" * 20_000 + "\n" in capsys.readouterr().out


def test_verification(capsys: pytest.CaptureFixture[str]) -> None:
    show_verification(VERIFICATION)
    check_snapshot("verification", capsys.readouterr().out)


def test_only_the_first_of_many_findings_and_errors_are_shown_with_details(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [f"line {number}" for number in range(9)]
    found = [finding("warning", what, f"{what}.so", *lines) for what in ("one", "two")]
    found.append(finding("wrong", "three", "three.so", *lines))
    check = {"name": "imports", "result": "wrong", "findings": found}
    show_verification({**VERIFICATION, "checks": [check]})
    shown = capsys.readouterr().out
    assert shown.count("line 2\n") == 1, "of the error, which comes first"
    assert shown.count("(--all shows more)\n") == 2
    show_verification({**VERIFICATION, "checks": [check]}, everything=True)
    assert capsys.readouterr().out.count("line 8\n") == 3


def test_verification_on_a_narrow_terminal(
    narrow: None, capsys: pytest.CaptureFixture[str]
) -> None:
    show_verification(VERIFICATION)
    check_snapshot("verification-narrow", capsys.readouterr().out)


def test_text_from_a_wheel_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    check = {"name": "names", "result": "wrong"}
    findings = [finding("wrong", HOSTILE, HOSTILE, HOSTILE)]
    show_verification({**VERIFICATION, "checks": [{**check, "findings": findings}]})
    unit = {**UNITS["binaries"][0]["units"][0], "kernels": [HOSTILE]}
    show_inspection({**UNITS, "binaries": [{**UNITS["binaries"][0], "units": [unit]}]})
    shown = capsys.readouterr().out
    assert {char for char in shown if not char.isprintable()} == {"\n"}
    assert shown.count("evil\\x1b[31m\\x07name") == 4


def test_every_check_has_a_title() -> None:
    """Those of the schema, also the ones that are made only where they are asked for."""
    schema = schema_of("verify")
    names = schema["$defs"]["check"]["properties"]["name"]["enum"]
    assert {"signature", "import", "gpu"} <= set(names)
    assert set(names) == set(reports._TITLES)
