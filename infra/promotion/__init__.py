"""From one environment to the next: checks before the next gets the same, and approved models."""
