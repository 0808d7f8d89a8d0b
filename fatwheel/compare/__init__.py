"""Two wheels that should be one: what differs between them, from the whole down to the byte."""

from __future__ import annotations

from .report import compare_wheels, refusal

__all__ = ["compare_wheels", "refusal"]
