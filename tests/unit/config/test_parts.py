"""The parts of toolchains/parts: what is pinned for every Python and platform that is served."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from fatwheel.config.parts import (
    NVIDIA_PLATFORMS,
    Archive,
    CudaRelease,
    Parts,
    PinnedFile,
    TorchRelease,
    TorchVariant,
    TorchWheel,
    fits,
    release,
)
from fatwheel.config.toolchains import list_toolchains, load_parts_file
from fatwheel.errors import ConfigError
from fatwheel.pins import lock

from ...helpers.someparts import add_part

FOLDER = Path(__file__).resolve().parents[3] / "toolchains"
PARTS = Parts(FOLDER)
VARIANTS = [(torch, variant) for torch in PARTS.torches for variant in torch.variants]
# The CUDA that each release of torch has on the package index for Linux on x86-64, as
# pytorch.org's table of releases says. Older ones, which linux-cuda12.3 has, come from
# PyTorch's own index alone.
ON_INDEX = {
    "2.4.1": "12.1", "2.5.1": "12.4", "2.6.0": "12.4", "2.7.1": "12.6", "2.8.0": "12.8",
    "2.9.1": "12.8", "2.10.0": "12.8", "2.11.0": "13.0", "2.12.1": "13.0", "2.13.0": "13.0",
    "2.14.1": "13.0", "2.15.0": "13.2",
}  # fmt: skip

each_cuda = pytest.mark.parametrize("cuda", PARTS.cudas, ids=lambda cuda: cuda.version)
each_torch = pytest.mark.parametrize("torch", PARTS.torches, ids=lambda torch: torch.version)
each_variant = pytest.mark.parametrize(
    ("torch", "variant"), VARIANTS, ids=[f"{t.version}-{v.cuda}-{v.platform}" for t, v in VARIANTS]
)


def test_these_releases_are_there() -> None:
    cudas = {cuda.minor for cuda in PARTS.cudas}
    assert cudas >= {"12.4", "12.6", "12.8", "12.9", "13.0", "13.1", "13.2", "13.3", "13.4", "13.5"}
    assert {torch.version for torch in PARTS.torches} >= ON_INDEX.keys()
    pythons = {wheel.python for _, variant in VARIANTS for wheel in variant.wheels}
    assert pythons >= {"3.10", "3.11", "3.12", "3.13", "3.14"}


@each_variant
def test_all_that_a_torch_needs_is_pinned_for_every_python(
    torch: TorchRelease, variant: TorchVariant
) -> None:
    for wheel in variant.wheels:
        pins = (*torch.tools, *variant.requires)
        found = PARTS.packages(pins, wheel.python, variant.platform, "runtime")
        names = Counter(package.name for package in found)
        assert max(names.values()) == 1, "a package is needed in two versions at once"
        assert {"numpy", "sympy", "setuptools", "ninja", "wheel", "packaging"} <= names.keys()
        assert all(package.locked for package in found)


@each_variant
def test_wheels_of_torch_are_what_their_variant_says(
    torch: TorchRelease, variant: TorchVariant
) -> None:
    assert variant.wheels
    for wheel in variant.wheels:
        name, version, _, _ = parse_wheel_filename(wheel.file)
        assert (name, version.public) == ("torch", torch.version)
        assert fits(wheel.file, wheel.python, variant.platform)
        if version.local:
            assert version.local == f"cu{variant.cuda.replace('.', '')}"
            assert wheel.url.endswith(f"/{version.local}/{wheel.file.replace('+', '%2B')}")
        else:
            assert (wheel.url, wheel.size > 0) == ("", True), "the index says its size"
    if variant.platform == "win-amd64":
        nvidia = [pin for pin in variant.requires if pin.startswith("nvidia-")]
        assert not nvidia, "torch for Windows has NVIDIA's libraries in it"


@each_torch
def test_each_wheel_is_there_once(torch: TorchRelease) -> None:
    places = Counter((variant.cuda, variant.platform) for variant in torch.variants)
    assert max(places.values()) == 1
    wheels = [wheel for variant in torch.variants for wheel in variant.wheels]
    digests = Counter(wheel.sha256 or wheel.url for wheel in wheels)
    assert max(digests.values()) == 1, "two wheels have the same sha256"
    own = {
        variant.cuda
        for variant in torch.variants
        for wheel in variant.wheels
        if not wheel.url and variant.platform == "linux-x86_64"
    }
    assert own == ({ON_INDEX[torch.version]} if torch.version in ON_INDEX else set())


@pytest.mark.parametrize("platform", ["linux-x86_64", "linux-aarch64"])
@each_cuda
def test_compilers_from_the_index_are_pinned(cuda: CudaRelease, platform: str) -> None:
    for python in ("3.10", "3.14"):
        compilers = PARTS.packages(cuda.packages, python, platform, "compiler")
        tools = PARTS.packages(cuda.tools, python, platform, "build")
        by_name = {package.name: package.version for package in compilers}
        if compilers:
            assert by_name["nvidia-cuda-nvcc"] == cuda.nvcc
            assert {package.name for package in tools} == {
                *("nvidia-cuda-cuobjdump", "nvidia-cuda-nvdisasm"),
            }


@each_cuda
def test_windows_has_archives_or_packages_with_all_headers(cuda: CudaRelease) -> None:
    """Those that torch's own headers include: torch for Windows needs no package that has them."""
    if cuda.archives_for("win-amd64"):
        return
    for python in ("3.10", "3.14"):
        pins = (*cuda.packages_for("win-amd64"), *cuda.tools)
        names = {one.name for one in PARTS.packages(pins, python, "win-amd64", "compiler")}
        libraries = ("cublas", "cusolver", "cusparse", "curand", "nvtx", "cuda-nvrtc", "cuda-nvcc")
        assert {f"nvidia-{name}" for name in libraries} <= names


@each_cuda
def test_archives_are_complete_or_absent(cuda: CudaRelease) -> None:
    assert cuda.packages or cuda.archives
    if not cuda.archives:
        return
    assert cuda.manifest.endswith(f"/redistrib_{cuda.version}.json")
    for platform in NVIDIA_PLATFORMS.values():
        names = {one.name: one.version for one in cuda.archives if one.platform == platform}
        assert names["cuda_nvcc"] == cuda.nvcc
        assert {"cuda_cudart", "libcublas", "libcurand", "libcusolver", "libcusparse"} <= set(names)
        assert {"cuda_cuobjdump", "cuda_nvdisasm", "cuda_nvrtc"} <= set(names)
        assert {"cuda_cccl", "cccl"} & set(names)
    assert all(archive.size and archive.sha256 for archive in cuda.archives)


def test_bounds_of_host_compilers_grow() -> None:
    """A newer CUDA takes newer compilers, and drops old GPUs only with a new major version."""
    for before, after in zip(PARTS.cudas, PARTS.cudas[1:], strict=False):
        assert before.gcc <= after.gcc
        assert before.msvc[1] <= after.msvc[1]
        if before.major == after.major:
            assert set(before.archs) <= set(after.archs), (before.version, after.version)


def test_every_pinned_file_is_of_its_package_and_there_once() -> None:
    for name in PARTS.names("packages"):
        files = PARTS.package_files(name)
        for one in files:
            assert canonicalize_name(parse_wheel_filename(one.file)[0]) == name, one.file
            assert one.size, f"{one.file}: the index says its size"
        assert len({one.file for one in files}) == len(files)


def all_pins() -> Iterator[str]:
    for cuda in PARTS.cudas:
        yield from (*cuda.packages, *cuda.tools, *cuda.libraries)
    for torch in PARTS.torches:
        yield from torch.tools
        for variant in torch.variants:
            yield from variant.requires
    for images in PARTS.all_images.values():
        yield images.installer
    for name in list_toolchains(FOLDER):
        table = load_parts_file(FOLDER / f"{name}.toml", PARTS).parts
        yield from (*table.tools, *table.packages)
        for choice in table.torch:
            yield from choice.packages
    yield from FOR_TOOLCHAINS


# Of no toolchain of ours, but for those of users: build tools that many projects want.
FOR_TOOLCHAINS = ("cmake==3.31.10", "cmake==4.4.5")


def test_no_file_is_pinned_in_vain() -> None:
    needed = {re.split("==|;", pin)[0] + "==" + re.split("==|;", pin)[1] for pin in all_pins()}
    for name in PARTS.names("packages"):
        for one in PARTS.package_files(name):
            version = parse_wheel_filename(one.file)[1]
            wanted = {Version(pin.split("==")[1]) for pin in needed if pin.startswith(f"{name}==")}
            assert version in wanted, f"nothing needs {one.file}"


@each_cuda
def test_files_of_cuda_are_written_as_lock_writes_them(cuda: CudaRelease) -> None:
    """So that locking again shows in a diff what is new, and nothing else."""
    check_written(f"cuda/{cuda.version}", lock.cuda_text(cuda))


@each_torch
def test_files_of_torch_are_written_as_lock_writes_them(torch: TorchRelease) -> None:
    check_written(f"torch/{torch.version}", lock.torch_text(torch))


def check_written(name: str, text: str) -> None:
    file = FOLDER / "parts" / f"{name}.toml"
    there = file.read_text(encoding="utf-8")
    head = lock.comments_of(there)
    assert head, "its first line says what it is"
    assert there == f"{head}\n{text}"


def test_the_docs_explain_the_keys_of_parts() -> None:
    text = (FOLDER.parent / "docs" / "toolchains.md").read_text(encoding="utf-8")
    section = text.partition("## The parts")[2].partition("## Toolchains with a name")[0]
    explained = set(re.findall(r"`([a-z_0-9]+)`", section))
    tables = (CudaRelease, Archive, TorchRelease, TorchVariant, TorchWheel, PinnedFile)
    keys = {field.name for table in tables for field in dataclasses.fields(table)}
    assert keys <= explained


# -- parts with mistakes ---------------------------------------------------------------------------


def test_a_pin_without_a_file_is_told_with_all_others() -> None:
    with pytest.raises(ConfigError, match=r"no file is pinned for Python 3\.99") as caught:
        PARTS.packages(("numpy==2.2.6", "no-such==1.0", "sympy==1.14.0"), "3.99", "x-y", "runtime")
    assert caught.value.details == ("numpy==2.2.6", "no-such==1.0")


def test_files_of_other_packages_and_files_there_twice_are_mistakes(tmp_path: Path) -> None:
    add_part(tmp_path, "packages/demo", f"""
    files = [
      {{ file = "demo-1-py3-none-any.whl", size = 1, sha256 = "{'a' * 64}" }},
      {{ file = "demo-1-py3-none-any.whl", size = 2, sha256 = "{'b' * 64}" }},
      {{ file = "other-1-py3-none-any.whl", size = 1, sha256 = "{'a' * 64}" }},
    ]
    """)  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        Parts(tmp_path).package_files("demo")
    told = "\n".join(caught.value.details)
    assert "'demo-1-py3-none-any.whl' stands there twice" in told
    assert "'other-1-py3-none-any.whl' is no file of demo" in told


def test_what_an_earlier_folder_has_comes_first(tmp_path: Path) -> None:
    own = tmp_path / "parts" / "packages" / "ninja.toml"
    own.parent.mkdir(parents=True)
    own.write_text(
        'files = [{ file = "ninja-9.9-py3-none-any.whl", size = 1, sha256 = "' + "a" * 64 + '" }]'
    )
    parts = Parts(tmp_path, FOLDER)
    assert [one.file for one in parts.package_files("ninja")] == ["ninja-9.9-py3-none-any.whl"]
    assert parts.package_files("numpy") == PARTS.package_files("numpy")
    assert release(parts.cudas[-1].version) >= (13, 5)


def test_publishers_are_named_somewhere(tmp_path: Path) -> None:
    assert PARTS.publishers.cuda.startswith("https://")
    with pytest.raises(ConfigError, match=r"no publishers\.toml"):
        _ = Parts(tmp_path).publishers
