"""Projects without what takes longest in them: causal-conv1d with the kernels for one pair of types
(all nine of them take minutes), and selftest without the units that take as long as all others."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from fatwheel.config.load import load_recipe
from fatwheel.events import silent
from fatwheel.storage.cache import cache_folder
from fatwheel.toolchain.fetch import fetch

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
_OTHER_TYPES = re.compile(r"^template void \w+_cuda<(?!float, float>).*\n?", re.MULTILINE)
# Registers nothing, and refers to a symbol of C++ in torch's libraries.
_BINDING = """
#include <Python.h>
#include <c10/core/DeviceType.h>
#include <cstring>
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cases", nullptr, -1};
PyMODINIT_FUNC PyInit__cases() {
    module.m_doc = strdup(c10::DeviceTypeName(c10::DeviceType::CUDA, false).c_str());
    return PyModule_Create(&module);
}
"""
# The same with torch's own headers for extensions without pybind11.
TORCH_BINDING = f"#include <torch/library.h>\n{_BINDING}"
_PINS = re.compile(r"sdist = .*\nsize = .*\nsha256 = .*\n")


def shortened_causal_conv1d(folder: Path) -> Path:
    """A recipe for the pinned sdist's files, in a new folder."""
    [archive] = fetch(
        [load_recipe("causal-conv1d", KERNELS).source.package], cache_folder() / "downloads", silent
    )
    folder.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
    [source] = folder.iterdir()
    units = sorted(source.glob("csrc/*.cu"))
    assert len(units) == 3
    for unit in units:
        text, left_out = _OTHER_TYPES.subn("", unit.read_text())
        assert left_out in (8, 16), f"{unit.name} has other kernels than it had"
        unit.write_text(text)
    text = (KERNELS / "causal-conv1d" / "recipe.toml").read_text()
    text, pins = _PINS.subn(f'folder = "{source.name}"\n', text)
    assert pins == 1
    (folder / "recipe.toml").write_text(text)
    return folder


def shortened_selftest(folder: Path, binding: str = _BINDING) -> Path:
    """A recipe, in a new folder, for selftest without CUB, and with a binding that needs little of
    torch: the two take three quarters of the time of all eleven units."""
    shutil.copytree(KERNELS / "selftest", folder)
    (folder / "src" / "csrc" / "cub.cu").unlink()
    (folder / "src" / "csrc" / "binding.cpp").write_text(binding)
    for name, pattern in (
        ("src/setup.py", r' *"cub\.cu",\n'),
        ("recipe.toml", r'\n\[\[cost\]\]\nunits = "csrc/(?:cub|binding)"\n.*\n.*\n'),
    ):
        text, left_out = re.subn(pattern, "", (folder / name).read_text())
        assert left_out, f"{name} of selftest has other lines than it had"
        (folder / name).write_text(text)
    return folder
