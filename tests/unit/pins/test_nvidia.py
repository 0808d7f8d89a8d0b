"""What NVIDIA's own files tell of a release: manifests, host_config.h, `ptxas --help`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fatwheel.errors import ConfigError
from fatwheel.pins import nvidia
from fatwheel.toolchain.installedcuda import archs_in_help
from fatwheel.toolchain.pipconfig import PipConfig, RefusedError
from fatwheel.toolchain.web import Web

from ...helpers.webserver import Server, body

# Of CUDA 12.4's crt/host_config.h, and of 13.0's: the lines that decide.
OLDER = """\
#if defined(__GNUC__)

#if __GNUC__ > 13

#error -- unsupported GNU version! gcc versions later than 13 are not supported!

#endif /* __GNUC__ > 13 */
#if defined(_MSC_VER)
#if _MSC_VER < 1910 || _MSC_VER >= 1950
#error -- unsupported Microsoft Visual Studio version!
#elif _MSC_VER >= 1910 && _MSC_VER < 1910
#endif
"""
# As `ptxas --help` of CUDA 12.9 prints it, in part.
HELP = """\
Usage  : ptxas [options] <ptx file>,...

--fast-compile <level>                        (-Ofc)
        Specify level for enabling fast-compile in device code.
        Allowed values for this option:  '0','max','mid','min'.

--gpu-name <gpu name>                         (-arch)
        Specify name of NVIDIA GPU to generate code for.
        Allowed values for this option:  'compute_50','compute_90a','lto_50','sm_100',
        'sm_100a','sm_100f','sm_50','sm_90','sm_90a'.
        Default value:  'sm_52'.

--help                                        (-h)
        Print this help information on this tool, such as 'sm_1'.
"""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def web() -> Iterator[Web]:
    client = Web(PipConfig(retries=0, timeout=5.0))
    yield client
    client.close()


def test_bounds_of_host_compilers() -> None:
    assert nvidia.host_limits(OLDER) == (13, (1910, 1949))
    assert nvidia.host_limits("#if __GNUC__ > 15\n") == (15, None)
    assert nvidia.host_limits("") == (None, None)


def test_architectures_are_those_of_gpu_name() -> None:
    names = [arch.name for arch in archs_in_help(HELP)]
    # A default names one that is not offered.
    assert names == ["50", "52", "90", "90a", "100", "100a", "100f"]
    assert archs_in_help("no ptxas at all") == ()


def test_the_newest_patch_by_number(server: Server, web: Web) -> None:
    page = "".join(
        f"<a href='redistrib_{version}.json'>redistrib_{version}.json</a>"
        for version in ("99.1.2", "99.1.10", "99.10.1", "98.1.11")
    )
    server.answers["/redist/"] = body(page.encode(), "text/html")
    folder = f"{server.url}/redist"
    assert nvidia.newest_release("99.1", folder, web) == "99.1.10"
    assert nvidia.newest_release("99.3", folder, web) is None
    assert nvidia.newest_release("99.3.1", folder, web) == "99.3.1", "it needs no listing"


def test_names_with_endless_numbers_are_no_releases(server: Server, web: Web) -> None:
    page = f"redistrib_99.1.{'9' * 5000}.json redistrib_99.1.\u0663.json redistrib_99.1.2.json"
    server.answers["/redist/"] = body(page.encode(), "text/html")
    assert nvidia.newest_release("99.1", f"{server.url}/redist", web) == "99.1.2"


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([], "not one JSON object"),
        ({"cuda_gdb": {}}, "it has no cuda_nvcc"),
        (
            {"cuda_nvcc": {"version": "1.0", "linux-x86_64": {"sha256": "x", "size": "5"}}},
            "sha256: 'x' is not a sha256",
        ),
        (
            {"cuda_nvcc": {"version": "1 && rm", "linux-x86_64": {"size": "x"}}},
            "version: '1 && rm' is not a version",
        ),
        (
            {
                "cuda_nvcc": {
                    "version": "1.0",
                    "linux-x86_64": {
                        "relative_path": "x/y.tar.xz",
                        "sha256": "a" * 64,
                        "size": "5",
                    },
                }
            },
            "cuda_nvcc is not at cuda_nvcc/linux-x86_64/cuda_nvcc-linux-x86_64-1.0-archive.tar.xz",
        ),
    ],
)
def test_what_is_no_manifest(server: Server, web: Web, document: object, told: str) -> None:
    server.serve("/redistrib_9.9.9.json", json.dumps(document).encode())
    with pytest.raises(RefusedError, match="is not a CUDA release manifest") as caught:
        nvidia.archives_in(f"{server.url}/redistrib_9.9.9.json", web)
    assert told in str(caught.value)


def test_files_that_tell_nothing_name_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="do not tell what its nvcc accepts") as caught:
        nvidia.limits_in([], "99.1.0")
    assert caught.value.details == ("not found: gcc, msvc, archs",)
    broken = tmp_path / "nvcc.whl"
    broken.write_bytes(b"PK")
    with pytest.raises(ConfigError, match="cannot be read"):
        nvidia.limits_in([broken], "99.1.0")


def test_elsewhere_ptxas_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fatwheel.pins.nvidia.platform.system", lambda: "Windows")
    assert nvidia._help_of(b"#!/bin/sh\nexit 1") == ""
