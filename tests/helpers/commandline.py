"""tasks.py, loaded and run in this process."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from invoke.collection import Collection
from invoke.program import Program

ROOT = Path(__file__).parents[2]


def load_tasks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tasks", ROOT / "tasks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def exit_code_of(
    collection: Collection, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> int:
    """Run `invoke ARGUMENTS`; how it ended."""
    # Tasks that take several files count them there (fatwheel.cli.arguments).
    monkeypatch.setattr(sys, "argv", ["invoke", *arguments])
    code: object = 0
    try:
        Program(namespace=collection).run(["invoke", *arguments])
    except SystemExit as end:
        code = end.code
    assert isinstance(code, int)
    return code
