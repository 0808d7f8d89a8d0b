"""Container images and containers: described, built and run on a container engine."""
