"""An extension with linked device code."""
