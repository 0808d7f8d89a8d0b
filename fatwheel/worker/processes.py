"""Runs compilers: their environment variables and process groups, on Linux and Windows. Standard
library only.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from .bypass import STEPS_VARIABLE
from .programs import LAUNCHER, Programs


def bare_variables() -> dict[str, str]:
    """What every compiler sees: nothing of the user's but where programs are."""
    kept = {name: os.environ[name] for name in _SYSTEMS if name in os.environ}
    return {**kept, "PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}


if sys.platform == "win32":
    # Without them neither Python nor cmd, through which nvcc works, start.
    _SYSTEMS: tuple[str, ...] = (
        "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "PROCESSOR_ARCHITECTURE",
    )  # fmt: skip
    # link takes these options after all others: a finished library must hold neither times nor, as
    # it does where it has a PDB, a path. No linker may take one that it does not know for a file,
    # hence the dashes; Microsoft's own then warns (LNK4044) and goes on.
    _LINK = "-INCREMENTAL:NO -DEBUG:NONE -Brepro -experimental:deterministic"

    def upstreams_variables(tools: Sequence[Path], standins: Programs) -> dict[str, str]:
        """What upstream's build sees of the system. Its variables are those of the container;
        it finds its compiler by PATH."""
        path = [*map(str, tools), os.environ.get("PATH", "")]
        return {**os.environ, "PATH": os.pathsep.join(path), "_LINK_": _LINK}

    def real_compilers_variables() -> Mapping[str, str]:
        """What compilers must see otherwise than upstream's build: nvcc looks for cl in PATH."""
        return {"PATH": os.environ.get("PATH", "")}

else:
    _SYSTEMS: tuple[str, ...] = ()

    def upstreams_variables(tools: Sequence[Path], standins: Programs) -> dict[str, str]:
        """What upstream's build sees of the system."""
        inherited = {"TMPDIR": os.environ["TMPDIR"]} if "TMPDIR" in os.environ else {}
        path = [*map(str, tools), os.environ.get("PATH", os.defpath)]
        return {
            **inherited,
            "PATH": os.pathsep.join(path),
            "CC": str(standins.compilers / "gcc"),
            "CXX": str(standins.compilers / "g++"),
            STEPS_VARIABLE: str(standins.steps),
            **{f"CMAKE_{language}_COMPILER_LAUNCHER": str(standins.steps / LAUNCHER)
               for language in ("C", "CXX", "CUDA")},
        }  # fmt: skip

    def real_compilers_variables() -> Mapping[str, str]:
        """What compilers must see otherwise than upstream's build: nothing."""
        return {}


# -- processes -------------------------------------------------------------------------------------

# Runs compilers and measures them, and ends all that a build started. Where Linux and Windows
# differ, both are here.
#
# nvcc runs its steps one after another, so the largest step is the peak. On Linux, wait4 reports it
# for the process and all descendants that it waited for, and compilers stay in the process group
# of who runs them: whoever ends the group ends them too. On Windows both is what job objects are
# for.


if sys.platform == "win32":
    from . import jobobjects, wine

# Names the files in which is counted what was killed for memory: by Linux, and by who guards a
# worker of a cluster. Wine tells nobody: the exit code of such a program is 0, whatever it has
# written by then.
KILLS_VARIABLE = "FATWHEEL_KILLS"
_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)  # as cgroups of both versions and vmstat say
_NO_MEMORY = 0xC0000017  # STATUS_NO_MEMORY


def kills() -> int:
    """How many programs were killed for memory so far, Wine's among them; a number that only
    grows."""
    places = filter(None, os.environ.get(KILLS_VARIABLE, "").split(os.pathsep))
    found = (_KILLS.search(Path(place).read_text(encoding="ascii")) for place in places)
    return sum(int(one[1]) for one in found if one)


@dataclass(frozen=True)
class ProcessUsage:
    """rss in bytes: the largest process of the tree; cpu in seconds, over all of them.

    Linux counts what a process was before exec, so rss is at least this process's own. Windows
    counts what was promised to the process, in memory or not.
    """

    returncode: int
    output: str
    cpu: float
    rss: int


def run_measured(command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> ProcessUsage:
    """Run a command; stdout and stderr come back as one text. OSError where it cannot start.

    A busy Wine can lose a process at its start, for which nvcc.exe has no word: such a command runs
    once more.
    """
    usage = _run_once(command, cwd, environment)
    if not _is_lost(usage):
        return usage
    again = _run_once(command, cwd, environment)
    return replace(again, output=f"Wine lost a program at its start: run again\n{again.output}")


def _run_once(command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> ProcessUsage:
    before = kills()
    with (cwd / "compiler.log").open("w+b") as log:
        process = subprocess.Popen(
            command, cwd=cwd, env=dict(environment), stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, creationflags=_SUSPENDED,
        )  # fmt: skip
        returncode, cpu, rss = _measured(process)
        log.seek(0)
        output = log.read().decode(errors="replace")
    if kills() > before:  # it, or another that ran at the same time: what it made may be half
        returncode = _NO_MEMORY
    return ProcessUsage(returncode, output, cpu, rss)


if sys.platform == "win32":
    _SUSPENDED = 0x4  # CREATE_SUSPENDED: a process must be in its group before it starts others
    _LOST = 255  # nvcc.exe's exit code where a program that it started told nothing of its end
    _group: list[jobobjects.Group] = []  # this process's own, once it leads one

    def _measured(process: subprocess.Popen[bytes]) -> tuple[int, float, int]:
        handle = int(process._handle)  # type: ignore[attr-defined]
        group = jobobjects.Group()
        try:
            group.add(handle)
            jobobjects.resume(handle)
            returncode = process.wait()
            cpu = max(group.cpu(), jobobjects.cpu_of(handle))
            rss = max(group.peak(), jobobjects.peak_of(handle))
        finally:
            # What a compiler leaves behind (mspdbsrv, telemetry) would hold the folder.
            group.close()
        return returncode, cpu, rss

    def _is_lost(usage: ProcessUsage) -> bool:
        return usage.returncode == _LOST and not usage.output.strip() and wine.in_wine()

    def lead_group() -> None:
        """Begin a group of processes with this one; it ends when this process does."""
        if not _group:
            wine.start_again_what_is_lost()
            _group.append(jobobjects.Group())
            _group[0].add_this()

    def end_group() -> None:
        """End this process and all that it started since `lead_group`, at once."""
        for group in _group:
            group.end()
        os._exit(1)

    def run_group(command: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
        """Run a command, its output to `log`, and then end whatever it leaves running.

        All of it also ends with this process, however that ends.
        """
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=stream,
                stderr=subprocess.STDOUT, creationflags=_SUSPENDED,
            )  # fmt: skip
            return _measured(process)[0]

else:
    _SUSPENDED = 0

    def _measured(process: subprocess.Popen[bytes]) -> tuple[int, float, int]:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024

    def _is_lost(usage: ProcessUsage) -> bool:
        return False

    def lead_group() -> None:
        """Make this process the leader of a process group of its own, if it is none yet."""
        if os.getpgrp() != os.getpid():
            os.setpgid(0, 0)

    def end_group() -> None:
        """End this process and all others of its group, at once."""
        os.killpg(0, signal.SIGKILL)

    def run_group(command: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
        """Run a command in a process group of its own, its output to `log`, so that an interrupt
        ends all of it.

        The command gets one more argument, the number of a file descriptor that comes to its end
        with this process, so that it can end its group then.
        """
        theirs, ours = os.pipe()
        with log.open("wb") as stream, os.fdopen(ours, "w"):
            process = subprocess.Popen(
                [*command, str(theirs)], env=dict(environment), stdin=subprocess.DEVNULL,
                stdout=stream, stderr=subprocess.STDOUT, start_new_session=True, pass_fds=[theirs],
            )  # fmt: skip
            os.close(theirs)
            try:
                return process.wait()
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
