"""Files on this machine: atomic writes, the cache, the store."""
