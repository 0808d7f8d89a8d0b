"""A static site that pip and uv install wheels from, and where people find theirs."""
