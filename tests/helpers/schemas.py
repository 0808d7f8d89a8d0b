"""The schemas of what commands print with --json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fatwheel

FOLDER = Path(fatwheel.__file__).parent / "schemas"


def schema_of(command: str) -> Any:
    return json.loads((FOLDER / f"{command}.schema.json").read_text(encoding="utf-8"))
