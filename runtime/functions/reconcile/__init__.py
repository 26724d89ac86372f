"""Finds image sets whose events were lost, and dispatches them."""
