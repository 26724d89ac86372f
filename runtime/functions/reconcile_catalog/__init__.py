"""Compares the catalog with the datastore, and has indexed again what differs."""
