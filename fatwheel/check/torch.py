"""The torch that an environment has, as its files say it; it is not imported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from ..wheels.needs import allows
from .environment import Target
from .installed import Packages, read_text

_MOST = 64 << 10  # bytes of torch/version.py
_VERSION = re.compile(rb"^__version__\s*(?::[^=\n]{0,100})?=\s*['\"]([\w.+!-]{1,100})['\"]", re.M)
_CUDA = re.compile(rb"^cuda\s*(?::[^=\n]{0,100})?=\s*['\"]([0-9]{1,3}(?:\.[0-9]{1,3})?)['\"]", re.M)
# What `import torch` loads: these bring all others of its libraries.
_LOADED = ("lib/libtorch_global_deps.so", "lib/libtorch_python.so", "lib/libtorch.so")
_LOADED_ON_WINDOWS = ("lib/torch_python.dll", "lib/torch_cuda.dll", "lib/torch_cpu.dll")


@dataclass(frozen=True)
class Torch:
    """folder: the package. version: `2.11.0+cu130`; release: `2.11`. cuda: `13.0`, '' without."""

    folder: Path
    version: str
    cuda: str

    @property
    def release(self) -> str:
        return ".".join(self.version.partition("+")[0].split(".")[:2])

    @property
    def public(self) -> str:
        """`2.11.0`."""
        return self.version.partition("+")[0]

    @property
    def title(self) -> str:
        return f"torch {self.version}" + (f" (CUDA {self.cuda})" if self.cuda else " (no CUDA)")

    def meets(self, requirement: Requirement) -> bool:
        """Whether a requirement takes it; a version that says nothing is taken."""
        try:
            return not self.version or allows(requirement, self.version)
        except ValueError:
            return True

    def roots(self, windows: bool) -> tuple[Path, ...]:
        """The libraries that its import loads first."""
        names = _LOADED_ON_WINDOWS if windows else _LOADED
        found = (self.folder.joinpath(*name.split("/")) for name in names)
        modules = sorted(self.folder.glob("_C.*.pyd" if windows else "_C.*.so"))[:1]
        return tuple(path for path in (*modules, *found) if path.is_file())


def find_torch(target: Target, packages: Packages) -> Torch | None:
    """The first on the path that is a package; None where there is none."""
    for folder in target.path:
        text = read_text(folder / "torch" / "version.py", _MOST)
        if text is None and not (folder / "torch" / "__init__.py").is_file():
            continue
        version, cuda = (pattern.search(text or b"") for pattern in (_VERSION, _CUDA))
        listed = packages.find("torch")
        return Torch(
            folder / "torch",
            version[1].decode() if version else listed.version if listed else "",
            cuda[1].decode() if cuda else "",
        )
    return None
