"""Wheels as bytes: names, archives, metadata."""
