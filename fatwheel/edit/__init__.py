"""Edits the device code of finished wheels and libraries: thin and stitch."""
