"""A library beside it, which nothing loads."""
