"""The steps of an inference as MONAI Deploy operators, one a file, in the order in which they run."""
