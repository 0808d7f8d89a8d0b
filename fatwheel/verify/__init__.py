"""What is inside a binary or a wheel, and whether it is right."""
