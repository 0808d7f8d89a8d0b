"""Variants as the real uv takes them, for GPUs and drivers that it is told; and what pip, and uv
without the feature, take from the same index."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from fatwheel.events import silent
from fatwheel.publish.site import Request, write_site
from fatwheel.verify.report import verify_wheel

from ..helpers.elflibraries import shown_by_library
from ..helpers.fromindex import PIP, UV, called, serving
from ..helpers.manyarchs import container, containers_in, draft, loaded, needed

FEATURE = ["--preview-features", "wheel-variants"]
WHOLE = ""
# By project: what its two containers hold, and how that is compressed.
WHEELS = {
    "usual": (["sm_75 sm_80 sm_86 sm_90 sm_120 compute_90"] * 2, "lz4"),
    # The suffix `a` runs on one architecture alone, `f` on its family.
    "exact": (["sm_80 sm_90a sm_100a sm_120f", "sm_80 sm_90 sm_90a sm_120f"], "lz4"),
    # In one container machine code, in the other PTX; drivers before 12.4 cannot read zstd.
    "mixed": (["sm_80 sm_89 compute_80", "sm_80 sm_90a compute_80"], "zstd"),
}
# What is taken on a GPU with a driver for a CUDA. Of 12.7 is the first driver for 10.0, of 12.8
# that for 12.0, of 12.4 the first for PTX 8.4 and for zstd.
TAKEN = {
    "usual": {
        ("7.5", "12.0"): "cu120_sm75", ("7.5", "11.8"): WHOLE, ("7.0", "12.8"): WHOLE,
        ("8.0", "12.0"): "cu120_sm80", ("8.0", "11.8"): WHOLE, ("8.6", "12.2"): "cu120_sm86",
        ("8.9", "12.0"): "cu120_sm86", ("8.9", "13.0"): "cu120_sm86", ("8.7", "12.4"): "cu120_sm86",
        ("9.0", "12.0"): "cu120_sm90", ("9.0", "11.8"): WHOLE, ("10.0", "12.8"): "cu127_ptx100",
        ("10.3", "13.0"): "cu127_ptx100", ("10.0", "12.6"): WHOLE, ("12.0", "12.8"): "cu128_sm120",
        ("12.1", "13.1"): "cu128_sm120", ("12.0", "12.7"): WHOLE, ("6.1", "12.0"): WHOLE,
    },
    "exact": {
        ("8.0", "12.0"): "cu120_sm80", ("8.9", "12.8"): "cu120_sm80", ("9.0", "12.8"): WHOLE,
        ("10.0", "12.8"): WHOLE, ("10.3", "13.0"): WHOLE, ("12.0", "12.8"): "cu128_sm120",
        ("12.1", "13.0"): "cu128_sm120", ("7.5", "13.0"): WHOLE,
    },
    "mixed": {
        ("8.0", "12.4"): "cu124_sm80", ("8.6", "12.8"): "cu124_sm80", ("8.6", "12.3"): WHOLE,
        ("8.9", "12.4"): "cu124_sm89", ("9.0", "12.4"): "cu124_ptx90", ("9.0", "12.3"): WHOLE,
        ("10.3", "12.9"): "cu127_ptx100_ptx120", ("12.0", "12.8"): "cu127_ptx100_ptx120",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def site(tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variants")
    wheels = []
    for project, (contents, packed) in WHEELS.items():
        first, second = (container(names.split(), packed) for names in contents)
        made = draft(tool, folder / "linked", first, second, version="1.0+cu129", project=project)
        wheels.append(made.write(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FATWHEEL_CACHE", str(folder / "cache"))
        write_site(wheels, folder / "site", Request(variants=True), silent)
    return folder / "site"


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    with serving(site) as address:
        yield address


class Installed:
    """A wheel that an installer put into a folder, for a GPU and a CUDA that uv is told."""

    def __init__(
        self, command: list[str], folder: Path, project: str, url: str, gpu: str, cuda: str
    ) -> None:
        done = called(
            command, folder, "--no-deps", "--index-url", f"{url}/cu129/", project,
            NV_VARIANT_PROVIDER_FORCE_SM_ARCH=gpu,
            NV_VARIANT_PROVIDER_FORCE_CUDA_DRIVER_VERSION=cuda,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        self.folder = folder
        self.library = folder / project / "_C.so"
        self.info = folder / f"{project}-1.0+cu129.dist-info"

    @property
    def label(self) -> str:
        path = self.info / "variant.json"
        if not path.exists():
            return WHOLE
        [label] = json.loads(path.read_bytes())["variants"]
        return str(label)

    @property
    def contents(self) -> list[list[str]]:
        """What the library's wrappers lead to, in a process that has loaded it."""
        return containers_in(shown_by_library(self.folder, self.library.read_bytes()))


@pytest.mark.parametrize("project", WHEELS)
def test_uv_takes_the_wheel_whose_images_the_gpu_runs(
    url: str, tmp_path: Path, project: str
) -> None:
    contents, packed = WHEELS[project]
    whole = [names.split() for names in contents]
    found = {}
    for gpu, cuda in TAKEN[project]:
        folder = tmp_path / f"{gpu}-{cuda}"
        got = Installed([*UV, *FEATURE], folder, project, url, gpu, cuda)
        found[gpu, cuda] = got.label
        best = [loaded(names, gpu) for names in whole]
        for mine, every, images in zip(got.contents, whole, best, strict=True):
            assert set(mine) <= set(every)
            assert images <= set(mine), f"{gpu} loads less than of the whole wheel"
            if got.label:
                assert images, f"a part of {got.label} does not run on {gpu}"
                assert len(mine) < len(every)
            else:
                assert mine == sorted_as(every, mine)
        if got.label:
            assert tuple(map(int, cuda.split("."))) >= needed(set().union(*best), packed)
    assert found == TAKEN[project]


def sorted_as(names: list[str], like: list[str]) -> list[str]:
    return sorted(names, key=like.index)


@pytest.mark.parametrize("project", WHEELS)
@pytest.mark.parametrize("installer", [PIP, UV], ids=["pip", "uv"])
def test_an_installer_that_knows_no_variants_takes_the_whole_wheel(
    url: str, tmp_path: Path, installer: list[str], project: str
) -> None:
    got = Installed(installer, tmp_path / "site-packages", project, url, "8.0", "12.8")
    assert got.label == WHOLE
    assert list(map(set, got.contents)) == [set(names.split()) for names in WHEELS[project][0]]


def test_an_installed_variant_is_what_its_record_lists(url: str, tmp_path: Path) -> None:
    got = Installed([*UV, *FEATURE], tmp_path / "there", "usual", url, "8.9", "12.8")
    listed = {file.as_posix(): file for file in PathDistribution(got.info).files or ()}
    assert "usual-1.0+cu129.dist-info/variant.json" in listed
    for name, file in listed.items():
        if file.hash and file.hash.mode == "sha256":
            data = (got.folder / name).read_bytes()
            assert len(data) == file.size
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert digest == file.hash.value, name


def test_uv_checks_the_hashes_of_variants(url: str, site: Path, tmp_path: Path) -> None:
    wheels = sorted((site / "files").glob("usual-*.whl"))
    hashes = " ".join(f"--hash=sha256:{hashlib.sha256(one.read_bytes()).hexdigest()}"
                      for one in wheels)  # fmt: skip
    for wanted, works in ((hashes, True), ("--hash=sha256:" + "0" * 64, False)):
        (tmp_path / "r.txt").write_text(f"usual==1.0+cu129 {wanted}\n")
        asked = ["--require-hashes", "--index-url", f"{url}/simple/", "-r", str(tmp_path / "r.txt")]
        done = called(
            [*UV, *FEATURE], tmp_path / str(works), *asked,
            NV_VARIANT_PROVIDER_FORCE_SM_ARCH="8.0",
            NV_VARIANT_PROVIDER_FORCE_CUDA_DRIVER_VERSION="12.8",
        )  # fmt: skip
        assert (done.returncode == 0) is works, done.stdout + done.stderr
        assert (tmp_path / str(works) / "usual-1.0+cu129.dist-info/variant.json").exists() is works


def test_verify_finds_no_fault_in_variants(site: Path) -> None:
    variants = sorted((site / "files").glob("*-cu12?_*.whl"))
    assert len(variants) == sum(len({*taken.values()} - {WHOLE}) for taken in TAKEN.values())
    for wheel in variants:
        report = verify_wheel(wheel)
        whole = verify_wheel(site / "files" / f"{wheel.stem.rpartition('-')[0]}.whl")
        assert report.ok
        for check in report.checks:
            if check.name not in ("coverage", "driver"):  # which speak of all GPUs
                assert check.result == whole.result_of(check.name), (wheel.name, check)
