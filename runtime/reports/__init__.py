"""Reports of a result as DICOM objects and files: pure functions of a stored object and its source."""
