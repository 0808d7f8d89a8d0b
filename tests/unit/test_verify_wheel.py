"""Checking finished wheels, with fatbins that NVIDIA's fatbinary made: each holds one container
with sm_80, compute_80, sm_90a and sm_120f (data/device/README.md)."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from fatwheel.errors import FormatError, VerifyError
from fatwheel.model import Front, Recipe, Source, Target, Toolchain
from fatwheel.verify.wheel import check_wheel

from .standins import DATA, front

NONE, LZ4 = ((DATA / f"{name}.fatbin").read_bytes() for name in ("none", "lz4"))
ALL = (front("80", "sm_80", "compute_80"), front("90a"), front("120f"))


def wheel(folder: Path, version: str = "1.0+cu130", **binaries: bytes) -> Path:
    path = folder / f"demo-{version}-py3-none-any.whl"
    info = f"demo-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as out:
        for name, data in binaries.items():
            out.writestr(f"demo/{name}.bin", data)
        out.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: demo\nVersion: {version}\n")
        out.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        out.writestr(f"{info}/RECORD", "")
    return path


def check(path: Path, *fronts: Front) -> None:
    recipe = Recipe(
        name="demo", project="demo", version="1.0", source=Source(folder=path.parent),
        archs=("80",), environment={}, imports=(), memory=0, seconds=0, costs=(), epoch=0,
        folder=path.parent, digest="",
    )  # fmt: skip
    tools = Toolchain("t", "linux-x86_64", "13.0", "13.0.88", (), (9, 15), (), (), "")
    check_wheel(path, Target(recipe, tools, "3.11", "2.11", ()), fronts)


def refusal(path: Path, *fronts: Front) -> VerifyError:
    with pytest.raises(VerifyError) as caught:
        check(path, *fronts)
    return caught.value


def test_a_wheel_with_all_images_in_all_units_passes(tmp_path: Path) -> None:
    check(wheel(tmp_path, one=NONE, two=NONE + NONE), *ALL)


def test_images_need_not_all_be_compressed(tmp_path: Path) -> None:
    """fatbinary stores as it is what compressing would not make smaller."""
    check(wheel(tmp_path, one=NONE + LZ4), *ALL)


def test_binaries_without_device_code_do_not_matter(tmp_path: Path) -> None:
    check(wheel(tmp_path, one=NONE, host=b"only the host's code"), *ALL)


def test_an_image_that_is_missing_is_named_with_its_binary(tmp_path: Path) -> None:
    error = refusal(wheel(tmp_path, one=NONE, two=NONE), *ALL, front("86"))
    assert error.details == (
        "demo/one.bin: sm_86 is in 0 of 1 units", "demo/two.bin: sm_86 is in 0 of 1 units",
    )  # fmt: skip
    assert "sm_86" in (error.hint or "")
    assert error.exit_code == 13


def test_an_image_must_be_in_every_unit(tmp_path: Path) -> None:
    # The same container with sm_80 renamed to sm_86 in its entry header (u32 at 0x1C).
    start = 16
    other = NONE[: start + 0x1C] + b"\x56" + NONE[start + 0x1D :]
    error = refusal(wheel(tmp_path, one=NONE + other), *ALL)
    assert error.details == ("demo/one.bin: sm_80 is in 1 of 2 units",)


def test_a_wheel_without_device_code_is_refused(tmp_path: Path) -> None:
    error = refusal(wheel(tmp_path, text=b"nothing"), *ALL)
    assert error.details == ("no binary in it holds device code",)


@pytest.mark.parametrize("version", ["1.1+cu130", "1.0", "1.0.1+cu130"])
def test_the_version_must_be_the_recipes_with_our_label(tmp_path: Path, version: str) -> None:
    [detail] = refusal(wheel(tmp_path, version, one=NONE), *ALL).details
    assert version in detail
    assert "1.0" in detail


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    error = refusal(wheel(tmp_path, "2.0+x", one=NONE), *ALL, front("86"), front("89"))
    assert len(error.details) == 3


def test_a_damaged_wheel_is_a_format_error(tmp_path: Path) -> None:
    path = wheel(tmp_path, one=NONE)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FormatError):
        check(path, *ALL)
