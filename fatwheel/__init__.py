"""fatwheel: CUDA extension wheels, one shard per GPU architecture, stitched, proven, repeatable."""

__version__ = "0.1.0"
