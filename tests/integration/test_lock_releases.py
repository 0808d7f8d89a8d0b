"""`invoke lock` looks up a CUDA 99.1 and a torch 99.2, with uv, on a server that publishes them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from fatwheel.config.parts import Parts
from fatwheel.config.toolchains import load_toolchain
from fatwheel.errors import ConfigError, FetchError, HashMismatchError, ToolchainError, UsageError
from fatwheel.events import silent
from fatwheel.pins.check import check_parts
from fatwheel.pins.lock import LockReport, refusal
from fatwheel.pins.parts import PartsRequest, lock_named, lock_parts
from fatwheel.toolchain import web

from ..helpers.releases import CUDA, NVCC, TORCH, Releases, configure, wheel
from ..helpers.schemas import schema_of
from ..helpers.webserver import Server, status

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = schema_of("lock")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Releases]:
    with Server() as server:
        configure(monkeypatch, server)
        yield Releases(server, tmp_path / "shipped")


def lock(world: Releases, *, write: bool = True, **words: str) -> list[LockReport]:
    options = [words.get(name) for name in ("cuda", "torch", "python", "platform")]
    request = PartsRequest.of(*options)
    assert request is not None
    cache = world.folder.parent / "cache"
    reports = lock_parts(request, [world.folder], cache, cache / "downloads", silent, write=write)
    jsonschema.validate({"toolchains": [report.to_json() for report in reports]}, SCHEMA)
    return reports


def states(*reports: LockReport) -> dict[str, int]:
    total: dict[str, int] = {}
    for report in reports:
        for state, number in report.count().items():
            if number:
                total[state] = total.get(state, 0) + number
    return total


def snapshot(world: Releases) -> dict[str, bytes]:
    files = sorted(world.parts.rglob("*.toml"))
    return {str(file.relative_to(world.parts)): file.read_bytes() for file in files}


def test_a_cuda_of_archives_and_what_its_compilers_accept(world: Releases) -> None:
    [report] = lock(world, cuda="99.1")

    assert refusal([report]) is None
    assert states(report) == {"filled": 12}, "four components for three platforms"
    raw = tomllib.loads(world.text(f"cuda/{CUDA}"))
    assert (raw["version"], raw["nvcc"]) == (CUDA, NVCC)
    # What the header refuses is one more, and what is not --gpu-name's is no architecture.
    assert (raw["gcc"], raw["msvc"]) == (21, [1940, 1998])
    assert raw["archs"] == ["90", "990", "990a"]
    assert raw["manifest"] == f"{world.server.url}/redist/redistrib_{CUDA}.json"
    assert "packages" not in raw
    [cuda] = Parts(world.folder).cudas
    for one in cuda.archives:
        table = world.manifest[one.name]
        assert isinstance(table, dict)
        entry = table[one.platform]
        assert (one.path, one.sha256, str(one.size)) == (
            *(entry["relative_path"], entry["sha256"], entry["size"]),
        )


def test_a_cuda_of_packages_has_both(world: Releases) -> None:
    world.publish_compilers()
    [report] = lock(world, cuda=CUDA)

    assert refusal([report]) is None
    [cuda] = Parts(world.folder).cudas
    assert cuda.packages == (
        "nvidia-cuda-crt==99.1.4",
        "nvidia-cuda-nvcc==99.1.5",
        "nvidia-cuda-runtime==99.1.2",
    )
    assert cuda.tools == ("nvidia-cuda-nvdisasm==99.1.3",)
    assert len(cuda.archives) == 12
    assert (cuda.gcc, [arch.name for arch in cuda.archs]) == (21, ["90", "990", "990a"])
    for platform in ("linux-x86_64", "linux-aarch64"):
        found = Parts(world.folder).packages(cuda.packages, "3.12", platform, "compiler")
        assert [package.name for package in found] == [
            *("nvidia-cuda-crt", "nvidia-cuda-nvcc", "nvidia-cuda-runtime"),
        ]


def test_packages_for_windows_where_there_are_no_archives(world: Releases) -> None:
    """With those that have the headers of libraries, and no others."""
    world.publish_compilers()
    world.publish_for_windows()
    [report] = lock(world, cuda="99.1")

    assert refusal([report]) is None
    [cuda] = Parts(world.folder).cudas
    assert cuda.archives_for("win-amd64") == ()
    assert cuda.libraries == ("nvidia-cublas==99.3.1", "nvidia-nvtx==99.4.1")
    found = Parts(world.folder).packages(
        cuda.packages_for("win-amd64"), "3.12", "win-amd64", "compiler"
    )
    assert [package.name for package in found] == [
        *("nvidia-cublas", "nvidia-cuda-crt", "nvidia-cuda-nvcc", "nvidia-cuda-runtime"),
        "nvidia-nvtx",
    ]
    before = snapshot(world)
    assert set(states(*lock(world, cuda="99.1"))) == {"right"}
    assert snapshot(world) == before


def test_a_package_that_windows_lacks_leaves_linux_as_it_is(world: Releases) -> None:
    world.publish_compilers()
    world.publish_for_windows()
    world.projects["nvidia-nvtx"].clear()
    world.publish_nvidia("nvtx", "99.4.1", "manylinux2014_x86_64")
    [report] = lock(world, cuda="99.1")

    assert isinstance(refusal([report]), FetchError)
    [cuda] = Parts(world.folder).cudas
    assert cuda.packages
    assert cuda.libraries == ()


def test_a_torch_for_every_cuda_platform_and_python(world: Releases) -> None:
    [report] = lock(world, torch="99.2")

    assert refusal([report]) is None
    [torch] = Parts(world.folder).torches
    assert torch.gcc == 17, "torch's own description names it"
    assert torch.tools == (
        *("ninja==1.13", "packaging==26.1", "setuptools==81.0", "wheel==0.48"),
    ), "setuptools below 82 suits all of them"
    found = {
        (one.cuda, one.platform): (one.requires, [wheel.python for wheel in one.wheels])
        for one in torch.variants
    }
    everywhere = ("mpmath==1.3", "numpy==2.4.6")
    pythons = ["3.11", "3.12"]
    assert found == {
        ("99.1", "linux-x86_64"): (
            (*everywhere, "nvidia-cuda-runtime==99.1.2", "sympy==1.14"),
            pythons,
        ),
        ("98.8", "linux-aarch64"): (
            (*everywhere, "nvidia-cudart-cu99==9.9", "sympy==1.14"),
            pythons,
        ),
        ("98.8", "win-amd64"): ((*everywhere, "sympy==1.14"), pythons),
    }, "neither those for CPUs nor free-threaded ones"
    for variant in torch.variants:
        for one in variant.wheels:
            assert bool(one.url) == (variant.cuda == "98.8"), "PyTorch's own say where they lie"
            assert one.size, "the server says it"
            Parts(world.folder).packages(
                (*torch.tools, *variant.requires), one.python, variant.platform, "runtime"
            )


def test_locking_again_changes_nothing(world: Releases) -> None:
    world.publish_compilers()
    lock(world, cuda="99.1", torch="99.2")
    before = snapshot(world)

    reports = lock(world, cuda="99.1", torch="99.2")

    assert not any(report.written for report in reports)
    assert set(states(*reports)) == {"right"}
    assert snapshot(world) == before
    checked = check_parts(
        [world.folder], world.folder, world.folder / "downloads", silent, write=False
    )
    assert {one.toolchain for one in checked} >= {f"cuda {CUDA}", f"torch {TORCH}", "packages"}
    of_files = [one for one in checked if not one.toolchain.startswith("images")]
    assert set(states(*of_files)) == {"right"}


def test_newer_packages_do_not_move_what_is_pinned(world: Releases) -> None:
    lock(world, torch="99.2")
    before = snapshot(world)
    world.pure("sympy", "1.15")
    world.pure("ninja", "1.14")

    lock(world, torch="99.2")

    assert snapshot(world) == before, "every wheel made before would be made of something else"


def test_a_python_is_added_to_a_torch_that_is_there(world: Releases) -> None:
    (world.parts / "images" / "linux-x86_64.toml").write_text(
        'os = "linux"\ninstaller = "pip==25.3"\n'
        '[[bases]]\nreference = "python:3.11"\npythons = ["3.11"]\n'
    )
    lock(world, torch="99.2")
    comments = "# Two lines\n# of comments.\n"
    file = world.parts / "torch" / f"{TORCH}.toml"
    file.write_text(comments + file.read_text().partition("\n\n")[2])

    reports = lock(world, python="3.12")

    assert refusal(reports) is None
    [torch] = Parts(world.folder).torches
    assert {wheel.python for one in torch.variants for wheel in one.wheels} == {"3.11", "3.12"}
    assert file.read_text().startswith(comments)


def test_only_the_platforms_that_are_asked_for(world: Releases) -> None:
    lock(world, cuda="99.1", torch="99.2", platform="win-amd64")
    [cuda], [torch] = Parts(world.folder).cudas, Parts(world.folder).torches
    assert {one.platform for one in cuda.archives} == {"windows-x86_64"}
    assert {one.platform for one in torch.variants} == {"win-amd64"}


def test_check_writes_and_fetches_nothing(world: Releases) -> None:
    before = snapshot(world)
    reports = lock(world, cuda="99.1", torch="99.2", write=False)
    assert snapshot(world) == before
    assert set(states(*reports)) == {"open"}
    assert not any("archive" in path for path in world.server.requests)
    notes = {finding.note for report in reports for finding in report.findings}
    assert any(note.startswith("without --check, its compilers are fetched") for note in notes)


# -- what publishers do wrong ----------------------------------------------------------------------


def test_a_manifest_that_changed_is_told_and_not_followed(world: Releases) -> None:
    lock(world, cuda="99.1")
    before = snapshot(world)
    world.publish_archives(cuda_cudart=b"another archive")

    [report] = lock(world, cuda="99.1")

    assert states(report) == {"moved": 1, "right": 11}
    assert isinstance(refusal([report]), HashMismatchError)
    assert snapshot(world) == before


def test_an_archive_that_is_not_what_the_manifest_says(world: Releases) -> None:
    path = next(path for path in world.server.answers if "cuda_nvcc-linux-x86_64" in path)
    world.server.serve(path, b"x" * 2000)
    with pytest.raises(HashMismatchError, match="does not match its pin"):
        lock(world, cuda="99.1")
    assert not (world.parts / "cuda").exists()


def test_a_wheel_that_changed_under_its_name(world: Releases) -> None:
    lock(world, torch="99.2")
    before = snapshot(world)
    file = f"torch-{TORCH}+cu988-cp311-cp311-win_amd64.whl"
    world.publish_theirs(file, listed="d" * 64)

    [report] = lock(world, torch="99.2")

    [moved] = [finding for finding in report.findings if finding.state == "moved"]
    assert (moved.name, moved.found["sha256"]) == (file, "d" * 64)
    assert isinstance(refusal([report]), HashMismatchError)
    assert snapshot(world) == before


def test_a_package_that_changed_under_its_name(world: Releases) -> None:
    lock(world, torch="99.2")
    before = snapshot(world)
    world.publish("sympy-1.14-py3-none-any.whl", wheel("sympy", "1.14", {"x": "2"}))
    [report] = lock(world, torch="99.2", write=False)
    [moved] = [finding for finding in report.findings if finding.state == "moved"]
    assert moved.name == "sympy-1.14-py3-none-any.whl"
    assert snapshot(world) == before


def test_metadata_that_is_not_what_the_page_says(world: Releases) -> None:
    file = f"torch-{TORCH}%2Bcu988-cp311-cp311-win_amd64.whl"
    world.server.serve(f"/whl/cu988/{file}.metadata", b"Name: torch\nRequires-Dist: evil\n")
    [report] = lock(world, torch="99.2")
    [refused] = [finding for finding in report.findings if finding.state == "unreachable"]
    assert "not the listed one" in refused.note
    assert "evil" not in world.text(f"torch/{TORCH}")


def test_publishers_that_are_away_leave_the_others(world: Releases) -> None:
    world.publish_compilers()
    for path in ("/whl/torch/", "/redist/", f"/redist/redistrib_{CUDA}.json"):
        world.server.answers[path] = status(503)

    reports = lock(world, cuda="99.1", torch="99.2")

    assert isinstance(refusal(reports), FetchError)
    [cuda], [torch] = Parts(world.folder).cudas, Parts(world.folder).torches
    assert (cuda.archives, len(cuda.packages)) == ((), 3)
    assert [one.cuda for one in torch.variants] == ["99.1"]


def test_packages_that_cannot_be_read_leave_the_archives(world: Releases) -> None:
    world.publish_compilers()
    for path in list(world.server.answers):
        if "nvidia_cuda_nvcc" in path and path.endswith(".whl"):
            world.server.answers[path] = status(503)
    [report] = lock(world, cuda="99.1")
    assert isinstance(refusal([report]), FetchError)
    [cuda] = Parts(world.folder).cudas
    assert (len(cuda.archives), cuda.packages) == (12, ())


def test_a_listing_that_is_too_large(world: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_MOST_LINKS", 3)
    reports = lock(world, torch="99.2", write=False)
    assert any("more than 3 links" in finding.note for finding in reports[0].findings)
    assert isinstance(refusal(reports), FetchError)


@pytest.mark.parametrize(
    ("place", "told"),
    [("http://10.0.0.1/x", "10.0.0.1"), ("file:///etc/passwd", "file: URL")],
)
def test_a_redirect_to_places_inside(world: Releases, place: str, told: str) -> None:
    def away(handler: object) -> None:
        handler.send_response(302)  # type: ignore[attr-defined]
        handler.send_header("Location", place)  # type: ignore[attr-defined]
        handler.end_headers()  # type: ignore[attr-defined]

    world.server.answers[f"/redist/redistrib_{CUDA}.json"] = away
    [report] = lock(world, cuda=CUDA, write=False)
    notes = [finding.note for finding in report.findings if finding.state == "unreachable"]
    assert any(told in note for note in notes), notes


def test_a_manifest_that_names_files_elsewhere(world: Releases) -> None:
    table = world.manifest["cuda_cudart"]
    assert isinstance(table, dict)
    table["linux-x86_64"]["relative_path"] = "../../elsewhere.tar.xz"
    world.publish_manifest()
    [report] = lock(world, cuda="99.1", write=False)
    assert "cuda_cudart is not at cuda_cudart/linux-x86_64/" in report.findings[0].note


def test_compilers_that_tell_nothing(world: Releases) -> None:
    world.publish_archives(cuda_nvcc=b"no archive")
    with pytest.raises(ConfigError, match="cannot be read"):
        lock(world, cuda="99.1")


@pytest.mark.parametrize(
    ("words", "told"),
    [({"cuda": "99.7"}, "has a CUDA 99.7"), ({"torch": "98.1"}, "has a torch 98.1")],
)
def test_a_release_that_does_not_exist(world: Releases, words: dict[str, str], told: str) -> None:
    world.publish_compilers()
    with pytest.raises(UsageError, match=told):
        lock(world, **words)


def test_requirements_that_nothing_satisfies(world: Releases) -> None:
    file = f"torch-{TORCH}-cp311-cp311-manylinux_2_28_x86_64.whl"
    needs = ("Requires-Dist: sympy>=7", "Requires-Dist: nvidia-cuda-runtime==99.1.2")
    world.publish(file, wheel("torch", TORCH, {"x": ""}, *needs))
    with pytest.raises(FetchError, match=r"Python 3\.11 on linux-x86_64") as caught:
        lock(world, torch="99.2")
    assert "sympy" in str(caught.value)
    assert not (world.parts / "torch").exists()


def test_tools_that_do_not_suit_all_platforms(world: Releases) -> None:
    lock(world, torch="99.2", platform="win-amd64")
    before = snapshot(world)
    file = f"torch-{TORCH}-cp311-cp311-manylinux_2_28_x86_64.whl"
    needs = ("Requires-Dist: setuptools>=82", "Requires-Dist: nvidia-cuda-runtime==99.1.2")
    world.publish(file, wheel("torch", TORCH, {"x": ""}, *needs))
    with pytest.raises(ConfigError, match=r"needs other tools than elsewhere for Python 3\.11"):
        lock(world, torch="99.2")
    assert snapshot(world) == before


def test_without_uv(world: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fatwheel.pins.session.shutil.which", lambda *_, **__: None)
    with pytest.raises(ToolchainError, match="uv is not installed"):
        lock(world, torch="99.2")


def test_the_report_says_what_is_new(world: Releases) -> None:
    [report] = lock(world, torch="99.2")
    document = json.loads(json.dumps(report.to_json()))
    assert document["written"]
    assert document["file"] == str(world.parts / "torch" / f"{TORCH}.toml")
    names = {pin["name"] for pin in document["pins"]}
    assert f"torch-{TORCH}-cp312-cp312-manylinux_2_28_x86_64.whl" in names
    assert "numpy-2.4.6-cp312-cp312-win_amd64.whl" in names


def test_what_is_installed_stays_and_the_users_own_has_all(
    world: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(world, torch="99.2", platform="win-amd64")
    file = world.parts / "torch" / f"{TORCH}.toml"
    file.write_text("# Mine.\n" + file.read_text().partition("\n")[2])
    before = snapshot(world)
    monkeypatch.setattr("fatwheel.shipped._DATA", world.folder)
    monkeypatch.chdir(tmp_path)

    [report] = lock(world, torch="99.2")

    assert snapshot(world) == before
    own = Path("toolchains", "parts")
    assert report.file == own / "torch" / f"{TORCH}.toml"
    assert report.file.read_text().startswith("# Mine.\n")
    [torch] = Parts(Path("toolchains")).torches
    assert len(torch.variants) == 3, "those that were there, and the new ones"
    numpy = (own / "packages" / "numpy.toml").read_text()
    assert numpy.count("win_amd64") == 2, "the user's own comes first, so it has all"
    assert numpy.count("x86_64") == 2


# -- toolchains whose files name parts -------------------------------------------------------------

MINE = """\
name = "mine"
platform = "linux-x86_64"
[parts]
cuda = "99.1.0"
tools = ["ninja==1.13", "newtool==1.5", "pip==25.3"]
[[parts.torch]]
version = "99.2.0"
pythons = ["3.11", "3.12"]
"""


def lock_mine(world: Releases, text: str = MINE, *, write: bool = True) -> list[LockReport]:
    (world.folder / "mine.toml").write_text(text)
    cache = world.folder.parent / "cache"
    reports = lock_named("mine", [world.folder], cache, cache / "downloads", silent, write=write)
    jsonschema.validate({"toolchains": [report.to_json() for report in reports]}, SCHEMA)
    return reports


def test_what_a_file_names_is_pinned_and_its_parts_alone_are_compared(world: Releases) -> None:
    lock(world, cuda="99.1", torch="99.2")
    world.pure("newtool", "1.5")
    world.pure("pip", "25.3")
    before = snapshot(world)

    reports = lock_mine(world, write=False)
    assert snapshot(world) == before
    assert states(*reports) == {"open": 2}, "of tools that are not pinned nothing can be made"

    reports = lock_mine(world)
    assert reports[0].toolchain == "packages of mine"
    assert {one.name for one in reports[0].findings} == {
        "newtool-1.5-py3-none-any.whl", "pip-25.3-py3-none-any.whl",
    }  # fmt: skip
    assert {one.toolchain for one in reports[1:]} == {
        "images linux-x86_64", f"cuda {CUDA}", f"torch {TORCH}", "packages",
    }  # fmt: skip
    toolchain = load_toolchain("mine", world.folder)
    names = [package.name for package in toolchain.packages]
    assert names[:3] == ["ninja", "newtool", "pip"]
    compared = {one.name.partition("-")[0] for one in reports[-1].findings}
    assert "newtool" in compared
    assert "wheel" not in compared, "it is of torch's tools, which this file replaces"
    assert "packages of mine" not in {one.toolchain for one in lock_mine(world)}


def test_a_tool_that_no_index_has(world: Releases) -> None:
    lock(world, cuda="99.1", torch="99.2")
    before = snapshot(world)
    reports = lock_mine(world)
    assert isinstance(refusal(reports), FetchError)
    unreached = [one.name for one in reports[0].findings if one.state == "unreachable"]
    assert unreached == ["newtool==1.5", "pip==25.3"]
    assert snapshot(world) == before, "nothing is written by halves"


def test_what_is_not_known_of_a_torch_s_wheel_is_found_out(world: Releases) -> None:
    """Its sha256 is on the page beside it, and its size at the server."""
    lock(world, cuda="99.1", torch="99.2")
    file = world.parts / "torch" / f"{TORCH}.toml"
    whole = file.read_text()
    of_windows = next(line for line in whole.splitlines() if "cp311-win_amd64" in line)
    left = of_windows.partition(", size")[0] + ", url" + of_windows.partition(", url")[2]
    file.write_text(whole.replace(of_windows, left))
    world.server.answers["/whl/cu988/torch/"] = world.server.answers["/whl/torch/"]

    arguments = ([world.folder], world.folder, world.folder / "downloads", silent)
    checked = check_parts(*arguments, write=False)
    [report] = [one for one in checked if one.toolchain == f"torch {TORCH}"]
    assert report.count()["open"] == 1
    assert whole != file.read_text()

    [report] = [
        one for one in check_parts(*arguments, write=True) if one.toolchain == f"torch {TORCH}"
    ]
    assert report.written
    assert report.count()["filled"] == 1
    assert file.read_text() == whole
