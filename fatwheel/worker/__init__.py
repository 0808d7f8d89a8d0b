"""What runs beside a compiler, in a container too: capture, compile and assemble one target.

Standard library only.
"""
