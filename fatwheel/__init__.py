"""fatwheel: builds CUDA extension wheels, one shard per GPU architecture, reproducibly."""

__version__ = "0.1.0"
