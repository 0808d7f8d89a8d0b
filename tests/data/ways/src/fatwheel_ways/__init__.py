"""Imports the extension."""

from . import _C  # noqa: F401
