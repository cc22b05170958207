"""The UEPO companion: every component of the paper, small enough to read."""
