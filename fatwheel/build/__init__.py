"""Capture, compile and assemble one target. Standard library only: it runs inside containers."""
