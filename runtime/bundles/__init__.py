"""MONAI bundles: read, kept warm, and run on one volume."""
