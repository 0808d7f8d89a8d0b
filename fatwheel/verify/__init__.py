"""Checks what is inside a binary or a wheel."""
