"""The toolchains that come with fatwheel, each read once: tests of many rooms want the same."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fatwheel.config.toolchain import Toolchain
from fatwheel.config.toolchains import load_toolchain

TOOLCHAINS = Path(__file__).resolve().parents[2] / "toolchains"


@cache
def shipped_toolchain(name: str) -> Toolchain:
    return load_toolchain(name, TOOLCHAINS)
