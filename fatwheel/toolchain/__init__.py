"""A toolchain: fetched from the package index, installed and mended for one Python."""
