"""The upstream way: the project's own build with the real compilers, and nothing of fatwheel's.

The architectures must be those that fatwheel is asked for, and projects hard-code theirs: older
ones than nvcc still knows among them. So a script on the way to nvcc replaces these options, and
only these; torch calls it in nvcc's place (PYTORCH_NVCC). Everything else is upstream's own
choice, `--threads` too.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from fatwheel.arch import ArchRequest
from fatwheel.engines.local import Tools
from fatwheel.errors import UpstreamError
from fatwheel.machine import cores
from fatwheel.pipeline.plan import exact_fronts
from fatwheel.worker import backend as backend_script
from fatwheel.worker.archs import arch_variables
from fatwheel.worker.upstream import Project

from .measure import Run, run_child

_TAIL = 40  # lines of a failed build's output that are shown
# $# counts down the words that were there at first; each is put back at the end, or not.
_NVCC = """\
#!/bin/sh
left=$#
while [ "$left" -gt 0 ]; do
  word=$1
  shift
  left=$((left - 1))
  case $word in
    -gencode | --generate-code | -arch | --gpu-architecture | -code | --gpu-code)
      shift
      left=$((left - 1))
      ;;
    -gencode=* | --generate-code=* | -arch=* | --gpu-architecture=* | -code=* | --gpu-code=*) ;;
    *) set -- "$@" "$word" ;;
  esac
done
exec {nvcc} "$@" {gencodes}
"""


def gencodes(archs: Sequence[ArchRequest]) -> list[str]:
    """nvcc's options for a list of architectures, each with a front of its own."""
    words: list[str] = []
    for request in archs:
        arch = request.arch
        codes = [arch.sm, *([arch.compute] if request.ptx else [])]
        words += ["-gencode", f"arch={arch.compute},code=[{','.join(codes)}]"]
    return words


def write_nvcc(path: Path, nvcc: Path, archs: Sequence[ArchRequest]) -> None:
    """Write the script that calls nvcc with these architectures instead of the caller's."""
    path.write_text(_NVCC.format(nvcc=shlex.quote(str(nvcc)), gencodes=shlex.join(gencodes(archs))))
    path.chmod(0o755)


def build_plainly(
    project: Project,
    tools: Tools,
    archs: Sequence[ArchRequest],
    folder: Path,
    *,
    sample: bool = False,
) -> Run:
    """Build the wheel of an unpacked project in a new folder; sample: look at its compilers'
    memory. Raises UpstreamError."""
    out, stubs = folder / "dist", folder / "stubs"
    for path in (folder, out, stubs):
        path.mkdir()
    write_nvcc(folder / "nvcc", tools.environment.cuda_home / "bin" / "nvcc", archs)
    for name in project.stub_commands:
        (stubs / name).symlink_to("/bin/true")
    environment = tools.environment
    command = [
        str(environment.python), "-s", backend_script.__file__, str(project.root),
        project.backend, os.pathsep.join(project.backend_paths), str(out),
        json.dumps({"settings": dict(project.settings), "pretend": project.pretend}),
    ]  # fmt: skip
    variables = _variables(project, tools, archs, stubs, folder / "nvcc")
    theirs, ours = os.pipe()  # its end tells the build that we are gone
    with open(ours, "wb"), open(theirs, "rb"):
        run = run_child(
            [*command, str(theirs)], project.root, variables, folder / "log",
            sample=sample, descriptors=[theirs],
        )  # fmt: skip
    if run.returncode != 0:
        raise UpstreamError(
            f"the project's own build failed (exit code {run.returncode})",
            where=f"{project.root.name}, without fatwheel",
            details=run.output.splitlines()[-_TAIL:],
        )
    return run


def _variables(
    project: Project, tools: Tools, archs: Sequence[ArchRequest], stubs: Path, nvcc: Path
) -> dict[str, str]:
    environment = tools.environment
    programs = [stubs, environment.cuda_home / "bin", environment.python.parent]
    inherited = {name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ}
    return {
        **inherited,
        "PATH": os.pathsep.join([*map(str, programs), os.environ.get("PATH", os.defpath)]),
        "CUDA_HOME": str(environment.cuda_home),
        "CXX": str(tools.compiler.path),
        "PYTORCH_NVCC": str(nvcc),
        **arch_variables(exact_fronts(archs), environment.site),
        "MAX_JOBS": str(cores()),
        "LC_ALL": "C.UTF-8",
        "SOURCE_DATE_EPOCH": str(project.epoch),
        **dict(project.variables),
    }
