"""The delivery: one assembly, tested once, through every environment in turn."""
