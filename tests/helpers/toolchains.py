"""The toolchains that come with fatwheel, each read once: tests of many rooms want the same."""

from __future__ import annotations

from functools import cache

from fatwheel.config.toolchain import Toolchain
from fatwheel.config.toolchains import load_toolchain
from fatwheel.shipped import TOOLCHAINS


@cache
def shipped_toolchain(name: str) -> Toolchain:
    return load_toolchain(name, TOOLCHAINS)
