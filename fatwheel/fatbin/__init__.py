"""Fat binaries as bytes: containers, objects, cubins. Standard library only."""
