"""Tests wheels: installs them in a clean environment, imports them, runs them on a GPU."""
