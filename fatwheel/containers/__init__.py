"""Containers on an engine: what is asked for, how the engine is reached, what runs there."""
