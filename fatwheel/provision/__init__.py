"""What runs inside an image while it is being built. Standard library only."""
