"""A Windows build container without a container: the code that runs inside of one, run by the
Windows Python under Wine, with the folders that a container mounts."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from fatwheel.model import Front
from fatwheel.worker.inside import ASSEMBLE, CAPTURE, SHARD, Message
from fatwheel.worker.upstream import Project

from .msvc import CL, BuildTools
from .windows import TRIES, WindowsPython, on_one_core, subject, windows_path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = Path(__file__).parent.parent / "data" / "windowsproject"
START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from fatwheel.worker.inside import main; main()"
)
PATIENCE = 600  # seconds for one container
ENDED = "the container ended"


@dataclass(frozen=True)
class Container:
    """The folders that containers of one build share."""

    folder: Path
    python: WindowsPython
    tools: BuildTools

    @property
    def project(self) -> Path:
        return self.folder / "sources here" / "project" / "windows-demo-1.0"

    def prepare(self, fronts: tuple[Front, ...]) -> Message:
        """Unpack the project, install what it builds with, describe the image."""
        shutil.copytree(PROJECT, self.project)
        self.python.install(subject("ninja-windows"))
        (self.folder / "store").mkdir()
        python = self.python.folder
        described = {
            "environment": {
                "root": windows_path(python),
                "python": windows_path(python / "python.exe"),
                "site": windows_path(python / "Lib" / "site-packages"),
                "cuda_home": windows_path(self.tools.cuda_home),
                "include": windows_path(python / "include"),
                "python_version": "3.11.9",
                "torch": "",
            },
            "cxx": windows_path(self.tools.msvc.path),
            "compiler": f"cl {CL}",
            "host_id": self.tools.msvc.id,
            "variables": self.tools.msvc.variables,
        }
        (self.folder / "environment.json").write_text(json.dumps(described))
        return Message(
            task=CAPTURE,
            name="windows-demo-1.0",
            project=Project(
                root=Path("windows-demo-1.0"), backend="setuptools.build_meta", backend_paths=(),
                variables=(("DEMO_FLAVOUR", "plain"),), epoch=1700000000, stub_commands=("git",),
            ),
            fronts=fronts,
            units=(),
            compiler_id="1" * 64,
            scope="5" * 64,
            seeded=True,
            threads=2,
            description=windows_path(self.folder / "environment.json"),
            sources=windows_path(self.folder / "sources here"),
            store=windows_path(self.folder / "store"),
            incoming=windows_path(self.folder / "incoming capture"),
            work=r"C:\b",
        )  # fmt: skip

    def run(self, message: Message, tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The answers of one container; its work folder is gone with it.

        A container in which Wine lost a program at its start runs again.
        """
        incoming = self.folder / message.incoming.rpartition("\\")[2]
        incoming.mkdir()
        log = self.folder / f"{incoming.name}.log"
        for left in reversed(range(TRIES)):
            answers = self._once(message, tasks, log)
            if left == 0 or not any(map(_lost, answers)):
                break
            warnings.warn(f"Wine lost a program at its start: {log}", stacklevel=2)
        for answer in answers:
            assert answer["outcome"] == "made", f"{json.dumps(answer, indent=1)}\n{log.read_text()}"
        return answers

    def _once(
        self, message: Message, tasks: list[dict[str, Any]], log: Path
    ) -> list[dict[str, Any]]:
        drive = Path(self.python.wine.environment["WINEPREFIX"], "drive_c", "b")
        shutil.rmtree(drive, ignore_errors=True)  # other tests build there, too
        drive.mkdir()
        try:
            return self._talk(message, tasks, log)
        finally:
            shutil.rmtree(drive, ignore_errors=True)

    def _talk(
        self, message: Message, tasks: list[dict[str, Any]], log: Path
    ) -> list[dict[str, Any]]:
        with on_one_core():
            process = subprocess.Popen(
                [self.python.wine.wine, str(self.python.folder / "python.exe"), "-I", "-B", "-c",
                 START, windows_path(ROOT)],
                env=self.python.wine.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
            )  # fmt: skip
        assert process.stdin
        assert process.stdout
        # Python does not start in Wine with streams that are files.
        copying = threading.Thread(target=_copy, args=(process.stderr, log))
        copying.start()
        process.stdin.write(message.to_line())
        process.stdin.writelines(json.dumps(task) + "\n" for task in tasks)
        process.stdin.flush()
        answers = [_answer(process.stdout) for _ in range(max(1, len(tasks)))]
        process.stdin.close()
        process.wait(PATIENCE)
        copying.join()
        return answers

    def capture(self, message: Message, incoming: str = "capture") -> dict[str, Any]:
        folder = self.folder / f"incoming {incoming}"
        [answer] = self.run(replace(message, incoming=windows_path(folder)), [])
        captured = self.folder / "sources here" / "captured"
        if not captured.exists():
            shutil.copytree(folder / "sources", captured)
        return answer

    def shard(self, message: Message, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Do jobs; what they made is in the store then."""
        tasks = [{"id": number, "job": job} for number, job in enumerate(jobs)]
        answers = self.run(self._message(message, SHARD), tasks)
        self._take_in("incoming shard")
        return answers

    def assemble(self, message: Message, units: list[dict[str, Any]]) -> Path:
        asked = replace(self._message(message, ASSEMBLE), units=tuple(units))
        [answer] = self.run(asked, [])
        return self.folder / "incoming assemble" / "wheel" / str(answer["wheel"])

    def _message(self, message: Message, task: str) -> Message:
        incoming = windows_path(self.folder / f"incoming {task}")
        return replace(message, task=task, incoming=incoming)

    def _take_in(self, incoming: str) -> None:
        """What the host does with what a shard made."""
        branch = self.folder / incoming / "store"
        for kind in ("objects", "refs"):
            shutil.copytree(branch / kind, self.folder / "store" / kind, dirs_exist_ok=True)


def _lost(answer: dict[str, Any]) -> bool:
    """Whether a program was lost before it began, as `windows.STILLBORN` tells: Python, or one of
    nvcc's, which then ends with 255 and has said no more than what it compiles, or finds nothing
    that it could start."""
    if answer["outcome"] == ENDED:
        return True
    said = [line for line in answer.get("details", ()) if line.strip()]
    if said and said[0].startswith("Can't recognize 'cl.exe "):
        return True
    silent = said[1:] == ["to repeat it:"]
    return silent and str(answer.get("what")).endswith("failed with exit code 255")


def _copy(stream: IO[str], log: Path) -> None:
    with log.open("w") as out:
        out.writelines(stream)


def _answer(lines: IO[str]) -> dict[str, Any]:
    """The next outcome; other lines are for the log."""
    for line in lines:
        found: dict[str, Any] = json.loads(line)
        if "outcome" in found:
            return found
    return {"outcome": ENDED}
