"""What a capture says of a project, and which projects are not what their recipes say."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from fatwheel.arch import Arch, ArchRequest
from fatwheel.config.recipe import Target
from fatwheel.errors import UpstreamError
from fatwheel.model import Unit
from fatwheel.pipeline.capture import CaptureReport, check_named
from fatwheel.pipeline.plan import exact_fronts

from ...helpers.plaintargets import plain_recipe, plain_toolchain
from ...helpers.schemas import schema_of

ARCHS = (ArchRequest(Arch(80), ptx=True), ArchRequest(Arch(90, "a")))


@pytest.fixture
def target(tmp_path: Path) -> Target:
    recipe = plain_recipe(tmp_path, project="demo_ext", version="1.2.0")
    return Target(recipe, plain_toolchain(), "3.11", "2.11.0", ARCHS)


def test_a_report_is_as_its_schema_says(target: Target) -> None:
    units = (
        Unit("csrc/a", "cuda", "@src@/csrc/a.cu", ("-O3",), ("-D", "A"), ("sm_80",), ()),
        Unit("csrc/b", "cuda", "@src@/csrc/b.cu", (), (), ("sm_90a",)),
        Unit("csrc/c", "c++", "@src@/csrc/c.cpp", (), ()),
    )
    fronts = exact_fronts(ARCHS)
    report = CaptureReport(
        target, fronts, units, (("g++", "a.o"),), "demo-1-cp311-cp311-any.whl", ("x",)
    )
    found = json.loads(json.dumps(report.to_json()))
    jsonschema.Draft202012Validator(schema_of("capture")).validate(found)
    assert [(unit["own"], unit["images"]) for unit in found["units"]] == [
        (["sm_80"], []), (["sm_90a"], ["sm_80", "compute_80", "sm_90a"]), ([], []),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wheel",
    [
        "demo_ext-1.2.0-cp311-cp311-linux_x86_64.whl",
        "demo.ext-1.2.0-cp311-cp311-linux_x86_64.whl",
        "demo_ext-1.2.0+torch211cu130-cp311-cp311-linux_x86_64.whl",
        "demo_ext-1.2.0-cp39-abi3-linux_x86_64.whl",
        "demo_ext-1.2.0-py3-none-linux_x86_64.whl",
    ],
)
def test_a_project_that_is_what_the_recipe_says(target: Target, wheel: str) -> None:
    check_named(wheel, target)


@pytest.mark.parametrize(
    ("wheel", "what"),
    [
        ("demo_ext-1.2.1-cp311-cp311-linux_x86_64.whl", "builds demo_ext 1.2.1, and the recipe"),
        ("demo-1.2.0-cp311-cp311-linux_x86_64.whl", "builds demo 1.2.0, and the recipe says"),
        ("demo_ext-0.0.0-py3-none-any.whl", "builds demo_ext 0.0.0"),
        ("demo_ext-1.2.0-py3-none-any.whl", "tagged py3-none-any"),
        ("demo_ext-1.2.0-cp312-cp312-linux_x86_64.whl", "tagged cp312-cp312-linux_x86_64"),
        ("demo_ext-1.2.0-cp312-abi3-linux_x86_64.whl", "tagged cp312-abi3"),
        ("demo.whl", "named its wheel 'demo.whl'"),
    ],
)
def test_a_project_that_is_another(target: Target, wheel: str, what: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        check_named(wheel, target)
    assert what in caught.value.what
