"""What the workflows for Windows found, as rows of the table in docs/windows.md.

python -m bench.windowsreport about > FOLDER/about.json    where and when this is
python -m bench.windowsreport rows FOLDER...               a row for each part that ran

Such a folder is what a workflow uploads. Besides logs and wheels it has about.json, as above, and
steps.json: GitHub's `steps` context, which has an `outcome` for each step with an id.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fatwheel.doctor.machine import ask_windows
from fatwheel.errors import FatwheelError, FormatError, UsageError
from fatwheel.storage.documents import read_object

# The ids of steps that show something, and what. Others only prepare it.
PARTS = {
    "lock": "`invoke lock`, against the real servers of the publishers",
    "payloads": "CUDA, Python, MSVC and the Windows SDK fetched, checked and unpacked",
    "cl": "cl.exe starts and says its version",
    "selftest": "the selftest built, by processes",
    "conv1d": "causal-conv1d built, by processes",
    "again": "both built again from nothing: the same sha256",
    "import": "both imported, with torch for Windows",
    "engine": "what the engine says of itself",
    "readonly": "a container cannot write into a folder that is mounted read-only",
    "network": "a container has no network",
    "stdin": "a container reads 2 MB from its standard input to the end",
    "limits": "a container with memory, processors and a disk of its own",
    "images": "the images of the toolchain built",
    "contained": "the selftest built, in containers with process isolation",
    "wine": "the selftest built with Wine",
    "container": "the selftest built in Linux containers with Wine, the same wheel",
    "device": "causal-conv1d built with Wine, its device code by compilers for Linux",
    "flash": "flash-attn built",
    "verify": "`invoke verify` of the wheels",
}
_OUTCOMES = {"success": "passed", "failure": "**failed**", "cancelled": "did not end in time"}
# What about.json may say: nothing that would be another cell, or a link of its own.
_WORDS = r"(?!.*www\.)[\w ().,~+?-]{1,200}"
_ABOUT = {
    "workflow": f"({_WORDS})?",
    "windows": _WORDS,
    "commit": "([0-9a-f]{40,64})?",
    "run": r"(https://[\w.-]{1,100}/[\w.-]{1,100}/[\w.-]{1,100}/actions/runs/[0-9]{1,20})?",
    "when": "[0-9]{4}-[0-9]{2}-[0-9]{2}",
}
_MOST = 1 << 20  # bytes of one of the documents


def about() -> dict[str, str]:
    """Where and when this is: the workflow, the Windows, the commit, the run's page, the day."""
    run = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}"
    there = "GITHUB_RUN_ID" in os.environ
    return {
        "workflow": os.environ.get("GITHUB_WORKFLOW", ""),
        "windows": _windows(),
        "commit": os.environ.get("GITHUB_SHA", ""),
        "run": run.format_map(os.environ) if there else "",
        "when": datetime.now(timezone.utc).date().isoformat(),
    }


def _windows() -> str:
    """`10.0.20348.2340`; elsewhere Wine's version, and of what."""
    if sys.platform == "win32":
        return f"{platform.version()}.{ask_windows().revision or '?'}"
    with suppress(OSError):
        done = subprocess.run(["wine", "--version"], capture_output=True, text=True, check=False)
        return f"{done.stdout.strip()} on {platform.system()}"
    return platform.system()


def rows(folders: Sequence[Path]) -> Iterator[str]:
    """A Markdown row for each part that was tried: what, where, with which result, when.

    Raises FormatError for a document that is not as it should be, UsageError for a missing one.
    """
    yield "| part | Windows | result | when |"
    yield "|---|---|---|---|"
    for folder in folders:
        told = _about(_read(folder / "about.json"), folder)
        day = f"[{told['when']}]({told['run']})" if told["run"] else told["when"]
        for name, outcome in _outcomes(_read(folder / "steps.json")):
            yield f"| {PARTS[name]} | {told['windows']} | {_OUTCOMES[outcome]} | {day} |"


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return read_object(stream.read(_MOST + 1), str(path), _MOST)
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            hint="name the folder of a downloaded artefact: it has about.json and steps.json",
        ) from error


def _about(document: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """What about.json says. Raises FormatError where that is not what `about` says of a run."""
    told = {}
    for name, form in _ABOUT.items():
        value = document.get(name)
        if not isinstance(value, str) or not re.fullmatch(form, value, re.ASCII | re.IGNORECASE):
            raise FormatError(f"{name} is missing, or not what it should be", where=str(folder))
        told[name] = value
    return told


def _outcomes(steps: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The parts that were tried, in the order of PARTS; a step that was skipped shows nothing."""
    for name in PARTS:
        step = steps.get(name)
        outcome = step.get("outcome") if isinstance(step, dict) else None
        if isinstance(outcome, str) and outcome in _OUTCOMES:
            yield name, outcome


def main(arguments: Sequence[str]) -> int:
    """The command line's exit code: 2 for what it does not know."""
    try:
        if list(arguments) == ["about"]:
            print(json.dumps(about(), indent=1))
        elif len(arguments) > 1 and arguments[0] == "rows":
            print("\n".join(rows([Path(word) for word in arguments[1:]])))
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except FatwheelError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
