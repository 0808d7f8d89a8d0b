"""What went into a wheel: the build's lock, the statement, the SBOM, signatures."""
