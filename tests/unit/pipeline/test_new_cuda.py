"""A CUDA that nobody has seen: ten lines of data, and everything works with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.cli.plans import show_plan
from fatwheel.containers import render as render_module
from fatwheel.containers.render import render
from fatwheel.doctor import engine as engines
from fatwheel.doctor import network
from fatwheel.doctor.report import diagnose
from fatwheel.engines import dockerplan
from fatwheel.errors import ToolchainError
from fatwheel.events import silent
from fatwheel.pipeline import resolve as resolve_module
from fatwheel.pipeline.plan import BuildPlan, BuildRequest, plan_build
from fatwheel.pipeline.resolve import ToolchainRequest, choose_cells
from fatwheel.toolchain import environment
from fatwheel.toolchain.environment import host_compiler_for
from fatwheel.toolchain.pipconfig import PipConfig

from ...helpers.someparts import CUDA_99, add_part, write_parts, write_toolchain
from ...helpers.workstations import NO_ENGINE

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_toolchain(write_parts(tmp_path), "linux-cuda13.0")
    add_part(tmp_path, "cuda/99.1.0", CUDA_99)
    for name in ("linux-x86_64", "win-amd64"):
        text = (tmp_path / f"parts/images/{name}.toml").read_text().replace("3.11", "3.12")
        add_part(tmp_path, f"images/{name}", text)
    for module in (resolve_module, dockerplan, environment):
        monkeypatch.setattr(module, "toolchain_folders", lambda: (tmp_path,))
    return tmp_path


def planned(platform: str, engine: str | None = None) -> BuildPlan:
    return plan_build(
        BuildRequest(
            kernel=str(ROOT / "kernels" / "selftest"), archs="90,990a", pythons=None, torch=None,
            toolchain=None, engine=engine, shards=None, jobs=None, memory=None, front="exact",
            out=Path("dist"), cuda="99.1", platform=platform,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("platform", "engine", "tag"),
    [
        ("linux-x86_64", "process", "linux_x86_64"),
        ("linux-x86_64", "docker", "linux_x86_64"),
        ("windows-x86_64", "docker", "win_amd64"),
    ],
)
def test_a_plan(platform: str, engine: str, tag: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = planned(platform, engine)
    [wheel] = plan.wheels
    assert wheel.name.filename == (
        f"fatwheel_selftest-1.0.0+cu991torch99.2.sm90.sm990a-cp312-cp312-{tag}.whl"
    )
    assert [front.codes for front in plan.fronts] == [("sm_90",), ("sm_990a",)]
    assert bool(plan.footprint.images) == (engine == "docker")
    show_plan(plan)
    assert "CUDA 99.1, nvcc 99.1.7" in capsys.readouterr().out


def test_dockerfiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render_module, "fetch", pytest.fail)
    cells = choose_cells(
        ToolchainRequest("linux-cuda13.0", cudas="99.1", platform="windows-x86_64")
    )
    made = render(cells, {}, tmp_path / "contexts", None, silent)
    texts = [(one.folder / "Dockerfile").read_text() for one in made]
    assert any("cuda_nvcc-windows-x86_64-99.1.7-archive.zip" in text for text in texts)


def test_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "read_pip_config", lambda: PipConfig(find_links=("/nowhere",)))
    monkeypatch.setattr(network, "ask_places", lambda missing: [])
    monkeypatch.setattr(engines, "ask_engine", lambda: NO_ENGINE)
    report = diagnose(ToolchainRequest(cudas="99.1", pythons="3.12"), "process")
    assert report.toolchain == "cuda99.1.0-linux-x86_64"
    assert report.python == "3.12"


def test_a_compiler_too_new_for_one_cuda_is_taken_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(cuda: str, gcc: tuple[int, int]) -> None:
        raise ToolchainError("no C++ compiler", hint=f"install g++ {gcc[0]} to {gcc[1]}")

    monkeypatch.setattr(environment, "find_host_compiler", refuse)
    for cuda, more in (("12.6", "; or: CUDA 99.1 takes g++ up to 40: --cuda 99.1"), ("99.1", "")):
        [cell] = choose_cells(ToolchainRequest("linux-cuda13.0", cudas=cuda))
        with pytest.raises(ToolchainError) as caught:
            host_compiler_for(cell.toolchain)
        assert (caught.value.hint or "").endswith(f"to {cell.toolchain.gcc[1]}{more}")  # type: ignore[index]
