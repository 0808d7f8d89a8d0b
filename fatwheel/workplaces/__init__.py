"""Where a target is built: on this machine, or in containers of an image."""
