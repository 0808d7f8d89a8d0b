"""Engines: where the shards of a build run."""
