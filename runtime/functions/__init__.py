"""Event functions: one folder a function, each with its handler and its own requirements."""
