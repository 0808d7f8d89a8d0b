"""How inspect shows device code that libraries load themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fatwheel import text
from fatwheel.cli.reports import DATA_FILES_SHOWN, show_inspection
from fatwheel.verify.inspect import inspect_file, inspect_units

from ...helpers.cudawheels import NONE, ZSTD
from ...helpers.datasections import elf_library, pe_library
from ...helpers.deviceimages import write_wheel
from ...helpers.standins import DATA

CUBIN = (DATA / "cuda13.0-sm_90a.cubin").read_bytes()


def shown(report: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    show_inspection(report)
    return capsys.readouterr().out


def test_a_library_with_such_code_is_not_without_gpu_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.dll").write_bytes(pe_library({".cask_re": ZSTD + ZSTD + CUBIN}))
    out = shown(inspect_file(tmp_path / "a.dll"), capsys)
    assert "2 containers and 1 cubin in .cask_re (" in out
    assert "): loaded by the library itself, not known for which GPUs\n" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["sm_80", "cubin", "2", "1.7", "KiB,", "compressed"] in lines  # 2 of 894 bytes
    assert out.count("not known: loaded by the library") >= 8
    size = text.size(2 * len(ZSTD) + len(CUBIN))
    assert f"not counted: {size} of code that libraries load themselves\n" in out
    assert "no GPU code" not in out
    assert "none" not in out


def test_relocatable_code_is_named_as_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = elf_library({".nv_fatbin": ZSTD, "__nv_relfatbin": NONE})
    (tmp_path / "a.so").write_bytes(library)
    out = shown(inspect_file(tmp_path / "a.so"), capsys)
    assert "1 container in __nv_relfatbin (" in out
    assert "relocatable, what the code above was linked from\n" in out
    assert "not known" not in out


@pytest.mark.parametrize("more", [0, 1])
def test_many_files_of_device_code_alone_are_shown_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: int
) -> None:
    count = DATA_FILES_SHOWN + more
    files = {f"demo/{number}.cubin": CUBIN for number in range(count - 1)}
    wheel = write_wheel(tmp_path, {**files, "demo/a.so": elf_library({}), "demo/b.fatbin": ZSTD})
    out = shown(inspect_file(wheel), capsys)
    assert ("demo/0.cubin" in out) == (not more)
    together = f"{count - 1} cubin and 1 fatbin files with {2 * count} kernels: libraries load them"
    assert (together in out) == bool(more)
    lines = [line.split()[:3] for line in out.splitlines()]
    assert (["sm_90a", "cubin", str(count - 1)] in lines) == bool(more)
    assert "demo/a.so" in out
    stored = 894 + 211 + 965 + 1333  # of the fatbin's images
    size = text.size((count - 1) * len(CUBIN) + stored)
    assert f"not counted: {size} of code that libraries load themselves\n" in out
    units = shown(inspect_units(wheel), capsys)
    assert "demo/0.cubin" in units, "who asks for units gets each file"
