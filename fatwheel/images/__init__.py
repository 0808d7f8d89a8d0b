"""Images of a toolchain: what they are made of, their build contexts, building them."""
