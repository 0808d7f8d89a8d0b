"""A project with kernels that only some architectures have."""

from __future__ import annotations

import shutil
from pathlib import Path

from .conftest import ROOT, SAMPLE
from .linkedcode import running

UNITS = ("_cases/csrc/scaled", "_lines/csrc/scaled")  # those that have them
_TEMPLATE = "template <class T> __global__ void {0}_kernel(T *result) {{ *result = 42; }}"
# A template that nobody uses for an architecture is not there.
_SOURCE = """
{everywhere}
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= {since}
{fresh}
#endif
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ < {since}
{old}
#endif
{more}
"""


def guarded_project(folder: Path, since: int, more: str = "") -> str:
    """A recipe in `folder`: the sample, with functions that run a kernel each: `everywhere`,
    `fresh` for architectures from `since` on (900), `old` for the ones before. more: ends the
    source.

    Its project is named after the folder: builds of one name wait for each other where their
    sources differ, and tests of several modules run at the same time.
    """
    shutil.copytree(ROOT / SAMPLE, folder)
    for named in (folder / "recipe.toml", folder / "src" / "setup.py"):
        text = named.read_text()
        named.write_text(text.replace("fatwheel-sample", f"fatwheel-{folder.name}"))
    functions = {name: running(name, _TEMPLATE.format(name)) for name in ("fresh", "old")}
    text = _SOURCE.format(everywhere=running("everywhere"), since=since, more=more, **functions)
    (folder / "src" / "csrc" / "scaled.cu").write_text(text)
    return str(folder)
