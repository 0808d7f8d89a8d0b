"""What builds on different machines have of each other: a remote that holds what others made."""
