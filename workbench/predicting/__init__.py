"""Asking endpoints for results, in each of their modes."""
