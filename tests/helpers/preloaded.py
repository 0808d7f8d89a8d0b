"""`python -m invoke` without what its imports take: half a second of a core for each command.

A process imports what most commands need, once, and does nothing else. For a command it makes a
copy of itself, which gets the command's words, variables, folder and streams, becomes what
`python -m invoke` is, and ends as that does. No command sees anything of another one.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# What Python reads before it runs anything, and what the copies therefore have in common.
_OF_PYTHON = ("PYTHON", "LC_", "LANG")
_VARIABLES = dict(os.environ)  # not those of a test that happens to be the first


class Preloaded:
    """Runs `python -m MODULE` as it is run in a folder, which comes first on Python's path."""

    def __init__(self, folder: Path) -> None:
        self._asks, its = socket.socketpair()
        with its:
            command = [sys.executable, "-m", "tests.helpers.preloaded", str(its.fileno())]
            self._process = subprocess.Popen(
                command, cwd=folder, env=_VARIABLES, pass_fds=[its.fileno()]
            )
        atexit.register(self._end)

    def _end(self) -> None:
        self._asks.close()
        self._process.wait()

    def run(
        self, words: Sequence[str], cwd: Path, variables: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. words: the module, then its arguments."""
        asked = {"words": list(words), "folder": str(cwd), "variables": dict(variables)}
        reader, writer = os.pipe()
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            with tempfile.TemporaryFile() as request, open(reader) as told:
                request.write(json.dumps(asked).encode())
                request.seek(0)
                streams = [request.fileno(), out.fileno(), err.fileno(), writer]
                socket.send_fds(self._asks, [b"."], streams)
                os.close(writer)
                started = told.readline()
                assert started, "the process that has imported everything has ended: see its stderr"
                process = int(started)
                try:
                    code = int(told.readline())
                except BaseException:
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                    raise
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(list(words), code, out.read(), err.read())


@cache
def preloaded(folder: Path) -> Preloaded:
    """The one for a folder, until this process ends."""
    return Preloaded(folder)


def run_command(
    command: Sequence[str], cwd: Path, variables: Mapping[str, str], code: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and get what it prints. code: the folder with the code of it, if it
    is one of ours."""
    if command[:2] == [sys.executable, "-m"] and _of_python(variables) == _of_python(_VARIABLES):
        return preloaded(code).run(command[2:], cwd, variables)
    return subprocess.run(
        command, cwd=cwd, env=variables, capture_output=True, text=True, check=False
    )


def _of_python(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in variables.items() if name.startswith(_OF_PYTHON)}


# -- the other process -----------------------------------------------------------------------------


def _next_command(asks: socket.socket) -> dict[str, Any]:
    """Wait for commands. Only copies of this process come back from here, each with a command."""
    while True:
        asked, streams, _, _ = socket.recv_fds(asks, 1, 4)
        if not asked:
            os._exit(0)  # nobody asks any more
        if not os.fork():
            asks.close()
            return _watched(*streams)
        for stream in streams:
            os.close(stream)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _watched(request: int, out: int, err: int, told: int) -> dict[str, Any]:
    """Become a command; how it ends is told by the process that started it."""
    process = os.fork()
    if process:
        os.write(told, b"%d\n" % process)
        _, status = os.waitpid(process, 0)
        os.write(told, b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    with open(request) as stream:
        found: dict[str, Any] = json.load(stream)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for number in (out, err, told):
        os.close(number)
    return found


if __name__ == "__main__":
    import fatwheel.cli.main
    import fatwheel.cli.progress
    import fatwheel.cli.results
    import fatwheel.engines.process
    import fatwheel.pipeline.build
    import fatwheel.pipeline.rebuild
    import fatwheel.provenance.cyclonedx
    import fatwheel.trial.verify  # noqa: F401
    from fatwheel.config.fields import adapter
    from fatwheel.config.schema import RecipeFile, ToolchainFile
    from fatwheel.provenance.lock import LockFile
    from fatwheel.toolchain.pipconfig import read_pip_config

    for kind in (RecipeFile, ToolchainFile, LockFile):
        adapter(kind)  # pydantic takes as long for them as for all files of a build
    read_pip_config()  # which starts pip; copies remember it for as long as pip would read the same

    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when nobody asks any more
    command = _next_command(socket.socket(fileno=int(sys.argv[1])))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["variables"])
    sys.argv = command["words"]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
