"""What a build would do: said of the real toolchains and recipes, and nothing is started for it."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import jsonschema
import pytest

from fatwheel.config.toolchain import Cell, Toolchain
from fatwheel.containers.render import render
from fatwheel.engines.base import Limits
from fatwheel.errors import UsageError
from fatwheel.events import silent
from fatwheel.pipeline import plan as plan_module
from fatwheel.pipeline.plan import BuildPlan, BuildRequest, codes_of, plan_build
from fatwheel.wheels.name import parse_wheel_name

from ...helpers.schemas import schema_of
from ...helpers.toolchains import shipped_toolchain

GIB = 2**30
WINDOWS = "windows-msvc17.8-cuda12.3"
LINUX = "linux-cuda13.0"
# Sum of the pins of CUDA 12.3.2 for Windows in the toolchain's file, and of nothing else: bytes.
CUDA = 982_504_457


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of 16 cores with 80 GiB free, on which nothing can be started or asked."""

    def forbidden(*arguments: object, **options: object) -> NoReturn:
        raise AssertionError(f"a plan starts nothing and asks nobody: {arguments}")

    cache = tmp_path / "cache"
    monkeypatch.setenv("FATWHEEL_CACHE", str(cache))
    monkeypatch.delenv("FATWHEEL_BASES", raising=False)
    monkeypatch.setattr(plan_module, "cores", lambda: 16)
    monkeypatch.setattr(plan_module, "free_memory", lambda: 80 * GIB)
    monkeypatch.setattr(subprocess, "Popen", forbidden)
    monkeypatch.setattr(socket, "socket", forbidden)
    return cache


def request_for(**changes: Any) -> BuildRequest:
    """flash-attn for 80, 86 and 89+ptx and both Pythons on Windows, unless changed."""
    wanted: dict[str, Any] = {
        "kernel": "flash-attn",
        "archs": "80,86,89+ptx",
        "pythons": "3.10,3.11",
        "torch": None,
        "toolchain": WINDOWS,
        "engine": None,
        "shards": None,
        "jobs": None,
        "memory": None,
        "front": "auto",
        "out": Path("dist"),
    }
    return BuildRequest(**{**wanted, **changes})


def purposes(plan: BuildPlan, python: str) -> list[tuple[str, int]]:
    return [
        (group.purpose, group.most) for group in plan.footprint.containers if group.python == python
    ]


# -- the original release ------------------------------------------------------------------------


def test_the_original_release_is_two_wheels_with_device_code_compiled_once() -> None:
    plan = plan_build(request_for())
    assert [wheel.name.filename for wheel in plan.wheels] == [
        "flash_attn-2.3.6+cu123torch2.1.sm80.sm86.sm89.ptx-cp310-cp310-win_amd64.whl",
        "flash_attn-2.3.6+cu123torch2.1.sm80.sm86.sm89.ptx-cp311-cp311-win_amd64.whl",
    ]
    assert plan.engine.name == "docker"
    assert plan.first.torch == "2.1.1"
    assert plan.to_json()["compiler"] == "cl 19.38.33130 (Visual Studio 17.8.2)"
    assert plan.device_containers[0] == 3
    assert plan.device_containers[1] == 0
    assert [purpose for purpose, _ in purposes(plan, "3.10")] == [
        "capture", "shard 1:compute_89", "shard 2:compute_80", "shard 3:compute_86", "assemble",
    ]  # fmt: skip
    assert purposes(plan, "3.11") == [
        ("capture", 1), ("shards", 0), ("shards", 3), ("assemble", 1),
    ]  # fmt: skip


def test_the_planned_names_are_those_of_wheels() -> None:
    for wheel in plan_build(request_for()).wheels:
        name = parse_wheel_name(wheel.name.filename)
        assert name.platform == "win_amd64"
        assert name.python == name.abi == f"cp{wheel.target.python.replace('.', '')}"


def test_images_are_planned_once_each_in_an_order_in_which_they_can_be_made() -> None:
    plan = plan_build(request_for())
    assert [(image.kind, image.pythons) for image in plan.footprint.images] == [
        ("toolchain", ("3.10", "3.11")),
        ("env", ("3.10",)),
        ("env", ("3.11",)),
    ]
    toolchain, *environments = plan.footprint.images
    assert toolchain.base.startswith("mcr.microsoft.com/windows/servercore:ltsc2022")
    assert [image.base for image in environments] == [toolchain.tag, toolchain.tag]
    assert [*plan.footprint.image_of] == [image.tag for image in environments]
    assert {group.image for group in plan.footprint.containers} == {
        image.tag for image in environments
    }
    assert toolchain.size >= CUDA, "CUDA's archives go into the toolchain image"
    assert all(image.files > 0 for image in plan.footprint.images)


def test_what_is_not_locked_is_said() -> None:
    """As the file stands, or will stand when `invoke lock` has run: then there is nothing."""
    toolchain = shipped_toolchain(WINDOWS)
    plan = plan_build(request_for())
    unlocked = unlocked_files(toolchain, "2.1.1")
    assert set(plan.footprint.unlocked) >= unlocked
    extra = set(plan.footprint.unlocked) - unlocked
    bases = toolchain.containers.bases if toolchain.containers else ()
    assert extra == {base.reference for base in bases if not base.digest}
    assert plan.footprint.final_tags == (not plan.footprint.unlocked)


def unlocked_files(toolchain: Toolchain, torch: str) -> set[str]:
    files = [*toolchain.packages, *toolchain.cuda_files]
    files += [interpreter.download for interpreter in toolchain.interpreters]
    files += [package for build in toolchain.builds for package in build.packages
              if build.torch == torch]  # fmt: skip
    assert toolchain.msvc is not None
    files += toolchain.msvc.payloads
    return {file.filename for file in files if not file.sha256}


def test_commands_build_the_folders_that_render_makes(tmp_path: Path) -> None:
    plan = plan_build(request_for())
    toolchain = shipped_toolchain(WINDOWS)
    cells = [Cell(toolchain, python, "2.1.1") for python in ("3.10", "3.11")]
    rendered = render(cells, {}, tmp_path, None, silent)
    folders = ["contexts\\" + "\\".join(one.folder.relative_to(tmp_path).parts) for one in rendered]
    assert sorted(image.command.split()[-1] for image in plan.footprint.images) == sorted(folders)
    assert plan.footprint.render == (
        f"invoke render --fetch --toolchain {WINDOWS} --python 3.10,3.11 --torch 2.1.1"
    )


# -- limits --------------------------------------------------------------------------------------


def test_all_shards_together_stay_within_the_memory_of_the_build() -> None:
    plan = plan_build(request_for())
    shards = [group for group in plan.footprint.containers if group.compiles]
    assert plan.at_once == 3
    assert plan.at_once * max(group.memory for group in shards) <= 80 * GIB
    assert {group.cpus for group in shards} == {16}


def test_a_small_machine_works_on_fewer_shards_at_a_time() -> None:
    """flash-attn's largest job takes 4.9 GB by its recipe: two do not fit into 8 GiB."""
    plan = plan_build(request_for(memory=8 * GIB, jobs=2))
    assert plan.at_once == 1
    assert {group.memory for group in plan.footprint.containers} == {8 * GIB}
    assert {group.cpus for group in plan.footprint.containers} == {2}
    assert plan.limits == Limits(2, 8 * GIB)


def test_shards_can_be_more_than_fronts() -> None:
    plan = plan_build(request_for(shards=5, pythons="3.10"))
    assert len(plan.shards) == plan.device_containers[0] == 5
    codes = {code for shard in plan.shards for code in codes_of(shard)}
    assert codes == {"sm_80", "sm_86", "sm_89", "compute_89"}


@pytest.mark.parametrize("toolchain", [WINDOWS, LINUX])
def test_the_command_of_every_container_has_its_limits(toolchain: str) -> None:
    pythons = "3.10,3.11"
    plan = plan_build(request_for(toolchain=toolchain, engine="docker", pythons=pythons))
    for group in plan.footprint.containers:
        if not group.most:
            assert group.command == ""
            continue
        assert f" --memory {group.memory} " in group.command
        assert f" {group.image} " in group.command
        assert " --network none " in group.command
        cpus = "--cpu-count" if toolchain == WINDOWS else "--cpus"
        assert f" {cpus} {group.cpus} " in group.command


def test_one_mount_of_each_container_can_be_written() -> None:
    plan = plan_build(request_for(toolchain=LINUX, engine="docker", pythons="3.11"))
    for group in plan.footprint.containers:
        mounts = [word for word in group.command.split() if word.startswith("type=bind")]
        writable = [mount for mount in mounts if not mount.endswith(",readonly")]
        assert len(mounts) == 4
        assert len(writable) == 1
        assert writable[0].endswith("target=/fatwheel/incoming")


# -- other builds --------------------------------------------------------------------------------


def test_linux_wheels_are_planned_in_processes() -> None:
    plan = plan_build(request_for(toolchain=LINUX, pythons="3.11"))
    assert plan.engine.name == "process"
    assert [wheel.name.filename for wheel in plan.wheels] == [
        "flash_attn-2.3.6+cu130torch2.11.sm80.sm86.sm89.ptx-cp311-cp311-linux_x86_64.whl"
    ]
    assert plan.footprint.images == plan.footprint.containers == ()
    assert [wheel["image"] for wheel in plan.to_json()["wheels"]] == [""]
    assert (plan.limits, plan.at_once) == (Limits(16, 80 * GIB), 3)
    assert plan.footprint.final_tags


def test_shared_fronts_are_planned_as_they_are_built() -> None:
    plan = plan_build(request_for(front="shared"))
    assert [(front.virtual.compute, front.codes) for front in plan.fronts] == [
        ("compute_80", ("sm_80", "sm_86", "sm_89")),
        ("compute_89", ("compute_89",)),
    ]
    assert {code for shard in plan.shards for code in codes_of(shard)} == {
        "sm_80", "sm_86", "sm_89", "compute_89",
    }  # fmt: skip


def test_a_fast_build_shares_and_splits() -> None:
    plan = plan_build(request_for(front=None, fast=True))
    assert plan.front == "fast"
    assert [(front.key, front.codes) for front in plan.fronts] == [
        ("80 split 4", ("sm_80", "sm_86", "sm_89")),
        ("89 split 4", ("compute_89",)),
    ]


def test_a_base_of_ones_own_is_what_the_image_is_built_on(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = request_for(toolchain=LINUX, engine="docker", pythons="3.11")
    monkeypatch.setenv("FATWHEEL_BASES", "3.11=my-bookworm:1,3.13=other")
    plan = plan_build(wanted)
    assert plan.footprint.images[0].base == "my-bookworm:1"
    assert not plan.footprint.final_tags, (
        "a build covers the image's id, which only the engine knows"
    )


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"front": "best"}, "--front"),
        ({"front": "fast"}, "--front"),
        ({"front": "exact", "fast": True}, "--fast --front exact"),
        ({"front": "auto", "fast": True}, "--fast --front auto"),
        ({"audit": "often"}, "--audit"),
        ({"engine": "podman"}, "--engine"),
        ({"archs": "79"}, "--arch 79"),
        ({"pythons": "2.7"}, "--python 2.7"),
        ({"torch": "1.0"}, "--torch 1.0"),
    ],
)
def test_what_cannot_be_built_cannot_be_planned(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_build(request_for(**changes))
    assert caught.value.where == where


def test_a_plan_leaves_nothing_behind(machine: Path) -> None:
    plan_build(request_for()).to_json()
    plan_build(request_for(toolchain=LINUX, engine="process", pythons="3.11")).to_json()
    assert not machine.exists()


@pytest.mark.parametrize("toolchain", [WINDOWS, LINUX, "linux-cuda12.3"])
@pytest.mark.parametrize("front", ["auto", "exact", "shared", "split", None])
def test_every_plan_is_as_the_schema_says(toolchain: str, front: str | None) -> None:
    schema = schema_of("plan")
    request = request_for(toolchain=toolchain, engine="docker", front=front, fast=front is None)
    jsonschema.validate(json.loads(json.dumps(plan_build(request).to_json())), schema)


def test_each_wheel_has_the_drivers_of_its_own_cuda() -> None:
    """NVIDIA, "CUDA Compatibility": CUDA 12 wants driver 525 or newer on Linux, CUDA 13 580."""
    plan = plan_build(
        request_for(
            kernel="selftest", archs="89", pythons=None, toolchain=None, cuda="12.8,13.0",
            platform="linux-x86_64",
        )
    )  # fmt: skip
    drivers = {wheel["cuda"]: wheel["drivers"]["8.9"] for wheel in plan.to_json()["wheels"]}
    assert {cuda: need["reason"] for cuda, need in drivers.items()} == {
        "12.8": "CUDA 12", "13.0": "CUDA 13",
    }  # fmt: skip
    assert drivers["12.8"]["driver"].startswith("525.")
    assert drivers["13.0"]["driver"].startswith("580")
