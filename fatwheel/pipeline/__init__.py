"""The steps of a build in their order; also rebuild, preview and prove."""
