"""Why an extension does not import in an environment, and what cures it."""
