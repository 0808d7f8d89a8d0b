"""A wheel tried from its file to the report: with its lock, or as another project's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from fatwheel.doctor.facts import Gpu, GpuFacts
from fatwheel.errors import FormatError, ToolchainError, UsageError
from fatwheel.events import silent
from fatwheel.provenance.checks import publishers
from fatwheel.provenance.lock import lock_bytes
from fatwheel.trial import gpu, verify
from fatwheel.trial.environment import Clean
from fatwheel.trial.subject import TriedWheel
from fatwheel.trial.verify import Folders, Tried, try_gpu, try_import
from fatwheel.verify.evidence import Evidence, gather
from fatwheel.verify.report import Report

from ...helpers.cudawheels import NONE, Linker
from ...helpers.fakecuda import clean_with, fake_driver
from ...helpers.somelocks import ROOT, some_lock
from ...helpers.tinywheels import Draft
from ..verify.test_report import SCHEMA
from .test_gpu import GOOD

FACTS = GpuFacts(driver="580.1", cuda=(13, 0), gpus=(Gpu("Fake", (9, 0), 1 << 30),))
VERIFY = 'print("bwd right")\n'


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Path:
    return fake_driver(tmp_path_factory.mktemp("driver"), tool)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> bytes:
    return Linker(tmp_path_factory.mktemp("linker"), tool).library(NONE)


@pytest.fixture
def places(tmp_path: Path, driver: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """This Python in the place of a clean environment's; a recipe with a script; no torch."""

    @contextmanager
    def clean(subject: TriedWheel, work: Path, *rest: object) -> Iterator[Clean]:
        yield clean_with(work, LD_LIBRARY_PATH=str(driver))

    monkeypatch.setattr(verify, "clean_environment", clean)
    monkeypatch.setattr(gpu, "try_modes", lambda *_: {"EAGER": GOOD, "LAZY": GOOD})
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    kernels = tmp_path / "kernels"
    demo = kernels / "causal-conv1d"
    demo.mkdir(parents=True)
    recipe = ROOT / "kernels" / "causal-conv1d" / "recipe.toml"
    (demo / "recipe.toml").write_text(recipe.read_text())
    (demo / "verify.py").write_text(VERIFY)
    work = tmp_path / "work"
    work.mkdir()
    return Folders((kernels,), (ROOT / "toolchains",), tmp_path, lambda: nullcontext(work))


def foreign(folder: Path, library: bytes) -> Path:
    """A wheel of `decimal`: the child finds Python's own."""
    return Draft(files={"decimal.py": b"", "demo/_C.so": library}).write(folder)


def locked(folder: Path, library: bytes, **changes: object) -> Path:
    lock = some_lock()
    lock = replace(lock, recipe=replace(lock.recipe, imports=("decimal",), **changes))  # type: ignore[arg-type]
    name = "demo-1.0.dist-info/fatwheel.lock.json"
    files = {"demo/_C.so": library, name: lock_bytes(lock)}
    return Draft(tag="cp310-cp310-linux_x86_64", files=files).write(folder)


def on_gpu(wheel: Path, places: Folders) -> Tried:
    return valid(wheel, try_gpu(wheel, gather(wheel), {}, places, FACTS, silent))


def valid(wheel: Path, found: Tried) -> Tried:
    """The same, once its figures have the shape that the schema says."""
    document = Report(gather(wheel), found.checks, found.figures).to_json()
    jsonschema.validate(json.loads(json.dumps(document)), SCHEMA, jsonschema.Draft202012Validator)
    return found


def whats(found: Tried, check: str, severity: str) -> list[str]:
    [one] = [one for one in found.checks if one.name == check]
    return [finding.what for finding in one.findings if finding.severity == severity]


def test_import_alone(tmp_path: Path, library: bytes, places: Folders) -> None:
    wheel = foreign(tmp_path, library)
    found = valid(wheel, try_import(wheel, gather(wheel), {}, places, silent))
    assert [check.name for check in found.checks] == ["import"]
    assert found.figures["gpu"] is None
    assert [one["module"] for one in found.figures["import"]] == ["decimal"]
    assert found.figures["origin"] == "toolchain linux-cuda13.0"


def test_a_wheel_for_any_python_is_imported_with_several(
    tmp_path: Path, library: bytes, places: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fatwheel.trial.subject.is_interpreter_here", lambda python: True)
    files = {"decimal.py": b"", "demo/_C.so": library}
    wheel = Draft(tag="cp310-abi3-linux_x86_64", files=files).write(tmp_path)
    found = valid(wheel, try_import(wheel, gather(wheel), {}, places, silent))
    assert len(found.figures["others"]) == 2
    [check] = found.checks
    assert [one.what for one in check.findings if "import decimal" in one.what] != []
    assert sum(one.what.startswith("with Python") for one in check.findings) == 3


def test_a_foreign_wheel_has_no_recipe(tmp_path: Path, library: bytes, places: Folders) -> None:
    found = on_gpu(foreign(tmp_path, library), places)
    assert [check.name for check in found.checks] == ["import", "gpu"]
    assert found.figures["gpu"]["verify"] is None
    assert found.figures["gpu"]["binaries"][0]["native"] == 1
    assert whats(found, "gpu", "note")[-1] == ("it has no recipe: its results were not checked")


def test_a_lock_says_what_to_import_and_which_recipe(
    tmp_path: Path, library: bytes, places: Folders
) -> None:
    found = on_gpu(locked(tmp_path, library), places)
    assert found.figures["origin"] == "its own lock"
    assert found.figures["gpu"]["verify"]["cases"] == [{"name": "bwd", "why": ""}]
    assert found.figures["gpu"]["verify"]["script"] == "causal-conv1d/verify.py"


def test_a_recipe_without_a_script(tmp_path: Path, library: bytes, places: Folders) -> None:
    (places.kernels[0] / "causal-conv1d" / "verify.py").unlink()
    assert whats(on_gpu(locked(tmp_path, library), places), "gpu", "warning") == [
        "recipe causal-conv1d has no verify.py: its results were not checked"
    ]


@pytest.mark.parametrize("changes", [{"name": "other"}, {"project": "other"}])
def test_a_recipe_that_is_not_here(
    tmp_path: Path, library: bytes, places: Folders, changes: dict[str, str]
) -> None:
    """Nor is one run that only has the same name."""
    [warning] = whats(on_gpu(locked(tmp_path, library, **changes), places), "gpu", "warning")
    assert warning.startswith("there is no recipe ")


def test_a_damaged_lock(tmp_path: Path, places: Folders) -> None:
    files = {"demo-1.0.dist-info/fatwheel.lock.json": b'{"schema": 1}'}
    wheel = Draft(files=files).write(tmp_path)
    with pytest.raises(FormatError, match=r"fatwheel\.lock\.json"):
        try_import(wheel, gather(wheel), {}, places, silent)


def test_no_gpu_is_told_before_anything_is_installed(
    tmp_path: Path, places: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "clean_environment", pytest.fail)
    wheel = Draft().write(tmp_path)
    with pytest.raises(ToolchainError, match="no NVIDIA driver here"):
        try_gpu(wheel, gather(wheel), {}, places, GpuFacts(), silent)


def test_torch_is_imported_before_modules_that_want_it(
    tmp_path: Path, library: bytes, places: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\nRequires-Dist: torch\n"
    info = "demo-1.0.dist-info/top_level.txt"
    files = {"decimal.py": b"", "json.py": b"", info: b"json\n"}
    wheel = Draft(metadata=metadata, files=files).write(tmp_path)
    found = valid(wheel, try_import(wheel, gather(wheel), {}, places, silent))
    assert [one["module"] for one in found.figures["import"]][-1] == "torch", "it is not here"
    assert {one["module"] for one in found.figures["import"]} == {"torch", "json"}


def test_other_wheels_are_there_if_they_go_with_it(
    tmp_path: Path, library: bytes, places: Folders
) -> None:
    wheel = locked(tmp_path, library)

    def beside(name: str, tag: str) -> dict[Path, Evidence]:
        other = Draft(project=name, tag=tag).write(tmp_path)
        return {other: gather(other)}

    other = beside("other", "cp310-cp310-linux_x86_64")
    found = valid(wheel, try_import(wheel, gather(wheel), other, places, silent))
    assert whats(found, "import", "note")[1] == "beside other 1.0"
    assert {"name": "other", "version": "1.0"} in found.figures["packages"]
    for tag, words in [
        ("cp311-cp311-linux_x86_64", "is not for Python 3.10"),
        ("py3-none-win_amd64", "the wheel is for win_amd64"),
    ]:
        with pytest.raises(ToolchainError, match=words):
            try_import(wheel, gather(wheel), beside("other", tag), places, silent)
    own = beside("Demo", "py3-none-any")
    with pytest.raises(UsageError, match="two wheels of one project"):
        try_import(wheel, gather(wheel), own, places, silent)


def test_what_a_lock_pins_comes_from_known_places(
    tmp_path: Path, library: bytes, places: Folders
) -> None:
    """The lock may be anybody's; a toolchain's own pins are the user's."""
    other = tmp_path / "other"
    other.mkdir()
    for wheel, known in [
        (locked(tmp_path, library), publishers(places.kernels, places.toolchains)),
        (foreign(other, library), None),
    ]:
        subject = verify._known(wheel, gather(wheel), {}, places).subject
        assert subject.packages
        assert {package.hosts for package in subject.packages} == {known}
