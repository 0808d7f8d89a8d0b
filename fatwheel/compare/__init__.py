"""Compares two wheels that should be identical, from their lists of files down to single bytes."""

from __future__ import annotations

from .report import compare_wheels, refusal

__all__ = ["compare_wheels", "refusal"]
