"""`monai-aws show`, and the page in which a person turns the leaves of a volume."""
