"""Gets a toolchain: pins, downloads, and the environment for one Python."""
