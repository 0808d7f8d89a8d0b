"""How the report of compare looks, on terminals and elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from fatwheel.cli.reports import show_comparison
from fatwheel.compare.differences import Difference, Position

from ...helpers.mangled import LONG, needs_library
from .test_ui import HOSTILE, check_snapshot, narrow

assert narrow  # a fixture

MODULE = "flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so"
INFO = "flash_attn-2.8.3.dist-info"
DEVICE = Position(MODULE, ".nv_fatbin")
IMAGE = DEVICE.at(container=17, unit="csrc/flash_attn/src/flash_bwd_hdim128", image="sm_86")
DIFFERENCES = (
    Difference("pins", "ninja (build): 1.13.2 ninja-1.13.2-py3-none-any.whl (sha256 65a2) became "
               "1.13.1 ninja-1.13.1-py3-none-any.whl (sha256 17f0)",
               Position(f"{INFO}/fatwheel.lock.json")),
    Difference("files", "only in the second: 12 bytes", Position("flash_attn/extra.py")),
    Difference("modes", "permissions", Position("flash_attn/tool.py"), "644", "755"),
    Difference("binary", "its device code and the host's part differ", Position(MODULE)),
    Difference("section", "34448 bytes in both; the first that differs is at 0x1f0", DEVICE),
    Difference("unit", "only in the first: sm_80, sm_86", DEVICE.at(container=3, unit="csrc/x")),
    Difference("image", "only in the second", DEVICE.at(container=4, image="sm_90")),
    Difference("kernel", "SASS in 1 of 24 instructions: 384 bytes in both; the first that differs "
               "is at 0x33", IMAGE.at(symbol=LONG)),
    Difference("kernel", "constants in bank 0: 372 bytes in both; the first that differs is at "
               "0x10", IMAGE.at(symbol=LONG)),
    Difference("debug", "notes and debug information, which no GPU reads: .note.nv.tkinfo", IMAGE,
               "-arch sm_86 --generate-line-info", "-arch sm_86"),
    Difference("section", "23 bytes in both; the first that differs is at 0x2",
               Position(MODULE, ".text")),
    Difference("function", "97 bytes became 99; the first that differs is at 0x8",
               Position(MODULE, ".text", symbol="PyInit_flash_attn_2_cuda")),
    Difference("text", "line 3", Position(f"{INFO}/METADATA"), "Version: 2.8.3", "Version: 2.8.4"),
    Difference("text", "line 9, only in the second", Position(f"{INFO}/METADATA"), None,
               "Dynamic: x"),
    Difference("archive", "the time of flash_attn/a.py and 30 more", Position(),
               "2026-01-01 00:00:00", "2026-01-02 00:00:00"),
)  # fmt: skip


def report(*differences: Difference, **more: Any) -> dict[str, Any]:
    return {
        "one": {"file": "flash_attn-2.8.3.whl", "size": 300 << 20, "sha256": "a" * 64},
        "other": {"file": "flash_attn-2.8.3.whl", "size": 301 << 20, "sha256": "b" * 64},
        "identical": False,
        "level": "pins",
        "same": 31,
        "differences": [each.to_json() for each in differences],
        "follows": [f"{INFO}/RECORD", f"{INFO}/fatwheel.json"],
        "more": False,
        "diffoscope": None,
        **more,
    }


@needs_library
def test_everything(capsys: pytest.CaptureFixture[str]) -> None:
    words = "\n".join(f"line {n} of diffoscope" for n in range(1, 40))
    show_comparison(report(*DIFFERENCES, diffoscope=words, more=True))
    check_snapshot("comparison", capsys.readouterr().out)


@needs_library
def test_a_narrow_terminal_cuts_names_and_nothing_else(
    narrow: None, capsys: pytest.CaptureFixture[str]
) -> None:
    show_comparison(report(*DIFFERENCES))
    shown = capsys.readouterr().out
    check_snapshot("comparison-narrow", shown)
    assert LONG not in shown
    assert "SASS in 1 of 24 instructions" in shown.replace("\n", " ")


def test_identical(capsys: pytest.CaptureFixture[str]) -> None:
    show_comparison(report(identical=True, level=None))
    assert capsys.readouterr().out == f"identical: sha256 {'a' * 64}\n"


def test_it_is_a_screen_at_most(capsys: pytest.CaptureFixture[str]) -> None:
    many = [
        Difference("text", f"line {line}", Position(f"demo/{file}.py"), "a", "b")
        for file in range(50)
        for line in range(50)
    ]
    show_comparison(report(*many))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 60
    assert "  and 134 more lines: see --json" in lines, "of 50 times three lines, 16 are shown"
    assert "and 47 more: see --json" in lines


def test_text_from_a_wheel_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    place = Position(HOSTILE, HOSTILE, 1, HOSTILE, HOSTILE, HOSTILE)
    show_comparison(
        report(
            Difference("kernel", HOSTILE, place, HOSTILE, HOSTILE),
            diffoscope=HOSTILE,
            follows=[HOSTILE],
        )
    )
    shown = capsys.readouterr().out
    assert {char for char in shown if not char.isprintable()} == {"\n"}
    assert shown.count("evil\\x1b[31m\\x07name") == 10
