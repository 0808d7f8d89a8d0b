"""Engines: where targets are captured, compiled and assembled."""
