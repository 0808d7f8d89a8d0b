"""Checking finished wheels, with fatbins that NVIDIA's fatbinary made: each holds one container
with sm_80, compute_80, sm_90a and sm_120f (data/device/README.md)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.config.recipe import Target
from fatwheel.errors import FormatError, VerifyError
from fatwheel.model import Front
from fatwheel.verify.report import check_wheel

from ...helpers.cudawheels import LABEL, LZ4, NONE, Linker
from ...helpers.plaintargets import plain_recipe, plain_toolchain
from ...helpers.standins import front
from ...helpers.tinywheels import Draft

ALL = (front("80", "sm_80", "compute_80"), front("90a"), front("120f"))


def wheel(folder: Path, version: str = f"1.0+{LABEL}", **binaries: bytes) -> Path:
    files = {f"demo/{name}.fatbin": data for name, data in binaries.items()}
    return Draft(version=version, tag="py3-none-any", files=files).write(folder)


def check(path: Path, *fronts: Front) -> tuple[str, ...]:
    recipe = plain_recipe(path.parent)
    tools = plain_toolchain(name="t")
    return check_wheel(path, Target(recipe, tools, "3.11", "2.11", ()), fronts)


def refusal(path: Path, *fronts: Front) -> VerifyError:
    with pytest.raises(VerifyError) as caught:
        check(path, *fronts)
    return caught.value


def test_a_wheel_with_all_images_in_all_units_passes(tmp_path: Path) -> None:
    check(wheel(tmp_path, one=NONE, two=NONE + NONE), *ALL)


def test_what_verify_warns_of_a_second_libstdcxx_is_said_of_a_new_wheel(
    tmp_path: Path, tool: Callable[[str], str]
) -> None:
    library = Linker(tmp_path, tool).library(NONE, ["_ZNSt6locale7classicEv"])
    files = {"demo/libdemo.so": library}
    draft = Draft(version=f"1.0+{LABEL}", tag="py3-none-linux_x86_64", files=files)
    told, _ = check(draft.write(tmp_path), *ALL)
    assert told.startswith("demo/libdemo.so: it holds libstdc++")


def test_images_need_not_all_be_compressed(tmp_path: Path) -> None:
    """fatbinary stores as it is what compressing would not make smaller."""
    check(wheel(tmp_path, one=NONE + LZ4), *ALL)


def test_binaries_without_device_code_do_not_matter(tmp_path: Path) -> None:
    check(wheel(tmp_path, one=NONE, host=b"only the host's code"), *ALL)


def test_an_image_that_is_missing_is_named_with_its_binary(tmp_path: Path) -> None:
    error = refusal(wheel(tmp_path, one=NONE, two=NONE), *ALL, front("86"))
    assert error.details == (
        "demo/one.fatbin: sm_86 is in 0 of 1 units", "demo/two.fatbin: sm_86 is in 0 of 1 units",
    )  # fmt: skip
    assert "sm_86" in (error.hint or "")
    assert error.exit_code == 13


def test_an_image_must_be_in_every_unit(tmp_path: Path) -> None:
    # The same container with sm_80 renamed to sm_86 in its entry header (u32 at 0x1C).
    start = 16
    other = NONE[: start + 0x1C] + b"\x56" + NONE[start + 0x1D :]
    error = refusal(wheel(tmp_path, one=NONE + other), *ALL)
    assert "demo/one.fatbin: sm_80 is in 1 of 2 units" in error.details


def test_a_wheel_without_device_code_is_refused(tmp_path: Path) -> None:
    error = refusal(wheel(tmp_path, "1.0+cu130", text=b"nothing"), *ALL)
    assert error.details == ("no binary in it holds device code",)


@pytest.mark.parametrize("version", [f"1.1+{LABEL}", "1.0", f"1.0.1+{LABEL}"])
def test_the_version_must_be_the_recipes_with_our_label(tmp_path: Path, version: str) -> None:
    [detail] = refusal(wheel(tmp_path, version, one=NONE), *ALL).details
    assert version in detail
    assert "1.0" in detail


def test_what_any_wheel_must_be_a_finished_one_must_be_too(tmp_path: Path) -> None:
    """The label lacks an architecture, and RECORD has another hash."""
    files = {"demo/one.fatbin": NONE}
    rows: dict[str, str | None] = {"demo/one.fatbin": f"demo/one.fatbin,sha256=AA,{len(NONE)}"}
    draft = Draft(version="1.0+cu130.sm80.ptx.sm90a", tag="py3-none-any", files=files, rows=rows)
    details = "\n".join(refusal(draft.write(tmp_path), *ALL).details)
    assert "only inside: sm_120f" in details
    assert "demo/one.fatbin: its sha256 is not the one in RECORD" in details


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    error = refusal(wheel(tmp_path, "2.0+x", one=NONE), *ALL, front("86"), front("89"))
    assert len(error.details) == 3


def test_a_damaged_wheel_is_a_format_error(tmp_path: Path) -> None:
    path = wheel(tmp_path, one=NONE)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FormatError):
        check(path, *ALL)
