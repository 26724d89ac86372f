"""Training: a pipeline execution from a dataset manifest to a registered model, and what it measured."""
