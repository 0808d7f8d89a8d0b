"""Workers of a Dask cluster whose compilers run in containers.

The machine that builds is a container of the base image itself: so it has what they have.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.storage.cache import cache_folder

from .conftest import ROOT, Contained, Outcome, Workbench
from .daskcluster import SOON, Cluster, until
from .engine import LentEngine
from .slim import Slim
from .test_builds import sha256

pytestmark = pytest.mark.slow

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def begin_in_base(
    bench: Workbench, lent: LentEngine, docker: str, *asked: str
) -> subprocess.Popen[str]:
    """Begin to build the sample on a machine that is a container of the base image; it has the
    network of this machine."""
    assert bench.slim is not None
    bench.keep_apart(bench.cache.parent / "envs")  # those of the base image's Python
    folders = {ROOT, Path(sys.prefix), bench.slim.folder, bench.cache.parent, cache_folder()}
    shared = [word for folder in sorted(folders) for word in ("--volume", f"{folder}:{folder}")]
    path = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    variables = {"FATWHEEL_CACHE": str(bench.cache), "CI": "true", "PYTHONPATH": path}
    named = [word for pair in variables.items() for word in ("--env", "=".join(pair))]
    options = ["--rm", "--network", "host", "--workdir", str(bench.home), *shared, *named]
    build = bench.build_command(
        "--arch", "80,89", "--python", _PYTHON, "--find", str(bench.slim.folder / "wheels"), *asked
    )
    command = [docker, "run", *options, lent.bases[_PYTHON], f"python{_PYTHON}", *build[1:]]
    return subprocess.Popen(
        command, env={**os.environ, **lent.variables}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def purposes(lent: LentEngine, worker: Path) -> list[str]:
    """What the containers of a worker are for that there are now."""
    labels = {"label": f"fatwheel.cache={worker / 'cache'}"}
    found = lent.client().containers(all=True, filters=labels)
    return [one["Labels"]["fatwheel.purpose"] for one in found]


@pytest.mark.long  # Dask without containers, and containers without Dask, are in every run
def test_containers_make_the_wheel_of_a_build_in_containers(
    docker_engine: LentEngine, slim: Slim, contained: Contained, tmp_path: Path,
    tool: Callable[[str], str],
) -> None:  # fmt: skip
    """Though one of the workers is killed, and leaves no container behind."""
    docker = tool("docker")
    if _PYTHON not in docker_engine.bases:
        pytest.skip(f"the base image has no Python {_PYTHON}, for which these packages are")
    cluster = Cluster(tmp_path / "cluster")
    boxed = {"slim": slim, "engine": "docker", **docker_engine.variables}
    bench = Workbench(tmp_path / "bench", slim=slim)
    try:
        first = cluster.worker("first", **boxed)
        build = begin_in_base(bench, docker_engine, docker, "--scheduler", cluster.address)
        until(lambda: "shard dask" in purposes(docker_engine, first), "its container runs", build)
        second = cluster.worker("second", **boxed)
        cluster.kill("first")
        until(lambda: not purposes(docker_engine, first), "its container ends with it")
        out, err = build.communicate(timeout=4 * SOON)
        until(lambda: not purposes(docker_engine, second), "its container ends with the build")
    finally:
        cluster.close()
    made = Outcome(build.returncode, out, err, bench.wheels()).wheel()
    tag = f"-cp{_PYTHON.replace('.', '')}-"
    [expected] = [one for one in contained.outcome.wheels if tag in one.name]
    assert sha256(made) == sha256(expected)
    assert "worker first was lost" in err
    assert not (second / "cache" / "store").exists(), "a worker keeps nothing"
