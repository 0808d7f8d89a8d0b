"""The steps of a build in their order; also its plan, rebuild and prove."""
