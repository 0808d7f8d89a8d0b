"""What decides the bytes of slices, host objects and records of texts, as one digest.

It is over what the code says, not over how it is written: comments, docstrings and layout do not
count, nor which Python reads it. After a change:

    python -m tests.helpers.formats

records the new digest. Raise FORMAT in fatwheel/pipeline/scope.py before that, if bytes or keys
can come out differently; else two versions of fatwheel would take each other's slices from one
store.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from fatwheel.pipeline.scope import FORMAT

PACKAGE = Path(__file__).parents[2] / "fatwheel"
RECORDED = Path(__file__).parents[1] / "data" / "format.json"

MODULES = (
    "compilers.commands", "compilers.dryrun", "compilers.gcc", "compilers.hosts", "compilers.msvc",
    "compilers.nvcc",
    "fatbin.coff", "fatbin.container", "fatbin.cubin", "fatbin.elf",
    "fatbin.elf_dynamic", "fatbin.elf_layout", "fatbin.elf_linked", "fatbin.pe",
    "fatbin.pe_layout", "fatbin.pe_linked", "fatbin.stitch",
    "worker.archs", "worker.assemble", "worker.bypass", "worker.context", "worker.deviceprogram",
    "worker.devicelink", "worker.linking", "worker.preprocess", "worker.processes",
    "worker.programs", "worker.roots", "worker.secondkey", "worker.shim", "worker.slices",
    "worker.stages", "worker.view", "worker.workshop",
)  # fmt: skip
# What those import and what decides nothing of the sort.
ELSE = (
    "fatbin.images", "worker.backend", "worker.jobobjects", "worker.reasons", "worker.upstream",
    "worker.wine",
)  # fmt: skip

# Fields that only some Pythons have, or that say nothing of the meaning.
_UNSAID = {"ctx", "kind", "type_comment", "type_ignores", "type_params"}


def meaning(text: str) -> str:
    """A module's code as one text that is the same for every Python."""
    return _dump(ast.parse(text))


def _dump(node: object) -> str:
    if isinstance(node, ast.JoinedStr):
        return f"JoinedStr({','.join(_pieces(node.values))})"
    if isinstance(node, ast.AST):
        fields = [
            f"{name}={_dump(_without_docstring(node, name, value))}"
            for name, value in ast.iter_fields(node)
            if name not in _UNSAID
        ]
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_dump, node))}]"
    return repr(node)


def _pieces(values: Iterable[ast.expr]) -> list[str]:
    """Those of an f-string; how Pythons cut its plain text differs."""
    found: list[str] = []
    plain = ""
    for value in values:
        if isinstance(value, ast.Constant):
            plain += str(value.value)
            continue
        found += [repr(plain), _dump(value)]
        plain = ""
    return [*found, repr(plain)]


def _without_docstring(node: ast.AST, name: str, value: object) -> object:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    if name == "body" and isinstance(node, documented) and isinstance(value, list):
        first = value[0] if value else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            return value[1:] if isinstance(first.value.value, str) else value
    return value


def path_of(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


def digest_of_modules() -> str:
    digest = hashlib.sha256()
    for module in MODULES:
        text = meaning(path_of(module).read_text(encoding="utf-8"))
        digest.update(f"{module} {hashlib.sha256(text.encode()).hexdigest()}\n".encode())
    return digest.hexdigest()


def recorded() -> dict[str, object]:
    found: dict[str, object] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    found = {"format": FORMAT, "digest": digest_of_modules()}
    RECORDED.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
