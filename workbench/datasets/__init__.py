"""Datasets: what a query selects, with labels, pinned to versions and split by patient."""
