"""The training itself, on one or many ranks."""
