"""Moves the catalog's changes into its compacted tables."""
