"""Wheels tried for real: installed in a clean environment, imported, run on a GPU."""
