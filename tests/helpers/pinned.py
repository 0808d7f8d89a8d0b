"""The toolchains that come with fatwheel as files that name no parts: all pins in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w

from fatwheel.config import fields
from fatwheel.config.parts import Parts
from fatwheel.config.schema import ToolchainFile
from fatwheel.config.toolchains import load_parts_file, made_of

TOOLCHAINS = Path(__file__).resolve().parents[2] / "toolchains"


def pinned(name: str) -> dict[str, Any]:
    """What such a file says."""
    parts = Parts(TOOLCHAINS)
    file = made_of(load_parts_file(TOOLCHAINS / f"{name}.toml", parts), parts)
    found = fields.adapter(ToolchainFile).dump_python(
        file, mode="json", by_alias=True, context=fields.TOML
    )
    said: dict[str, Any] = _said(found)
    return said


def _said(value: Any) -> Any:
    """Without what a file leaves out."""
    if isinstance(value, list):
        return [_said(one) for one in value]
    if isinstance(value, dict):
        return {key: _said(one) for key, one in value.items() if one not in (None, [], {})}
    return value


def pinned_text(name: str) -> str:
    """Its text."""
    return tomli_w.dumps(pinned(name))
