"""What is said of a GPU: machines that have none, units that do not load, cases that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from fatwheel.arch import parse_arch
from fatwheel.doctor.facts import Gpu as Card
from fatwheel.doctor.facts import GpuFacts
from fatwheel.errors import ToolchainError
from fatwheel.trial.children import Ended, Trial
from fatwheel.trial.gpu import (
    ContainerPlace,
    DriverGpu,
    LoadedContainer,
    LoadedWheel,
    Time,
    check_machine,
    figures_of,
    gpu_findings,
    run_script,
    script_figures,
    script_findings,
)
from fatwheel.verify.contents import Archs
from fatwheel.verify.evidence import Finding

from ...helpers.fakecuda import clean_with

GPU = DriverGpu("NVIDIA H200", "9.0", "13.0")
CARD = Card("NVIDIA H200", (9, 0), 150 << 30)
GOOD = Trial(Ended(0, 5.0, ()), "2.11.0", {"demo": 1.5}, {}, 0.4, "", ())
TIMES = (Time("EAGER", 0.25, 0.001), Time("LAZY", 0.02, 0.03))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (GpuFacts(), "there is no NVIDIA driver here"),
        (GpuFacts(cards=1), "there is no NVIDIA driver here, although there is a GPU"),
        (GpuFacts(trouble="nvmlInit_v2 failed"), "does not answer: nvmlInit_v2 failed"),
        (GpuFacts(driver="580.1", cuda=(13, 0)), "driver 580.1 finds no GPU"),
    ],
)
def test_machines_that_cannot_try_it(facts: GpuFacts, message: str) -> None:
    with pytest.raises(ToolchainError, match=message):
        check_machine(facts)


def test_a_machine_that_can() -> None:
    check_machine(GpuFacts(driver="580.1", cuda=(13, 0), gpus=(CARD,)))


def unit(
    how: str, *, cubins: str = "90", ptx: str = "", code: int = 0, linked: bool = False,
    missing: tuple[str, ...] = (), container: int = 0,
) -> LoadedContainer:  # fmt: skip
    archs = Archs(
        frozenset(map(parse_arch, cubins.split())), frozenset(map(parse_arch, ptx.split()))
    )
    place = ContainerPlace(
        "demo/_C.so", container, Path("x"), 0, 1, ("scale", "shift"), archs, linked
    )
    versions = {"90/90": 2} if how == "native" else {"90/80": 2} if how == "jit" else {}
    return LoadedContainer(place, how, code, versions, missing)


def found(*units: LoadedContainer, trial: Trial = GOOD) -> list[Finding]:
    loading = LoadedWheel(GPU, units, TIMES)
    return list(gpu_findings("580.1", loading, {"EAGER": trial, "LAZY": trial}))


def whats(findings: list[Finding], severity: str) -> list[str]:
    return [one.what for one in findings if one.severity == severity]


def test_all_is_native() -> None:
    assert whats(found(unit("native"), unit("native")), "note") == [
        "on NVIDIA H200 (9.0), driver 580.1 for CUDA 13.0",
        "its units load: 2 natively",
        "EAGER: the driver loads all units in 250 ms, their kernels in 1 ms",
        "LAZY: the driver loads all units in 20 ms, their kernels in 30 ms",
        "EAGER: import 1.5 s, then first use of the GPU 0.4 s",
        "LAZY: import 1.5 s, then first use of the GPU 0.4 s",
    ]


def test_units_that_do_not_load() -> None:
    findings = found(unit("native"), unit("none", cubins="80", code=209, container=3))
    [wrong] = [one for one in findings if one.severity == "wrong"]
    assert wrong.what == "1 of its 2 units do not load on this GPU (9.0)"
    assert wrong.where == "demo/_C.so"
    assert wrong.details == ("container 3, with scale: no kernel image for this GPU",)
    assert "its units load: 1 natively, 1 not at all" in whats(findings, "note")


def test_linked_code_may_be_linked_anew() -> None:
    findings = found(unit("none", cubins="80", code=209, linked=True))
    assert whats(findings, "wrong") == []
    assert "1 unit of linked code would be linked again" in whats(findings, "note")


def test_a_driver_that_does_not_do_what_images_promise() -> None:
    findings = found(unit("jit", cubins="90", ptx="80"), unit("jit", cubins="80", ptx="80"))
    [warning] = [one for one in findings if one.severity == "warning"]
    assert warning.details == ("container 0: expected natively, loaded by JIT",)


def test_kernels_that_are_not_found() -> None:
    [warning] = [one for one in found(unit("native", missing=("x",))) if one.severity == "warning"]
    assert warning.what == "the driver does not find some kernels, in 1 of 1 units"


def test_nothing_to_load() -> None:
    assert whats(found(), "warning") == ["it has no device code to load"]


def test_a_gpu_that_cannot_be_used() -> None:
    trial = Trial(
        Ended(1, 5.0, ("CUDA driver version is insufficient",)), "", {}, {}, None, "the GPU", ()
    )
    findings = found(unit("native"), trial=trial)
    assert whats(findings, "wrong") == ["EAGER: the GPU: exit code 1", "LAZY: the GPU: exit code 1"]


def test_figures() -> None:
    loading = LoadedWheel(GPU, (unit("native"), unit("jit", cubins="80", ptx="80")), TIMES)
    figures = figures_of("580.1", loading, {"EAGER": GOOD, "LAZY": GOOD})
    assert figures["binaries"] == [
        {
            "path": "demo/_C.so", "units": 2, "native": 1, "jit": 1, "none": 0,
            "kernels": [
                {"code": "sm_90", "ptx": "compute_80", "count": 2},
                {"code": "sm_90", "ptx": "compute_90", "count": 2},
            ],
        }
    ]  # fmt: skip
    assert figures["modes"][1] == {
        "mode": "LAZY", "containers": 0.02, "kernels": 0.03, "import": 1.5, "first_use": 0.4,
    }  # fmt: skip


# -- a recipe's script ---------------------------------------------------------------------------

LINES = "print('on a GPU, torch 2.11.0')\nprint('bwd fp16 right')\n"


def said_of(folder: Path, script: str) -> tuple[Finding, dict[str, object]]:
    file = folder / "demo" / "verify.py"
    file.parent.mkdir()
    file.write_text(script)
    checked = run_script(clean_with(folder / "clean"), file)
    [finding] = script_findings(checked)
    return finding, script_figures(checked)


def test_a_script_whose_cases_are_right(tmp_path: Path) -> None:
    finding, figures = said_of(tmp_path, f"{LINES}print('fwd   right')")
    assert finding.severity == "note"
    assert finding.what.startswith("demo/verify.py: all 2 cases are right, in ")
    assert figures["cases"] == [{"name": "bwd fp16", "why": ""}, {"name": "fwd", "why": ""}]
    assert figures["exit_code"] == 0


def test_a_script_with_a_wrong_case(tmp_path: Path) -> None:
    finding, _ = said_of(tmp_path, f"{LINES}print('fwd WRONG: off by 1'); raise SystemExit(1)")
    assert (finding.severity, finding.what) == (
        "wrong", "demo/verify.py: 1 of 2 cases are wrong",
    )  # fmt: skip
    assert finding.details == ("fwd: off by 1",)


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("raise SystemExit(77)", "demo/verify.py: torch sees no GPU"),
        (f"{LINES}raise SystemExit(1)", "demo/verify.py: exit code 1"),
        (f"{LINES}import os; os.abort()", "demo/verify.py: ended by SIGABRT"),
        ("print('nothing')", "demo/verify.py checked nothing"),
        ("import no_such_module", "demo/verify.py: exit code 1"),
        ("print('a WRONG: b')", "demo/verify.py: 1 of 1 cases are wrong"),
    ],
)
def test_scripts_that_prove_nothing(tmp_path: Path, script: str, what: str) -> None:
    finding, _ = said_of(tmp_path, script)
    assert (finding.severity, finding.what) == ("wrong", what)
