"""Command lines of nvcc and of host compilers: read, written, and what differs between them.

Standard library only: it runs inside containers.
"""
