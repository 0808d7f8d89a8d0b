"""One wheel from both engines, where both have the same programs: the process engine runs inside a
container of the image on which the docker engine's own images are built.

The process engine builds it on another host, in another time zone, in three shards, and with
variables that compilers and torch's build would follow. It is that of the sample; where there is
more time also that of the shortened selftest, with torch.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
from pathlib import Path

import docker
import pytest
from docker.types import Mount
from packaging.requirements import Requirement

from fatwheel.storage.cache import cache_folder

from .conftest import CONTAINED_ARCHS, ROOT, SAMPLE, Contained, Workbench
from .elsewhere import (
    Varied,
    another_hash_seed,
    another_time_zone,
    three_shards,
    variables_for_compilers,
)
from .shortened import shortened_selftest
from .test_reproducible import assert_same, foreign_strings

pytestmark = pytest.mark.slow

PYTHON = "3.11"


def dependencies(folder: Path) -> Path:
    """What fatwheel needs, for the image's Python: that of this environment, if it is the same."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == PYTHON:
        return Path(sysconfig.get_path("purelib"))
    needed = map(Requirement, importlib.metadata.requires("fatwheel") or [])
    wanted = [str(need) for need in needed if need.marker is None]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    only = ["--python-version", PYTHON, "--only-binary=:all:"]
    subprocess.run([*command, *only, *wanted], check=True)
    return folder


def build_inside(
    client: docker.APIClient,
    image: str,
    bench: Workbench,
    packages: Path,
    kernel: str,
    archs: str,
    varied: Varied,
) -> None:
    """`invoke build --engine process` in a container without network, at the same paths as here."""
    folder = bench.cache.parent
    seen = {ROOT: True, packages: True, bench.home: True, cache_folder(): False, folder: False}
    container = client.create_container(
        image,
        [
            f"python{PYTHON}", "-B",
            *bench.build_command(
                "--engine", "process", "--arch", archs, "--python", PYTHON, *varied.arguments,
                kernel=kernel,
            )[1:],
        ],
        working_dir=str(bench.home),
        hostname="somewhere.example",
        environment={
            "PYTHONPATH": str(packages), "FATWHEEL_CACHE": str(bench.cache), "CI": "true",
            "PIP_FIND_LINKS": str(bench.home / "wheels"), **varied.variables,
        },
        host_config=client.create_host_config(
            network_mode="none",
            mounts=[
                Mount(str(path), str(path), "bind", read_only=read_only)
                for path, read_only in seen.items()
            ],
        ),
    )  # fmt: skip
    try:
        client.start(container)
        code = client.wait(container)["StatusCode"]
        said = client.logs(container).decode(errors="replace")
    finally:
        client.remove_container(container, force=True)
    assert code == 0, f"the build in the container ended with {code}:\n{said}"
    assert "process: " in said, f"it was built by another engine:\n{said}"


def other_ways(folder: Path) -> Varied:
    ways = (another_hash_seed, another_time_zone, three_shards, variables_for_compilers)
    return Varied(folder).together(way(folder) for way in ways)


def check_one_wheel(contained: Contained, bench: Workbench, kernel: str, archs: str) -> None:
    """bench: for the process engine, with nothing in it."""
    folder = bench.cache.parent
    client = contained.lent.connect().api
    image = contained.lent.bases[PYTHON]
    packages = dependencies(folder / "packages")
    build_inside(client, image, bench, packages, kernel, archs, other_ways(folder))
    [of_processes] = bench.wheels()
    [of_containers] = [path for path in contained.outcome.wheels if path.name == of_processes.name]
    assert_same(of_processes, of_containers)
    assert foreign_strings(of_containers, contained.bench.cache) == []


def test_processes_and_containers_make_one_wheel(contained: Contained, tmp_path: Path) -> None:
    bench = Workbench(tmp_path / "inside", slim=contained.bench.slim)
    check_one_wheel(contained, bench, SAMPLE, CONTAINED_ARCHS)


@pytest.mark.long
def test_with_torch_too(contained_selftest: Contained, tmp_path: Path) -> None:
    kernel = str(shortened_selftest(tmp_path / "selftest"))
    check_one_wheel(contained_selftest, Workbench(tmp_path / "inside"), kernel, "80")
