"""A project that keeps to the limited API of Python and torch's stable ABI, built for real."""

from __future__ import annotations

import json
import zipfile

import pytest

from .conftest import Workbench

pytestmark = pytest.mark.slow

ABI3 = "tests/data/abi3"


def test_one_wheel_for_all_pythons_with_the_oldest_torch(bench: Workbench) -> None:
    """It is built with torch 2.11 for TORCH_TARGET_VERSION 2.10."""
    made = bench.build("--python", "3.11,3.13", kernel=ABI3)
    wheel = made.wheel()
    assert wheel.name == "fatwheel_abi3-1.0+cu130torch2.10.sm80-cp310-abi3-linux_x86_64.whl"
    assert f"{wheel.name} is for Python 3.13 too" in " ".join(made.err.split())
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if name.endswith(".so")] == ["fatwheel_abi3/_C.abi3.so"]

    checked = bench.invoke("verify", str(wheel), "--json")
    assert checked.code == 0, checked.err
    report = json.loads(checked.out)
    [abi] = [check for check in report["checks"] if check["name"] == "abi"]
    assert [finding["what"] for finding in abi["findings"]] == [
        "it keeps to the limited API of Python 3.10",
        "of torch it uses the stable ABI alone: torch 2.10 or newer",
    ]
    assert report["binaries"][0]["drivers"]["8.0"]["driver"] == "580"
