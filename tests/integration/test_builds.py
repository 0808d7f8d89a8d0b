"""Whole builds: what is kept, what is compiled again, that wheels come out alike; of selftest where
its units matter, else of the sample."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.model import Environment
from fatwheel.verify.inspect import inspect_file

from .conftest import ARCHS, ROOT, SAMPLE, UNITS, Outcome, Workbench, record_of

pytestmark = pytest.mark.slow

_FINISHED = re.compile(r"^\[\d+/\d+\] (.+?) \d", re.MULTILINE)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compiled(outcome: Outcome) -> list[str]:
    """The labels of the jobs that a build finished, as it printed them."""
    return _FINISHED.findall(outcome.err)


def test_first_build_compiles_every_slice_once(selftest: tuple[Workbench, Outcome]) -> None:
    _, outcome = selftest
    slices = [label for label in compiled(outcome) if "[sm_" in label]
    assert len(slices) == 27, f"9 units for 3 architectures are 27 jobs, not {slices}"
    record = record_of(outcome.wheel())
    assert record["archs"] == ["80", "86", "89"]
    units = record["units"]
    assert isinstance(units, list)
    assert all(set(unit["slices"]) == {"sm_80", "sm_86", "sm_89"} for unit in units)
    assert all(len(digest) == 64 for unit in units for digest in unit["slices"].values())


def test_identical_build_compiles_nothing(
    sample: tuple[Workbench, Outcome], warm: Workbench
) -> None:
    again = warm.build("--arch", ARCHS)
    assert compiled(again) == [], "a unit was compiled although the store had all of them"
    assert sha256(again.wheel()) == sha256(sample[1].wheel()), (
        "the same inputs in another cache folder gave other bytes"
    )
    once_more = warm.build("--arch", ARCHS)
    assert "assemble" not in once_more.err, "the finished wheel was not taken from the store"
    assert sha256(once_more.wheel()) == sha256(sample[1].wheel())


def test_a_build_that_is_stopped_goes_on_from_there(bench: Workbench, warm: Workbench) -> None:
    """The time is up before anything is compiled."""
    stopped = bench.build("--arch", "80", "--stop-after", "1s")
    assert stopped.code == 17, stopped.err
    assert "jobs left" in stopped.err
    assert "run the same command again" in " ".join(stopped.err.split())
    assert stopped.wheels == ()
    whole = bench.build("--arch", "80", "--stop-after", "1h").wheel()
    assert whole.read_bytes() == warm.build("--arch", "80").wheel().read_bytes()


def test_added_arch_compiles_only_its_slices(warm: Workbench) -> None:
    outcome = warm.build("--arch", "80,86,89,90")
    outcome.wheel()
    jobs = compiled(outcome)
    others = {label for label in jobs if not label.endswith("[sm_90]")}
    listed = {f"_cases/csrc/listed [sm_{arch}]" for arch in (80, 86, 89)}
    assert others == listed, "only its text depends on the list of architectures"
    assert len(jobs) == UNITS + len(listed)
    assert "csrc/listed" in outcome.err.split("compile:")[0], "the plan does not say what is again"


def test_ptx_and_arch_specific_images(warm: Workbench) -> None:
    wheel = warm.build("--arch", "80+ptx,90a").wheel()
    assert ".sm80.ptx.sm90a-" in wheel.name
    report = inspect_file(wheel)
    for binary in report["binaries"]:
        if binary["containers"]:
            names = {(image["kind"], image["arch"]) for image in binary["images"]}
            assert names == {("elf", "sm_80"), ("ptx", "compute_80"), ("elf", "sm_90a")}
    assert report["coverage"]["8.6"] == "native"
    assert report["coverage"]["12.0"] == "jit"
    assert report["coverage"]["7.5"] == "none"


def test_shared_front_makes_all_images(warm: Workbench) -> None:
    outcome = warm.build("--arch", ARCHS, "--front", "shared")
    record = record_of(outcome.wheel())
    assert record["fronts"] == [{"virtual": "compute_80", "codes": ["sm_80", "sm_86", "sm_89"]}], (
        "archs of one family did not share a front"
    )
    assert record["front"] == "shared"


def test_auto_is_exact_without_a_proof(warm: Workbench) -> None:
    outcome = warm.build("--arch", ARCHS, "--front", "auto")
    record = record_of(outcome.wheel())
    fronts = record["fronts"]
    assert isinstance(fronts, list)
    assert len(fronts) == 3
    assert compiled(outcome) == []


def test_two_builds_at_once_give_the_same_wheel(bench: Workbench, tmp_path: Path) -> None:
    outs = [tmp_path / "one", tmp_path / "two"]
    builds = [
        subprocess.Popen(
            bench.command("build", "--kernel", SAMPLE, "--arch", "86", "--out", str(out)),
            env=bench.variables(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            cwd=ROOT,
        )
        for out in outs
    ]  # fmt: skip
    for build in builds:
        _, err = build.communicate()
        assert build.returncode == 0, err
    first, second = (next(out.glob("*.whl")) for out in outs)
    assert sha256(first) == sha256(second)
    _assert_store_is_sound(bench)


def _assert_store_is_sound(bench: Workbench) -> None:
    outcome = bench.invoke("cache", "--check", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["damaged"] == []


def flipped(store: Path) -> int:
    """Flip a byte in the middle of every file of a store; how many refs are among them."""
    for path in [path for path in store.rglob("*") if path.is_file()]:
        data = bytearray(path.read_bytes())
        if data:
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    return sum(path.is_file() for path in (store / "refs").rglob("*"))


def test_every_file_of_the_store_is_damaged(
    sample: tuple[Workbench, Outcome], tmp_path: Path
) -> None:
    """Finished wheel, slices, refs, the ledger: as from an empty store, and side by side."""
    bench = Workbench(tmp_path / "bench", sample[0].store)
    flipped(bench.store)
    outcome = bench.build("--arch", ARCHS)
    assert sha256(outcome.wheel()) == sha256(sample[1].wheel())
    slices = [label for label in compiled(outcome) if "[sm_" in label]
    assert len(slices) == 3 * UNITS, (
        "what is damaged is no matter for the assembling to make on the spot"
    )
    units: Any = record_of(outcome.wheel())["units"]
    assert all(len(digest) == 64 for unit in units for digest in unit["slices"].values())
    _assert_store_is_sound(bench)


def test_a_check_finds_all_that_is_damaged(
    selftest: tuple[Workbench, Outcome], tmp_path: Path
) -> None:
    bench = Workbench(tmp_path / "bench", selftest[0].store)
    refs = flipped(bench.store)
    checked = bench.invoke("cache", "--check", "--json")
    assert checked.code == 0, checked.err
    assert len(json.loads(checked.out)["damaged"]) == refs
    left = [path for path in bench.store.rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["lock"]
    _assert_store_is_sound(bench)


def test_wheel_installs_and_imports_in_a_clean_environment(
    selftest: tuple[Workbench, Outcome], environment: Environment, tmp_path: Path
) -> None:
    home = tmp_path / "clean"
    subprocess.run([str(environment.python), "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet",
         "--no-index", "--no-deps", str(selftest[1].wheel())], check=True,
    )  # fmt: skip
    # torch (3 GB) is not installed once more: the clean environment is shown where it is.
    site = next((home / "lib").glob("python*/site-packages"))
    (site / "torch.pth").write_text(f"{environment.site}\n")
    done = subprocess.run(
        [str(python), "-c", "import fatwheel_selftest; print(fatwheel_selftest.__file__)"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(home) in done.stdout, "another fatwheel_selftest was imported"


def test_inspect_agrees_with_cuobjdump(
    selftest: tuple[Workbench, Outcome],
    environment: Environment,
    tmp_path: Path,
    tool: Callable[[str], str],
) -> None:
    wheel = selftest[1].wheel()
    report = {binary["path"]: binary for binary in inspect_file(wheel)["binaries"]}
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    checked = 0
    for path, binary in report.items():
        if not binary["containers"]:
            continue
        listing = subprocess.run(
            [str(environment.cuda_home / "bin" / "cuobjdump"), "-lelf", str(tmp_path / path)],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        theirs = re.findall(r"\.(sm_\w+)\.cubin", listing)
        ours = [
            image["arch"] for image in binary["images"] for _ in range(image["count"])
        ]  # fmt: skip
        assert sorted(ours) == sorted(theirs), path
        checked += 1
    assert checked == 2, "selftest has two extension modules, both with device code"
