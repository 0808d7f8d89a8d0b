"""What is said of a release: which wheels take whose place, and whose machine code changed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from elftools.elf.elffile import ELFFile

from fatwheel.cli.main import commands
from fatwheel.errors import FormatError, UsageError
from fatwheel.events import silent
from fatwheel.publish.notes import ImageChange, Replacement, markdown, read_changes

from ...helpers.commandline import exit_code_of
from ...helpers.cudawheels import MODULE, NONE, Linker, changed, images, without
from ...helpers.schemas import schema_of
from ...helpers.statedwheels import RECORD, demo_files, edited, write
from ...helpers.tinywheels import Draft

LABEL = "+cu130torch2.11"
SM_80, PTX_80, SM_120F = 0, 1, 3  # places in the sample fatbin
TAG = "cp311-cp311-linux_x86_64"
OTHER_TAG = "cp312-cp312-linux_x86_64"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def linker(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Linker:
    return Linker(tmp_path_factory.mktemp("linked"), tool)


def other_code(number: int, kernel: str) -> bytes:
    """The sample with one instruction of a kernel changed, found by another reader of ELF."""
    image = images(NONE)[number]
    start = image.index(b"\x7fELF")
    section = ELFFile(io.BytesIO(image[start:])).get_section_by_name(f".text.{kernel}")
    code = section.data()
    assert code[:16] in image
    return changed(number, code, bytes([code[0] ^ 1]) + code[1:])


class Releases:
    """Two folders of wheels, made of fatbins."""

    def __init__(self, folder: Path, linker: Linker) -> None:
        self._folder, self._linker = folder, linker

    def add(self, release: str, version: str, fatbin: bytes = NONE, tag: str = TAG) -> Path:
        files = {MODULE: self._linker.library(fatbin)}
        folder = self._folder / release
        folder.mkdir(exist_ok=True)
        return Draft("demo", version + LABEL, tag, files).write(folder)

    def changes(self) -> tuple[Replacement, ...]:
        wheels = [sorted((self._folder / name).glob("*.whl")) for name in ("new", "old")]
        return read_changes(*wheels, silent)


@pytest.fixture
def releases(tmp_path: Path, linker: Linker) -> Releases:
    return Releases(tmp_path, linker)


def test_machine_code_that_is_the_same_is_said_to_be(releases: Releases) -> None:
    releases.add("old", "1.0")
    releases.add("new", "1.1")
    [change] = releases.changes()
    assert {image.image for image in change.code} == {"sm_80", "compute_80", "sm_90a", "sm_120f"}
    assert all(image.same == image.functions and not image.gone for image in change.code)
    assert "the same machine code (2 functions)" in markdown([change])


def test_a_kernel_whose_code_changed_is_counted(releases: Releases) -> None:
    releases.add("old", "1.0")
    releases.add("new", "1.1", other_code(SM_80, "scale"))
    [change] = releases.changes()
    by_name = {image.image: image for image in change.code}
    assert by_name["sm_80"] == ImageChange("sm_80", functions=2, same=1, gone=0)
    assert by_name["sm_90a"] == ImageChange("sm_90a", functions=2, same=2, gone=0)
    assert "sm_80: 1 of 2 functions changed" in markdown([change])


def test_another_name_is_a_change_and_one_that_is_gone(releases: Releases) -> None:
    releases.add("old", "1.0")
    releases.add("new", "1.1", changed(SM_80, b"scale", b"shape"))
    [change] = releases.changes()
    [image] = [one for one in change.code if one.image == "sm_80"]
    assert image == ImageChange("sm_80", functions=2, same=1, gone=1)


def test_ptx_is_compared_as_text(releases: Releases) -> None:
    releases.add("old", "1.0")
    releases.add("new", "1.1", changed(PTX_80, b"[scale_s+4]", b"[scale_s+8]"))
    [change] = releases.changes()
    [image] = [one for one in change.code if one.image == "compute_80"]
    assert image == ImageChange("compute_80", functions=1, same=0, gone=0)
    assert "compute_80: other PTX" in markdown([change])


def test_architectures_that_came_and_went(releases: Releases) -> None:
    releases.add("old", "1.0", without(SM_120F))
    releases.add("old", "1.0", without(SM_80), OTHER_TAG)
    releases.add("new", "1.1")
    releases.add("new", "1.1", without(SM_80), OTHER_TAG)
    text = markdown(releases.changes())
    assert "- New: code for sm_120f (in 1 wheel)" in text
    assert "No longer there" not in text
    assert "sm_80, compute_80, sm_90a, **sm_120f**" in text


def test_a_wheel_follows_the_newest_one_for_its_python(releases: Releases) -> None:
    releases.add("old", "0.9")
    newest = releases.add("old", "0.10")
    releases.add("old", "0.11", tag=OTHER_TAG)
    releases.add("new", "1.0")
    changes = releases.changes()
    assert [one.old and one.old.filename for one in changes if one.new] == [newest.name]
    text = markdown(changes)
    assert "## demo 1.0 (before: 0.9, 0.10, 0.11)" in text
    assert f"Not in this release:\n\n- `demo-0.11{LABEL}-{OTHER_TAG}.whl`" in text


def test_the_same_file_and_a_first_release(releases: Releases, tmp_path: Path) -> None:
    releases.add("old", "1.0")
    releases.add("new", "1.0")
    assert "| the same file |" in markdown(releases.changes())
    [first] = read_changes(sorted((tmp_path / "new").glob("*.whl")), [], silent)
    assert first.old is None
    assert "| new |" in markdown([first])


def test_other_projects_of_the_release_before_are_no_news(
    releases: Releases, tmp_path: Path
) -> None:
    other = Draft("other", "1.0", "py3-none-any", {"other.py": b""}).write(tmp_path)
    [change] = read_changes([releases.add("new", "1.0")], [other], silent)
    assert change.old is None


def test_a_wheel_that_was_built_without_proof_is_told(tmp_path: Path) -> None:
    files = demo_files()
    fast = edited(files[RECORD], lambda record: record.update(front="fast"))
    wheel = write(tmp_path, {**files, RECORD: fast})
    changes = read_changes([wheel], [], silent)
    may = "built with --fast: its machine code may differ from what nvcc by itself makes"
    assert f"- `{wheel.name}` was {may}" in markdown(changes).splitlines()
    said = [one.to_json() for one in changes]
    jsonschema.validate({"wheels": said}, schema_of("notes"))
    assert said[0]["new"]["unproven"] == ["fast"]


def test_wheels_without_gpu_code(tmp_path: Path) -> None:
    paths = []
    for version in ("1.0", "1.1"):
        draft = Draft("plain", version, "py3-none-any", {"plain.py": version.encode()})
        paths.append(draft.write(tmp_path))
    [change] = read_changes(paths[1:], paths[:1], silent)
    assert "| none | other bytes; no GPU code that both have |" in markdown([change])


def test_no_wheel_and_a_damaged_one(releases: Releases, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which wheels"):
        read_changes([], [], silent)
    path = releases.add("new", "1.0")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FormatError):
        releases.changes()


def test_the_command_takes_several_wheels(
    releases: Releases, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wheels = [releases.add("new", "1.1", tag=tag) for tag in (TAG, OTHER_TAG)]
    line = ("release-notes", *map(str, wheels))
    assert exit_code_of(commands(), line, monkeypatch) == 0
    said = capsys.readouterr().out
    assert all(f"`{wheel.name}`" in said for wheel in wheels)


def test_the_command(
    releases: Releases,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A folder of wheels and a site's folder are the same to it, whether that has variants or not;
    JSON is as its schema says."""
    old = releases.add("old", "1.0")
    new = releases.add("new", "1.1")
    site = tmp_path / "site"
    (site / "files").mkdir(parents=True)
    variant = site / "files" / old.name.replace(".whl", "-cu130_sm80.whl")
    variant.write_bytes(old.read_bytes())
    old.rename(site / "files" / old.name)
    line = ("release-notes", str(new), "--since", str(site))
    assert exit_code_of(commands(), line, monkeypatch) == 0
    assert "## demo 1.1 (before: 1.0)" in capsys.readouterr().out
    assert exit_code_of(commands(), (*line, "--json"), monkeypatch) == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, schema_of("notes"))
    [wheel] = document["wheels"]
    assert wheel["old"]["filename"] == old.name
    nowhere = ("release-notes", str(new), "--since", str(tmp_path / "nowhere"))
    assert exit_code_of(commands(), nowhere, monkeypatch) == UsageError.exit_code
    assert "there is no folder" in capsys.readouterr().err
