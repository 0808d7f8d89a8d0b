"""The pins of toolchains/: what can be known without fetching them.

What is said here about CUDA 12.3, Visual Studio, CPython and torch was copied from the lists of
those who publish them, not from the files that it is compared with.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from packaging.tags import cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from fatwheel.config.parts import Parts, release
from fatwheel.config.pinned import Package
from fatwheel.config.toolchain import Toolchain, TorchBuild
from fatwheel.config.toolchains import list_toolchains

from ...helpers.pinned import pinned
from ...helpers.toolchains import shipped_toolchain

FOLDER = Path(__file__).resolve().parents[3] / "toolchains"
TOOLCHAINS = [shipped_toolchain(name) for name in list_toolchains(FOLDER)]
BUILDS = [(toolchain, build) for toolchain in TOOLCHAINS for build in toolchain.builds]
WINDOWS, LINUX = "windows-msvc17.8-cuda12.3", "linux-cuda12.3"
# The oldest glibc that a toolchain's environments are made for, 2.X: Debian 10's; manylinux2014's.
GLIBC, OLDER_GLIBC = 28, {LINUX: 17}

each_toolchain = pytest.mark.parametrize("toolchain", TOOLCHAINS, ids=lambda t: t.name)
each_build = pytest.mark.parametrize(
    ("toolchain", "build"), BUILDS, ids=[f"{t.name}-{b.python}-{b.torch}" for t, b in BUILDS]
)


def raw(name: str) -> dict[str, Any]:
    """All that a toolchain pins."""
    return pinned(name)


def all_of(toolchain: Toolchain, build: TorchBuild) -> tuple[Package, ...]:
    return (*toolchain.packages, *build.packages)


# In the locks of wheels that were built so far, when these files pinned everything by themselves:
# neither a key that they do not have nor the parts that they name now change anything.
IN_WHEELS = {
    "linux-cuda13.0": "127b43d5024ee43af51ecf3cf3d4462370b40a122eb6fcef67f98c31d1e8ca41",
    "linux-cuda12.3": "c572491adaace79afd10d415081da872f006f19ba06e287675f61bca6a776474",
    "windows-msvc17.8-cuda12.3": "b1602e3223c46d6058545de07bb3de4920801acea64db8dc08ad136a1cfc6884",
}


def test_wheels_know_these_toolchains_by_their_digests() -> None:
    found = {one.name: one.digest for one in TOOLCHAINS if one.name in IN_WHEELS}
    assert found == IN_WHEELS, "rebuilding would tell that another toolchain made them"


def test_these_toolchains_exist() -> None:
    assert {t.name for t in TOOLCHAINS} >= {LINUX, "linux-cuda13.0", WINDOWS}


@each_toolchain
def test_every_wheel_is_of_the_package_and_version_that_its_pin_says(toolchain: Toolchain) -> None:
    for package in (*toolchain.packages, *(p for b in toolchain.builds for p in b.packages)):
        name, version, _, _ = parse_wheel_filename(package.filename)
        assert (canonicalize_name(package.name), package.version) == (name, str(version))


def platforms_of(toolchain: Toolchain) -> list[str]:
    """The wheel platforms that the toolchain's environments take."""
    if toolchain.platform == "win-amd64":
        return ["win_amd64"]
    newest = OLDER_GLIBC.get(toolchain.name, GLIBC)
    years = {"2014": 17, "2010": 12, "1": 5}
    found = [f"manylinux_2_{glibc}_x86_64" for glibc in range(newest, 4, -1)]
    found += [f"manylinux{year}_x86_64" for year, glibc in years.items() if glibc <= newest]
    return [*found, "linux_x86_64"]


@each_build
def test_every_wheel_runs_on_its_python(toolchain: Toolchain, build: TorchBuild) -> None:
    minor = int(build.python.partition(".")[2])
    platforms = platforms_of(toolchain)
    good = {f"{tag.interpreter}-{tag.abi}" for tag in cpython_tags((3, minor), platforms=platforms)}
    good |= {"py3-none", "py2.py3-none"}
    for package in all_of(toolchain, build):
        tags = parse_wheel_filename(package.filename)[3]
        assert {f"{tag.interpreter}-{tag.abi}" for tag in tags} & good, package.filename
        assert {tag.platform for tag in tags} & {*platforms, "any"}, package.filename


@each_build
def test_no_package_is_pinned_twice_and_the_needed_ones_are(
    toolchain: Toolchain, build: TorchBuild
) -> None:
    names = [package.name for package in all_of(toolchain, build)]
    assert len(names) == len(set(names))
    roles = {package.name: package.role for package in all_of(toolchain, build)}
    versions = {package.name: package.version for package in all_of(toolchain, build)}
    assert versions["torch"].partition("+")[0] == build.torch
    assert roles["torch"] == "runtime"
    # What torch 2.1 to 2.11 require on every system, and what those require.
    assert {name for name, role in roles.items() if role == "runtime"} >= {
        "filelock", "typing-extensions", "sympy", "mpmath", "networkx", "jinja2", "markupsafe",
        "fsspec", "numpy", "einops",
    }  # fmt: skip
    assert {name for name, role in roles.items() if role == "build"} >= {
        "ninja", "setuptools", "wheel", "packaging",
    }  # fmt: skip
    assert [name for name, role in roles.items() if role == "installer"] == ["pip"]


@each_toolchain
def test_nvcc_is_the_pinned_one(toolchain: Toolchain) -> None:
    packages = {package.name: package for package in toolchain.packages}
    if not toolchain.cuda_files:
        assert packages["nvidia-cuda-nvcc"].version == toolchain.nvcc
        assert {name for name, package in packages.items() if package.role == "compiler"} >= {
            "nvidia-cuda-nvcc",  # nvcc, cudafe++, ptxas, fatbinary
            "nvidia-nvvm",  # cicc, libdevice
            "nvidia-cuda-crt",
            "nvidia-cuda-runtime",
            "nvidia-cuda-cccl",
        }
    else:
        files = {file.name: file.version for file in toolchain.cuda_files}
        assert files["cuda_nvcc"] == toolchain.nvcc


@each_toolchain
def test_every_python_has_an_image(toolchain: Toolchain) -> None:
    assert toolchain.containers is not None
    brought = {python for base in toolchain.containers.bases for python in base.pythons}
    installed = {interpreter.python for interpreter in toolchain.interpreters}
    assert brought | installed == set(toolchain.pythons)


def test_the_toolchain_of_wheels_names_no_place() -> None:
    toolchain = shipped_toolchain("linux-cuda13.0")
    places = [file.url for file in toolchain.files if file.url]
    assert places == [], "where files come from is the user's pip configuration's"


@each_toolchain
def test_only_publishers_are_named(toolchain: Toolchain) -> None:
    hosts = set(re.findall(r"://([^/\"']+)", str(raw(toolchain.name))))
    assert hosts <= {
        "api.nuget.org",
        "developer.download.nvidia.com",
        "download.pytorch.org",
        "download.visualstudio.microsoft.com",
        "github.com",
        "globalcdn.nuget.org",
        "visualstudio.microsoft.com",
        "www.python.org",
    }


# -- CUDA 12.3 -----------------------------------------------------------------------------------

# redistrib_12.3.2.json: version, then size and sha256 for Windows and for Linux.
CUDA_12_3_2 = {
    "cuda_nvcc": (
        "12.3.107",
        62744070, "8398faefe86092b434d6be2f0b74addae639965217b8fb8f77099c8d75eb99df",
        47766584, "65dba017ed1dbbe819a6ccc1841a4add4dfbc652603aa89be773888e82a5629e",
    ),
    "cuda_cudart": (
        "12.3.101",
        2463054, "310a71bc9c92d6e61eeddf3489cc195519665fbfaca16c618b03da0ac5ea9f7d",
        1088388, "e37d478d1e7a10490d55fb87a5ef379a18c648f3010e1d3687c4298ddc3e9e19",
    ),
    "cuda_cccl": (
        "12.3.101",
        3044697, "9ead3b6a606727ca05645f3f6b050d1158358c3bc9e518169666c9766f090306",
        1148952, "dabd433bbef5f6d1b79f9a7eea909a3c273e20641f07a6a8667f42577462e34d",
    ),
    "libcublas": (
        "12.3.4.1",
        439481897, "e29c419a99a2f5e3ea0e7394a58c23536429a26b7eccc3f89f172f7fd2818a23",
        499925424, "2cb5c340f89d9bad6e0f1fb2a93a8a4962fe106eeb96d8887abd25c1552bd219",
    ),
    "libcusolver": (
        "11.5.4.101",
        120932643, "698149cd3bbd09ac8c426f95a7598d84e62f4452cde13c1d29f707f8091047b9",
        123457448, "c271621cba76a12dd3cbddc491416f6cfea975bea695c418abb1f7fe281b8596",
    ),
}  # fmt: skip
FORMATS = {WINDOWS: ("windows-x86_64", "zip", 1), LINUX: ("linux-x86_64", "tar.xz", 3)}

both = pytest.mark.parametrize("name", [WINDOWS, LINUX])


@both
@pytest.mark.parametrize("part", CUDA_12_3_2)
def test_cuda_is_what_nvidia_publishes(name: str, part: str) -> None:
    version, *pins = CUDA_12_3_2[part]
    platform, suffix, at = FORMATS[name]
    [found] = [table for table in raw(name)["cuda_files"] if table["name"] == part]
    assert found == {
        "name": part,
        "version": version,
        "url": "https://developer.download.nvidia.com/compute/cuda/redist/"
        f"{part}/{platform}/{part}-{platform}-{version}-archive.{suffix}",
        "size": pins[at - 1],
        "sha256": pins[at],
    }


@both
def test_cuda_has_what_torch_s_headers_ask_for(name: str) -> None:
    parts = {table["name"] for table in raw(name)["cuda_files"]}
    assert parts == {
        "cuda_nvcc", "cuda_cudart", "cuda_cccl", "cuda_nvrtc", "cuda_nvtx", "cuda_profiler_api",
        "cuda_nvml_dev", "libcublas", "libcusparse", "libcusolver", "libcurand", "cuda_cuobjdump",
        "cuda_nvdisasm",
    }  # fmt: skip


@both
def test_nvcc_12_3_knows_these_architectures(name: str) -> None:
    known = "50 52 53 60 61 62 70 72 75 80 86 87 89 90 90a"
    assert raw(name)["archs"] == known.split()
    assert (raw(name)["cuda"], raw(name)["nvcc"]) == ("12.3", "12.3.107")


def test_the_linux_compilers_are_those_that_nvcc_12_3_takes() -> None:
    assert raw(LINUX)["gcc"] == [9, 12]


def test_visual_studio_is_the_last_with_the_compiler_of_the_first_wheels() -> None:
    msvc = raw(WINDOWS)["msvc"]
    assert (msvc["visual_studio"], msvc["cl"], msvc["toolset"]) == (
        "17.8.2", "19.38.33130", "14.38"
    )  # fmt: skip
    names = [one["name"].removeprefix("Microsoft.") for one in msvc["payloads"]]
    assert names == MSVC_PARTS["14.38"]


MSVC_PARTS = {
    toolset: [
        *(f"VC.{toolset}.{release}.{name}.base" for name in (
            "CRT.Headers", "CRT.Redist.X64", "CRT.x64.Desktop", "CRT.x64.Store",
            "Tools.HostX64.TargetX64.Res", "Tools.HostX64.TargetX64",
        )),
        "Windows.SDK.CPP", "Windows.SDK.CPP.x64",
    ]
    for toolset, release in (("14.38", "17.8"), ("14.39", "17.9"), ("14.44", "17.14"))
}  # fmt: skip


def test_every_msvc_has_all_packages_with_the_catalogue_that_lists_them() -> None:
    msvcs = Parts(FOLDER).msvcs
    assert [one.toolset for one in msvcs] == [*MSVC_PARTS]
    for one in msvcs:
        names = [payload.name.removeprefix("Microsoft.") for payload in one.payloads]
        assert names == MSVC_PARTS[one.toolset]
        release = names[0].removeprefix(f"VC.{one.toolset}.").partition(".CRT")[0]
        assert one.visual_studio.startswith(f"{release}.")
        assert one.cl.startswith(f"19.{one.toolset.partition('.')[2]}.")


def test_every_cuda_gets_the_newest_msvc_that_its_nvcc_and_msvc_s_library_take() -> None:
    """crt/host_config.h has the first limit, yvals_core.h of the library the second."""
    parts = Parts(FOLDER)
    for cuda in parts.cudas:
        fitting = [one.toolset for one in parts.msvcs if not one.obstacle(cuda)]
        wanted = "14.44" if release(cuda.version) >= (12, 4) else "14.39"
        assert fitting[-1] == wanted, cuda.version


def test_the_windows_images_are_those_of_server_2022() -> None:
    assert raw(WINDOWS)["containers"] == {
        "os": "windows",
        "os_build": 20348,
        "bases": [{"reference": "mcr.microsoft.com/windows/servercore:ltsc2022"}],
    }


# -- Pythons -------------------------------------------------------------------------------------

PYTHONS = {
    WINDOWS: {
        "python-3.10.11-amd64.exe": (
            "d8dede5005564b408ba50317108b765ed9c3c510342a598f9fd42681cbe0648b"
        ),
        "python-3.11.9-amd64.exe": (
            "5ee42c4eee1e6b4464bb23722f90b45303f79442df63083f05322f1785f5fdde"
        ),
    },
    LINUX: {
        "cpython-3.10.11+20230507-x86_64-unknown-linux-gnu-install_only.tar.gz": (
            "c5bcaac91bc80bfc29cf510669ecad12d506035ecb3ad85ef213416d54aecd79"
        ),
        "cpython-3.11.9+20240726-x86_64-unknown-linux-gnu-install_only.tar.gz": (
            "f6e955dc9ddfcad74e77abe6f439dac48ebca14b101ed7c85a5bf3206ed2c53d"
        ),
    },
}


@both
def test_the_interpreters_are_those_that_are_published(name: str) -> None:
    tables = raw(name)["interpreters"]
    assert [(table["python"], table["version"]) for table in tables] == [
        ("3.10", "3.10.11"),
        ("3.11", "3.11.9"),
    ]
    found = {table["url"].rpartition("/")[2]: table["sha256"] for table in tables}
    assert found == PYTHONS[name]


# -- torch ---------------------------------------------------------------------------------------

TORCHES = ["2.1.1", "2.1.2", "2.2.2"]
# sha256 where it has been published beside the index page.
TORCH_HASHES = {
    "torch-2.1.1+cu121-cp310-cp310-linux_x86_64.whl": (
        "ec76d11350c8e887a34d36602cd37f50639bc9cda9faea4d43f2070e9792e4a4"
    ),
    "torch-2.1.1+cu121-cp311-cp311-linux_x86_64.whl": (
        "83bfe1134dfa8ab86553c15da5dffa190a86d822afafe8ea6de1169c10d971aa"
    ),
    "torch-2.1.2+cu121-cp310-cp310-linux_x86_64.whl": (
        "b2184b7729ef3b9b10065c074a37c1e603fd99f91e38376e25cb7ed6e1d54696"
    ),
    "torch-2.2.2+cu121-cp310-cp310-win_amd64.whl": (
        "d300055aac0e2063f9a2659924e9766605db06d5683532c6eabbdef6bec865dd"
    ),
    "torch-2.2.2+cu121-cp311-cp311-win_amd64.whl": (
        "efbcfdd4399197d06b32f7c0e1711c615188cdd65427b933648c7478fb880b3f"
    ),
}


@both
def test_torch_is_the_build_for_cuda_12_1(name: str) -> None:
    file = raw(name)
    assert file["default_torch"] == "2.1.1"
    assert [(build["torch"], build["python"]) for build in file["builds"]] == [
        (torch, python) for torch in TORCHES for python in ("3.10", "3.11")
    ]
    platform = "win_amd64" if name == WINDOWS else "linux_x86_64"
    for build in file["builds"]:
        [torch] = [table for table in build["packages"] if table["name"] == "torch"]
        tag = "cp" + build["python"].replace(".", "")
        wheel = f"torch-{build['torch']}+cu121-{tag}-{tag}-{platform}.whl"
        assert torch["file"] == wheel
        url = "https://download.pytorch.org/whl/cu121/" + wheel.replace("+", "%2B")
        assert torch["url"] == url
        if wheel in TORCH_HASHES and "sha256" in torch:
            assert torch["sha256"] == TORCH_HASHES[wheel]


@both
def test_numpy_is_one_that_torch_2_1_loads_with(name: str) -> None:
    versions = {
        table["version"]
        for build in raw(name)["builds"]
        for table in build["packages"]
        if table["name"] == "numpy"
    }
    assert versions == {"1.26.4"}


@both
def test_setuptools_still_has_what_torch_2_1_imports(name: str) -> None:
    """`from pkg_resources import packaging` works up to 69; 70 took it away."""
    [version] = [t["version"] for t in raw(name)["packages"] if t["name"] == "setuptools"]
    assert int(version.partition(".")[0]) == 69


# The METADATA of torch's wheels: triton always, CUDA's libraries where the wheel lacks them.
LINUX_REQUIRES = {
    "2.1.1": {"triton": "2.1.0"},
    "2.1.2": {"triton": "2.1.0"},
    "2.2.2": {
        "triton": "2.2.0",
        "nvidia-cuda-nvrtc-cu12": "12.1.105",
        "nvidia-cuda-runtime-cu12": "12.1.105",
        "nvidia-cuda-cupti-cu12": "12.1.105",
        "nvidia-cudnn-cu12": "8.9.2.26",
        "nvidia-cublas-cu12": "12.1.3.1",
        "nvidia-cufft-cu12": "11.0.2.54",
        "nvidia-curand-cu12": "10.3.2.106",
        "nvidia-cusolver-cu12": "11.4.5.107",
        "nvidia-cusparse-cu12": "12.1.0.106",
        "nvidia-nccl-cu12": "2.19.3",
        "nvidia-nvtx-cu12": "12.1.105",
        "nvidia-nvjitlink-cu12": "12.1.105",  # of cusolver and cusparse, without a version
    },
}


def test_linux_has_what_torch_requires() -> None:
    for build in raw(LINUX)["builds"]:
        found = {table["name"]: table["version"] for table in build["packages"]}
        for name in ("torch", "numpy", "markupsafe"):
            del found[name]
        assert found == LINUX_REQUIRES[build["torch"]]
