"""Files on this machine: written whole or not at all, the cache, the store."""
