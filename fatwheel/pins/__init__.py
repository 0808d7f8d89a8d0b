"""What publishers offer, written down as pins: `invoke lock`."""
