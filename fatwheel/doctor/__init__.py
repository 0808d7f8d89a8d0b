"""Checks whether this machine can build, says how to fix what is missing, and sets it up."""
