"""Finished wheels and libraries with other device code: thin ones, and several in one."""
