"""Wheels as bytes: names, archives, metadata. Standard library only."""
