"""Reads and writes the command lines of nvcc and of host compilers.

Standard library only: it runs inside containers.
"""
