"""causal-conv1d with the kernels for one pair of types: all nine of them take minutes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from fatwheel.config.load import load_recipe
from fatwheel.events import silent
from fatwheel.storage.cache import cache_folder
from fatwheel.toolchain.fetch import fetch

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
_OTHER_TYPES = re.compile(r"^template void \w+_cuda<(?!float, float>).*\n?", re.MULTILINE)
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
