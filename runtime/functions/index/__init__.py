"""Keeps the catalog's rows in step with the image sets of a datastore."""
