"""The workflows in .github, as data."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# What stands for a value that is known only when the workflow runs.
_VALUES = {
    "$KERNEL": "flash-attn", "$ARCH": "80,86", "$ENGINE": "process", "$PLATFORM": "linux-x86_64",
    "$CUDA": "13.0", "$TORCH": "2.11", "$PYTHONS": "3.11", "$SHARE": "2/6",
}  # fmt: skip


@dataclass(frozen=True)
class Workflow:
    """One file. YAML reads its key `on` as true."""

    path: Path
    document: dict[Any, Any]

    @property
    def jobs(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.document["jobs"]
        return found

    def steps(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Each step, and the job that it is of."""
        for job in self.jobs.values():
            for step in job["steps"]:
                yield job, step

    def commands(self) -> Iterator[list[str]]:
        """The command lines of `fatwheel` in its scripts, with the values of variables."""
        for job, step in self.steps():
            values = {f"${name}": str(value) for name, value in job.get("env", {}).items()}
            for line in step.get("run", "").splitlines():
                found = re.match(r"\s*\(?(?:\S*/)?(fatwheel [^|>&]*)", line)
                if found:
                    words = shlex.split(found[1].replace(" 2", " ") if "2>&1" in line else found[1])
                    words = [word for word in words if not _ARRAY.fullmatch(word)]
                    yield [_value(word, {**values, **_VALUES}) for word in words]


# What a script may add: it is nothing at first.
_ARRAY = re.compile(r"\$\{\w+\[@\]\}")


def _value(word: str, values: dict[str, str]) -> str:
    return values.get(word, word)


def workflows() -> list[Workflow]:
    return [Workflow(path, yaml.safe_load(path.read_text(encoding="utf-8"))) for path in FILES]
