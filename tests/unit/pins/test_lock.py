"""Whole toolchains locked, against a server that publishes everything they name; and values filled
into a toolchain's file: what is added, what stays, what is refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from fatwheel.config.toolchain import Base
from fatwheel.config.toolchains import load_toolchain
from fatwheel.errors import ConfigError, FetchError, HashMismatchError, UsageError
from fatwheel.events import Event, silent
from fatwheel.pins import compare as compare_module
from fatwheel.pins.compare import Comparer, PinState
from fatwheel.pins.lock import LockReport, PinFile, filled, lock_toolchains, refusal
from fatwheel.pins.published import HostBuild
from fatwheel.shipped import TOOLCHAINS
from fatwheel.toolchain.index import Index
from fatwheel.toolchain.pipconfig import PipConfig

from ...helpers.publishers import (
    CUDART,
    DIGEST,
    NINJA_FILE,
    NVCC,
    NVCC_FILE,
    PYTHON,
    PYTHON_FILE,
    TORCH,
    TORCH_FILE,
    Publishers,
    configure,
    pinned,
    sha256,
)
from ...helpers.schemas import schema_of
from ...helpers.webserver import Server, status, without_length

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = schema_of("lock")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publishers]:
    with Server() as server:
        configure(monkeypatch, server)
        yield Publishers(server, tmp_path)


def lock(world: Publishers, *, write: bool = True) -> LockReport:
    [report] = lock_toolchains(["demo"], [world.folder], world.downloads, silent, write=write)
    jsonschema.validate({"toolchains": [report.to_json()]}, SCHEMA)
    return report


def of(report: LockReport, name: str) -> PinState:
    [finding] = [finding for finding in report.findings if finding.name == name]
    return finding


def states(report: LockReport) -> dict[str, int]:
    return {state: number for state, number in report.count().items() if number}


def test_what_is_missing_is_filled_in_and_nothing_else_changes(world: Publishers) -> None:
    before = world.write()

    report = lock(world)

    assert states(report) == {"right": 1, "filled": 5}
    assert report.written
    assert refusal([report]) is None
    after = world.file.read_text()
    added = [line for line in after.splitlines() if line not in before.splitlines()]
    assert added == [
        f'digest = "{DIGEST}"',
        f"size = {len(NVCC)}",
        f'sha256 = "{sha256(NVCC)}"',
        f"size = {len(CUDART)}",
        f'sha256 = "{sha256(CUDART)}"',
        f"size = {len(PYTHON)}",
        f'sha256 = "{sha256(PYTHON)}"',
        f'sha256 = "{sha256(TORCH)}"',  # its size, 11, is ninja's too
    ]
    kept = [line for line in after.splitlines() if line not in added]
    assert "\n".join(kept).replace("size = 11\n", "") == before.rstrip("\n").replace(
        "size = 11\n", ""
    )


def test_what_was_filled_in_is_right_the_next_time(world: Publishers) -> None:
    world.write()
    lock(world)
    text = world.file.read_text()

    report = lock(world)

    assert states(report) == {"right": 6}
    assert not report.written
    assert world.file.read_text() == text
    toolchain = load_toolchain("demo", world.folder)
    assert all(package.locked for package in toolchain.builds[0].packages)
    assert tomllib.loads(text)["builds"][0]["packages"][0]["size"] == len(TORCH)


def test_only_what_has_no_published_sha256_is_fetched_and_told(world: Publishers) -> None:
    world.write()
    report = lock(world)
    fetched = [path for path in world.server.requests if path.endswith((".gz", ".xz", ".whl"))]
    assert fetched == [f"/python/{PYTHON_FILE}"]
    assert of(report, PYTHON_FILE).note == ("its sha256 is not published: fetched once to find out")
    kept = world.downloads / sha256(PYTHON) / PYTHON_FILE
    assert kept.read_bytes() == PYTHON, "a build would fetch it again"
    assert [path for path in world.downloads.rglob("*") if path.is_file()] == [kept]


def test_check_writes_and_fetches_nothing(world: Publishers) -> None:
    before = world.write()

    report = lock(world, write=False)

    assert states(report) == {"right": 1, "open": 5}
    assert world.file.read_text() == before
    assert not report.written
    assert not world.downloads.exists()
    assert of(report, TORCH_FILE).found == {"sha256": sha256(TORCH), "size": len(TORCH)}
    assert of(report, PYTHON_FILE).found == {"size": len(PYTHON)}
    assert of(report, PYTHON_FILE).note.endswith("without --check, it is fetched once")
    assert refusal([report]) is None


def test_a_size_that_no_server_says_is_found_out(world: Publishers) -> None:
    world.write_locked()
    text = world.write(torch=f'sha256 = "{sha256(TORCH)}"')
    place = "/whl/cu121/" + TORCH_FILE.replace("+", "%2B")
    world.server.answers[place] = without_length(TORCH)
    report = lock(world)
    assert of(report, TORCH_FILE).state == "filled"
    assert of(report, TORCH_FILE).new == {"size": len(TORCH)}
    assert "its size is not published" in of(report, TORCH_FILE).note
    assert world.file.read_text() != text


def test_a_file_of_which_nobody_says_the_size_has_an_end(
    world: Publishers, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write_locked()
    world.write(torch=f'sha256 = "{sha256(TORCH)}"')
    place = "/whl/cu121/" + TORCH_FILE.replace("+", "%2B")
    world.server.answers[place] = without_length(TORCH)
    monkeypatch.setattr(compare_module, "_LARGEST", len(TORCH) - 1)
    report = lock(world)
    assert of(report, TORCH_FILE).state == "unreachable"
    assert of(report, TORCH_FILE).note == f"the server sends more than {len(TORCH) - 1} bytes"
    assert list((world.downloads / "incoming").iterdir()) == []


def test_what_moved_is_told_and_stays(world: Publishers) -> None:
    before = world.write_locked()
    world.publish_image(f"sha256:{'e' * 64}")
    world.publish_index("7" * 64)
    world.publish_page(f"#sha256={'8' * 64}")
    world.publish_manifest(nvcc=b"another nvcc")
    world.server.serve(f"/python/{PYTHON_FILE}", PYTHON + b", longer")

    report = lock(world)

    assert states(report) == {"right": 1, "moved": 5}
    assert world.file.read_text() == before
    image = of(report, world.image)
    assert (image.pinned, image.found) == ({"digest": DIGEST}, {"digest": f"sha256:{'e' * 64}"})
    assert of(report, NINJA_FILE).found == {"sha256": "7" * 64}
    assert of(report, NVCC_FILE).found["sha256"] == sha256(b"another nvcc")
    assert of(report, PYTHON_FILE).found == {"size": len(PYTHON) + 8}
    trouble = refusal([report])
    assert isinstance(trouble, HashMismatchError)
    assert set(trouble.details) == {
        world.image, NINJA_FILE, NVCC_FILE, PYTHON_FILE, TORCH_FILE
    }  # fmt: skip


def test_a_fetched_file_that_is_not_the_published_one_is_not_written_down(
    world: Publishers,
) -> None:
    world.write_locked()
    world.write(torch="")
    world.publish_page(f"#sha256={'8' * 64}")
    place = "/whl/cu121/" + TORCH_FILE.replace("+", "%2B")
    world.server.answers[place] = without_length(TORCH)
    report = lock(world)
    assert of(report, TORCH_FILE).state == "unreachable"
    assert sha256(TORCH) in of(report, TORCH_FILE).note
    assert "8" * 64 not in world.file.read_text()


def test_what_cannot_be_reached_is_told_and_the_rest_is_done(world: Publishers) -> None:
    world.write(torch=pinned("torch"), python=pinned("python"))
    del world.server.answers[f"/python/{PYTHON_FILE}"]
    world.server.answers["/whl/cu121/torch/"] = status(503)
    del world.server.answers["/simple/ninja/"]

    report = lock(world)

    assert states(report) == {"filled": 3, "unreachable": 3}
    assert of(report, PYTHON_FILE).note == "404 Not Found"
    assert "503 Service Unavailable (2 tries)" in of(report, TORCH_FILE).note
    assert "no such package here: 404" in of(report, NINJA_FILE).note
    assert isinstance(refusal([report]), FetchError)


def test_a_manifest_that_is_gone_is_one_finding(world: Publishers) -> None:
    world.write_locked()
    del world.server.answers["/redist/redistrib_12.3.2.json"]
    report = lock(world)
    assert states(report) == {"right": 6, "unreachable": 1}
    assert of(report, "redistrib_12.3.2.json").key == ("cuda_manifest",)


def test_a_host_that_is_silent_is_waited_for_once(
    world: Publishers, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = world.write_locked()
    world.file.write_text(text.replace(f"{world.server.url}/redist", "http://127.0.0.1:9/redist"))
    pauses: list[float] = []
    monkeypatch.setattr("threading.Event.wait", lambda self, seconds=0: pauses.append(seconds))
    report = lock(world)
    notes = {finding.note for finding in report.findings if finding.state == "unreachable"}
    assert len(notes) == 1
    assert "127.0.0.1:9: no connection" in notes.pop()
    assert len([pause for pause in pauses if pause == 0.001]) == 1, "retries: 1, and one host"


def test_moved_outweighs_unreachable(world: Publishers) -> None:
    world.write_locked()
    world.publish_image(f"sha256:{'e' * 64}")
    del world.server.answers["/simple/ninja/"]
    assert isinstance(refusal([lock(world)]), HashMismatchError)


def test_an_interrupted_lock_keeps_what_it_found(
    world: Publishers, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fatwheel.pins.compare.page_values", interrupt)
    with pytest.raises(KeyboardInterrupt):
        lock(world)
    file = tomllib.loads(world.file.read_text())
    assert file["interpreters"][0]["sha256"] == sha256(PYTHON)
    assert [path for path in world.downloads.rglob("incoming/*") if path.is_file()] == []


def test_mistakes_in_any_toolchain_are_told_before_anything_is_asked(world: Publishers) -> None:
    world.write()
    (world.folder / "bad.toml").write_text("name = 1")
    with pytest.raises(ConfigError):
        lock_toolchains(["demo", "bad"], [world.folder], world.downloads, silent, write=True)
    with pytest.raises(UsageError):
        lock_toolchains(["none"], [world.folder], world.downloads, silent, write=True)
    assert world.server.requests == []
    assert world.server.heads == []


def test_it_says_what_it_does(world: Publishers) -> None:
    world.write()
    events: list[Event] = []
    lock_toolchains(["demo"], [world.folder], world.downloads, events.append, write=True)
    names = [type(event).__name__ for event in events]
    assert names[0] == "StepStarted"
    assert names[-1] == "StepFinished"
    assert set(names[1:-1]) == {"Progress"}, "the fetched interpreter"


# -- the image for a Windows host ----------------------------------------------------------------


def test_the_image_that_a_host_runs_and_not_the_newest(world: Publishers) -> None:
    tags = {"name": "demo/base", "tags": ["1", "10.0.20348.2340", "10.0.20348.2966"]}
    world.server.serve("/v2/demo/base/tags/list", json.dumps(tags).encode())
    answer = world.server.answers["/v2/demo/base/manifests/1"]
    world.server.answers["/v2/demo/base/manifests/10.0.20348.2340"] = answer
    del world.server.answers["/v2/demo/base/manifests/1"]
    index = Index(PipConfig(indexes=(f"{world.server.url}/simple",), retries=1, timeout=5.0))
    comparer = Comparer(index, world.downloads, silent, HostBuild(20348, 2500))
    [found] = comparer.compare_pins([(("containers", "bases", 0), Base(world.image, "", ()))])
    index.close()
    assert (found.state, found.name, found.new) == ("filled", world.image, {"digest": DIGEST})
    assert found.note == "that of 10.0.20348.2340, for --host-build"


def test_a_host_for_which_no_other_image_is_needed(world: Publishers) -> None:
    world.write()
    host = HostBuild(20348, 1)
    with pytest.raises(UsageError, match="it has no Windows image") as error:
        lock_toolchains(["demo"], [world.folder], world.downloads, silent, write=True, host=host)
    assert error.value.where == "--host-build 20348.1"
    windows = "windows-msvc17.8-cuda12.3"
    with pytest.raises(UsageError, match="its base image is Windows build 20348"):
        lock_toolchains(
            [windows], [TOOLCHAINS], world.downloads, silent, write=False, host=HostBuild(26100, 1)
        )
    assert not world.server.requests


SHA = "ab" * 32
TEXT = """\
# what this is
name = "demo"

[[cuda_files]]   # the compiler
name = "cuda_nvcc"
url = "https://host/cuda_nvcc-1.zip"  # from NVIDIA

# the next
[[cuda_files]]
name = "cuda_cudart"
url = "https://host/cuda_cudart-1.zip"
size = 5

  [containers]
  os = "linux"

  [[containers.bases]]
  reference = "python:3.11-bookworm"
"""


def test_lines_are_added_behind_their_neighbours_and_all_else_stays() -> None:
    text = filled(TEXT, ("cuda_files", 0), {"size": 7, "sha256": SHA})
    assert text == TEXT.replace(
        "  # from NVIDIA\n", f'  # from NVIDIA\nsize = 7\nsha256 = "{SHA}"\n'
    )


def test_one_value_beside_the_other() -> None:
    text = filled(TEXT, ("cuda_files", 1), {"sha256": SHA})
    assert text == TEXT.replace("size = 5\n", f'size = 5\nsha256 = "{SHA}"\n')


def test_lines_are_indented_as_their_neighbours() -> None:
    text = filled(TEXT, ("containers", "bases", 0), {"digest": f"sha256:{SHA}"})
    assert text == TEXT + f'  digest = "sha256:{SHA}"\n'


def test_line_ends_of_windows_and_a_byte_order_mark_stay() -> None:
    windows = "\ufeff" + TEXT.replace("\n", "\r\n")
    text = filled(windows, ("cuda_files", 1), {"sha256": SHA})
    assert text == windows.replace("size = 5\r\n", f'size = 5\r\nsha256 = "{SHA}"\r\n')


def test_a_last_line_without_an_end() -> None:
    text = filled(TEXT.rstrip("\n"), ("containers", "bases", 0), {"digest": "x"})
    assert text == TEXT + '  digest = "x"'


def test_dotted_keys_and_tables_in_other_order() -> None:
    text = 'msvc.catalogue.url = "https://host/vs.exe"\nmsvc.cl = "1"\n'
    # A line `size = …` there would belong to the root.
    assert filled(text, ("msvc", "catalogue"), {"size": 1}) is None


@pytest.mark.parametrize(
    "text",
    [
        'cuda_files = [ { name = "a", url = "https://host/a.zip" } ]\n',
        'cuda_files = [\n  { name = "a", url = "https://host/a.zip" },\n]\n',
        '[[cuda_files]]\nname = "a"\nurl = """\\\n  https://host/a.zip"""\n',
    ],
)
def test_what_cannot_be_added_to_is_left_alone(text: str, tmp_path: Path) -> None:
    file = tmp_path / "demo.toml"
    file.write_text(text)
    lock = PinFile(file)
    with pytest.raises(ConfigError) as caught:
        lock.fill(("cuda_files", 0), {"size": 7, "sha256": SHA})
    assert caught.value.details == (f'cuda_files[0]: size = 7, sha256 = "{SHA}"',)
    assert file.read_text() == text
    assert not lock.written


def test_one_after_the_other(tmp_path: Path) -> None:
    file = tmp_path / "demo.toml"
    file.write_text(TEXT)
    lock = PinFile(file)
    lock.fill(("cuda_files", 1), {"sha256": SHA})
    lock.fill(("cuda_files", 0), {"size": 7})
    assert lock.written
    assert file.read_text() == TEXT.replace("size = 5\n", f'size = 5\nsha256 = "{SHA}"\n').replace(
        "# from NVIDIA\n", "# from NVIDIA\nsize = 7\n"
    )
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_somebody_else_changed_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "demo.toml"
    file.write_text(TEXT)
    lock = PinFile(file)
    file.write_text(TEXT + "# mine\n")
    with pytest.raises(ConfigError, match="changed meanwhile"):
        lock.fill(("cuda_files", 0), {"size": 7})
    assert file.read_text() == TEXT + "# mine\n"


def test_an_installed_file_is_copied_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "data" / "toolchains" / "demo.toml"
    installed.parent.mkdir(parents=True)
    installed.write_text(TEXT)
    monkeypatch.setattr("fatwheel.shipped._DATA", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    lock = PinFile(installed)
    lock.fill(("cuda_files", 1), {"sha256": SHA})
    lock.fill(("cuda_files", 0), {"size": 7})
    assert installed.read_text() == TEXT
    assert lock.path == Path("toolchains", "demo.toml")
    assert lock.path.read_text().count("size = 7\n") == 1
    with pytest.raises(ConfigError, match="appeared meanwhile"):
        PinFile(installed).fill(("cuda_files", 0), {"size": 8})
    assert lock.path.read_text().count("size = 8\n") == 0
    part = PinFile(installed, Path("parts", "msvc"))
    part.fill(("cuda_files", 0), {"size": 7})
    assert part.path == Path("toolchains", "parts", "msvc", "demo.toml")


def test_a_file_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "demo.toml"
    file.write_text(TEXT)

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fatwheel.storage.files.sync_file", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        PinFile(file).fill(("cuda_files", 0), {"size": 7})
    assert file.read_text() == TEXT
    assert list(tmp_path.iterdir()) == [file]
