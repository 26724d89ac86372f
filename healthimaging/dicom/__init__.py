"""pydicom datasets from metadata and frames."""
